//! Invariants: pure functions from what a run saw to what is wrong with it.
//!
//! The fault model and the limits of each checker stand at the top of its file. A subject is judged
//! by readings from outside; its own word (`status`, replies) is only ever compared with them.

mod crash;
mod data;
mod excuse;
mod faulted;
mod ledger;
mod masks;
mod memory;
mod outcome;
mod places;
mod policy;
mod resources;
mod shortage;
#[cfg(test)]
mod tests;
mod transfers;

pub(crate) use ledger::doubt as ledger_doubt;
pub(crate) use memory::{anon_shared_bytes, limit_bytes};
pub(crate) use resources::is_back_at_baseline;

use crate::observation::Run;
use std::fmt;

/// Stable names of the invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InvariantId {
    /// Device memory, pinned memory, streams, events and contexts return to the baseline.
    Vram,
    /// Peaks of anonymous and shared memory stay within baseline, staging and slack.
    Rss,
    /// Descriptors return to the baseline.
    Fd,
    /// No map of a file outlives its tensor.
    Maps,
    /// Files go with their models; nothing else is touched.
    Files,
    /// Every digest is the expected one.
    Data,
    /// Work goes on: requests succeed once nothing stands in their way, within their bound.
    Progress,
    /// Failures are typed errors of the right kind.
    Typed,
    /// An error surfaces exactly when there is a reason for one.
    Truth,
    /// What was freed, kept and written is what was asked for.
    Policy,
    /// The device saw no illegal access.
    Device,
    /// Threads return to the baseline.
    Threads,
}

impl InvariantId {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vram => "vram",
            Self::Rss => "rss",
            Self::Fd => "fd",
            Self::Maps => "maps",
            Self::Files => "files",
            Self::Data => "data",
            Self::Progress => "progress",
            Self::Typed => "typed",
            Self::Truth => "truth",
            Self::Policy => "policy",
            Self::Device => "device",
            Self::Threads => "threads",
        }
    }
}

impl fmt::Display for InvariantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: InvariantId,
    /// What, where, which value and which limit.
    pub message: String,
}

/// A checker.
pub type Check = fn(&Run) -> Vec<String>;

/// Every invariant with its checker.
pub const ALL: &[(InvariantId, Check)] = &[
    (InvariantId::Vram, resources::vram),
    (InvariantId::Rss, memory::rss),
    (InvariantId::Fd, resources::fd),
    (InvariantId::Maps, resources::maps),
    (InvariantId::Files, resources::files),
    (InvariantId::Data, data::data),
    (InvariantId::Progress, outcome::progress),
    (InvariantId::Typed, outcome::typed),
    (InvariantId::Truth, outcome::truth),
    (InvariantId::Policy, policy::policy),
    (InvariantId::Device, resources::device),
    (InvariantId::Threads, resources::threads),
];

/// Judges a run by these invariants.
#[must_use]
pub fn check(run: &Run, invariants: &[(InvariantId, Check)]) -> Vec<Violation> {
    let called = |invariant: InvariantId, messages: Vec<String>| {
        messages
            .into_iter()
            .map(move |message| Violation { invariant, message })
    };
    // What one subject's death did to the next comes first: what is wrong within a life often follows from it.
    let over_lives = invariants
        .iter()
        .flat_map(|(invariant, _)| called(*invariant, crash::over_lives(run, *invariant)));
    let within_lives = invariants.iter().flat_map(|(invariant, check)| {
        let messages = run.lives().flat_map(check).collect();
        called(*invariant, messages)
    });
    over_lives.chain(within_lives).collect()
}
