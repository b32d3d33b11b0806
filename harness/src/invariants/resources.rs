//! `vram`, `fd`, `maps`, `files`, `threads` and `device`: resources against the baseline that was
//! read after the warm-up, once they had time to settle.
//!
//! Counts are compared exactly, without tolerance. Not checked here: the number of anonymous
//! mappings, because an allocator's arenas come and go with its threads; shared libraries, which
//! stay loaded.

use super::{InvariantId, excuse, ledger, shortage};
use crate::{
    attack::Attack,
    case::{Action, Destinations, Expect},
    device::DeviceReading,
    observation::{Outcome, Reading, Run, StepRecord},
    probe::{FileKind, FilesReading},
};
use spillproof_protocol::Tier;
use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
};

/// Device memory, pinned memory, streams, events and contexts are back.
pub(super) fn vram(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    if let (Some(baseline), Some(settled)) = (&run.baseline, &run.settled)
        && !excuse::is_device_ever_lost(run)
    {
        let keeps_buffers = excuse::is_buffer_refused(run);
        let given_up_bytes = excuse::bytes_of(excuse::given_up(run, settled));
        for ((name, before), (_, after)) in counters(&baseline.device)
            .into_iter()
            .zip(counters(&settled.device))
        {
            let excused_bytes = match name {
                DEVICE_BYTES => given_up_bytes,
                CUFILE_BUFFERS if keeps_buffers => u64::MAX,
                _ => 0,
            };
            if after < before || after - before > excused_bytes {
                wrong.push(format!(
                    "{name} {after} after everything was dropped, {before} at the baseline"
                ));
            }
        }
        let known = ledger::of_device(run);
        if known.is_empty() && !wrong.is_empty() {
            wrong.extend(survivors(&settled.device));
        }
        let known = known.iter();
        let known = known.filter(|one| !(keeps_buffers && one.is_cufile_buffer()));
        wrong.extend(known.map(ToString::to_string));
    }
    // A device that is lost gives nothing back from then on.
    let present = |step: &&StepRecord| !excuse::is_device_lost(run, step.number);
    for step in run.steps.iter().filter(present) {
        let (before, after) = (
            step.before.device.held_bytes(),
            step.after.device.held_bytes(),
        );
        let grown_bytes = after.unwrap_or(0).saturating_sub(before.unwrap_or(0));
        if let Outcome::Failed(_) = &step.outcome
            && grown_bytes > excuse::bytes_of(excuse::refused_in(step))
            && !excuse::is_left_by_recovery(step)
        {
            wrong.push(format!(
                "{}: device memory went from {} to {} bytes in a call that failed",
                step.place(),
                before.unwrap_or(0),
                after.unwrap_or(0)
            ));
        }
        if let (Some(baseline), Some(status), Outcome::Freed(_)) =
            (&run.baseline, &step.status_after, &step.outcome)
            && status.models.iter().all(|model| model.device_bytes == 0)
        {
            // Refused now, or refused again, or for good.
            let mut excused = excuse::refused_in(step);
            excused.extend(excuse::given_up(run, &step.after));
            excused.sort_by_key(|entry| entry.serial);
            excused.dedup_by_key(|entry| entry.serial);
            let base_bytes = baseline.device.held_bytes().unwrap_or(0);
            if after.unwrap_or(0) > base_bytes + excuse::bytes_of(excused.iter().copied()) {
                wrong.push(format!(
                    "{}: nothing is loaded, yet the device holds {} bytes, {base_bytes} at the baseline",
                    step.place(),
                    after.unwrap_or(0),
                ));
            }
            let held = ledger::of_device_memory(run, &step.after).into_iter();
            let held = held.filter(|one| !excused.iter().any(|excused| one.is(excused)));
            wrong.extend(held.map(|one| format!("{}: nothing is loaded, yet {one}", step.place())));
        }
    }
    wrong
}

/// What the board calls device memory that is registered with cuFile.
const CUFILE_BUFFERS: &str = "cuFile buffers:";

/// What the board calls device memory.
const DEVICE_BYTES: &str = "device bytes:";

/// Everything that the device's source can count.
fn counters(device: &DeviceReading) -> Vec<(&'static str, u64)> {
    match device {
        DeviceReading::Absent => Vec::new(),
        DeviceReading::Board(board) => vec![
            (DEVICE_BYTES, board.device_bytes),
            ("pool bytes:", board.pool_bytes),
            ("pinned bytes:", board.pinned_bytes),
            ("registered bytes:", board.registered_bytes),
            ("contexts:", board.contexts),
            ("streams:", board.streams),
            ("events:", board.events),
            ("pools:", board.pools),
            ("cuFile handles:", board.cufile_handles),
            (CUFILE_BUFFERS, board.cufile_buffers),
            ("cuFile batches:", board.cufile_batches),
        ],
        DeviceReading::Nvml(nvml) => vec![("device bytes in use:", nvml.used_bytes)],
    }
}

fn survivors(device: &DeviceReading) -> Vec<String> {
    match device {
        DeviceReading::Board(board) => board
            .survivors
            .iter()
            .map(|survivor| format!("survivor: {survivor}"))
            .collect(),
        DeviceReading::Absent | DeviceReading::Nvml(_) => Vec::new(),
    }
}

fn violations(device: &DeviceReading) -> &[String] {
    match device {
        DeviceReading::Board(board) => &board.violations,
        DeviceReading::Absent | DeviceReading::Nvml(_) => &[],
    }
}

/// The device saw no illegal access, at any time.
pub(super) fn device(run: &Run) -> Vec<String> {
    let steps = run.steps.iter().map(|step| &step.after.device);
    let settled = run.settled.iter().map(|reading| &reading.device);
    let aftermath = run.aftermath.iter().map(|aftermath| &aftermath.device);
    let seen = steps.chain(settled).chain(aftermath).map(violations);
    let seen = seen.max_by_key(|violations| violations.len());
    let lost = excuse::is_device_ever_lost(run);
    let seen = seen.unwrap_or_default().iter();
    // A context that has ended copies nothing any more, whatever becomes of the memory.
    let deregistered = excuse::is_buffer_denied(run);
    seen.filter(|violation| !(deregistered && violation.contains("cuFileBufDeregister")))
        .filter(|violation| !(lost && violation.contains("bad host pointer")))
        .filter(|violation| !excuse::is_freed_again(run, violation))
        .cloned()
        .collect()
}

/// The multiset of open descriptors by target is the one of the baseline.
pub(super) fn fd(run: &Run) -> Vec<String> {
    let mut attacks = run.acts();
    // What was open before and is open now may have lost its name to an attack.
    let nameless = attacks.any(|act| *act.action == Action::Attack(Attack::RemoveDirectories));
    let descriptors = |reading: &Reading| {
        let found = &reading.process.as_ref()?.descriptors;
        let mut descriptors = BTreeMap::new();
        for (target, count) in found {
            let name = target.strip_suffix(" (deleted)").filter(|_| nameless);
            *descriptors
                .entry(name.unwrap_or(target).to_owned())
                .or_insert(0) += count;
        }
        Some(descriptors)
    };
    let differences = differences(run, "descriptors of", descriptors, |count, baseline| {
        count != baseline
    });
    // cuFile holds one descriptor of exactly this file from its first use on, and until somebody closes its driver.
    let log = run.work_dir.join(CUFILE_LOG);
    let once = [(1, 0), (0, 1)].map(|(after, before)| {
        let name = log.display();
        format!(
            "{after} descriptors of {name} after everything was dropped, {before} at the baseline"
        )
    });
    let mut wrong: Vec<String> = differences
        .into_iter()
        .filter(|difference| !once.contains(difference))
        .collect();
    if !wrong.is_empty() {
        wrong.extend(ledger::descriptors(run).iter().map(ToString::to_string));
    }
    wrong
}

/// What cuFile writes into the working directory, unless its settings say otherwise.
const CUFILE_LOG: &str = "cufile.log";

/// No mapping of a file is left, and files that must not be mapped are not.
pub(super) fn maps(run: &Run) -> Vec<String> {
    let maps = |reading: &Reading| {
        let maps = reading.process.as_ref()?.file_maps.iter();
        let data = maps.filter(|(path, _)| !is_shared_library(path));
        Some(
            data.map(|(path, count)| (path.display().to_string(), *count))
                .collect(),
        )
    };
    let mut wrong = differences(run, "mappings of", maps, |count, baseline| count > baseline);
    if !wrong.is_empty() {
        wrong.extend(ledger::maps(run).iter().map(ToString::to_string));
    }
    for step in &run.steps {
        if let (
            Action::Free {
                to: Destinations::All(Tier::File),
                ..
            },
            Expect::Ok,
            Some(process),
        ) = (&step.action, &step.expect, &step.after.process)
        {
            let mapped = process
                .file_maps
                .keys()
                .filter(|path| path.starts_with(&run.offload_dir));
            wrong.extend(mapped.map(|path| {
                format!(
                    "{}: {} is mapped, nothing may be in the file-only tier",
                    step.place(),
                    path.display()
                )
            }));
        }
    }
    wrong
}

fn is_shared_library(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    name.ends_with(".so") || name.contains(".so.")
}

/// Threads are back.
pub(super) fn threads(run: &Run) -> Vec<String> {
    let threads = |reading: &Option<Reading>| Some(reading.as_ref()?.process.as_ref()?.threads);
    match (threads(&run.baseline), threads(&run.settled)) {
        (Some(before), Some(after)) if before != after => {
            vec![format!(
                "{after} threads after everything was dropped, {before} at the baseline"
            )]
        }
        _ => Vec::new(),
    }
}

/// Files go with their models and with the process; nothing else is touched; nobody else may read them.
pub(super) fn files(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    if let (Some(baseline), Some(settled)) = (&run.baseline, &run.settled) {
        let new = settled.offload_files.entries.iter();
        let new = new.filter(|(path, _)| {
            !baseline.offload_files.entries.contains_key(*path)
                && !excuse::is_file_denied(run, path)
        });
        wrong.extend(new.map(|(path, entry)| {
            format!(
                "{} ({} bytes) is left in the offload directory after everything was dropped",
                path.display(),
                entry.bytes
            )
        }));
        wrong.extend(strays(&baseline.other_files, &settled.other_files));
    }
    if let Some(aftermath) = run.aftermath.as_ref().filter(|_| !run.was_killed()) {
        let left = aftermath.offload_files.entries.keys();
        let left = left.filter(|path| {
            !excuse::is_file_denied(run, path) && !excuse::is_removal_refused(run, path)
        });
        wrong.extend(left.map(|path| {
            format!(
                "{} is left in the offload directory after the end",
                path.display()
            )
        }));
    }
    wrong.extend(shortage::partial_files(run));
    let open_to_others = run.steps.iter().flat_map(|step| {
        let entries = step.after.offload_files.entries.iter();
        let bad =
            entries.filter(|(_, entry)| entry.kind != FileKind::Link && entry.mode & 0o077 != 0);
        bad.map(move |(path, entry)| {
            format!(
                "{}: {} has mode {:o}, others may enter",
                step.place(),
                path.display(),
                entry.mode
            )
        })
    });
    wrong.extend(open_to_others.take(1));
    wrong
}

/// What changed outside the offload directory; a directory's own times do not count.
fn strays(before: &FilesReading, after: &FilesReading) -> Vec<String> {
    let contents = |files: &FilesReading| -> BTreeMap<PathBuf, Option<(u64, i128, u64)>> {
        let entry = |entry: &crate::probe::FileEntry| {
            (entry.kind != FileKind::Directory).then_some((
                entry.bytes,
                entry.modified_ns,
                entry.inode,
            ))
        };
        files
            .entries
            .iter()
            .map(|(path, found)| (path.clone(), entry(found)))
            .collect()
    };
    let (mut before, mut after) = (contents(before), contents(after));
    for files in [&mut before, &mut after] {
        files.remove(&Path::new("work").join(CUFILE_LOG));
    }
    let mut wrong = Vec::new();
    for (path, entry) in &after {
        match before.get(path) {
            None => wrong.push(format!(
                "{} appeared outside the offload directory",
                path.display()
            )),
            Some(known) if known != entry => wrong.push(format!(
                "{} changed outside the offload directory",
                path.display()
            )),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    wrong.extend(gone.map(|path| {
        format!(
            "{} vanished from outside the offload directory",
            path.display()
        )
    }));
    wrong
}

/// Counts by name, at the baseline and after everything was dropped, where they differ in a way that matters.
fn differences<K: Ord + Display>(
    run: &Run,
    what: &str,
    counts: impl Fn(&Reading) -> Option<BTreeMap<K, u64>>,
    matters: impl Fn(u64, u64) -> bool,
) -> Vec<String> {
    let (Some(baseline), Some(settled)) = (&run.baseline, &run.settled) else {
        return Vec::new();
    };
    let (Some(baseline), Some(settled)) = (counts(baseline), counts(settled)) else {
        return Vec::new();
    };
    let names: std::collections::BTreeSet<&K> = baseline.keys().chain(settled.keys()).collect();
    let mut wrong = Vec::new();
    for name in names {
        let count = |of: &BTreeMap<K, u64>| of.get(name).copied().unwrap_or(0);
        let (before, after) = (count(&baseline), count(&settled));
        if matters(after, before) {
            wrong.push(format!(
                "{after} {what} {name} after everything was dropped, {before} at the baseline"
            ));
        }
    }
    wrong
}

/// Whether resources are back: what settling waits for. Exactly the resource invariants, on two readings.
#[must_use]
pub(crate) fn is_back_at_baseline(run: &Run) -> bool {
    let checks: [(InvariantId, super::Check); 5] = [
        (InvariantId::Vram, vram),
        (InvariantId::Fd, fd),
        (InvariantId::Maps, maps),
        (InvariantId::Files, files),
        (InvariantId::Threads, threads),
    ];
    checks.iter().all(|(_, check)| check(run).is_empty())
}
