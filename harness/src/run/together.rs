//! Lanes: several requests at a time, from one thread that only ever waits for answers and for moments.

use super::session::{Session, Stop};
use crate::{
    case::{Action, Expect, Step},
    error::HarnessError,
    lanes::{Lane, MOST_LANES, Moment},
    observation::{LaneStep, Outcome},
    probe::WriteMeter,
    subject::CallOutcome,
};
use spillproof_protocol::{CancelArgs, Digest, Request, StatusReply};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How often it is looked whether a moment has come.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// A lane at work.
struct Runner<'a> {
    steps: &'a [Step],
    /// Steps that have been begun.
    begun: usize,
    /// Steps that are over.
    answered: usize,
    asked: Option<Asked>,
    /// What it asked last.
    last_id: u64,
}

/// A request that has not been answered yet.
struct Asked {
    id: u64,
    request: Request,
    started: Instant,
    expected: BTreeMap<String, Digest>,
}

/// What was when the lanes began.
struct Beginning {
    at: Instant,
    device_bytes: u64,
    meter: WriteMeter,
    written_bytes: u64,
    status: StatusReply,
}

/// What lanes wait for, as it is now.
#[derive(Default)]
struct Seen {
    device_bytes: Option<u64>,
    written_bytes: Option<u64>,
}

impl Session<'_> {
    /// Runs lanes until all are through. A finding ends them all.
    pub(super) fn together(&mut self, lanes: &[Lane]) -> Result<Outcome, Stop> {
        if lanes.len() > MOST_LANES {
            let reason = format!("{} lanes, {MOST_LANES} are the most", lanes.len());
            return Err(HarnessError::Case(reason).into());
        }
        let meter = self.sandbox.write_meter();
        let beginning = Beginning {
            at: Instant::now(),
            device_bytes: self.device_bytes()?,
            meter,
            written_bytes: meter.read(self.subject.pid())?,
            status: self.status()?,
        };
        let runner = |lane| Runner {
            steps: lane,
            begun: 0,
            answered: 0,
            asked: None,
            last_id: 0,
        };
        let mut runners: Vec<Runner<'_>> =
            lanes.iter().map(|lane| runner(&lane.steps[..])).collect();
        let mut done = Vec::new();
        loop {
            let fleeting = is_fleeting(&runners);
            // Read while the subject runs: it may hold the lock of an emulated device when it stands still.
            let seen = self.seen(&runners, beginning.meter)?;
            if fleeting {
                self.subject.stand_still();
            }
            let went = self.all_go_on(&mut runners, &beginning, &seen, &mut done);
            if fleeting {
                self.subject.go_on(is_fleeting(&runners));
            }
            let went_on = match went? {
                Went::On => true,
                Went::Nowhere => false,
                Went::Wrong(outcome) => return Ok(outcome),
            };
            if runners.iter().all(Runner::is_through) {
                break;
            }
            if runners.iter().any(|runner| runner.asked.is_some()) {
                match self.subject.answer(look_again(&runners)) {
                    Ok(None) => {}
                    Ok(Some((id, answer))) => {
                        if let Some(wrong) = self.take(&mut runners, id, answer, &mut done)? {
                            return Ok(wrong);
                        }
                    }
                    Err(finding) => return Ok(Outcome::Misbehaved(finding)),
                }
            } else if !went_on {
                // Nothing moves any more: what is waited for can no longer come.
                let lane = runners.iter().position(|runner| runner.awaited().is_some());
                if let Some(lane) = lane {
                    runners[lane].pass(lane, &mut done);
                }
            }
        }
        self.agree_on_models(lanes)?;
        Ok(Outcome::Together(done))
    }

    /// Begins every step that can be begun now.
    fn all_go_on(
        &mut self,
        runners: &mut [Runner<'_>],
        beginning: &Beginning,
        seen: &Seen,
        done: &mut Vec<LaneStep>,
    ) -> Result<Went, Stop> {
        let mut went = Went::Nowhere;
        loop {
            let mut went_on = false;
            for lane in 0..runners.len() {
                match self.go_on(runners, lane, beginning, seen, done)? {
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
    fn go_on(
        &mut self,
        runners: &mut [Runner<'_>],
        lane: usize,
        beginning: &Beginning,
        seen: &Seen,
        done: &mut Vec<LaneStep>,
    ) -> Result<Went, Stop> {
        let Some(step) = runners[lane].next() else {
            return Ok(Went::Nowhere);
        };
        let request = match &step.action {
            Action::Wait(moment) => {
                if !has_come(*moment, runners, beginning, seen) {
                    return Ok(Went::Nowhere);
                }
                runners[lane].pass(lane, done);
                return Ok(Went::On);
            }
            Action::Cancel { lane: other } => {
                let id = runners.get(*other).map_or(0, |runner| runner.last_id);
                Some(Request::Cancel(CancelArgs { id }))
            }
            Action::Together(_) => {
                return Err(HarnessError::Case("lanes within lanes".into()).into());
            }
            action => self.request_for(action, &beginning.status)?,
        };
        let Some(request) = request else {
            self.disturb(&step.action)?;
            self.account(&step.action, &Outcome::Done)?;
            runners[lane].pass(lane, done);
            return Ok(Went::On);
        };
        let expected = self.expected_in_lane(&step.action)?;
        match self.subject.begin(&request, self.run.case.limits.call) {
            Ok(id) => {
                runners[lane].begun += 1;
                runners[lane].last_id = id;
                runners[lane].asked = Some(Asked {
                    id,
                    request,
                    started: Instant::now(),
                    expected,
                });
                Ok(Went::On)
            }
            Err(finding) => Ok(Went::Wrong(Outcome::Misbehaved(finding))),
        }
    }

    /// Records an answer; what is wrong with its form ends the lanes.
    fn take(
        &mut self,
        runners: &mut [Runner<'_>],
        id: u64,
        answer: CallOutcome,
        done: &mut Vec<LaneStep>,
    ) -> Result<Option<Outcome>, Stop> {
        let mut lanes = runners.iter_mut().enumerate();
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
        done.push(LaneStep {
            lane,
            number,
            action: step.action.clone(),
            expect: step.expect.clone(),
            outcome,
            wall: asked.started.elapsed(),
            expected: asked.expected,
        });
        Ok(None)
    }

    /// What a lane waits to see.
    fn seen(&self, runners: &[Runner<'_>], meter: WriteMeter) -> Result<Seen, Stop> {
        let mut seen = Seen::default();
        for moment in runners.iter().filter_map(Runner::awaited) {
            match moment {
                Moment::DeviceHolds { .. } | Moment::DeviceLacks { .. } => {
                    seen.device_bytes = Some(self.device_bytes()?);
                }
                Moment::Written { .. } => {
                    seen.written_bytes = Some(meter.read(self.subject.pid())?);
                }
                Moment::Answered { .. } | Moment::Begun { .. } | Moment::Passed(_) => {}
            }
        }
        Ok(seen)
    }

    fn device_bytes(&self) -> Result<u64, Stop> {
        let reading = self.device.reading(&[self.subject.pid()])?;
        Ok(reading.held_bytes().unwrap_or(0))
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
        let digests = shadow.digests();
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

fn has_come(moment: Moment, runners: &[Runner<'_>], beginning: &Beginning, seen: &Seen) -> bool {
    let of =
        |lane: usize, count: fn(&Runner<'_>) -> usize| runners.get(lane).map_or(usize::MAX, count);
    let device = |come: &dyn Fn(u64) -> bool| seen.device_bytes.is_some_and(come);
    match moment {
        Moment::Answered { lane, steps } => of(lane, |runner| runner.answered) >= steps,
        Moment::Begun { lane, steps } => of(lane, |runner| runner.begun) >= steps,
        Moment::DeviceHolds { more_bytes } => {
            device(&|bytes| bytes >= beginning.device_bytes + more_bytes)
        }
        Moment::DeviceLacks { fewer_bytes } => {
            device(&|bytes| bytes + fewer_bytes <= beginning.device_bytes)
        }
        Moment::Written { bytes } => seen
            .written_bytes
            .is_some_and(|written| written >= beginning.written_bytes + bytes),
        Moment::Passed(time) => beginning.at.elapsed() >= time,
    }
}

/// Whether a lane waits for what is over before it is looked for, or asks for the end of what is.
fn is_fleeting(runners: &[Runner<'_>]) -> bool {
    runners.iter().any(|runner| {
        let cancels = |asked: &Asked| matches!(asked.request, Request::Cancel(_));
        runner.asked.as_ref().is_some_and(cancels)
            || runner.awaited().is_some_and(|moment| moment.is_fleeting())
    })
}

/// When moments are looked for again, at the latest; never while no lane waits for one.
fn look_again(runners: &[Runner<'_>]) -> Option<Instant> {
    let pause = match (
        is_fleeting(runners),
        runners.iter().find_map(Runner::awaited),
    ) {
        (true, _) => Duration::ZERO,
        (false, Some(_)) => LOOK_EVERY,
        (false, None) => return None,
    };
    Some(Instant::now() + pause)
}

/// What became of an attempt to go on.
enum Went {
    On,
    Nowhere,
    Wrong(Outcome),
}

impl<'a> Runner<'a> {
    fn is_through(&self) -> bool {
        self.answered == self.steps.len()
    }

    /// The next step, unless one is under way.
    fn next(&self) -> Option<&'a Step> {
        match self.asked {
            Some(_) => None,
            None => self.steps.get(self.answered),
        }
    }

    fn awaited(&self) -> Option<Moment> {
        match self.next()?.action {
            Action::Wait(moment) => Some(moment),
            _ => None,
        }
    }

    /// Counts a step that needs no answer.
    fn pass(&mut self, lane: usize, done: &mut Vec<LaneStep>) {
        let Some(step) = self.next() else { return };
        self.begun += 1;
        self.answered += 1;
        done.push(LaneStep {
            lane,
            number: self.answered,
            action: step.action.clone(),
            expect: Expect::Ok,
            outcome: Outcome::Done,
            wall: Duration::ZERO,
            expected: BTreeMap::new(),
        });
    }
}
