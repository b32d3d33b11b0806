//! Space that runs out: what a failed call leaves in the offload directory, and what it wrote before it failed (E24, E25).

use crate::{
    observation::{Outcome, Run, StepRecord, total},
    probe::FileKind,
};
use spillproof_protocol::{ErrorKind, StatusReply};

/// Lock files, directories, tails rounded to blocks; and writes that are no offload.
const OTHER_BYTES: u64 = 1 << 20;

/// Files that a failed call left and that hold nothing which the subject knows of.
pub(super) fn partial_files(run: &Run) -> Option<String> {
    run.judged_steps().find_map(|step| {
        let Outcome::Failed(_) = step.outcome else {
            return None;
        };
        let known = |status: &Option<StatusReply>| {
            let files = &status.as_ref()?.files;
            Some(total(files.iter().map(|file| file.bytes)))
        };
        let known = known(&step.status_after)?.saturating_sub(known(&step.status_before)?);
        let grown = stored(step, true).saturating_sub(stored(step, false));
        (grown > known + OTHER_BYTES).then(|| {
            format!(
                "{}: files grew by {grown} bytes in a call that failed, the subject knows of {known}",
                step.place()
            )
        })
    })
}

fn stored(step: &StepRecord, after: bool) -> u64 {
    let reading = if after { &step.after } else { &step.before };
    let entries = reading.offload_files.entries.values();
    let files = entries.filter(|entry| entry.kind == FileKind::File);
    total(files.map(|entry| entry.allocated_bytes.max(entry.bytes)))
}

/// A full disk that was found out by writing, not by reserving; of a write that is made to fail it cannot be known before.
pub(super) fn written_before_refused(run: &Run) -> Option<String> {
    if run.case.faults.is_some() {
        return None;
    }
    run.judged_steps().find_map(|step| {
        let Outcome::Failed(error) = &step.outcome else {
            return None;
        };
        let written = step
            .after
            .written_bytes
            .saturating_sub(step.before.written_bytes);
        (error.kind == ErrorKind::DiskFull && written > OTHER_BYTES).then(|| {
            format!(
                "{}: {written} bytes were written before the disk was found to be full; space is reserved first",
                step.place()
            )
        })
    })
}
