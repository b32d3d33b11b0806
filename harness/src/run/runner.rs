//! A lane at work: what it has asked, what it waits for, and whether that has come.

use crate::{
    case::{Action, Expect, Step},
    device::DeviceUnderTest,
    lanes::Moment,
    observation::{LaneStep, Outcome},
    probe::WriteMeter,
    world::Event,
};
use spillproof_protocol::{Digest, ErrorKind, Request, StatusReply};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A lane at work.
pub(super) struct Runner<'l> {
    pub(super) steps: &'l [Step],
    /// Steps that have been begun.
    pub(super) begun: usize,
    /// Steps that are over.
    pub(super) answered: usize,
    pub(super) asked: Option<Asked>,
    /// What it asked last.
    pub(super) last_id: u64,
    /// Whether the moment that it waited for last came while others were at work; nothing before any that they bring.
    pub(super) moment_came: Option<bool>,
}

/// A request that has not been answered yet.
pub(super) struct Asked {
    pub(super) id: u64,
    pub(super) request: Request,
    pub(super) started: Instant,
    pub(super) expected: BTreeMap<String, Digest>,
    /// The subject has been seen to work since.
    pub(super) taken_up: bool,
    /// It is to be answered before anybody goes on who stands still.
    pub(super) first: bool,
}

/// What was when the lanes began.
pub(super) struct Beginning<'d> {
    pub(super) at: Instant,
    pub(super) bytes: Bytes<'d>,
    pub(super) status: StatusReply,
}

/// Bytes where lanes wait for them, when they began.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'d> {
    pub(super) device: &'d DeviceUnderTest,
    pub(super) pid: u32,
    /// Of everybody: nobody else takes or gives back any meanwhile.
    pub(super) used_bytes: u64,
    pub(super) meter: WriteMeter,
    pub(super) written_bytes: u64,
}

/// For what the subject is to stand still.
pub(super) enum Standstill {
    /// Moments that its doing brings.
    Moments(Vec<Moment>),
    /// Something that is done to what it is at.
    Act,
    /// A wish that it has to take note of before it works on.
    Wish,
}

impl Bytes<'_> {
    /// Whether so many have come. What cannot be read has not: the process may have ended.
    pub(super) fn have_come(&self, moment: Moment) -> bool {
        let used = || self.device.glance_used_bytes();
        match moment {
            Moment::DeviceHolds { more_bytes } => {
                used().is_some_and(|used| used >= self.used_bytes + more_bytes)
            }
            Moment::DeviceLacks { fewer_bytes } => {
                used().is_some_and(|used| used + fewer_bytes <= self.used_bytes)
            }
            Moment::Written { bytes } => self
                .meter
                .read(self.pid)
                .is_ok_and(|written| written >= self.written_bytes + bytes),
            Moment::Answered { .. } | Moment::Begun { .. } | Moment::Passed(_) => false,
        }
    }
}

impl Beginning<'_> {
    pub(super) fn has_come(&self, moment: Moment, runners: &[Runner<'_>]) -> bool {
        let of = |lane: usize, count: fn(&Runner<'_>) -> usize| {
            runners.get(lane).map_or(usize::MAX, count)
        };
        match moment {
            Moment::Answered { lane, steps } => of(lane, |runner| runner.answered) >= steps,
            Moment::Begun { lane, steps } => of(lane, |runner| runner.begun) >= steps,
            Moment::DeviceHolds { .. } | Moment::DeviceLacks { .. } | Moment::Written { .. } => {
                self.bytes.have_come(moment)
            }
            Moment::Passed(time) => self.at.elapsed() >= time,
        }
    }
}

impl Standstill {
    /// For what the subject has to stand still now, if for anything.
    pub(super) fn wanted(runners: &[Runner<'_>]) -> Option<Self> {
        let mut asked = runners.iter().filter_map(|runner| runner.asked.as_ref());
        if asked.any(|asked| asked.first) {
            return Some(Self::Wish);
        }
        if runners.iter().any(Runner::acts) {
            return Some(Self::Act);
        }
        let moments = runners.iter().filter_map(Runner::awaited);
        let fleeting: Vec<Moment> = moments.filter(Moment::is_fleeting).collect();
        (!fleeting.is_empty()).then_some(Self::Moments(fleeting))
    }
}

/// Whether the subject has something to answer.
pub(super) fn is_asked(runners: &[Runner<'_>]) -> bool {
    let mut asked = runners.iter().filter_map(|runner| runner.asked.as_ref());
    asked.any(|asked| !asked.cancels())
}

/// Whether the subject has something to answer that it has begun.
pub(super) fn is_at_work(runners: &[Runner<'_>]) -> bool {
    let mut asked = runners.iter().filter_map(|runner| runner.asked.as_ref());
    asked.any(|asked| asked.taken_up && !asked.cancels())
}

/// Whether a wish to end the request `id` of a lane came before that was through; `done` holds what was answered before the wish.
pub(super) fn came_in_time(
    id: u64,
    lane: &Runner<'_>,
    lane_number: usize,
    done: &[LaneStep],
) -> bool {
    if lane.asked.as_ref().is_some_and(|asked| asked.id == id) {
        return true;
    }
    let mut answers = done.iter().rev();
    let last = answers.find(|step| step.lane == lane_number && step.number == lane.answered);
    last.is_some_and(|step| {
        matches!(&step.outcome, Outcome::Failed(error) if error.kind == ErrorKind::Cancelled)
    })
}

impl Asked {
    pub(super) fn cancels(&self) -> bool {
        matches!(self.request, Request::Cancel(_))
    }
}

impl<'l> Runner<'l> {
    pub(super) fn new(steps: &'l [Step]) -> Self {
        Self {
            steps,
            begun: 0,
            answered: 0,
            asked: None,
            last_id: 0,
            moment_came: None,
        }
    }

    pub(super) fn is_through(&self) -> bool {
        self.answered == self.steps.len()
    }

    /// The next step, unless one is under way.
    pub(super) fn next(&self) -> Option<&'l Step> {
        match self.asked {
            Some(_) => None,
            None => self.steps.get(self.answered),
        }
    }

    pub(super) fn awaited(&self) -> Option<Moment> {
        match self.next()?.action {
            Action::Wait(moment) => Some(moment),
            _ => None,
        }
    }

    /// Whether its next step is done to what others are at, by nobody who needs the device: a subject that stands still may have it locked.
    pub(super) fn acts(&self) -> bool {
        self.next().is_some_and(|step| match &step.action {
            Action::Attack(_) => true,
            Action::World(event) => match event {
                Event::Limit { .. }
                | Event::LiftLimits
                | Event::FillVolume { .. }
                | Event::ClearVolume => true,
                Event::Beside(_) | Event::Kill(_) | Event::Restart | Event::KillAtStart { .. } => {
                    false
                }
            },
            Action::Ballast { .. }
            | Action::ReleaseBallast
            | Action::Cancel { .. }
            | Action::Load { .. }
            | Action::Request { .. }
            | Action::Modify { .. }
            | Action::Free { .. }
            | Action::ReadBack { .. }
            | Action::Drop { .. }
            | Action::Hold { .. }
            | Action::ReadHeld { .. }
            | Action::Release { .. }
            | Action::Together(_)
            | Action::Wait(_) => false,
        })
    }

    /// Counts a wait that is over; `came` while others were at work, or it could not come any more.
    pub(super) fn go_past(
        &mut self,
        moment: Moment,
        lane: usize,
        came: bool,
        done: &mut Vec<LaneStep>,
    ) {
        self.moment_came = moment.is_brought().then_some(came);
        self.pass(lane, None, done);
    }

    /// Counts a step that was done beside the subject, `in_time` when others were at work.
    pub(super) fn act(&mut self, lane: usize, in_time: bool, done: &mut Vec<LaneStep>) {
        let landed = self.landed(in_time);
        self.pass(lane, landed, done);
    }

    /// Of something that is done to others, for [`LaneStep::landed`].
    pub(super) fn landed(&mut self, in_time: bool) -> Option<bool> {
        self.moment_came.take().map(|came| came && in_time)
    }

    /// Counts a step that needs no answer.
    fn pass(&mut self, lane: usize, landed: Option<bool>, done: &mut Vec<LaneStep>) {
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
            landed,
        });
    }
}

#[cfg(test)]
mod tests {
    //! Whether something was done to lanes in time.
    use super::*;
    use spillproof_protocol::{ErrorReply, NoArgs};

    fn asks(id: u64) -> Runner<'static> {
        let mut runner = Runner::new(&[]);
        runner.asked = Some(Asked {
            id,
            request: Request::Status(NoArgs {}),
            started: Instant::now(),
            expected: BTreeMap::new(),
            taken_up: false,
            first: false,
        });
        runner
    }

    fn answered(outcome: Outcome) -> LaneStep {
        LaneStep {
            lane: 3,
            number: 1,
            action: Action::ReleaseBallast,
            expect: Expect::Ok,
            outcome,
            wall: Duration::ZERO,
            expected: BTreeMap::new(),
            landed: None,
        }
    }

    #[test]
    fn a_wish_came_in_time_when_it_was_answered_first_or_did_its_work() {
        assert!(came_in_time(7, &asks(7), 3, &[]));
        let mut through = Runner::new(&[]);
        through.answered = 1;
        let failure = |kind| {
            Outcome::Failed(ErrorReply {
                kind,
                message: String::new(),
            })
        };
        let in_time = |outcome| came_in_time(7, &through, 3, &[answered(outcome)]);
        assert!(in_time(failure(ErrorKind::Cancelled)));
        assert!(!in_time(failure(ErrorKind::Io)));
        assert!(!in_time(Outcome::Done));
        // What it asked next is not what was to end.
        assert!(!came_in_time(6, &asks(7), 3, &[]));
    }

    #[test]
    fn what_has_not_been_taken_up_is_not_at_work() {
        let mut runners = [asks(1)];
        assert!(is_asked(&runners) && !is_at_work(&runners));
        runners[0].asked.as_mut().unwrap().taken_up = true;
        assert!(is_at_work(&runners));
        let cancel = Request::Cancel(spillproof_protocol::CancelArgs { id: 1 });
        runners[0].asked.as_mut().unwrap().request = cancel;
        assert!(!is_asked(&runners) && !is_at_work(&runners));
    }

    #[test]
    fn what_is_done_lands_only_when_its_moment_came_and_it_was_in_time() {
        let landed = |moment: Moment, came, in_time| {
            let mut runner = Runner::new(&[]);
            runner.go_past(moment, 0, came, &mut Vec::new());
            runner.landed(in_time)
        };
        let brought = Moment::Written { bytes: 1 };
        assert_eq!(landed(brought, true, true), Some(true));
        assert_eq!(landed(brought, false, true), Some(false));
        assert_eq!(landed(brought, true, false), Some(false));
        assert_eq!(landed(Moment::Passed(Duration::ZERO), true, true), None);
    }
}
