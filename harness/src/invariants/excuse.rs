//! What a fault rightly leaves behind, or keeps from working: where the documentation of the call that failed says that nothing can
//! be done about it, nothing is demanded.
//!
//! - A CUDA context ends with some errors (CUDA driver API, `CUresult`: "the process must be terminated and relaunched"). What is on
//!   the device can then neither be saved nor given back by this process, and later calls say so.
//! - `cuMemFree` says CUDA_ERROR_INVALID_VALUE of what is no allocation: whoever frees it again would free another's memory.
//! - `cuMemFree` may have done its work and return what went wrong before ("error codes from previous, asynchronous launches"). Whoever
//!   tries again what was refused frees twice then.
//! - A name that is said not to be there (ENOENT) is not removed.
//! - What cannot be mapped, or whose length cannot be asked for, is in its file (F50).
//! - Recovery that fails itself, call after call, may leave on the device what the subject knows to be there.

use super::faulted;
use crate::{
    case::Action,
    faults::Fired,
    observation::{Outcome, Reading, Run, StepRecord},
    world::Event,
};
use spillproof_faults::{Domain, FaultError, Kind, LedgerEntry, names};
use spillproof_protocol::ErrorKind;
use std::path::Path;

/// Allocation units of device memory.
const UNIT_BYTES: u64 = 512;

/// Calls by name whose answer can be that there is nothing.
const LOOK_UPS: [&str; 9] = [
    "open", "openat", "stat", "lstat", "fstatat", "statx", "unlink", "unlinkat", "rmdir",
];

/// Whether a CUDA context ends with the error, by the descriptions of `CUresult` (CUDA driver API, 13.0; `cuda.h`): "any further CUDA
/// work will return the same error; to continue using CUDA, the process must be terminated and relaunched" (226, 700, 702, 714 to
/// 719, 721, 810, 911), "the context cannot be used anymore" (710), none is left (4, 709). Of uncorrectable errors of memory and NVLink
/// (214, 220) it says nothing: an engine may take what is on the device for lost (F18).
pub(super) fn ends_context(error: FaultError) -> bool {
    error.domain == Domain::Cuda
        && matches!(
            error.code,
            4 | 214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 810 | 911
        )
}

fn fired(run: &Run) -> impl Iterator<Item = (&StepRecord, &Fired)> {
    let steps = run.steps.iter();
    steps.flat_map(|step| step.fired.iter().map(move |fired| (step, fired)))
}

/// What failed in steps, and while the subject quit.
fn ever_fired(run: &Run) -> impl Iterator<Item = &Fired> {
    let steps = run.steps.iter().flat_map(|step| &step.fired);
    steps.chain(&run.fired_at_end)
}

/// Whether the device was lost in the step of that number or before it.
pub(super) fn is_device_lost(run: &Run, number: usize) -> bool {
    fired(run).any(|(step, fired)| step.number <= number && fired.error.is_some_and(ends_context))
}

/// Whether the device was lost at any time.
pub(super) fn is_device_ever_lost(run: &Run) -> bool {
    ever_fired(run).any(|fired| fired.error.is_some_and(ends_context))
}

/// Whether the call gives device memory back.
pub(super) fn is_free(fired: &Fired) -> bool {
    matches!(fired.site.site().name, "cuMemFree" | "cuMemFreeAsync")
}

/// Whether a call was made to give this back, and did not.
fn is_refused(fired: &Fired, entry: &LedgerEntry) -> bool {
    let is_memory = matches!(entry.kind, Kind::DeviceMemory);
    let is_it = entry.key == fired.key && entry.serial < fired.serial;
    is_memory && is_it && is_free(fired) && fired.error.is_some() && !fired.after
}

fn held(reading: &Reading) -> impl Iterator<Item = &LedgerEntry> {
    let ledger = reading.ledger.iter();
    ledger.flat_map(|ledger| &ledger.held)
}

/// What these take on the device.
pub(super) fn bytes_of<'a>(entries: impl IntoIterator<Item = &'a LedgerEntry>) -> u64 {
    let bytes = entries.into_iter().map(|entry| entry.bytes);
    bytes.map(|bytes| bytes.next_multiple_of(UNIT_BYTES)).sum()
}

/// Device memory that is there and that the driver refused to take back in the step: it is held until that is tried again.
pub(super) fn refused_in(step: &StepRecord) -> Vec<&LedgerEntry> {
    let is_refused = |entry: &&LedgerEntry| step.fired.iter().any(|fired| is_refused(fired, entry));
    held(&step.after).filter(is_refused).collect()
}

/// What was refused in the step or before it and is given back in it, bytes.
pub(super) fn given_back_late_bytes(run: &Run, step: &StepRecord) -> u64 {
    let was_refused = |entry: &&LedgerEntry| {
        fired(run).any(|(at, fired)| at.number <= step.number && is_refused(fired, entry))
    };
    let is_gone = |entry: &&LedgerEntry| !held(&step.after).any(|one| one.serial == entry.serial);
    bytes_of(held(&step.before).filter(was_refused).filter(is_gone))
}

/// Whether that call's memory was refused in a step before the one of that number.
pub(super) fn was_refused_before(run: &Run, number: usize, again: &Fired) -> bool {
    fired(run).any(|(step, fired)| {
        let is_same = fired.key == again.key && is_free(fired);
        step.number < number && is_same && fired.error.is_some()
    })
}

/// Device memory that is there at that moment and that the driver said was none when it was to be given back.
pub(super) fn given_up<'a>(run: &Run, reading: &'a Reading) -> Vec<&'a LedgerEntry> {
    let is_given_up = |entry: &&LedgerEntry| {
        ever_fired(run).any(|fired| {
            fired.error == Some(names::CUDA_ERROR_INVALID_VALUE) && is_refused(fired, entry)
        })
    };
    held(reading).filter(is_given_up).collect()
}

/// Whether the violation is that memory is freed again which was given back by a call that then said it was not.
pub(super) fn is_freed_again(run: &Run, violation: &str) -> bool {
    violation.contains("cuMemFree")
        && ever_fired(run).any(|fired| {
            let again = format!("double free of {:#x} (", fired.key);
            is_free(fired) && fired.after && fired.error.is_some() && violation.contains(&again)
        })
}

/// Whether the file was said not to be there, or the directory that it is in, or something in the directory that it is.
pub(super) fn is_file_denied(run: &Run, file: &Path) -> bool {
    ever_fired(run).any(|fired| {
        let path = &fired.path;
        is_denied(fired) && (file.starts_with(path) || path.starts_with(file))
    })
}

/// Whether the answer was that there is nothing.
pub(super) fn is_denied(fired: &Fired) -> bool {
    fired.error == Some(names::ENOENT) && LOOK_UPS.contains(&fired.site.site().name)
}

/// Whether a subject that closes may say so: what it could not give back, and why.
pub(super) fn may_be_told_at_the_end(run: &Run, kind: ErrorKind) -> bool {
    let settled = run.settled.iter();
    let mut left = settled.flat_map(|reading| reading.offload_files.entries.keys());
    let told = match kind {
        ErrorKind::DeviceError => is_device_ever_lost(run) || is_start_refused_memory(run),
        ErrorKind::Io => left.any(|path| is_file_denied(run, path)),
        _ => false,
    };
    told || faulted::tells_at_the_end(run, kind)
}

/// Whether device memory was not taken back while a subject started, which nobody was told who asked for any.
fn is_start_refused_memory(run: &Run) -> bool {
    fired(run)
        .any(|(step, fired)| matches!(step.action, Action::World(Event::Restart)) && is_free(fired))
}

/// Whether a subject that quit said that it could not remove the file, as a call for it failed, or for one beside it: what tells whose
/// the directory is goes last.
pub(super) fn is_removal_refused(run: &Run, file: &Path) -> bool {
    const REMOVALS: [&str; 8] = [
        "unlink",
        "unlinkat",
        "fstat",
        "fstatat",
        "stat",
        "lstat",
        "statx",
        "fallocate",
    ];
    let mut asides = run.asides.iter();
    let told =
        asides.any(|(verb, outcome)| *verb == "quit" && matches!(outcome, Outcome::Failed(_)));
    let mut fired = run.fired_at_end.iter();
    told && fired.any(|fired| {
        let path = &fired.path;
        let is_removal = REMOVALS.contains(&fired.site.site().name);
        let is_beside = file.parent() == path.parent();
        is_removal && (is_beside || file.starts_with(path) || path.starts_with(file))
    })
}

/// Whether cuFile took back what it had registered and then said that it did not: whoever tries again asks for what is not there.
pub(super) fn is_buffer_denied(run: &Run) -> bool {
    ever_fired(run).any(|fired| fired.after && fired.site.site().name == "cuFileBufDeregister")
}

/// Whether cuFile did not take back device memory that it had registered: it says that there is none, or was asked twice.
pub(super) fn is_buffer_refused(run: &Run) -> bool {
    const NOT_THERE: [FaultError; 3] = [
        names::CU_FILE_MEMORY_NOT_REGISTERED,
        names::CU_FILE_INVALID_VALUE,
        names::CU_FILE_DRIVER_NOT_INITIALIZED,
    ];
    run.steps.iter().any(|step| {
        let fired = step.fired.iter();
        let refused = fired.filter(|one| one.site.site().name == "cuFileBufDeregister");
        let errors: Vec<FaultError> = refused.filter_map(|one| one.error).collect();
        errors.len() > 1 || errors.iter().any(|error| NOT_THERE.contains(error))
    })
}

/// Whether a file could not be mapped in the step.
pub(super) fn is_map_refused(step: &StepRecord) -> bool {
    let mut fired = step.fired.iter();
    fired.any(|fired| {
        fired.error.is_some() && matches!(fired.site.site().name, "mmap" | "fstat" | "statx")
    })
}

/// Whether what a failed step left on the device is known to the subject, and calls failed in its recovery as well.
pub(super) fn is_left_by_recovery(step: &StepRecord) -> bool {
    let errors = step.fired.iter().filter(|fired| fired.error.is_some());
    let (Some((before, after)), Some(held_before), Some(held_after)) = (
        step.loaded_bytes(None),
        step.before.device.held_bytes(),
        step.after.device.held_bytes(),
    ) else {
        return false;
    };
    // Allocation units: 512 bytes each.
    let rounding = 512
        * step
            .status_after
            .iter()
            .flat_map(|status| &status.models)
            .map(|model| model.tensors.len() as u64)
            .sum::<u64>();
    errors.count() > 1
        && held_after.saturating_sub(held_before) <= after.saturating_sub(before) + rounding
}

/// Whether calls failed while a subject started.
pub(super) fn is_start_disturbed(run: &Run) -> bool {
    fired(run).any(|(step, fired)| {
        matches!(step.action, Action::World(Event::Restart)) && fired.error.is_some()
    })
}
