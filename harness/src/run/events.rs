//! What happens around the subject: limits, a volume that fills up, a process beside it.

use super::session::{Session, Stop};
use crate::{
    case::Action,
    error::HarnessError,
    observation::{Outcome, Phase},
    world::{self, Event},
};
use nix::{
    fcntl::{FallocateFlags, OFlag, fallocate, open},
    sys::{stat::Mode, statvfs::statvfs},
};
use std::{fs, path::Path};

/// Somebody else's file on the small volume.
const BALLAST_NAME: &str = "ballast";

/// Filesystems take some blocks more than a file has.
const FILL_TRIES: u32 = 64;

impl Session<'_> {
    /// Does what an event asks for; ends and starts of the subject are steps of their own (`crash.rs`).
    pub(super) fn happen(&mut self, event: &Event) -> Result<Outcome, Stop> {
        match event {
            Event::Limit { resource, headroom } => {
                let headroom = world::lower(self.subject.pid(), *resource, *headroom)?;
                self.limited.push(headroom);
            }
            Event::LiftLimits => self.lift_limits()?,
            Event::FillVolume { leave_bytes } => self.fill_volume(*leave_bytes)?,
            Event::ClearVolume => self.clear_volume()?,
            Event::Beside(action) => return self.beside(action),
            Event::Kill(_) | Event::Restart | Event::KillAtStart { .. } => {}
        }
        Ok(Outcome::Done)
    }

    /// Everything around the subject as it was at the baseline.
    pub(super) fn restore_world(&mut self) -> Result<(), Stop> {
        self.lift_limits()?;
        self.clear_volume()?;
        self.dismiss_neighbour()
    }

    fn lift_limits(&mut self) -> Result<(), Stop> {
        // The first one lowered has the limit of the start.
        for headroom in std::mem::take(&mut self.limited).iter().rev() {
            world::lift(self.subject.pid(), headroom)?;
        }
        Ok(())
    }

    fn fill_volume(&mut self, leave_bytes: u64) -> Result<(), Stop> {
        let volume = self.sandbox.volume_view().ok_or_else(|| {
            HarnessError::Case("only a small volume can be filled; give the case one".into())
        })?;
        let path = volume.join(BALLAST_NAME);
        let full = HarnessError::path("fill the volume with", &path);
        fill(&volume, &path, leave_bytes).map_err(|error| full(error.into()))?;
        Ok(())
    }

    fn clear_volume(&mut self) -> Result<(), Stop> {
        if let Some(volume) = self.sandbox.volume_view() {
            let path = volume.join(BALLAST_NAME);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(HarnessError::path("remove", &path)(error).into()),
            }
        }
        Ok(())
    }

    /// Whether a step is the subject's end or a new start.
    pub(super) fn is_crash(action: &Action) -> bool {
        matches!(
            action,
            Action::World(Event::Kill(_) | Event::Restart | Event::KillAtStart { .. })
        )
    }

    /// A crash step; nothing for all other steps.
    pub(super) fn crash(&mut self, phase: Phase, action: &Action) -> Result<(), Stop> {
        match action {
            Action::World(Event::Kill(kill)) => self.kill(phase, action, kill),
            Action::World(Event::Restart) => self.restart(phase, action),
            Action::World(Event::KillAtStart { signal, when }) => {
                self.kill_at_start(phase, action, *signal, *when)
            }
            _ => Ok(()),
        }
    }
}

/// Grows the file until no more than `leave_bytes` are free on its volume.
fn fill(volume: &Path, path: &Path, leave_bytes: u64) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let mut length = 0;
    for _ in 0..FILL_TRIES {
        let space = statvfs(volume)?;
        let free = space.blocks_available() as u64 * space.fragment_size() as u64;
        let Some(more) = free.checked_sub(leave_bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        fallocate(&file, FallocateFlags::empty(), length, more.cast_signed())?;
        length += more.cast_signed();
    }
    Ok(())
}
