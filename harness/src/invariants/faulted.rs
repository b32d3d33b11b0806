//! `progress`, `typed` and `truth` of steps that a fault plan reached: what must come back follows from what happened.
//!
//! Fault model: an error that a call was made to return either surfaces in the step in which it happened, as an error of a kind
//! that fits it, or is masked where that is right: by another try, or by another way to the same end. Fewer bytes than asked,
//! and calls that take longer, never surface.
//!
//! An error that the case foresees for another reason is right as well, in the step that it says.
//!
//! Not seen here: an error that was masked wrongly with right data all the same, where masking it can be right.

use super::{excuse, outcome::is_work};
use crate::{
    case::{Action, Expect},
    faults::Fired,
    observation::{Act, Outcome, Phase, Run},
    subject::Finding,
    world::Event,
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

/// Whether the case itself foresees the error, whatever calls do, or the device was lost before.
fn is_foreseen(run: &Run, act: &Act<'_>, kind: ErrorKind) -> bool {
    if kind == ErrorKind::DeviceError && excuse::is_device_lost(run, act.step.number) {
        return true;
    }
    // What nobody can give back any more is missing.
    if kind == ErrorKind::DeviceOom && excuse::is_memory_given_up_by(run, act.step.number) {
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
                let (place, list) = (act.place(), list(&act.step.fired));
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
                let fits = |fired: &Fired| kinds(*fired, &act).contains(&error.kind);
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
                let swallowed: Vec<Fired> = errors
                    .into_iter()
                    .filter(|fired| !may_be_masked(*fired, &act, run))
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

/// Whether an error of this kind tells of what failed while the subject quit.
pub(super) fn tells_at_the_end(run: &Run, kind: ErrorKind) -> bool {
    let mut fired = run.fired_at_end.iter();
    fired.any(|fired| kinds_at(*fired, false).contains(&kind))
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
        | "cuStreamSynchronize" => {
            times(fired) == 1 || excuse::is_done_and_denied(run) || excuse::is_denied(fired)
        }
        // What is given back takes less room already.
        "ftruncate" | "fallocate" => true,
        _ => false,
    };
    let errors = run.fired_at_end.iter().copied().filter(|fired| {
        fired.error.is_some_and(|error| !error.is_transient()) && !is_made_good(fired)
    });
    let swallowed: Vec<Fired> = errors.collect();
    (!swallowed.is_empty()).then(|| format!("quit: reported success after {}", list(&swallowed)))
}

fn list(fired: &[Fired]) -> String {
    let words: Vec<String> = fired.iter().map(Fired::to_string).collect();
    words.join(", ")
}

/// The kinds that tell of an error.
fn kinds(fired: Fired, act: &Act<'_>) -> Vec<ErrorKind> {
    kinds_at(fired, is_start(act))
}

fn kinds_at(fired: Fired, is_start: bool) -> Vec<ErrorKind> {
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
    // What is not taken back is missing.
    if excuse::is_free(&fired) {
        kinds.push(ErrorKind::DeviceOom);
    }
    if name == "cuInit" || name == "cuDeviceGetCount" {
        kinds.extend([ErrorKind::CudaInit, ErrorKind::NoDevice]);
    }
    kinds
}

fn is_start(act: &Act<'_>) -> bool {
    matches!(act.action, Action::World(Event::Restart))
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

/// Whether a step can rightly succeed after this: by another try, or because something else serves the same end.
fn may_be_masked(fired: Fired, act: &Act<'_>, run: &Run) -> bool {
    let Some(error) = fired.error else {
        return true;
    };
    let site = fired.site.site();
    // Staging serves where cuFile does not.
    if error.is_transient() || site.library == Library::CuFile {
        return true;
    }
    // What cuFile is tried out with at a start; staging needs none of it.
    if is_start(act) && uses_cufile(run) && is_tried_out_with(site.name) {
        return true;
    }
    match site.name {
        // A full disk takes nothing that leaves for others, yet what has its copy there already can leave instead.
        "pwrite" | "write" | "pwritev" | "ftruncate" | "fallocate" | "posix_fallocate"
            if is_disk_full(error) && makes_room(act) =>
        {
            true
        }
        // Space can be taken by writing.
        "fallocate" | "posix_fallocate" => matches!(
            error,
            names::EOPNOTSUPP | names::ENOSYS | names::EINVAL | names::ENODEV
        ),
        // Without direct I/O; or it was the descriptor for cuFile, and staging serves. A start passes over what it cannot
        // look into: that may be another's.
        "open" | "openat" => error == names::EINVAL || uses_cufile(run) || is_start(act),
        // What could be learned so is judged by itself: bytes by digests, files and descriptors by what there is.
        "stat" | "lstat" | "fstat" | "fstatat" | "statx" | "statfs" | "fstatfs" => true,
        // The descriptor is gone (close(2)). That bytes may be, too, must be told by whoever wrote them.
        // Through cuFile's own descriptor none went where cuFile refused it.
        "close" => !matches!(act.action, Action::Free { .. }) || has_refused_handle(act),
        // Nothing is lost with a duplicate that is not there.
        "fcntl" | "dup" => error == names::EMFILE,
        // The mapping stays, and is undone another time.
        "munmap" => true,
        // A name that somebody else has, or took away, is no error of a start, which takes another.
        "mkdir" | "mkdirat" | "rename" | "renameat" if is_start(act) => matches!(
            error,
            names::EEXIST | names::ENOTEMPTY | names::ENOTDIR | names::ENOENT
        ),
        // Whoever has the lock may be alive.
        "flock" => is_start(act),
        // The descriptor serves, or pages that stay where they are.
        "mmap" | "madvise" | "sync_file_range" => true,
        // A file that stays is removed another time.
        "unlink" | "unlinkat" | "rmdir" => true,
        // Tried once more, and not for this step: who had it was told.
        "cuMemFree" | "cuMemFreeAsync" => is_retry(act, run),
        // Something is evicted, or host memory is not pinned.
        "cuMemAlloc" | "cuMemAllocAsync" | "cuMemAllocFromPoolAsync" => {
            error == names::CUDA_ERROR_OUT_OF_MEMORY
        }
        "cuMemHostAlloc" | "cuMemAllocHost" | "cuMemHostRegister" | "cuMemGetInfo" => true,
        _ => false,
    }
}

/// More failures of one step than anybody has to try again.
const PATIENCE_CALLS: usize = 16;

/// Whether a step that met only this has to succeed.
fn has_to_go_on(fired: &[Fired]) -> bool {
    (1..=PATIENCE_CALLS).contains(&fired.len()) && fired.iter().copied().all(must_be_masked)
}

/// Whether nothing is lost for good: the call is to be made again (F43), or something else serves (F5, F6, F44).
fn must_be_masked(fired: Fired) -> bool {
    let Some(error) = fired.error else {
        return true;
    };
    match fired.site.site().name {
        "fallocate" | "posix_fallocate" => {
            matches!(error, names::EOPNOTSUPP | names::ENOSYS | names::EINTR)
        }
        "mmap" => error == names::ENOMEM,
        "cuMemHostAlloc" | "cuMemAllocHost" | "cuMemHostRegister" => {
            error == names::CUDA_ERROR_OUT_OF_MEMORY
        }
        // Whether it closed is not known (close(2)).
        "close" => false,
        _ => error == names::EINTR,
    }
}

/// Calls that move bytes, or make room for them.
fn is_tried_out_with(site: &str) -> bool {
    matches!(
        site,
        "pread"
            | "pwrite"
            | "ftruncate"
            | "fallocate"
            | "posix_fallocate"
            | "cuMemAlloc"
            | "cuMemFree"
            | "cuMemcpyHtoDAsync"
            | "cuMemcpyDtoHAsync"
            | "cuStreamSynchronize"
            | "cuCtxSynchronize"
    )
}

fn is_disk_full(error: FaultError) -> bool {
    matches!(error, names::ENOSPC | names::EDQUOT | names::EFBIG)
}

/// Whether device memory had to be won in the step before it succeeded.
fn makes_room(act: &Act<'_>) -> bool {
    matches!(act.outcome, Outcome::Served(reply) if reply.recoveries > 0)
}

/// Whether a free can only be another try of what was refused in an earlier step: this one takes no device memory, and
/// nothing that was loaded left it.
fn is_retry(act: &Act<'_>, run: &Run) -> bool {
    let takes_none = matches!(act.action, Action::Free { .. } | Action::Drop { .. });
    let loaded = act.step.loaded_bytes(None);
    takes_none
        && loaded.is_some_and(|(before, after)| before == after)
        && excuse::was_memory_refused_before(run, act.step.number)
}

fn has_refused_handle(act: &Act<'_>) -> bool {
    let mut errors = errors(act).into_iter();
    errors.any(|fired| fired.site.site().name == "cuFileHandleRegister")
}

/// Whether the case's engine may use cuFile: what it refuses goes the staged way, and the path says so (`transfers.rs`).
fn uses_cufile(run: &Run) -> bool {
    let mut settings = run.case.settings.iter();
    settings.any(|(name, value)| *name == "OFFLOAD_CUFILE" && value != "off")
}
