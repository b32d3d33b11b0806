//! `data`: every digest equals the one that the harness computes from the seed.
//!
//! A digest covers a tensor's logical contents, byte for byte. Not checked here: bytes of a storage
//! that no tensor refers to.

use crate::{
    case::{Action, Expect},
    observation::{Outcome, Run, StepRecord},
};
use spillproof_protocol::{Digest, Tier};
use std::collections::BTreeMap;

/// Every digest that came back is right, and none is missing.
pub(super) fn data(run: &Run) -> Vec<String> {
    run.steps.iter().flat_map(of_step).collect()
}

fn of_step(step: &StepRecord) -> Vec<String> {
    match step.expect {
        Expect::Ok | Expect::OkOrError(_) => {}
        Expect::Error(_) => return Vec::new(),
    }
    match (step.done(), &step.outcome) {
        (Action::Request { .. }, Outcome::Served(reply)) => compare(step, &reply.digests, |_| true),
        (Action::ReadBack { model }, Outcome::ReadBack(digests)) => {
            compare(step, digests, |tensor| !is_on_device(step, model, tensor))
        }
        _ => Vec::new(),
    }
}

/// By the subject's own account: a tensor that it claims to hold on the device need not be read back.
fn is_on_device(step: &StepRecord, model: &str, tensor: &str) -> bool {
    let Some(status) = &step.status_before else {
        return false;
    };
    let models = status.models.iter().filter(|found| found.name == model);
    let mut tensors = models.flat_map(|model| &model.tensors);
    tensors.any(|found| found.name == tensor && found.tier == Tier::Vram)
}

fn compare(
    step: &StepRecord,
    digests: &BTreeMap<String, Digest>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (tensor, expected) in &step.expected {
        match digests.get(tensor) {
            Some(digest) if digest == expected => {}
            Some(digest) => {
                wrong.push(format!(
                    "{}: {tensor} has digest {digest:.16}, expected {expected:.16}",
                    step.place()
                ));
            }
            None if wanted(tensor) => {
                wrong.push(format!("{}: no digest of {tensor}", step.place()))
            }
            None => {}
        }
    }
    let unknown = digests
        .keys()
        .filter(|tensor| !step.expected.contains_key(*tensor));
    wrong.extend(unknown.map(|tensor| {
        format!(
            "{}: digest of {tensor:?}, which the model lacks",
            step.place()
        )
    }));
    wrong
}
