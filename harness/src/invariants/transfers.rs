//! Which way bytes took between device and files: what the subject says, against what cuFile itself counted on the board of an
//! emulated device, and against what the case asks for.
//!
//! Not checked here: on a real device nobody counts, so that only the claims that cannot be true are seen; which of several
//! tensors in one storage brought it back; what is evicted while a request is served; steps in lanes.

use crate::{
    case::CuFile,
    case::Gpu,
    device::{BoardReading, DeviceReading},
    observation::{Outcome, Run, StepRecord, total},
};
use spillproof_protocol::{StatusReply, Tensor, Tier, TransferPath};
use std::collections::BTreeMap;

/// Engines may send what is no whole page another way.
const PAGE_BYTES: u64 = 4096;

/// Claims that cannot be true, or are not what the case asks for.
pub(super) fn claimed(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    for step in run.judged_steps() {
        let found = stored(run, step).into_iter().chain(loaded(run, step));
        wrong.extend(found.map(|message| format!("{}: {message}", step.place())));
    }
    wrong
}

/// Whether cuFile cannot have moved anything: it is turned off, or not there.
fn is_out_of_the_question(run: &Run) -> Option<&'static str> {
    let mut settings = run.case.settings.iter();
    if settings.any(|(name, value)| *name == "OFFLOAD_CUFILE" && value == "off") {
        return Some("it is turned off");
    }
    match &run.case.gpu {
        Gpu::Present {
            cufile: CuFile::Absent,
            ..
        } => Some("there is none"),
        Gpu::Absent | Gpu::Present { .. } => None,
    }
}

fn is_by_cufile(path: TransferPath) -> bool {
    match path {
        TransferPath::None | TransferPath::Staged => false,
        TransferPath::CuFile | TransferPath::CuFileCompat => true,
    }
}

/// What was said of bytes on their way to files.
fn stored(run: &Run, step: &StepRecord) -> Vec<String> {
    let Outcome::Freed(reply) = &step.outcome else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    let written = reply.moves.iter().filter(|one| one.written_bytes > 0);
    for one in written.clone() {
        let names = one.tensors.join(" = ");
        wrong.extend(unfit(run, &names, one.bytes, one.path));
    }
    let Some((before, after)) = boards(step) else {
        return wrong;
    };
    for (path, moved) in [
        (
            TransferPath::CuFile,
            grown(
                after.cufile_direct.written_bytes,
                before.cufile_direct.written_bytes,
            ),
        ),
        (
            TransferPath::CuFileCompat,
            grown(
                after.cufile_compat.written_bytes,
                before.cufile_compat.written_bytes,
            ),
        ),
    ] {
        let claims = written.clone().filter(|one| one.path == path);
        let pages = total(
            claims
                .clone()
                .map(|one| one.bytes / PAGE_BYTES * PAGE_BYTES),
        );
        let whole = total(claims.map(|one| one.written_bytes));
        // A transfer that failed half way is rightly reported as what served it; where none may fail, cuFile's own count is exact.
        if moved < pages || (run.case.path.is_some() && moved > whole) {
            wrong.push(format!(
                "{pages} to {whole} bytes are said to be written by {path}, cuFile wrote {moved} that way"
            ));
        }
    }
    wrong
}

/// What was said of bytes on their way to the device.
fn loaded(run: &Run, step: &StepRecord) -> Vec<String> {
    let (Outcome::Served(_), Some(before), Some(after)) =
        (&step.outcome, &step.status_before, &step.status_after)
    else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    let mut claims: BTreeMap<TransferPath, BroughtIn<'_>> = BTreeMap::new();
    for (model, name, path) in brought_in(before, after) {
        let tensor = manifest_tensor(run, model, name);
        let span = tensor.and_then(|tensor| Some((tensor, tensor.span_bytes().ok()?)));
        let bytes = span.map_or(0, |(_, bytes)| bytes);
        wrong.extend(unfit(run, name, bytes, path));
        if let Some((tensor, bytes)) = span {
            let places = claims.entry(path).or_default();
            let place = (tensor.byte_offset, tensor.byte_offset + bytes);
            places
                .entry((model, &tensor.storage))
                .or_default()
                .push(place);
        }
    }
    let Some((board_before, board_after)) = boards(step) else {
        return wrong;
    };
    for (path, moved) in [
        (
            TransferPath::CuFile,
            grown(
                board_after.cufile_direct.read_bytes,
                board_before.cufile_direct.read_bytes,
            ),
        ),
        (
            TransferPath::CuFileCompat,
            grown(
                board_after.cufile_compat.read_bytes,
                board_before.cufile_compat.read_bytes,
            ),
        ),
    ] {
        let pages = claims.get(&path).map_or(0, whole_pages);
        // More is no lie: a tensor may come twice in one request.
        if moved < pages {
            wrong.push(format!(
                "{pages} bytes and more are said to be read by {path}, cuFile read {moved} that way"
            ));
        }
        if !claims.contains_key(&path)
            && moved > 0
            && run.case.path.is_some_and(|wanted| wanted != path)
        {
            wrong.push(format!(
                "cuFile read {moved} bytes by {path}, nobody says so"
            ));
        }
    }
    wrong
}

/// The places in storages, from and to, that came by one way; by model and storage.
type BroughtIn<'a> = BTreeMap<(&'a str, &'a str), Vec<(u64, u64)>>;

/// Bytes of the whole pages in them, those that several tensors share once. What lies side by side may come piece by piece.
fn whole_pages(places: &BroughtIn<'_>) -> u64 {
    let pages = |(from, to): (u64, u64)| (to - from) / PAGE_BYTES * PAGE_BYTES;
    let in_storage = |places: &Vec<(u64, u64)>| {
        let mut sorted = places.clone();
        sorted.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (from, to) in sorted {
            match runs.last_mut() {
                Some(last) if from < last.1 => last.1 = last.1.max(to),
                Some(_) | None => runs.push((from, to)),
            }
        }
        total(runs.into_iter().map(pages))
    };
    total(places.values().map(in_storage))
}

/// Tensors that came from a file to the device, and the way that is claimed.
fn brought_in<'a>(
    before: &'a StatusReply,
    after: &'a StatusReply,
) -> impl Iterator<Item = (&'a str, &'a str, TransferPath)> {
    let tier = |status: &StatusReply, model: &str, name: &str| {
        let found = status.models.iter().find(|found| found.name == model)?;
        let tensor = found.tensors.iter().find(|tensor| tensor.name == name)?;
        Some(tensor.tier)
    };
    let tensors = after.models.iter().flat_map(|model| {
        let tensors = model.tensors.iter();
        tensors.map(move |tensor| (model.name.as_str(), tensor))
    });
    tensors.filter_map(move |(model, tensor)| {
        let was = tier(before, model, &tensor.name)?;
        let came = matches!(was, Tier::Mapped | Tier::File) && tensor.tier == Tier::Vram;
        let path = tensor.path.unwrap_or(TransferPath::None);
        came.then_some((model, tensor.name.as_str(), path))
    })
}

/// A way that cannot be, or that the case does not allow.
fn unfit(run: &Run, names: &str, bytes: u64, path: TransferPath) -> Option<String> {
    if let Some(reason) = is_out_of_the_question(run)
        && is_by_cufile(path)
    {
        return Some(format!(
            "{names} is said to have gone by {path}, but {reason}"
        ));
    }
    if path == TransferPath::None && bytes > 0 {
        return Some(format!(
            "{names} went between device and file, and no way is told"
        ));
    }
    let wanted = run.case.path?;
    let is_too_small = is_by_cufile(wanted) && bytes < PAGE_BYTES;
    (path != wanted && path != TransferPath::None && !is_too_small)
        .then(|| format!("{names} went by {path}, expected {wanted}"))
}

fn manifest_tensor<'a>(run: &'a Run, model: &str, name: &str) -> Option<&'a Tensor> {
    let mut tensors = run.case.model(model)?.manifest.tensors.iter();
    tensors.find(|tensor| tensor.name == name)
}

fn boards(step: &StepRecord) -> Option<(&BoardReading, &BoardReading)> {
    match (&step.before.device, &step.after.device) {
        (DeviceReading::Board(before), DeviceReading::Board(after)) => Some((before, after)),
        (DeviceReading::Absent | DeviceReading::Board(_) | DeviceReading::Nvml(_), _) => None,
    }
}

fn grown(after: u64, before: u64) -> u64 {
    after.saturating_sub(before)
}
