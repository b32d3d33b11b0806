//! The end of a subject by a signal, and the start of the next one in its place.

use super::session::{Session, Stop};
use crate::{
    case::{Action, Expect},
    crash::{Deadly, Kill, Moment},
    device::DeviceUnderTest,
    error::HarnessError,
    observation::{Aftermath, Outcome, Phase, Reading, Run, StepRecord},
    probe::{self, FileKind, WriteMeter},
    sandbox::Sandbox,
    subject::{Killed, Subject},
};
use spillproof_protocol::Request;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

/// A SIGKILL takes no longer than the kernel needs to take a process apart.
const END_BOUND: Duration = Duration::from_secs(20);

impl Session<'_> {
    /// Ends the subject, and reads what it left.
    pub(super) fn kill(&mut self, phase: Phase, action: &Action, kill: &Kill) -> Result<(), Stop> {
        self.hold_back_planned(kill.when);
        let before = self.reading()?;
        let status_before = self.status()?;
        let started = Instant::now();
        let outcome = match &kill.during {
            None => Outcome::Killed(self.subject.kill_idle(END_BOUND, kill.signal)),
            Some(during) => {
                let request = self.request_for(during, &status_before)?.ok_or_else(|| {
                    HarnessError::Case(format!("{}: the subject is not asked", during.label()))
                })?;
                self.kill_during(&request, kill.signal, kill.when)?
            }
        };
        // The dead one's directory is read, and the next one finds it, without what an attack took.
        self.spoils.give_permissions_back();
        let mut record = self.record(phase, action, outcome, before)?;
        record.wall = started.elapsed();
        record.status_before = Some(status_before);
        self.bury(record)
    }

    /// Starts the next subject in the dead one's place, and ends it while it opens.
    pub(super) fn kill_at_start(
        &mut self,
        phase: Phase,
        action: &Action,
        signal: Deadly,
        when: Moment,
    ) -> Result<(), Stop> {
        self.hold_back_planned(when);
        self.succeed()?;
        let before = self.device_only_reading()?;
        let started = Instant::now();
        if !self.say_hello()? {
            return Err(Stop::Recorded);
        }
        let open = self.open_request();
        let outcome = self.kill_during(&open, signal, when)?;
        self.spoils.give_permissions_back();
        let mut record = self.record(phase, action, outcome, before)?;
        record.wall = started.elapsed();
        self.bury(record)
    }

    /// Starts the next subject in the dead one's place, and brings it to its baseline.
    pub(super) fn restart(&mut self, phase: Phase, action: &Action) -> Result<(), Stop> {
        self.succeed()?;
        let before = self.device_only_reading()?;
        let started = Instant::now();
        if !self.say_hello()? {
            return Err(Stop::Recorded);
        }
        self.run.open = self.open();
        let outcome = self.run.open.clone();
        if self.is_last_fault_step() {
            self.end_faults();
            // Nothing stands in its way any more.
            if let Outcome::Failed(_) = outcome {
                self.run.open = self.open();
            }
        }
        let opened = self.run.open.is_success();
        let mut record = self.record(phase, action, outcome, before)?;
        record.wall = started.elapsed();
        if opened {
            record.status_after = Some(self.status()?);
        }
        self.run.steps.push(record);
        if opened {
            self.reach_baseline()
        } else {
            Err(Stop::Recorded)
        }
    }

    fn kill_during(
        &mut self,
        request: &Request,
        signal: Deadly,
        when: Moment,
    ) -> Result<Outcome, Stop> {
        if when == Moment::Planned {
            return self.kill_as_planned(request, signal);
        }
        let seen = Seen::now(self.device, self.sandbox, self.subject.pid())?;
        let deadline = self.run.case.limits.call.min(END_BOUND);
        let due = || seen.has_come(when);
        let killed = self.subject.kill_during(request, deadline, signal, due);
        Ok(killed.map_or_else(Outcome::Misbehaved, Outcome::Killed))
    }

    /// What the plan is for begins with the verb.
    fn hold_back_planned(&self, when: Moment) {
        if when == Moment::Planned {
            self.end_faults();
        }
    }

    fn kill_as_planned(&mut self, request: &Request, signal: Deadly) -> Result<Outcome, Stop> {
        let injection = self.injection.ok_or_else(|| {
            HarnessError::Case("a planned signal needs a fault plan that raises it".into())
        })?;
        let deadline = self.run.case.limits.call.min(END_BOUND);
        // Calls of an end that comes later, from outside, are none of the verb's.
        let came = || {
            injection.end();
            injection.has_raised(signal)
        };
        injection.begin();
        let killed = self.subject.end_during(request, deadline, signal, came);
        Ok(killed.map_or_else(Outcome::Misbehaved, Outcome::Killed))
    }

    fn record(
        &mut self,
        phase: Phase,
        action: &Action,
        outcome: Outcome,
        before: Reading,
    ) -> Result<StepRecord, Stop> {
        Ok(StepRecord {
            number: self.step_number(),
            phase,
            action: action.clone(),
            expect: Expect::Ok,
            outcome,
            fired: self.newly_fired(),
            wall: Duration::ZERO,
            before,
            after: self.device_only_reading()?,
            status_before: None,
            status_after: None,
            peak: None,
            expected: BTreeMap::new(),
            justified_bytes: self.justified_bytes,
        })
    }

    /// Reads what a subject that was killed left.
    fn bury(&mut self, record: StepRecord) -> Result<(), Stop> {
        let ended = matches!(
            &record.outcome,
            Outcome::Killed(Killed { exit: Some(_), .. })
        );
        let after = record.after.clone();
        self.run.steps.push(record);
        if !ended {
            return Err(Stop::Recorded);
        }
        self.run.aftermath = Some(Aftermath {
            offload_files: after.offload_files,
            device: after.device,
        });
        self.limited.clear();
        self.shadows.clear();
        self.views.clear();
        Ok(())
    }

    /// Starts a process in the dead one's place. What the dead one's run saw is kept aside.
    fn succeed(&mut self) -> Result<(), Stop> {
        if self.subject.exit().is_none() {
            let reason = "a subject is started anew only after it was killed";
            return Err(HarnessError::Case(reason.into()).into());
        }
        if self.run.case.world.volume.is_private() {
            let reason =
                "a private volume ends with its subject: nothing can be started anew on it";
            return Err(HarnessError::Case(reason.into()).into());
        }
        let next = Subject::spawn(
            &self.command,
            self.sandbox,
            super::with_faults(self.device.environment(), self.injection),
            super::subject_limits(&self.run.case),
        )?;
        let dead = std::mem::replace(&mut self.subject, next);
        self.run.ended = Some(dead.finish(END_BOUND));
        self.justified_bytes = 0;
        let fresh = Run::new(&self.run.case, self.run.offload_dir.clone());
        let mut dead = std::mem::replace(self.run, fresh);
        self.run.earlier = std::mem::take(&mut dead.earlier);
        self.run.work_dir = dead.work_dir.clone();
        self.run.beside = dead.beside.clone();
        dead.neighbours = self.neighbours();
        self.run.earlier.push(dead);
        Ok(())
    }

    /// Steps are numbered through all lives.
    pub(super) fn step_number(&self) -> usize {
        self.run.lives().map(|life| life.steps.len()).sum::<usize>() + 1
    }
}

/// What was seen when a verb began, and what is looked at since.
struct Seen<'a> {
    device: &'a DeviceUnderTest,
    sandbox: &'a Sandbox,
    pid: u32,
    meter: WriteMeter,
    written_bytes: u64,
    /// By everybody: nobody else allocates meanwhile.
    held_bytes: u64,
    files: BTreeSet<PathBuf>,
}

impl<'a> Seen<'a> {
    fn now(
        device: &'a DeviceUnderTest,
        sandbox: &'a Sandbox,
        pid: u32,
    ) -> Result<Self, HarnessError> {
        let meter = sandbox.write_meter();
        let seen = Self {
            device,
            sandbox,
            pid,
            meter,
            written_bytes: meter.read(pid)?,
            held_bytes: 0,
            files: BTreeSet::new(),
        };
        Ok(Self {
            held_bytes: device.glance_used_bytes().unwrap_or(0),
            files: seen.files().unwrap_or_default(),
            ..seen
        })
    }

    /// What cannot be read has not come: the process may have ended meanwhile.
    fn has_come(&self, when: Moment) -> bool {
        match when {
            Moment::Sent => true,
            // Comes by itself.
            Moment::Planned => false,
            Moment::Written { bytes } => self
                .meter
                .read(self.pid)
                .is_ok_and(|written| written - self.written_bytes >= bytes),
            Moment::Freed { bytes } => self
                .held_bytes()
                .is_some_and(|held| self.held_bytes.saturating_sub(held) >= bytes),
            Moment::Taken { bytes } => self
                .held_bytes()
                .is_some_and(|held| held.saturating_sub(self.held_bytes) >= bytes),
            Moment::Removed { files } => self
                .files()
                .is_some_and(|there| self.files.difference(&there).count() as u64 >= files),
        }
    }

    fn held_bytes(&self) -> Option<u64> {
        self.device.glance_used_bytes()
    }

    fn files(&self) -> Option<BTreeSet<PathBuf>> {
        let entries = probe::files(&self.sandbox.offload_view()).ok()?.entries;
        let files = entries.into_iter();
        Some(
            files
                .filter(|(_, entry)| entry.kind == FileKind::File)
                .map(|(path, _)| path)
                .collect(),
        )
    }
}
