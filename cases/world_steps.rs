//! Words for what surrounds a subject: its volume, its limits, its end, the process beside it.

use spillproof_harness::{
    case::{Action, Case, Expect, Step},
    crash::{Deadly, Kill, Moment},
    world::{Event, LimitedResource, Volume},
};
use spillproof_protocol::ErrorKind;

/// Where a case lives.
pub trait WorldWords: Sized {
    /// With the offload directory on this volume.
    #[must_use]
    fn on(self, volume: Volume) -> Self;
    /// With files of at most this many bytes, from the start.
    #[must_use]
    fn files_below(self, bytes: u64) -> Self;
    /// In a memory cgroup of this many bytes.
    #[must_use]
    fn in_group_of(self, bytes: u64) -> Self;
}

impl WorldWords for Case {
    fn on(mut self, volume: Volume) -> Self {
        self.world.volume = volume;
        self
    }

    fn files_below(mut self, bytes: u64) -> Self {
        self.world.file_bytes = Some(bytes);
        self
    }

    fn in_group_of(mut self, bytes: u64) -> Self {
        self.world.memory_bytes = Some(bytes);
        self
    }
}

fn happens(event: Event) -> Step {
    Step {
        action: Action::World(event),
        expect: Expect::Ok,
    }
}

/// The step may fail, with this kind only.
#[must_use]
pub fn may_fail(step: Step, kind: ErrorKind) -> Step {
    Step {
        expect: Expect::OkOrError(kind),
        ..step
    }
}

/// The subject gets no more of this than it uses now, and `headroom`.
#[must_use]
pub fn limit(resource: LimitedResource, headroom: u64) -> Step {
    happens(Event::Limit { resource, headroom })
}

/// What was limited is no longer.
#[must_use]
pub fn lift_limits() -> Step {
    happens(Event::LiftLimits)
}

/// Somebody else's file leaves only this much of the volume free, bytes.
#[must_use]
pub fn fill_volume(leave_bytes: u64) -> Step {
    happens(Event::FillVolume { leave_bytes })
}

/// That file is removed.
#[must_use]
pub fn clear_volume() -> Step {
    happens(Event::ClearVolume)
}

/// A signal during the step, at that moment; then a subject is started in the dead one's place.
#[must_use]
pub fn dies_during(signal: Deadly, step: Step, when: Moment) -> [Step; 2] {
    let kill = Kill {
        signal,
        during: Some(Box::new(step.action)),
        when,
    };
    [happens(Event::Kill(kill)), restart()]
}

/// A subject is started in a dead one's place and gets a signal while it opens.
#[must_use]
pub fn dies_at_start(signal: Deadly, when: Moment) -> Step {
    happens(Event::KillAtStart { signal, when })
}

/// A subject is started in a dead one's place.
#[must_use]
pub fn restart() -> Step {
    happens(Event::Restart)
}

/// A signal while nothing is asked; then a subject is started in the dead one's place.
#[must_use]
pub fn dies_idle(signal: Deadly) -> [Step; 2] {
    [happens(Event::Kill(idle(signal))), restart()]
}

fn idle(signal: Deadly) -> Kill {
    Kill {
        signal,
        during: None,
        when: Moment::Sent,
    }
}

/// The process beside does this; the first time it is started.
#[must_use]
pub fn beside(step: Step) -> Step {
    happens(Event::Beside(Box::new(step.action)))
}

/// The process beside is killed.
#[must_use]
pub fn beside_dies() -> Step {
    happens(Event::Beside(Box::new(Action::World(Event::Kill(idle(
        Deadly::Kill,
    ))))))
}
