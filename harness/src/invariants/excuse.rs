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
    observation::{Outcome, Run, StepRecord},
    world::Event,
};
use spillproof_faults::{FaultError, SiteId, names};
use spillproof_protocol::ErrorKind;

/// Errors that end a CUDA context.
const ENDING: [FaultError; 7] = [
    names::CUDA_ERROR_DEINITIALIZED,
    names::CUDA_ERROR_ECC_UNCORRECTABLE,
    names::CUDA_ERROR_NVLINK_UNCORRECTABLE,
    names::CUDA_ERROR_ILLEGAL_ADDRESS,
    names::CUDA_ERROR_LAUNCH_TIMEOUT,
    names::CUDA_ERROR_CONTEXT_IS_DESTROYED,
    names::CUDA_ERROR_LAUNCH_FAILED,
];

/// Calls by name whose answer can be that there is nothing.
const LOOK_UPS: [&str; 9] = [
    "open", "openat", "stat", "lstat", "fstatat", "statx", "unlink", "unlinkat", "rmdir",
];

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
    fired(run).any(|(step, fired)| {
        step.number <= number && fired.error.is_some_and(|error| ENDING.contains(&error))
    })
}

/// Whether the device was lost at any time.
pub(super) fn is_device_ever_lost(run: &Run) -> bool {
    ever_fired(run).any(|fired| fired.error.is_some_and(|error| ENDING.contains(&error)))
}

/// Whether the driver refused to take device memory back in the step: it is held until that is tried again, and gone in the end.
pub(super) fn is_memory_refused(step: &StepRecord) -> bool {
    let mut fired = step.fired.iter();
    fired.any(|fired| fired.error.is_some() && is_free(fired))
}

/// Whether the driver refused that in the step of that number or before it.
pub(super) fn is_memory_ever_refused(run: &Run, number: usize) -> bool {
    let mut steps = run.steps.iter().filter(|step| step.number <= number);
    steps.any(is_memory_refused)
}

/// Whether the driver refused that in a step before the one of that number.
pub(super) fn was_memory_refused_before(run: &Run, number: usize) -> bool {
    let mut steps = run.steps.iter().filter(|step| step.number < number);
    steps.any(is_memory_refused)
}

/// Whether the call gives device memory back.
pub(super) fn is_free(fired: &Fired) -> bool {
    matches!(fired.site.site().name, "cuMemFree" | "cuMemFreeAsync")
}

/// Whether device memory was said to be none when it was given back.
pub(super) fn is_memory_given_up(run: &Run) -> bool {
    is_memory_given_up_by(run, usize::MAX)
}

/// Whether that was said in the step of that number or before it.
pub(super) fn is_memory_given_up_by(run: &Run, number: usize) -> bool {
    fired(run).any(|(step, fired)| {
        step.number <= number
            && fired.error == Some(names::CUDA_ERROR_INVALID_VALUE)
            && is_free(fired)
    })
}

/// Whether device memory was given back by a call that then said it was not.
pub(super) fn is_free_denied(run: &Run) -> bool {
    let is_free = |site: &SiteId| matches!(site.site().name, "cuMemFree" | "cuMemFreeAsync");
    let mut rules = run.case.plan().into_iter().flat_map(|plan| &plan.rules);
    rules.any(|rule| rule.after && rule.sites.iter().any(is_free))
        && ever_fired(run).any(|fired| is_free(&fired.site))
}

/// Whether a file was said not to be there.
pub(super) fn is_file_denied(run: &Run) -> bool {
    ever_fired(run).any(is_denied)
}

/// Whether the answer was that there is nothing.
pub(super) fn is_denied(fired: &Fired) -> bool {
    fired.error == Some(names::ENOENT) && LOOK_UPS.contains(&fired.site.site().name)
}

/// Whether a subject that closes may say so: what it could not give back, and why.
pub(super) fn may_be_told_at_the_end(run: &Run, kind: ErrorKind) -> bool {
    let told = match kind {
        ErrorKind::DeviceError => is_device_ever_lost(run) || is_start_refused_memory(run),
        ErrorKind::Io => is_file_denied(run),
        _ => false,
    };
    told || faulted::tells_at_the_end(run, kind)
}

/// Whether device memory was not taken back while a subject started, which nobody was told who asked for any.
fn is_start_refused_memory(run: &Run) -> bool {
    fired(run)
        .any(|(step, fired)| matches!(step.action, Action::World(Event::Restart)) && is_free(fired))
}

/// Whether calls of the plan are made and then said to have failed.
pub(super) fn is_done_and_denied(run: &Run) -> bool {
    let mut rules = run.case.plan().into_iter().flat_map(|plan| &plan.rules);
    rules.any(|rule| rule.after)
}

/// Whether a subject that quit said that it could not remove its files, as the calls for it failed.
pub(super) fn is_removal_refused(run: &Run) -> bool {
    const REMOVALS: [&str; 4] = ["unlinkat", "fstat", "fstatat", "fallocate"];
    let mut asides = run.asides.iter();
    let told =
        asides.any(|(verb, outcome)| *verb == "quit" && matches!(outcome, Outcome::Failed(_)));
    let mut fired = run.fired_at_end.iter();
    told && fired.any(|fired| REMOVALS.contains(&fired.site.site().name))
}

/// Whether cuFile took back what it had registered and then said that it did not: whoever tries again asks for what is not there.
pub(super) fn is_buffer_denied(run: &Run) -> bool {
    is_done_and_denied(run)
        && ever_fired(run).any(|fired| fired.site.site().name == "cuFileBufDeregister")
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
