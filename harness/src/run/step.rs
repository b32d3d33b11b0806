//! One step: what is asked or done, what came back, and what the harness makes of it.

use super::session::{Session, Stop, WARM_UP};
use crate::{
    case::{Action, Expect, MIB, Model, Pace},
    error::HarnessError,
    faults::Fired,
    observation::{Outcome, Phase, Reading, StepRecord},
    probe::{PeakWatch, ProbeError, Uss},
    shadow::Shadow,
    world::Event,
};
use spillproof_protocol::{
    Digest, Dtype, ErrorKind, Fill, Manifest, RequestReply, StatusReply, Storage, Tensor,
};
use std::{collections::BTreeMap, time::Instant};

impl Session<'_> {
    pub(super) fn step(
        &mut self,
        phase: Phase,
        action: Action,
        expect: Expect,
    ) -> Result<(), Stop> {
        if Self::is_crash(&action) {
            return self.crash(phase, &action);
        }
        let (before, status_before) = self.standing()?;
        let lacks_model = self.run.case.faults.is_some()
            && action
                .needed_model()
                .is_some_and(|model| !self.shadows.contains_key(model));
        let request = match lacks_model {
            true => None,
            false => self.request_for(&action, &status_before)?,
        };
        let mut expected = self.expected(&action);
        let watch = PeakWatch::start(self.subject.pid(), self.uss());
        let started = Instant::now();
        let outcome = match &request {
            Some(request) => self.call(request),
            // A fault kept it from being loaded.
            None if lacks_model => Outcome::NotRun,
            None => self.disturb(&action)?,
        };
        let wall = started.elapsed();
        let peak = watch.and_then(PeakWatch::finish);
        let number = self.step_number();
        if let Action::World(Event::Beside(action)) = &action {
            expected = self.expected_beside(action);
        }
        let peak = match peak {
            Ok(peak) => Some(peak),
            Err(ProbeError::Gone { .. }) if matches!(outcome, Outcome::Misbehaved(_)) => None,
            Err(error) => {
                self.run
                    .doubts
                    .push(format!("step {number}: no memory peak: {error}"));
                None
            }
        };
        self.account(&action, &outcome)?;
        expected = self.decided(&action, &outcome, expected)?;
        let misbehaved = matches!(outcome, Outcome::Misbehaved(_));
        let (after, status_after) = if misbehaved {
            (self.device_only_reading()?, None)
        } else {
            let status = self.status()?;
            (self.reading()?, Some(status))
        };
        self.forget_dropped(&action, status_after.as_ref());
        let fired = self.newly_fired();
        if !fired.is_empty() {
            // What was written in vain is written again.
            self.justified_bytes += self.rewritten_bytes()?;
        }
        self.run.steps.push(StepRecord {
            number,
            phase,
            action,
            expect,
            outcome,
            fired,
            wall,
            before,
            after,
            status_before: Some(status_before),
            status_after,
            peak,
            expected,
            justified_bytes: self.justified_bytes,
        });
        self.check_ballast()?;
        if misbehaved {
            Err(Stop::Recorded)
        } else {
            Ok(())
        }
    }

    /// What was read behind the step before is what there is before this one: the subject was asked for nothing since.
    fn standing(&mut self) -> Result<(Reading, StatusReply), Stop> {
        let reading = match self.last_reading() {
            Some(last) => last.clone(),
            None => self.reading()?,
        };
        let status = self
            .run
            .steps
            .last()
            .and_then(|last| last.status_after.clone());
        let status = match status {
            Some(status) => status,
            None => self.status()?,
        };
        Ok((reading, status))
    }

    /// What was read last, if the subject lived.
    pub(super) fn last_reading(&self) -> Option<&Reading> {
        let last = match self.run.steps.last() {
            Some(last) => Some(&last.after),
            None => self.run.baseline.as_ref(),
        };
        last.filter(|last| last.process.is_some())
    }

    fn uss(&self) -> Uss {
        match self.run.case.pace {
            Pace::Usual => Uss::Measured,
            Pace::Brisk => Uss::Skipped,
        }
    }

    /// A model that is gone although its drop failed is not there any more.
    fn forget_dropped(&mut self, action: &Action, status: Option<&StatusReply>) {
        if let (Action::Drop { model }, Some(status)) = (action, status)
            && !status.models.iter().any(|there| there.name == *model)
        {
            self.shadows.remove(model);
        }
    }

    /// Receipts that are in no step yet.
    pub(super) fn newly_fired(&mut self) -> Vec<Fired> {
        let fired = self
            .injection
            .map_or_else(Vec::new, |injection| injection.fired_since(self.receipts));
        self.receipts += fired.len();
        fired
    }

    /// Keeps the harness's own idea of the models up to date.
    pub(super) fn account(&mut self, action: &Action, outcome: &Outcome) -> Result<(), Stop> {
        let broken = |error: crate::shadow::ShadowError| HarnessError::Case(error.to_string());
        match action {
            // A load may have written before it failed.
            Action::Load { model } => {
                let shadow = Shadow::new(&self.model(model)?);
                self.justified_bytes += shadow.file_bytes().map_err(broken)?;
                if outcome.is_success() {
                    self.shadows.insert(model.clone(), shadow);
                }
            }
            Action::Modify {
                model,
                tensor,
                fill,
            } if outcome.is_success() || self.may_have_happened(outcome) => {
                let shadow = self.shadows.get_mut(model);
                let shadow = shadow
                    .ok_or_else(|| HarnessError::Case(format!("model {model:?} is not loaded")))?;
                let modified = match outcome.is_success() {
                    true => shadow.modify(tensor, fill),
                    false => shadow.modify_perhaps(tensor, fill),
                };
                self.justified_bytes += modified.map_err(broken)?;
            }
            Action::Drop { model } if outcome.is_success() => {
                self.shadows.remove(model);
            }
            Action::Hold {
                model,
                tensor,
                view,
            } => self.hold(model, tensor, view, outcome)?,
            Action::Release { view } if outcome.is_success() => {
                self.views.remove(view);
            }
            Action::Attack(_) => self.justified_bytes += self.rewritten_bytes()?,
            // What had not left yet leaves another time, and is written from its beginning.
            Action::Free { .. } | Action::Request { .. } if is_cancelled(outcome) => {
                self.justified_bytes += self.rewritten_bytes()?;
            }
            Action::Modify { .. }
            | Action::Drop { .. }
            | Action::Request { .. }
            | Action::Free { .. }
            | Action::ReadBack { .. }
            | Action::Ballast { .. }
            | Action::ReleaseBallast
            | Action::World(_)
            | Action::ReadHeld { .. }
            | Action::Release { .. }
            | Action::Together(_)
            | Action::Wait(_)
            | Action::Cancel { .. } => {}
        }
        Ok(())
    }

    /// A call that a fault or its cancellation ended leaves the old state or the new one.
    fn may_have_happened(&self, outcome: &Outcome) -> bool {
        let has_failed = matches!(outcome, Outcome::Failed(_));
        (has_failed && self.run.case.faults.is_some()) || is_cancelled(outcome)
    }

    /// What an answer must be: what a failed call left is decided by the first digests that show it.
    pub(super) fn decided(
        &mut self,
        action: &Action,
        outcome: &Outcome,
        expected: BTreeMap<String, Digest>,
    ) -> Result<BTreeMap<String, Digest>, Stop> {
        let broken = |error: crate::shadow::ShadowError| HarnessError::Case(error.to_string());
        match (action, outcome) {
            (Action::Request { model, .. }, Outcome::Served(RequestReply { digests, .. }))
            | (Action::ReadBack { model }, Outcome::ReadBack(digests)) => {
                let Some(shadow) = self.shadows.get_mut(model) else {
                    return Ok(expected);
                };
                if !shadow.is_undecided() || digests.is_empty() {
                    return Ok(expected);
                }
                let algorithm = self.algorithm;
                shadow.observe(digests, algorithm).map_err(broken)?;
                Ok(self.run.expect(shadow, algorithm).map_err(broken)?)
            }
            (Action::ReadHeld { view }, Outcome::Viewed(digest)) => {
                Ok(self.decided_view(view, digest))
            }
            _ => Ok(expected),
        }
    }

    pub(super) fn expected(&mut self, action: &Action) -> BTreeMap<String, Digest> {
        if let Action::ReadHeld { view } = action {
            return self.expected_of_view(view);
        }
        let (Action::Request {
            model,
            digests: true,
            ..
        }
        | Action::ReadBack { model }) = action
        else {
            return BTreeMap::new();
        };
        let shadow = self.shadows.get(model);
        let digests = shadow.map(|shadow| self.run.expect(shadow, self.algorithm));
        match digests {
            Some(Ok(digests)) => digests,
            Some(Err(error)) => {
                self.run
                    .doubts
                    .push(format!("model {model}: no expected digests: {error}"));
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        }
    }

    pub(super) fn model(&self, name: &str) -> Result<Model, HarnessError> {
        if name == WARM_UP {
            return Ok(warm_up_model(self.run.case.pace));
        }
        self.run
            .case
            .model(name)
            .cloned()
            .ok_or_else(|| HarnessError::Case(format!("there is no model {name:?}")))
    }
}

fn is_cancelled(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(error) if error.kind == ErrorKind::Cancelled)
}

fn warm_up_model(pace: Pace) -> Model {
    let sizes: &[u64] = match pace {
        Pace::Usual => &[MIB, 3 * MIB, 1000],
        Pace::Brisk => &[64 << 10, 1000],
    };
    let mut manifest = Manifest {
        storages: Vec::new(),
        tensors: Vec::new(),
    };
    for (index, bytes) in sizes.iter().copied().enumerate() {
        let name = format!("w{index}");
        manifest.storages.push(Storage {
            name: name.clone(),
            bytes,
            fill: Fill::Seed(index as u64),
        });
        manifest.tensors.push(Tensor {
            name: name.clone(),
            dtype: Dtype::U8,
            shape: vec![bytes],
            strides: None,
            storage: name,
            byte_offset: 0,
        });
    }
    Model {
        name: WARM_UP.into(),
        manifest,
        file: None,
    }
}
