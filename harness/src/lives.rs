//! A case whose subject is killed has several runs, one for each subject: its lives.

use crate::{
    case::{Action, Case, CuFile, Expect, Gpu},
    crash::Deadly,
    device::DeviceReading,
    faults::Faults,
    invariants,
    observation::{LaneStep, Outcome, Run, StepRecord},
    probe::PeakVerdict,
    subject::Killed,
    world::Event,
};
use spillproof_protocol::ErrorKind;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

impl Run {
    /// A run of which nothing is known yet.
    #[must_use]
    pub fn new(case: &Case, offload_dir: PathBuf) -> Self {
        Self {
            case: case.clone(),
            staging_bytes: 0,
            open: Outcome::NotRun,
            open_wall: Duration::ZERO,
            baseline: None,
            steps: Vec::new(),
            settled: None,
            ended: None,
            aftermath: None,
            group: None,
            rules: Vec::new(),
            calls: Vec::new(),
            offload_dir,
            work_dir: PathBuf::new(),
            contents: BTreeMap::new(),
            doubts: Vec::new(),
            asides: Vec::new(),
            fired_at_end: Vec::new(),
            earlier: Vec::new(),
            beside: BTreeSet::new(),
            neighbours: BTreeSet::new(),
            skipped: None,
            infrastructure: None,
        }
    }

    /// The runs of all subjects of the case, in order: those that were killed, then this one.
    pub fn lives(&self) -> impl Iterator<Item = &Self> {
        self.earlier.iter().chain([self])
    }

    /// The end of this subject that the case asked for.
    #[must_use]
    pub fn kill(&self) -> Option<(Deadly, &Killed)> {
        self.steps.iter().find_map(StepRecord::kill)
    }

    /// Whether the subject's end was asked for.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        self.kill().is_some()
    }

    /// For each signal that was to come while a verb was worked on, whether it did.
    #[must_use]
    pub fn signals(&self) -> Vec<bool> {
        let steps = self.lives().flat_map(Self::judged_steps);
        steps.filter_map(StepRecord::landed_in_a_verb).collect()
    }

    /// For everything that was to be done to lanes at a moment that they bring, whether it was.
    #[must_use]
    pub fn moments(&self) -> Vec<bool> {
        let steps = self.lives().flat_map(Self::judged_steps);
        steps
            .flat_map(StepRecord::lane_steps)
            .filter_map(|step| step.landed)
            .collect()
    }

    /// Everything that was not measured: a run with doubts is inconclusive unless it is red anyway.
    #[must_use]
    pub fn all_doubts(&self) -> Vec<String> {
        let mut doubts: Vec<String> = self.lives().flat_map(Self::own_doubts).collect();
        let judged = self.lives().flat_map(Self::judged_steps).count();
        if self.case.open == Expect::Ok && judged < self.case.steps.len() {
            doubts.push(format!(
                "{judged} of {} steps were run",
                self.case.steps.len()
            ));
        }
        doubts.extend(self.lives().filter_map(invariants::ledger_doubt));
        doubts.extend(self.late_cancellations());
        doubts.extend(self.cufile_fault_never_met());
        doubts.extend(self.late_in_lanes());
        let idle = self.rules.iter().filter(|rule| rule.fired == 0);
        doubts.extend(idle.map(|rule| format!("a fault never happened: {rule}")));
        let landed = self.signals();
        if !landed.is_empty() && !landed.contains(&true) {
            doubts.push(format!(
                "none of {} signals came while a verb was worked on",
                landed.len()
            ));
        }
        doubts
    }

    /// Calls that all ended before anybody's wish to cancel them came show nothing of cancellation.
    fn late_cancellations(&self) -> Option<String> {
        let acts = || self.lives().flat_map(Self::acts);
        let count = acts()
            .filter(|act| matches!(act.action, Action::Cancel { .. }))
            .count();
        let came_in_time = acts().any(|act| {
            matches!(act.outcome, Outcome::Failed(error) if error.kind == ErrorKind::Cancelled)
        });
        (count > 0 && !came_in_time)
            .then(|| format!("none of {count} cancellations came while a verb was worked on"))
    }

    /// A cuFile that never came to fail as it should shows nothing of what the subject makes of it.
    fn cufile_fault_never_met(&self) -> Option<String> {
        let Gpu::Present {
            cufile: cufile @ CuFile::Present { fault: Some(_), .. },
            ..
        } = &self.case.gpu
        else {
            return None;
        };
        let steps = self.lives().flat_map(|life| &life.steps);
        let met = steps
            .map(|step| &step.after.device)
            .any(|device| match device {
                DeviceReading::Board(board) => board.cufile_faults > 0,
                DeviceReading::Absent | DeviceReading::Nvml(_) => false,
            });
        (!met).then(|| format!("the subject never met what is wrong with cuFile: {cufile}"))
    }

    /// What was done to lanes only when they were through, each time that it was tried.
    fn late_in_lanes(&self) -> Vec<String> {
        /// Where each of them was tried, and whether it ever landed.
        struct Tries<'a> {
            lanes: &'a Action,
            step: &'a LaneStep,
            places: Vec<String>,
            landed: bool,
        }
        let mut tried: Vec<Tries<'_>> = Vec::new();
        for record in self.lives().flat_map(Self::judged_steps) {
            for step in record.lane_steps() {
                let Some(landed) = step.landed else { continue };
                let same = tried.iter_mut().find(|tries| {
                    *tries.lanes == record.action
                        && (tries.step.lane, tries.step.number) == (step.lane, step.number)
                });
                match same {
                    Some(tries) => {
                        tries.places.push(record.place());
                        tries.landed |= landed;
                    }
                    None => tried.push(Tries {
                        lanes: &record.action,
                        step,
                        places: vec![record.place()],
                        landed,
                    }),
                }
            }
        }
        tried.retain(|tries| !tries.landed);
        let doubt = |tries: Tries<'_>| {
            format!(
                "{}, lane {}, {} ({}): in {} tries its moment never came while the subject was at work",
                tries.places.join(" and "),
                tries.step.lane,
                tries.step.number,
                tries.step.action.label(),
                tries.places.len()
            )
        };
        tried.into_iter().map(doubt).collect()
    }

    fn own_doubts(&self) -> Vec<String> {
        let mut doubts = self.doubts.clone();
        let Some(baseline) = &self.baseline else {
            if !self.was_killed() {
                doubts.push("no baseline was read".into());
            }
            return doubts;
        };
        let is_closing = self.case.faults.as_ref().is_some_and(Faults::is_closing);
        if self.settled.is_none() && !self.was_killed() && !is_closing {
            doubts.push("nothing was read after everything was dropped".into());
        }
        let Some(process) = &baseline.process else {
            return doubts;
        };
        let limit = invariants::limit_bytes(self, process);
        for step in self.judged_steps() {
            if let Some(peak) = &step.peak
                && peak.exceeds(limit) == PeakVerdict::Undecided
            {
                let (lower, upper) = peak.anon_shared_bounds();
                doubts.push(format!("{}: the memory peak is only known to lie between {lower} and {upper} bytes, the limit is {limit}", step.place()));
            }
        }
        let unwatched = self
            .judged_steps()
            .filter(|step| step.is_measured())
            .find(|step| step.peak.is_none() && !matches!(step.outcome, Outcome::Misbehaved(_)));
        if let Some(step) = unwatched {
            doubts.push(format!("{}: no memory peak was measured", step.place()));
        }
        doubts
    }
}

impl StepRecord {
    /// The signal that the step sent to the subject itself, and what came of it.
    #[must_use]
    pub fn kill(&self) -> Option<(Deadly, &Killed)> {
        match (&self.action, &self.outcome) {
            (Action::World(Event::Kill(kill)), Outcome::Killed(killed)) => {
                Some((kill.signal, killed))
            }
            (Action::World(Event::KillAtStart { signal, .. }), Outcome::Killed(killed)) => {
                Some((*signal, killed))
            }
            _ => None,
        }
    }

    /// What its lanes did.
    #[must_use]
    pub fn lane_steps(&self) -> &[LaneStep] {
        match &self.outcome {
            Outcome::Together(steps) => steps,
            Outcome::Done
            | Outcome::Freed(_)
            | Outcome::Served(_)
            | Outcome::ReadBack(_)
            | Outcome::Held(_)
            | Outcome::Viewed(_)
            | Outcome::Failed(_)
            | Outcome::Killed(_)
            | Outcome::Misbehaved(_)
            | Outcome::NotRun => &[],
        }
    }

    /// Whether a signal that was to come during a verb did.
    #[must_use]
    pub fn landed_in_a_verb(&self) -> Option<bool> {
        let (_, killed) = self.kill()?;
        match &self.action {
            Action::World(Event::Kill(kill)) if kill.during.is_none() => None,
            _ => Some(killed.landed),
        }
    }

    /// What is done, by whichever process.
    #[must_use]
    pub fn done(&self) -> &Action {
        match &self.action {
            Action::World(Event::Beside(action)) => action,
            action => action,
        }
    }

    /// Whether a subject is there all the time and measured.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        !matches!(
            self.action,
            Action::World(Event::Kill(_) | Event::Restart | Event::KillAtStart { .. })
        )
    }
}
