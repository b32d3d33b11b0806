//! Requests one after the other over models that do not fit together, and one model that goes while another comes.

use super::{
    failure::Failure, models, page_cache, plan::Sizes, record::Run, served::Served,
    tensor::make_cold,
};
use crate::{case::Model, probe::Uss};
use spillproof_protocol::{FreeMemoryReply, RequestReply};

/// Requests in turn over the models, each with what it did to memory.
pub(super) fn repeated(
    served: &mut Served<'_>,
    sizes: &Sizes,
    verifies: bool,
) -> Result<Run, Failure> {
    let bytes = sizes.model_bytes;
    let models: Vec<Model> = (1..=sizes.models as u64)
        .map(|number| models::layers(&format!("m{number}"), number, bytes))
        .collect();
    let mut run = Run::default();
    for model in &models {
        run.steps.push(served.load(model, bytes)?);
    }
    for (index, model) in models.iter().cycle().take(sizes.requests).enumerate() {
        let name = format!("request_{}", index + 1);
        let step = served.request(&name, &model.name, bytes, Uss::Measured)?;
        run.steps.push(step);
    }
    if verifies {
        for model in &models {
            served.verify(model, "the last request")?;
        }
        run.is_verified = true;
    }
    served.drop_models(&models)?;
    Ok(run)
}

/// One model goes to its file while another comes from a file that is nowhere but on the disk.
pub(super) fn swap(served: &mut Served<'_>, bytes: u64, verifies: bool) -> Result<Run, Failure> {
    let (going, coming) = (
        models::layers("going", 1, bytes),
        models::layers("coming", 2, bytes),
    );
    let mut run = Run::default();
    run.steps.push(served.load(&coming, bytes)?);
    run.steps.push(served.free("store", "coming", bytes)?);
    run.steps.push(served.load(&going, bytes)?);
    let files = served.files()?;
    let there = page_cache::residency(&files)?;
    if there.bytes < bytes {
        let text = format!(
            "the offload directory holds {} bytes of {bytes}",
            there.bytes
        );
        return Err(Failure::Unlike(text));
    }
    make_cold(&files)?;
    let (go, come) = (
        served.free_for("going"),
        served.request_for("coming", false),
    );
    let (replies, mut step) = served.watched("swap", bytes, Uss::Skipped, |served| {
        served.ask_both::<FreeMemoryReply, RequestReply>(&go, &come)
    })?;
    served.note_moves(&mut step, &replies.0)?;
    if step.written_bytes.is_none_or(|written| written < bytes) {
        let text = format!("{:?} of {bytes} bytes were written", step.written_bytes);
        return Err(Failure::Unlike(text));
    }
    run.steps.push(step);
    if verifies {
        served.verify(&coming, "swap")?;
        served.verify(&going, "swap")?;
        run.is_verified = true;
    }
    served.drop_models(&[going, coming])?;
    Ok(run)
}
