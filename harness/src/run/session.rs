//! A subject at work: from `hello` to `quit`, in the order that ARCHITECTURE.md describes.

use super::{Bench, attack::Spoils, beside::Neighbour, injection::Injection, views::HeldView};
use crate::{
    ballast::Ballast,
    case::{Action, Amount, Destinations, Expect, MIB, Pace},
    device::DeviceUnderTest,
    error::HarnessError,
    faults::Faults,
    invariants,
    observation::{Outcome, Phase, Run, StepRecord},
    probe::ProbeError,
    sandbox::Sandbox,
    settle::settle,
    shadow::Shadow,
    subject::{Subject, SubjectCommand},
    world::Headroom,
};
use spillproof_protocol::{
    Capability, DigestAlgorithm, HelloArgs, HelloReply, NoArgs, OpenArgs, PROTOCOL_VERSION, Request,
};
use std::{collections::BTreeMap, ops::Range, time::Instant};

/// The model that brings a subject to its working size before the baseline is read.
pub(super) const WARM_UP: &str = "warm-up";

/// A subject at work.
pub(super) struct Session<'a> {
    pub(super) run: &'a mut Run,
    pub(super) command: SubjectCommand,
    pub(super) subject: Subject,
    /// What its digests are made with.
    pub(super) algorithm: DigestAlgorithm,
    pub(super) device: &'a DeviceUnderTest,
    pub(super) sandbox: &'a Sandbox,
    pub(super) bench: &'a Bench,
    pub(super) injection: Option<&'a Injection>,
    /// Whether it is in the subject.
    pub(super) is_interposed: bool,
    /// Receipts that are in steps already.
    pub(super) receipts: usize,
    /// The case's own step that is done, from 0.
    pub(super) case_step: usize,
    pub(super) ballast: Option<Ballast>,
    pub(super) neighbour: Option<Neighbour>,
    /// Limits that were lowered, in order.
    pub(super) limited: Vec<Headroom>,
    pub(super) shadows: BTreeMap<String, Shadow>,
    pub(super) views: BTreeMap<String, HeldView>,
    pub(super) spoils: Spoils,
    pub(super) justified_bytes: u64,
}

/// Why driving stops early: the rest of the run could not be trusted.
pub(super) enum Stop {
    /// The subject misbehaved, or refused what it must not; it is recorded.
    Recorded,
    /// The harness failed.
    Harness(HarnessError),
}

impl From<HarnessError> for Stop {
    fn from(error: HarnessError) -> Self {
        Self::Harness(error)
    }
}

impl From<ProbeError> for Stop {
    fn from(error: ProbeError) -> Self {
        Self::Harness(error.into())
    }
}

impl Session<'_> {
    pub(super) fn drive(&mut self) -> Result<(), HarnessError> {
        match self.drive_until_stopped() {
            Ok(()) | Err(Stop::Recorded) => Ok(()),
            Err(Stop::Harness(error)) => Err(error),
        }
    }

    pub(super) fn drive_until_stopped(&mut self) -> Result<(), Stop> {
        if !self.say_hello()? {
            return Ok(());
        }
        self.run.open = self.open();
        if !self.run.open.is_success() {
            return self.after_refusal();
        }
        self.reach_baseline()?;
        for (index, step) in self.run.case.steps.clone().into_iter().enumerate() {
            self.case_step = index;
            let faulty = self.fault_steps();
            if let Some(injection) = self.injection
                && faulty.start == index
                && faulty.contains(&index)
            {
                injection.begin();
            }
            self.step(Phase::Case, step.action, step.expect)?;
            if self.is_last_fault_step() {
                self.end_faults();
            }
        }
        let faults = self.run.case.faults.as_ref();
        if !faults.is_some_and(Faults::is_closing) {
            self.second_round()?;
            self.clean_up()?;
            self.settle()?;
        } else if let Some(injection) = self.injection {
            injection.begin();
        }
        self.quit();
        self.end_faults();
        self.run.fired_at_end = self.newly_fired();
        Ok(())
    }

    /// The working size of an opened subject, and a reading of it.
    pub(super) fn reach_baseline(&mut self) -> Result<(), Stop> {
        self.warm_up()?;
        self.restore_device()?;
        let baseline = self.reading()?;
        self.justified_bytes = 0;
        self.run.baseline = Some(baseline);
        Ok(())
    }

    fn fault_steps(&self) -> Range<usize> {
        let faults = self.run.case.faults.as_ref();
        faults.map_or(0..0, |faults| faults.steps.clone())
    }

    /// Whether nothing fails any more once the present step is over.
    pub(super) fn is_last_fault_step(&self) -> bool {
        self.fault_steps().end == self.case_step + 1
    }

    pub(super) fn end_faults(&self) {
        if let Some(injection) = self.injection {
            injection.end();
        }
    }

    pub(super) fn open_request(&self) -> Request {
        let named = self.run.case.device_name.clone();
        // Whichever GPU it is, the subject sees it alone.
        let device = named.unwrap_or_else(|| "cuda:0".into());
        Request::Open(OpenArgs { device })
    }

    pub(super) fn open(&mut self) -> Outcome {
        let request = self.open_request();
        let started = Instant::now();
        let outcome = self.call(&request);
        self.run.open_wall = started.elapsed();
        outcome
    }

    /// A refused `open` must leave nothing behind. What the driver itself keeps once it was looked at is in the baseline:
    /// it is read after the first refusal, and the second one must be the same and leave nothing more.
    pub(super) fn after_refusal(&mut self) -> Result<(), Stop> {
        let Outcome::Failed(first) = &self.run.open else {
            return Ok(());
        };
        let first = first.kind;
        self.run.baseline = Some(self.reading()?);
        let again = self.open();
        if !matches!(&again, Outcome::Failed(second) if second.kind == first) {
            self.run.asides.push(("open, once more", again));
        }
        self.settle()?;
        self.quit();
        Ok(())
    }

    /// Whether the subject speaks the protocol and can do what the case needs.
    pub(super) fn say_hello(&mut self) -> Result<bool, Stop> {
        // It opens the device next, also as the successor of a dead one.
        self.make_room_for_a_context()?;
        let hello = Request::Hello(HelloArgs {
            protocol: PROTOCOL_VERSION,
        });
        let hello: HelloReply = match self.ask(&hello) {
            Ok(hello) => hello,
            Err(outcome) => {
                self.run.asides.push(("hello", outcome));
                return Ok(false);
            }
        };
        self.algorithm = hello.digest_algorithm();
        let reached = self
            .injection
            .map(|injection| injection.out_of_reach(self.subject.pid()));
        self.is_interposed = matches!(reached, Some(None));
        if let (Some(Some(reason)), Some(_)) = (reached, &self.run.case.faults) {
            self.run.doubts.push(reason);
        }
        let lacks = |needed: &&Capability| !hello.capabilities.contains(needed);
        if let Some(missing) = self.run.case.requires.iter().find(lacks) {
            self.run.skipped = Some(format!("the subject lacks the capability {missing}"));
            self.quit();
            return Ok(false);
        }
        Ok(true)
    }

    /// One whole journey of a small model, so that what is set up once is set up before the baseline.
    pub(super) fn warm_up(&mut self) -> Result<(), Stop> {
        let model = WARM_UP.to_owned();
        let free = Action::Free {
            bytes: Amount::float(1e30),
            model: None,
            to: Destinations::Any,
        };
        let request = Action::Request {
            model: model.clone(),
            workspace_bytes: MIB,
            digests: true,
        };
        let load = Action::Load {
            model: model.clone(),
        };
        let journey = [
            free,
            Action::ReadBack {
                model: model.clone(),
            },
            request.clone(),
            Action::Drop { model },
        ];
        match self.run.case.pace {
            Pace::Usual => self.watched_warm_up([load, request].into_iter().chain(journey)),
            // A request of what is resident sets up nothing that the one behind `free` does not.
            Pace::Brisk => self.brisk_warm_up([load].into_iter().chain(journey)),
        }
    }

    fn watched_warm_up(&mut self, actions: impl IntoIterator<Item = Action>) -> Result<(), Stop> {
        for action in actions {
            self.step(Phase::WarmUp, action, Expect::Ok)?;
            let last = self.run.steps.last();
            if !last.is_some_and(|step| step.outcome.is_success()) {
                return Err(Stop::Recorded);
            }
        }
        Ok(())
    }

    fn brisk_warm_up(&mut self, actions: impl IntoIterator<Item = Action>) -> Result<(), Stop> {
        let status = self.status()?;
        for action in actions {
            let Some(request) = self.request_for(&action, &status)? else {
                continue;
            };
            let outcome = self.call(&request);
            if !outcome.is_success() {
                self.run.asides.push(("warm-up", outcome));
                return Err(Stop::Recorded);
            }
        }
        Ok(())
    }

    /// With every disturbance gone, everything must be served in the same process.
    pub(super) fn second_round(&mut self) -> Result<(), Stop> {
        self.end_faults();
        self.restore_device()?;
        self.restore_world()?;
        self.spoils.give_permissions_back();
        for model in failed_loads(&self.run.steps) {
            if !self.shadows.contains_key(&model) {
                self.step(Phase::SecondRound, Action::Load { model }, Expect::Ok)?;
            }
        }
        for model in self.loaded() {
            let action = Action::Request {
                model,
                workspace_bytes: MIB,
                digests: true,
            };
            self.step(Phase::SecondRound, action, Expect::Ok)?;
        }
        if self.loaded().is_empty() && has_refused_memory(&self.run.steps) {
            // Without a model nothing else would let the subject try that again.
            let free = Action::Free {
                bytes: Amount::Unsaid,
                model: None,
                to: Destinations::Any,
            };
            self.step(Phase::SecondRound, free, Expect::Ok)?;
        }
        Ok(())
    }

    pub(super) fn clean_up(&mut self) -> Result<(), Stop> {
        for model in self.loaded() {
            self.step(Phase::CleanUp, Action::Drop { model }, Expect::Ok)?;
        }
        for view in self.views.keys().cloned().collect::<Vec<_>>() {
            self.step(Phase::CleanUp, Action::Release { view }, Expect::Ok)?;
        }
        self.spoils.take_away();
        Ok(())
    }

    pub(super) fn loaded(&self) -> Vec<String> {
        self.shadows.keys().cloned().collect()
    }

    pub(super) fn settle(&mut self) -> Result<(), Stop> {
        if self.has_settled() {
            return Ok(());
        }
        let mut failure = None;
        let bound = self.run.case.limits.settle;
        let _ = settle(bound, || match self.reading() {
            Ok(reading) => {
                self.run.settled = Some(reading);
                invariants::is_back_at_baseline(self.run).then_some(())
            }
            Err(stop) => {
                failure = Some(stop);
                Some(())
            }
        });
        failure.map_or(Ok(()), Err)
    }

    /// Whether everything was back behind the last model's drop already: no more than what a brisk run asks.
    fn has_settled(&mut self) -> bool {
        let last = self.run.steps.last();
        if self.run.case.pace != Pace::Brisk || last.is_none_or(|last| last.phase != Phase::CleanUp)
        {
            return false;
        }
        self.run.settled = self.last_reading().cloned();
        self.run.settled.is_some() && invariants::is_back_at_baseline(self.run)
    }

    pub(super) fn quit(&mut self) {
        if let outcome @ (Outcome::Failed(_) | Outcome::Misbehaved(_)) =
            self.call(&Request::Quit(NoArgs {}))
        {
            self.run.asides.push(("quit", outcome));
        }
    }
}

/// Models whose last load met an error of a call and failed: their names have to be free again.
fn failed_loads(steps: &[StepRecord]) -> Vec<String> {
    let mut failed = BTreeMap::new();
    for step in steps {
        if let Action::Load { model } = &step.action {
            let met_error = step.fired.iter().any(|fired| fired.error.is_some());
            let has_failed = matches!(step.outcome, Outcome::Failed(_));
            failed.insert(model.clone(), has_failed && met_error);
        }
    }
    failed.retain(|_, has_failed| *has_failed);
    failed.into_keys().collect()
}

/// Whether the driver was made to refuse device memory that was given back to it.
fn has_refused_memory(steps: &[StepRecord]) -> bool {
    let frees = ["cuMemFree", "cuMemFreeAsync"];
    let mut fired = steps.iter().flat_map(|step| &step.fired);
    fired.any(|fired| fired.error.is_some() && frees.contains(&fired.site.site().name))
}
