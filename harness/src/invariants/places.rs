//! Where bytes are, by what is seen of files, maps and memory: the part of `policy` that does not take the
//! subject's word for a destination.

use crate::{
    case::Action,
    invariants::memory::anon_shared_bytes,
    observation::{Outcome, Run, StepRecord, total},
    probe::{FileKind, FilesReading},
};
use spillproof_protocol::{FreeMemoryReply, Tier};

/// What may come and go beside the tensors: allocator arenas, lock files, rounding to blocks of a filesystem.
const OTHER_BYTES: u64 = 1 << 20;

/// Destinations that what is seen contradicts.
pub(super) fn contradicted(run: &Run, step: &StepRecord, reply: &FreeMemoryReply) -> Vec<String> {
    let offload_dir = &run.offload_dir;
    let bytes_to = |tier: Tier| -> u64 {
        let moves = reply.moves.iter().filter(|one| one.to == tier);
        total(moves.map(|one| one.bytes))
    };
    let (ram, mapped) = (bytes_to(Tier::Ram), bytes_to(Tier::Mapped));
    let in_files = mapped.saturating_add(bytes_to(Tier::File));
    let (Some(before), Some(after)) = (&step.before.process, &step.after.process) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    let mut maps = after.file_maps.keys();
    if mapped > 0 && !maps.any(|path| path.starts_with(offload_dir)) {
        wrong.push(format!(
            "{mapped} bytes are said to be mapped, no file below {} is",
            offload_dir.display()
        ));
    }
    let stored = allocated_bytes(&step.after.offload_files);
    // What somebody took out of the directory may still be open.
    if in_files > stored + OTHER_BYTES && !attacked_before(run, step) {
        wrong.push(format!(
            "{in_files} bytes are said to be in files, the offload directory holds {stored}"
        ));
    }
    let grown = stored.saturating_sub(allocated_bytes(&step.before.offload_files));
    let moves = reply.moves.len() as u64;
    if ram > 0 && in_files == 0 && grown > OTHER_BYTES {
        wrong.push(format!(
            "all is said to be in RAM, yet offload files grew by {grown} bytes"
        ));
    }
    let held = anon_shared_bytes(after).saturating_sub(anon_shared_bytes(before));
    if ram > held + OTHER_BYTES + moves * 4096 {
        wrong.push(format!(
            "{ram} bytes are said to be in RAM, anonymous + shared memory grew by {held}"
        ));
    }
    wrong
}

/// Files that changed in a step that reports no write: data that was already there was written again, in its place. The kernel's
/// count of written bytes does not show that while pages are still dirty.
pub(super) fn rewritten_in_place(run: &Run) -> Option<String> {
    run.judged_steps().find_map(|step| {
        let (before, after) = (step.status_before.as_ref()?, step.status_after.as_ref()?);
        // Dropping gives the space of ranges back, which nobody needs to write for.
        let is_drop = matches!(step.action, Action::Drop { .. });
        // Space is taken before a write that then fails, and an error reports no bytes.
        let has_failed = matches!(step.outcome, Outcome::Failed(_)) && !step.fired.is_empty();
        let is_written = before.written_bytes != after.written_bytes;
        if is_written || is_drop || has_failed || holds_attack(step) {
            return None;
        }
        let entries = step.after.offload_files.entries.iter();
        let mut changed = entries.filter(|(path, entry)| {
            let known = step.before.offload_files.entries.get(*path);
            entry.kind == FileKind::File
                && known.is_some_and(|known| {
                    known.inode == entry.inode
                        && known.modified_ns != entry.modified_ns
                        // Space that is given back changes a file, too.
                        && known.allocated_bytes <= entry.allocated_bytes
                        && known.bytes <= entry.bytes
                })
        });
        let (path, _) = changed.next()?;
        Some(format!(
            "{}: {} was written to, and no write is reported",
            step.place(),
            path.display()
        ))
    })
}

/// Offload files although the threshold turns them off.
pub(super) fn files_although_off(run: &Run) -> Option<String> {
    let off = ("MMAP_MEM_THRESHOLD_GB", "0");
    let mut settings = run.case.settings.iter();
    if !settings.any(|(name, value)| (*name, value.as_str()) == off) {
        return None;
    }
    run.judged_steps().find_map(|step| {
        let stored = allocated_bytes(&step.after.offload_files);
        (stored > OTHER_BYTES).then(|| {
            format!(
                "{}: files are turned off, the offload directory holds {stored} bytes",
                step.place()
            )
        })
    })
}

/// Whether the harness itself changed files in the step.
pub(super) fn holds_attack(step: &StepRecord) -> bool {
    let mut acts = step.acts().into_iter();
    acts.any(|act| matches!(act.action, Action::Attack(_)))
}

fn attacked_before(run: &Run, step: &StepRecord) -> bool {
    let mut earlier = run.steps.iter().filter(|one| one.number < step.number);
    earlier.any(holds_attack)
}

fn allocated_bytes(files: &FilesReading) -> u64 {
    let files = files.entries.values();
    files
        .filter(|entry| entry.kind == FileKind::File)
        .map(|entry| entry.allocated_bytes)
        .sum()
}
