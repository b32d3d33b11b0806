//! `progress`, `typed` and `truth` of steps that a fault plan reached: what must come back follows from what happened.
//!
//! Fault model: an error that a call was made to return either surfaces in the step in which it happened, as an error of a kind
//! that fits it, or is masked where that is right: by another try, or by another way to the same end. Fewer bytes than asked,
//! and calls that take longer, never surface. Which those are is in `masks.rs`.
//!
//! An error that the case foresees for another reason is right as well, in the step that it says.
//!
//! Not seen here: an error that was masked wrongly with right data all the same, where masking it can be right.

use super::{
    excuse,
    masks::{errors, has_to_go_on, is_start, may_be_masked},
    outcome::is_work,
};
use crate::{
    case::Expect,
    faults::Fired,
    observation::{Act, Outcome, Phase, Run},
    subject::Finding,
};
use spillproof_faults::{Domain, FaultError, names};
use spillproof_protocol::ErrorKind;

/// Steps that ask something of the subject.
fn asked(run: &Run) -> impl Iterator<Item = Act<'_>> {
    run.acts()
        .filter(|act| !matches!(act.outcome, Outcome::NotRun))
}

/// Whether the case itself foresees the error, whatever calls do, or the device was lost before.
fn is_foreseen(run: &Run, act: &Act<'_>, kind: ErrorKind) -> bool {
    if kind == ErrorKind::DeviceError && excuse::is_device_lost(run, act.step.number) {
        return true;
    }
    // What nobody can give back any more is missing to whoever takes memory.
    if kind == ErrorKind::DeviceOom
        && is_work(act)
        && !excuse::given_up(run, &act.step.after).is_empty()
    {
        return true;
    }
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
            Outcome::Failed(error) if is_foreseen(run, &act, error.kind) => {}
            Outcome::Failed(error) if is_work(&act) && errors(&act).is_empty() => {
                wrong.push(format!(
                    "{}: {}: {}, where no call failed",
                    act.place(),
                    error.kind,
                    error.message
                ));
            }
            Outcome::Failed(error)
                if has_to_go_on(&act.step.fired) && !is_foreseen(run, &act, error.kind) =>
            {
                let met: Vec<&Fired> = act.step.fired.iter().collect();
                let (place, list) = (act.place(), list(&met));
                wrong.push(format!(
                    "{place}: {}: {}, where another try or another way would have done after {list}",
                    error.kind, error.message
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
            Outcome::Failed(error) if is_foreseen(run, &act, error.kind) => {}
            Outcome::Failed(error) => {
                let errors = errors(&act);
                let fits = |fired: &Fired| kinds(fired, &act).contains(&error.kind);
                if !errors.is_empty() && !errors.iter().copied().any(fits) {
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
            Outcome::Failed(error) if is_foreseen(run, &act, error.kind) => {}
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
                let swallowed: Vec<&Fired> = errors
                    .into_iter()
                    .filter(|fired| !may_be_masked(fired, &act, run))
                    .collect();
                if !swallowed.is_empty() {
                    let (place, list) = (act.place(), list(&swallowed));
                    wrong.push(format!("{place}: reported success after {list}"));
                }
                if let (Expect::Error(foreseen), true) = (act.expect, is_undisturbed(run, &act)) {
                    let place = act.place();
                    wrong.push(format!(
                        "{place}: reported success, expected the error {foreseen}"
                    ));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// Whether nothing happened yet that could have taken away the reason for an error which the case foresees.
fn is_undisturbed(run: &Run, act: &Act<'_>) -> bool {
    let steps = run.steps.iter();
    let steps = steps.filter(|step| step.number <= act.step.number);
    // What took longer, moved less or was made again takes no reason away.
    steps
        .flat_map(|step| &step.fired)
        .all(|fired| fired.error.is_none_or(FaultError::is_transient))
}

/// Whether an error of this kind tells of what failed while the subject quit.
pub(super) fn tells_at_the_end(run: &Run, kind: ErrorKind) -> bool {
    let mut fired = run.fired_at_end.iter();
    fired.any(|fired| kinds_at(fired, false, false).contains(&kind))
}

/// What failed while a subject quit that says nothing of it.
pub(super) fn swallowed_at_the_end(run: &Run) -> Option<String> {
    let mut asides = run.asides.iter();
    if asides.any(|(verb, _)| *verb == "quit") {
        return None;
    }
    let times = |fired: &Fired| {
        let same = run.fired_at_end.iter();
        let same = same.filter(|other| other.site == fired.site && other.error.is_some());
        same.count()
    };
    let is_made_good = |fired: &Fired| match fired.site.site().name {
        // The descriptor is gone (close(2)), and pages that stay where they are go with their map.
        "close" | "madvise" => true,
        // Tried again, what they are for is done; files by themselves are judged by what there is.
        "cuMemFree"
        | "munmap"
        | "unlink"
        | "unlinkat"
        | "rmdir"
        | "fstat"
        | "fstatat"
        | "stat"
        | "lstat"
        | "statx"
        | "cuStreamSynchronize" => times(fired) == 1 || fired.after || excuse::is_denied(fired),
        // What is given back takes less room already.
        "ftruncate" | "fallocate" => true,
        _ => false,
    };
    let errors = run.fired_at_end.iter().filter(|fired| {
        fired.error.is_some_and(|error| !error.is_transient()) && !is_made_good(fired)
    });
    let swallowed: Vec<&Fired> = errors.collect();
    (!swallowed.is_empty()).then(|| format!("quit: reported success after {}", list(&swallowed)))
}

fn list(fired: &[&Fired]) -> String {
    let words: Vec<String> = fired.iter().map(|fired| fired.to_string()).collect();
    words.join(", ")
}

/// The kinds that tell of an error.
fn kinds(fired: &Fired, act: &Act<'_>) -> Vec<ErrorKind> {
    kinds_at(fired, is_start(act), is_work(act))
}

fn kinds_at(fired: &Fired, is_start: bool, takes_memory: bool) -> Vec<ErrorKind> {
    let Some(error) = fired.error else {
        return Vec::new();
    };
    let name = fired.site.site().name;
    let mut kinds = kinds_of(error).to_vec();
    match error.domain {
        // The directory itself cannot be used, or made again.
        Domain::Errno if is_start || is_about_names(name) => kinds.push(ErrorKind::Directory),
        // The driver's own memory, not what the engine asked for.
        Domain::Cuda if !name.starts_with("cuMemAlloc") => kinds.push(ErrorKind::DeviceError),
        Domain::Errno | Domain::Cuda | Domain::CuFile => {}
    }
    // What is not taken back is missing to whoever takes memory.
    if excuse::is_free(fired) && takes_memory {
        kinds.push(ErrorKind::DeviceOom);
    }
    if name == "cuInit" || name == "cuDeviceGetCount" {
        kinds.extend([ErrorKind::CudaInit, ErrorKind::NoDevice]);
    }
    kinds
}

/// Calls that find or make directories and files.
fn is_about_names(site: &str) -> bool {
    matches!(
        site,
        "open"
            | "openat"
            | "mkdir"
            | "mkdirat"
            | "rename"
            | "renameat"
            | "stat"
            | "fstat"
            | "fstatat"
            | "statx"
            | "statfs"
            | "fstatfs"
    )
}

fn kinds_of(error: FaultError) -> &'static [ErrorKind] {
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
