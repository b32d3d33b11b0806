//! What happens beside the subject.

use super::session::{Session, Stop};
use crate::{
    ballast::Ballast,
    case::{Action, Gpu},
    device::DeviceUnderTest,
    observation::Outcome,
    settle::settle,
};
use std::time::Duration;

/// A real driver gives memory out in units of this many bytes, so that much more than asked may stay free.
const DRIVER_UNIT_BYTES: u64 = 2 << 20;

/// A real driver gives back late what others let go of.
const LEAVING_BOUND: Duration = Duration::from_secs(2);

impl Session<'_> {
    /// Does what an action asks for beside the subject; nothing for the subject's own actions.
    pub(super) fn disturb(&mut self, action: &Action) -> Result<Outcome, Stop> {
        match action {
            Action::Ballast { leave_bytes } => {
                // From a driver that gave memory out and took it back piece by piece the last few MiB cannot be had.
                if let Some(ballast) = &mut self.ballast {
                    ballast.make_room(u64::MAX)?;
                }
                self.leave(*leave_bytes)?;
            }
            Action::ReleaseBallast => self.restore_device()?,
            Action::World(event) => return self.happen(event),
            Action::Attack(attack) => self.attack(attack)?,
            Action::Together(lanes) => return self.together(lanes),
            Action::Load { .. }
            | Action::Request { .. }
            | Action::Modify { .. }
            | Action::Free { .. }
            | Action::ReadBack { .. }
            | Action::Drop { .. }
            | Action::Hold { .. }
            | Action::ReadHeld { .. }
            | Action::Release { .. }
            | Action::Wait(_)
            | Action::Cancel { .. } => {}
        }
        Ok(Outcome::Done)
    }

    /// The device as the case describes it: an emulated one has its size, a real one is made small by the ballast.
    pub(super) fn restore_device(&mut self) -> Result<(), Stop> {
        match (self.device, &self.run.case.gpu) {
            (DeviceUnderTest::Cuda(_), Gpu::Present { vram_bytes, .. }) => self.leave(*vram_bytes),
            (DeviceUnderTest::Cuda(_), Gpu::Absent)
            | (DeviceUnderTest::Absent { .. } | DeviceUnderTest::Emulated(_), _) => {
                self.ballast = None;
                Ok(())
            }
        }
    }

    fn leave(&mut self, leave_bytes: u64) -> Result<(), Stop> {
        let ballast = match &mut self.ballast {
            Some(ballast) => ballast,
            none @ None => {
                let ballast = Ballast::start(&self.bench.ballast, 0, &self.device.environment())?;
                none.insert(ballast)
            }
        };
        let unit = match self.device {
            DeviceUnderTest::Absent { .. } | DeviceUnderTest::Emulated(_) => 0,
            DeviceUnderTest::Cuda(_) => DRIVER_UNIT_BYTES,
        };
        let mut left = Ok(0);
        settle(LEAVING_BOUND, || {
            left = ballast.leave(leave_bytes);
            let done = !matches!(left, Ok(free) if free > leave_bytes + unit);
            done.then_some(())
        });
        let free = left?;
        if free > leave_bytes + unit {
            self.run.doubts.push(format!(
                "the ballast left {free} bytes of device memory free, {leave_bytes} were wanted"
            ));
        }
        Ok(())
    }
}
