//! Lanes: several requests at a time, from one thread that only ever waits for answers and for moments.

use super::{
    runner::{Asked, Beginning, Bytes, Runner, Standstill, came_in_time, is_asked, is_at_work},
    session::{Session, Stop},
};
use crate::{
    case::Action,
    error::HarnessError,
    lanes::{Lane, MOST_LANES, Moment},
    observation::{LaneStep, Outcome},
    probe::WriteMeter,
    subject::{CallOutcome, Stepped, Until},
};
use spillproof_protocol::{CancelArgs, Digest, Request};
use std::{
    collections::{BTreeMap, BTreeSet},
    thread::{self, Scope},
    time::{Duration, Instant},
};

/// How often it is looked whether a moment has come.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// Twice what a subject has to be quiet at first: whoever walks a map makes no system calls.
const LONGEST_QUIET: Duration = Duration::from_millis(1);

/// How long a wish may go without an answer while those stand still who are at work: one of them may be in its way.
const WISH_BOUND: Duration = Duration::from_millis(100);

/// What became of an attempt to go on.
enum Went {
    On,
    Nowhere,
    Wrong(Outcome),
}

/// All lanes at work.
struct Together<'l, 'd, 'scope> {
    runners: Vec<Runner<'l>>,
    beginning: Beginning<'d>,
    /// The subject, while it is to stand still now and then.
    stepped: Option<Stepped<'scope>>,
    /// For how long it has to be quiet to be in the middle of something; less with every try.
    quiet: Duration,
    done: Vec<LaneStep>,
}

impl<'a> Session<'a> {
    /// Runs lanes until all are through. A finding ends them all.
    pub(super) fn together(&mut self, lanes: &[Lane]) -> Result<Outcome, Stop> {
        if lanes.len() > MOST_LANES {
            let reason = format!("{} lanes, {MOST_LANES} are the most", lanes.len());
            return Err(HarnessError::Case(reason).into());
        }
        let pid = self.subject.pid();
        let mut steps = lanes.iter().flat_map(|lane| &lane.steps);
        // To find out which takes a synchronous write.
        let meter = if steps.any(|step| matches!(step.action, Action::Wait(Moment::Written { .. })))
        {
            self.sandbox.write_meter()
        } else {
            WriteMeter::Pages
        };
        let beginning = Beginning {
            at: Instant::now(),
            bytes: Bytes {
                device: self.device,
                pid,
                used_bytes: self.device.glance_used_bytes().unwrap_or(0),
                meter,
                written_bytes: meter.read(pid)?,
            },
            status: self.status()?,
        };
        let runners = lanes.iter().map(|lane| Runner::new(&lane.steps)).collect();
        let done = thread::scope(|scope| {
            let mut all = Together {
                runners,
                beginning,
                stepped: None,
                quiet: LONGEST_QUIET,
                done: Vec::new(),
            };
            let wrong = self.run_lanes(&mut all, scope)?;
            Ok::<_, Stop>(wrong.map_or(Ok(all.done), Err))
        })?;
        match done {
            Ok(done) => {
                self.agree_on_models(lanes)?;
                Ok(Outcome::Together(done))
            }
            Err(wrong) => Ok(wrong),
        }
    }

    /// Until all lanes are through; what went wrong before.
    fn run_lanes<'d: 'scope, 'scope>(
        &mut self,
        all: &mut Together<'_, 'd, 'scope>,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<Option<Outcome>, Stop> {
        loop {
            if Standstill::wanted(&all.runners).is_none() {
                all.stepped = None;
            } else if all.stepped.is_none() {
                let stepped = self.subject.step(scope);
                all.stepped = Some(stepped.map_err(HarnessError::system("thread"))?);
            }
            // What was answered before it stood still is over.
            if all.stepped.is_some()
                && let Some(wrong) = self.take_all(all)?
            {
                return Ok(Some(wrong));
            }
            let went_on = match self.all_go_on(all)? {
                Went::On => true,
                Went::Nowhere => false,
                Went::Wrong(outcome) => return Ok(Some(outcome)),
            };
            if all.runners.iter().all(Runner::is_through) {
                return Ok(None);
            }
            if all.runners.iter().all(|runner| runner.asked.is_none()) {
                if !went_on {
                    self.go_on_in_vain(all)?;
                }
            } else if self.run_until_due(all) {
                // It stands still.
            } else if let Some(wrong) = self.take_one(all)? {
                return Ok(Some(wrong));
            }
        }
    }

    /// Lets the subject run until what it is to stand still for; false when it runs by itself, or has ended.
    fn run_until_due<'d: 'scope, 'scope>(&self, all: &mut Together<'_, 'd, 'scope>) -> bool {
        let wanted = Standstill::wanted(&all.runners);
        let (Some(stepped), Some(wanted)) = (&all.stepped, wanted) else {
            all.stepped = None;
            return false;
        };
        let mut at_the_latest = Instant::now() + self.run.case.limits.call;
        let until = match &wanted {
            Standstill::Moments(moments) => {
                let (bytes, moments) = (all.beginning.bytes, moments.clone());
                Until::Come(Box::new(move || {
                    moments.iter().any(|moment| bytes.have_come(*moment))
                }))
            }
            Standstill::Act => {
                all.quiet /= 2;
                Until::Quiet(all.quiet)
            }
            Standstill::Wish => {
                at_the_latest = Instant::now() + WISH_BOUND;
                Until::Answered
            }
        };
        let stands_still = stepped.run(until, at_the_latest);
        if !stands_still {
            all.stepped = None;
        }
        let has_taken_all = self.subject.has_taken_all();
        let runners = all.runners.iter_mut();
        for asked in runners.filter_map(|runner| runner.asked.as_mut()) {
            asked.taken_up |= has_taken_all;
            asked.first &= Instant::now() < at_the_latest;
        }
        stands_still
    }

    /// Nothing moves any more: what is waited for can no longer come, and nobody is there to whom something is done.
    fn go_on_in_vain(&mut self, all: &mut Together<'_, '_, '_>) -> Result<(), Stop> {
        for (lane, runner) in all.runners.iter_mut().enumerate() {
            if let Some(moment) = runner.awaited() {
                runner.go_past(moment, lane, false, &mut all.done);
                return Ok(());
            }
        }
        for (lane, runner) in all.runners.iter_mut().enumerate() {
            if let Some(step) = runner.next() {
                self.disturb(&step.action)?;
                self.account(&step.action, &Outcome::Done)?;
                runner.act(lane, false, &mut all.done);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Begins every step that can be begun now.
    fn all_go_on(&mut self, all: &mut Together<'_, '_, '_>) -> Result<Went, Stop> {
        let mut went = Went::Nowhere;
        loop {
            let mut went_on = false;
            for lane in 0..all.runners.len() {
                match self.go_on(all, lane)? {
                    Went::On => went_on = true,
                    Went::Nowhere => {}
                    Went::Wrong(outcome) => return Ok(Went::Wrong(outcome)),
                }
            }
            if !went_on {
                return Ok(went);
            }
            went = Went::On;
        }
    }

    /// Begins a lane's next step, if it can be begun.
    fn go_on(&mut self, all: &mut Together<'_, '_, '_>, lane: usize) -> Result<Went, Stop> {
        let Some(step) = all.runners[lane].next() else {
            return Ok(Went::Nowhere);
        };
        let request = match &step.action {
            Action::Wait(moment) => {
                if !all.beginning.has_come(*moment, &all.runners) {
                    return Ok(Went::Nowhere);
                }
                let came = match moment {
                    // What is so once the work is done is no moment of it.
                    Moment::DeviceHolds { .. }
                    | Moment::DeviceLacks { .. }
                    | Moment::Written { .. } => is_at_work(&all.runners),
                    Moment::Answered { .. } | Moment::Begun { .. } | Moment::Passed(_) => true,
                };
                all.runners[lane].go_past(*moment, lane, came, &mut all.done);
                return Ok(Went::On);
            }
            Action::Cancel { lane: other } => {
                let id = all.runners.get(*other).map_or(0, |runner| runner.last_id);
                Some(Request::Cancel(CancelArgs { id }))
            }
            Action::Together(_) => {
                return Err(HarnessError::Case("lanes within lanes".into()).into());
            }
            action => self.request_for(action, &all.beginning.status)?,
        };
        let Some(request) = request else {
            if all.runners[lane].acts() {
                if all.stepped.is_none() || !is_at_work(&all.runners) {
                    return Ok(Went::Nowhere);
                }
            } else {
                // Who else uses the device may have to wait for the subject.
                all.stepped = None;
            }
            self.disturb(&step.action)?;
            self.account(&step.action, &Outcome::Done)?;
            let in_time = is_asked(&all.runners) && !self.subject.has_answered();
            all.runners[lane].act(lane, in_time, &mut all.done);
            return Ok(Went::On);
        };
        let expected = self.expected_in_lane(&step.action)?;
        match self.subject.begin(&request, self.run.case.limits.call) {
            Ok(id) => {
                let runner = &mut all.runners[lane];
                runner.begun += 1;
                runner.last_id = id;
                runner.asked = Some(Asked {
                    id,
                    first: matches!(request, Request::Cancel(_)) && all.stepped.is_some(),
                    request,
                    started: Instant::now(),
                    expected,
                    taken_up: false,
                });
                Ok(Went::On)
            }
            Err(finding) => Ok(Went::Wrong(Outcome::Misbehaved(finding))),
        }
    }

    /// Takes every answer that has come.
    fn take_all(&mut self, all: &mut Together<'_, '_, '_>) -> Result<Option<Outcome>, Stop> {
        while all.runners.iter().any(|runner| runner.asked.is_some()) {
            match self.subject.answer(Some(Instant::now())) {
                Ok(None) => break,
                Ok(Some((id, answer))) => {
                    if let Some(wrong) = self.take(all, id, answer)? {
                        return Ok(Some(wrong));
                    }
                }
                Err(finding) => return Ok(Some(Outcome::Misbehaved(finding))),
            }
        }
        Ok(None)
    }

    /// Waits for the next answer, or until moments are looked for again.
    fn take_one(&mut self, all: &mut Together<'_, '_, '_>) -> Result<Option<Outcome>, Stop> {
        // Never while no lane waits for one.
        let waits = all.runners.iter().any(|runner| runner.awaited().is_some());
        match self
            .subject
            .answer(waits.then(|| Instant::now() + LOOK_EVERY))
        {
            Ok(None) => Ok(None),
            Ok(Some((id, answer))) => self.take(all, id, answer),
            Err(finding) => Ok(Some(Outcome::Misbehaved(finding))),
        }
    }

    /// Records an answer; what is wrong with its form ends the lanes.
    fn take(
        &mut self,
        all: &mut Together<'_, '_, '_>,
        id: u64,
        answer: CallOutcome,
    ) -> Result<Option<Outcome>, Stop> {
        let mut lanes = all.runners.iter_mut().enumerate();
        let found = lanes.find_map(|(lane, runner)| {
            let asked = runner.asked.take_if(|asked| asked.id == id)?;
            Some((lane, runner, asked))
        });
        let Some((lane, runner, asked)) = found else {
            // The client knows no other ids.
            return Ok(None);
        };
        let step = &runner.steps[runner.answered];
        runner.answered += 1;
        let number = runner.answered;
        let outcome = self.outcome(&asked.request, Ok(answer));
        if matches!(outcome, Outcome::Misbehaved(_)) {
            return Ok(Some(outcome));
        }
        self.account(&step.action, &outcome)?;
        let expected = self.decided(&step.action, &outcome, asked.expected)?;
        let landed = match (&step.action, &asked.request) {
            (Action::Cancel { lane: other }, Request::Cancel(CancelArgs { id })) => {
                let other = *other;
                let cancelled = all.runners.get(other);
                let in_time = cancelled.is_some_and(|one| came_in_time(*id, one, other, &all.done));
                all.runners[lane].landed(in_time)
            }
            _ => None,
        };
        all.done.push(LaneStep {
            lane,
            number,
            action: step.action.clone(),
            expect: step.expect.clone(),
            outcome,
            wall: asked.started.elapsed(),
            expected,
            landed,
        });
        Ok(None)
    }

    /// As [`Session::expected`]; a model that another lane is just loading has its first contents.
    fn expected_in_lane(&mut self, action: &Action) -> Result<BTreeMap<String, Digest>, Stop> {
        let (Action::Request {
            model,
            digests: true,
            ..
        }
        | Action::ReadBack { model }) = action
        else {
            return Ok(self.expected(action));
        };
        if self.shadows.contains_key(model) {
            return Ok(self.expected(action));
        }
        let shadow = crate::shadow::Shadow::new(&self.model(model)?);
        let digests = self.run.expect(&shadow, self.algorithm);
        Ok(digests.map_err(|error| HarnessError::Case(error.to_string()))?)
    }

    /// Where several lanes loaded and dropped a model, answers do not tell who was last: the subject says what it has. What it
    /// must contain is known either way.
    fn agree_on_models(&mut self, lanes: &[Lane]) -> Result<(), Stop> {
        let steps = lanes.iter().flat_map(|lane| &lane.steps);
        let touched: BTreeSet<&String> = steps
            .filter_map(|step| match &step.action {
                Action::Load { model } | Action::Drop { model } => Some(model),
                _ => None,
            })
            .collect();
        if touched.is_empty() {
            return Ok(());
        }
        let status = self.status()?;
        for model in touched {
            let is_there = status.models.iter().any(|found| found.name == *model);
            if !is_there {
                self.shadows.remove(model);
            } else if !self.shadows.contains_key(model) {
                let shadow = crate::shadow::Shadow::new(&self.model(model)?);
                self.shadows.insert(model.clone(), shadow);
            }
        }
        Ok(())
    }
}
