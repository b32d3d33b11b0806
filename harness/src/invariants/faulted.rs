//! `progress`, `typed` and `truth` of steps that a fault plan reached: what must come back follows from what happened.
//!
//! Fault model: an error that a call was made to return either surfaces in the step in which it happened, as an error of a kind
//! that fits it, or is masked where that is right: by another try, or by another way to the same end. Fewer bytes than asked,
//! and calls that take longer, never surface.
//!
//! An error that the case foresees for another reason is right as well, in the step that it says.
//!
//! Not seen here: an error that was masked wrongly with right data all the same, where masking it can be right.

use super::outcome::is_work;
use crate::{
    case::Expect,
    faults::Fired,
    observation::{Act, Outcome, Phase, Run},
    subject::Finding,
};
use spillproof_faults::{Domain, FaultError, Library, names};
use spillproof_protocol::ErrorKind;

/// A step with the errors that calls returned in it.
fn errors(act: &Act<'_>) -> Vec<Fired> {
    let fired = act.step.fired.iter().copied();
    fired.filter(|fired| fired.error.is_some()).collect()
}

/// Steps that ask something of the subject.
fn asked(run: &Run) -> impl Iterator<Item = Act<'_>> {
    run.acts()
        .filter(|act| !matches!(act.outcome, Outcome::NotRun))
}

/// Whether the case itself foresees the error, whatever calls do.
fn is_foreseen(act: &Act<'_>, kind: ErrorKind) -> bool {
    match act.expect {
        Expect::Error(foreseen) | Expect::OkOrError(foreseen) => *foreseen == kind,
        Expect::Ok => false,
    }
}

/// Work succeeds where no call failed, and once none fails any more.
pub(super) fn progress(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    for act in asked(run) {
        match act.outcome {
            Outcome::Failed(error) if is_foreseen(&act, error.kind) => {}
            Outcome::Failed(error) if is_work(&act) && errors(&act).is_empty() => {
                wrong.push(format!(
                    "{}: {}: {}, where no call failed",
                    act.place(),
                    error.kind,
                    error.message
                ));
            }
            Outcome::Misbehaved(finding @ Finding::Hang { .. }) => {
                wrong.push(format!("{}: {finding}", act.place()));
            }
            Outcome::Misbehaved(finding) if act.step.phase == Phase::SecondRound => {
                wrong.push(format!("{}: {finding}", act.place()));
            }
            _ => {}
        }
    }
    wrong
}

/// An error is of a kind that fits what happened.
pub(super) fn typed(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    for act in asked(run) {
        match act.outcome {
            Outcome::Misbehaved(finding) => wrong.push(format!("{}: {finding}", act.place())),
            Outcome::Failed(error) if is_foreseen(&act, error.kind) => {}
            Outcome::Failed(error) => {
                let errors = errors(&act);
                let fits = |fired: &Fired| kinds(*fired).contains(&error.kind);
                if !errors.is_empty() && !errors.iter().any(fits) {
                    wrong.push(format!(
                        "{}: error {} ({}) after {}",
                        act.place(),
                        error.kind,
                        error.message,
                        list(&errors)
                    ));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// A call failed and the step did: one not without the other, except where something else serves.
pub(super) fn truth(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    for act in asked(run) {
        let errors = errors(&act);
        match act.outcome {
            Outcome::Failed(error) if is_foreseen(&act, error.kind) => {}
            Outcome::Failed(error) if errors.is_empty() && !is_work(&act) => {
                wrong.push(format!(
                    "{}: error {} without a fault: {}",
                    act.place(),
                    error.kind,
                    error.message
                ));
            }
            // Nothing was reported.
            Outcome::Killed(_) => {}
            outcome if outcome.is_success() => {
                let swallowed: Vec<Fired> = errors
                    .into_iter()
                    .filter(|fired| !may_be_masked(*fired))
                    .collect();
                if !swallowed.is_empty() {
                    let (place, list) = (act.place(), list(&swallowed));
                    wrong.push(format!("{place}: reported success after {list}"));
                }
            }
            _ => {}
        }
    }
    wrong
}

fn list(fired: &[Fired]) -> String {
    let words: Vec<String> = fired.iter().map(Fired::to_string).collect();
    words.join(", ")
}

/// The kinds that tell of an error.
fn kinds(fired: Fired) -> &'static [ErrorKind] {
    let Some(error) = fired.error else { return &[] };
    match error {
        names::ENOSPC | names::EDQUOT | names::EFBIG => &[ErrorKind::DiskFull],
        names::ENOMEM => &[ErrorKind::HostMemory, ErrorKind::Io],
        names::CUDA_ERROR_OUT_OF_MEMORY => &[ErrorKind::DeviceOom, ErrorKind::HostMemory],
        FaultError { domain, .. } => match domain {
            Domain::Errno => &[ErrorKind::Io],
            Domain::Cuda => &[ErrorKind::DeviceError],
            Domain::CuFile => &[ErrorKind::Io, ErrorKind::DeviceError],
        },
    }
}

/// Whether a step can rightly succeed after this: by another try, or because something else serves the same end.
fn may_be_masked(fired: Fired) -> bool {
    let Some(error) = fired.error else {
        return true;
    };
    let site = fired.site.site();
    // Staging serves where cuFile does not.
    if error.is_transient() || site.library == Library::CuFile {
        return true;
    }
    match site.name {
        // Space can be taken by writing.
        "fallocate" | "posix_fallocate" => matches!(
            error,
            names::EOPNOTSUPP | names::ENOSYS | names::EINVAL | names::ENODEV
        ),
        // Without direct I/O.
        "open" | "openat" => error == names::EINVAL,
        // The descriptor serves, or pages that stay where they are.
        "mmap" | "madvise" | "sync_file_range" => true,
        // A file that stays is removed another time.
        "unlink" | "unlinkat" | "rmdir" => true,
        // Something is evicted, or host memory is not pinned.
        "cuMemAlloc" | "cuMemAllocAsync" | "cuMemAllocFromPoolAsync" => {
            error == names::CUDA_ERROR_OUT_OF_MEMORY
        }
        "cuMemHostAlloc" | "cuMemAllocHost" | "cuMemHostRegister" | "cuMemGetInfo" => true,
        _ => false,
    }
}
