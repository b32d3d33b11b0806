//! Which errors of calls a step may get over without an error of its own, and which it has to: by another try, or because something
//! else serves the same end. What an error says decides, and the file or the memory that the call was about.

use super::excuse;
use crate::{
    case::Action,
    faults::Fired,
    observation::{Act, Outcome, Run, StepRecord},
    world::Event,
};
use spillproof_faults::{FaultError, Library, names};
use std::path::Path;

/// The errors that calls returned in a step.
pub(super) fn errors<'a>(act: &Act<'a>) -> Vec<&'a Fired> {
    let fired = act.step.fired.iter();
    fired.filter(|fired| fired.error.is_some()).collect()
}

pub(super) fn is_start(act: &Act<'_>) -> bool {
    matches!(act.action, Action::World(Event::Restart))
}

/// Whether a step can rightly succeed after this: by another try, or because something else serves the same end.
pub(super) fn may_be_masked(fired: &Fired, act: &Act<'_>, run: &Run) -> bool {
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
            !keeps_what_it_wrote(act, &fired.path)
        }
        // Space can be taken by writing.
        "fallocate" | "posix_fallocate" => matches!(
            error,
            names::EOPNOTSUPP | names::ENOSYS | names::EINVAL | names::ENODEV
        ),
        // What direct I/O refuses ordinary I/O moves (F37), or nothing does: digests tell. That it is moved is not demanded: the
        // receipt does not say which descriptor the call was about.
        "pread" | "pwrite" if error == names::EINVAL => passes_page_cache(run),
        // Without direct I/O. A file without its name is reached by its other descriptor. A start passes over what it cannot
        // look into: that may be another's; not over what it makes itself when descriptors run out (F36).
        "open" | "openat" => match error {
            names::EINVAL | names::EOPNOTSUPP => true,
            names::ENOENT => uses_cufile(run) || passes_page_cache(run) || is_start(act),
            names::EMFILE | names::ENFILE => is_start(act) && was_there(act.step, &fired.path),
            _ => is_start(act),
        },
        // A length that was not compared before a reload does not go without a word (E22); what makes room for it may go to a file
        // that is not mapped then (F50). Else what could be learned so is judged by itself: bytes by digests, files by what there is.
        "fstat" => {
            let reloads = matches!(act.action, Action::Request { .. }) && !makes_room(act);
            !reloads || !was_there(act.step, &fired.path) || is_written(act.step, &fired.path)
        }
        // By name it is asked which file is to be removed, which may be another model's.
        "stat" | "lstat" | "fstatat" | "statx" => true,
        // What a filesystem that cannot tell it is asked for has other means.
        "statfs" | "fstatfs" => matches!(error, names::ENOSYS | names::EOPNOTSUPP),
        // The descriptor is gone (close(2)). That bytes may be, too, must be told by whoever wrote them.
        // Through cuFile's own descriptor none went where cuFile refused it.
        "close" => {
            let frees = matches!(act.action, Action::Free { .. });
            let tells =
                frees && is_written(act.step, &fired.path) || keeps_what_it_wrote(act, &fired.path);
            !tells || refused_handles(act) >= errors_of("close", act)
        }
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
        "mmap" | "madvise" => true,
        // It only hastens what comes anyway; what it tells of lost bytes nobody tells again (sync_file_range(2); the kernel
        // reports an error of writing back once to each descriptor).
        "sync_file_range" => !matches!(error, names::EIO | names::ENOSPC | names::EDQUOT),
        // A file that stays is removed another time.
        "unlink" | "unlinkat" | "rmdir" => true,
        // Tried once more, and not for this step: who had it was told.
        "cuMemFree" | "cuMemFreeAsync" => excuse::was_refused_before(run, act.step.number, fired),
        // Something is evicted.
        "cuMemAlloc" | "cuMemAllocAsync" | "cuMemAllocFromPoolAsync" => {
            error == names::CUDA_ERROR_OUT_OF_MEMORY
        }
        // Host memory is not pinned (F5, F6); what is free is found out by taking it (F10).
        "cuMemHostAlloc" | "cuMemAllocHost" | "cuMemHostRegister" | "cuMemGetInfo" => {
            !excuse::ends_context(error)
        }
        _ => false,
    }
}

/// More failures of one step than anybody has to try again.
const PATIENCE_CALLS: usize = 16;

/// Whether a step that met only this has to succeed.
pub(super) fn has_to_go_on(fired: &[Fired]) -> bool {
    (1..=PATIENCE_CALLS).contains(&fired.len()) && fired.iter().all(must_be_masked)
}

/// Whether nothing is lost for good: the call is to be made again (F43), or something else serves. Advice that is refused (F57) may
/// be told as well.
fn must_be_masked(fired: &Fired) -> bool {
    let Some(error) = fired.error else {
        return true;
    };
    let site = fired.site.site();
    // Staging serves (E26; F25, F26, F28, F30, F32) but for what staging would meet as well.
    if site.library == Library::CuFile {
        return !is_disk_full(error);
    }
    match site.name {
        // Space can be taken by writing (F44).
        "fallocate" | "posix_fallocate" => {
            matches!(error, names::EOPNOTSUPP | names::ENOSYS | names::EINTR)
        }
        // Ordinary I/O serves where direct I/O does not (F37).
        "open" | "openat" if error == names::EINVAL => is_direct(fired),
        // Reading serves (F50).
        "mmap" => error == names::ENOMEM,
        // Memory that is not pinned serves (F5, F6).
        "cuMemHostAlloc" | "cuMemAllocHost" | "cuMemHostRegister" => matches!(
            error,
            names::CUDA_ERROR_OUT_OF_MEMORY
                | names::CUDA_ERROR_NOT_SUPPORTED
                | names::CUDA_ERROR_NOT_PERMITTED
        ),
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

pub(super) fn is_disk_full(error: FaultError) -> bool {
    matches!(error, names::ENOSPC | names::EDQUOT | names::EFBIG)
}

/// Whether the call asked for direct I/O.
fn is_direct(fired: &Fired) -> bool {
    let flags = fired.key as i32;
    flags & libc::O_DIRECT != 0
}

/// Whether device memory had to be won in the step before it succeeded.
fn makes_room(act: &Act<'_>) -> bool {
    matches!(act.outcome, Outcome::Served(reply) if reply.recoveries > 0)
}

/// Whether the file holds after the step what it did not hold before.
fn is_written(step: &StepRecord, path: &Path) -> bool {
    let there = |reading: &crate::observation::Reading| {
        let entry = reading.offload_files.entries.get(path);
        entry.map(|entry| (entry.inode, entry.modified_ns))
    };
    let after = there(&step.after);
    after.is_some() && after != there(&step.before)
}

/// Whether all that the step wrote to the file is still there, and nobody can have written it again: room was made once. What was taken
/// back leaves a hole, as several tensors share a file.
fn keeps_what_it_wrote(act: &Act<'_>, path: &Path) -> bool {
    let entry = act.step.after.offload_files.entries.get(path);
    let has_hole = entry.is_some_and(|entry| entry.allocated_bytes < entry.bytes);
    let is_made_good = matches!(act.outcome, Outcome::Served(reply) if reply.recoveries > 1);
    is_written(act.step, path) && !has_hole && !is_made_good
}

fn was_there(step: &StepRecord, path: &Path) -> bool {
    step.before.offload_files.entries.contains_key(path)
}

fn errors_of(site: &str, act: &Act<'_>) -> usize {
    let errors = errors(act).into_iter();
    errors
        .filter(|fired| fired.site.site().name == site)
        .count()
}

fn refused_handles(act: &Act<'_>) -> usize {
    errors_of("cuFileHandleRegister", act)
}

/// Whether the case's engine is told to move bytes past the page cache.
fn passes_page_cache(run: &Run) -> bool {
    let mut settings = run.case.settings.iter();
    settings.any(|(name, value)| *name == "OFFLOAD_FILE_IO" && value == "direct")
}

/// Whether the case's engine may use cuFile: what it refuses goes the staged way, and the path says so (`transfers.rs`).
fn uses_cufile(run: &Run) -> bool {
    let mut settings = run.case.settings.iter();
    settings.any(|(name, value)| *name == "OFFLOAD_CUFILE" && value != "off")
}
