//! What must hold over the death of a subject and the start of the next one in its place (F58 to F64).
//!
//! Who owns what in the offload directory is told by when it appeared: what came while the process beside was at work alone
//! is that one's. Not checked here: that two processes which work at the very same moment leave each other's files alone.

use super::{InvariantId, excuse};
use crate::{
    case::Action,
    crash::Deadly,
    device::DeviceReading,
    observation::{Run, StepRecord},
    probe::FilesReading,
    subject::ExitReport,
    world::Event,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Exit status of a program that ends by SIGTERM in its own way, as shells report it.
const TERMINATED_STATUS: i32 = 128 + 15;

/// The part of an invariant that looks at more than one subject.
pub(super) fn over_lives(run: &Run, invariant: InvariantId) -> Vec<String> {
    match invariant {
        InvariantId::Typed => run.lives().filter_map(exit).collect(),
        InvariantId::Vram => run.lives().flat_map(held_after_death).collect(),
        InvariantId::Files => {
            let terminated = run.lives().flat_map(left_by_termination);
            let orphans = successions(run).flat_map(|(dead, next)| orphans(dead, next));
            let taken = run.lives().flat_map(taken_by_the_process_beside);
            terminated.chain(orphans).chain(taken).collect()
        }
        InvariantId::Truth => successions(run)
            .filter_map(|(dead, next)| reaped(dead, next))
            .collect(),
        InvariantId::Rss
        | InvariantId::Fd
        | InvariantId::Maps
        | InvariantId::Data
        | InvariantId::Progress
        | InvariantId::Policy
        | InvariantId::Device
        | InvariantId::Threads => Vec::new(),
    }
}

/// Each subject that was killed, with the one after it.
fn successions(run: &Run) -> impl Iterator<Item = (&Run, &Run)> {
    run.lives().zip(run.lives().skip(1))
}

/// It ends by the signal, or as a program does that was asked to end; nothing else killed it.
fn exit(life: &Run) -> Option<String> {
    let step = life.steps.iter().find(|step| step.kill().is_some())?;
    let (signal, killed) = step.kill()?;
    let right = match (signal, killed.exit) {
        (_, Some(ExitReport::Signalled { signal: by, .. })) => by == signal.signal() as i32,
        (Deadly::Terminate, Some(ExitReport::Exited(status))) => {
            status == 0 || status == TERMINATED_STATUS
        }
        (Deadly::Kill, Some(ExitReport::Exited(_))) | (_, Some(ExitReport::Unkillable) | None) => {
            false
        }
    };
    let how = killed
        .exit
        .map_or_else(|| "it lives on".to_owned(), |exit| exit.to_string());
    (!right).then(|| {
        format!(
            "{}: after {} {how}, {:?} later",
            step.place(),
            signal.signal(),
            killed.wall
        )
    })
}

/// What a dead process held on the device is free again (F64).
fn held_after_death(life: &Run) -> Vec<String> {
    let (Some(_), Some(aftermath)) = (life.kill(), &life.aftermath) else {
        return Vec::new();
    };
    match &aftermath.device {
        DeviceReading::Board(board) => {
            let survivors = board.survivors.iter();
            survivors
                .map(|survivor| format!("{survivor} is still held by the process that was killed"))
                .collect()
        }
        // The library lists no dead processes; what the next subject finds is in its baseline.
        DeviceReading::Absent | DeviceReading::Nvml(_) => Vec::new(),
    }
}

/// Entries of the dead one, by path.
fn left(dead: &Run) -> Vec<PathBuf> {
    let Some(aftermath) = &dead.aftermath else {
        return Vec::new();
    };
    let paths = aftermath.offload_files.entries.keys();
    paths
        .filter(|path| !belongs_to(path, &dead.neighbours))
        .cloned()
        .collect()
}

fn belongs_to(path: &Path, top: &BTreeSet<PathBuf>) -> bool {
    path.components()
        .next()
        .is_some_and(|first| top.contains(Path::new(&first)))
}

/// SIGTERM leaves time to clean up (F59).
fn left_by_termination(life: &Run) -> Vec<String> {
    match life.kill() {
        Some((Deadly::Terminate, _)) => left(life)
            .iter()
            .map(|path| {
                format!(
                    "{} is left in the offload directory after SIGTERM",
                    path.display()
                )
            })
            .collect(),
        Some((Deadly::Kill, _)) | None => Vec::new(),
    }
}

/// The offload directory once the next subject was open.
fn opened(next: &Run) -> Option<&FilesReading> {
    let mut steps = next.steps.iter();
    let restart = steps.find(|step| matches!(step.action, Action::World(Event::Restart)))?;
    Some(&restart.after.offload_files)
}

/// What the dead one left is gone once the next one is open (E33), and what a live process owns is not (F61).
fn orphans(dead: &Run, next: &Run) -> Vec<String> {
    let (Some(there), Some(aftermath)) = (opened(next), &dead.aftermath) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    // What a fault kept from being removed is the next start's to remove.
    let due = match excuse::is_start_disturbed(next) {
        true => Vec::new(),
        false => left(dead),
    };
    for path in due {
        let before = aftermath.offload_files.entries.get(&path);
        let same = there
            .entries
            .get(&path)
            .is_some_and(|entry| before.is_some_and(|before| before.inode == entry.inode));
        if same {
            wrong.push(format!(
                "{} of the killed subject is still there after the next one opened",
                path.display()
            ));
        }
    }
    let alive = dead.neighbours.iter();
    let robbed = alive.filter(|path| !there.entries.contains_key(*path));
    wrong.extend(robbed.map(|path| {
        format!(
            "{} of the live process beside was removed by the next subject's start",
            path.display()
        )
    }));
    wrong
}

/// A start of the process beside leaves the subject's files alone.
fn taken_by_the_process_beside(life: &Run) -> Vec<String> {
    let steps = life.judged_steps();
    let beside = steps.filter(|step| matches!(step.action, Action::World(Event::Beside(_))));
    let taken = |step: &StepRecord| -> Vec<String> {
        let there = &step.after.offload_files.entries;
        let before = step.before.offload_files.entries.keys();
        let gone =
            before.filter(|path| !there.contains_key(*path) && !belongs_to(path, &life.beside));
        gone.map(|path| {
            format!(
                "{}: {} of the subject was removed by the process beside",
                step.place(),
                path.display()
            )
        })
        .collect()
    };
    beside.flat_map(taken).collect()
}

/// The next subject says that it found something exactly when something was there.
fn reaped(dead: &Run, next: &Run) -> Option<String> {
    if excuse::is_start_disturbed(next) {
        return None;
    }
    let status = next
        .steps
        .iter()
        .find_map(|step| step.status_after.as_ref())?;
    let left = left(dead).len();
    let reported = status.reaped_orphans;
    ((left > 0) != (reported > 0)).then(|| {
        format!("{left} entries were left by the killed subject, the next one reports {reported} orphans")
    })
}
