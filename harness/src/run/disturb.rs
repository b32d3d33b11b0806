//! What happens beside the subject.

use super::session::{Session, Stop};
use crate::{
    ballast::{Ballast, Left},
    case::{Action, Gpu},
    device::DeviceUnderTest,
    error::HarnessError,
    observation::Outcome,
    settle::settle,
};
use std::time::Duration;

/// A real driver gives memory out in units of this many bytes, so that much more than asked may stay free.
const DRIVER_UNIT_BYTES: u64 = 2 << 20;

/// A real driver gives back late what others let go of.
const LEAVING_BOUND: Duration = Duration::from_millis(500);

impl Session<'_> {
    /// Does what an action asks for beside the subject; nothing for the subject's own actions.
    pub(super) fn disturb(&mut self, action: &Action) -> Result<Outcome, Stop> {
        match action {
            Action::Ballast { leave_bytes } => {
                // What is held in pieces leaves remains that cannot be had.
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
                self.check_ballast()?;
                self.ballast = None;
                Ok(())
            }
        }
    }

    /// A ballast that is gone has given back what the subject was to do without.
    pub(super) fn check_ballast(&mut self) -> Result<(), HarnessError> {
        self.ballast.as_mut().map_or(Ok(()), Ballast::check)
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
        let enough = |left: &Left| left.free_bytes <= leave_bytes + unit;
        let mut left = ballast.leave(leave_bytes);
        settle(LEAVING_BOUND, || match &left {
            Ok(found) if !enough(found) => {
                left = ballast.leave(leave_bytes);
                None
            }
            Ok(_) | Err(_) => Some(()),
        });
        let left = left?;
        if !enough(&left) && !left.exhausted {
            self.run.doubts.push(format!(
                "the ballast left {} bytes of device memory free, {leave_bytes} were wanted",
                left.free_bytes
            ));
        }
        Ok(())
    }
}
