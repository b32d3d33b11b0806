//! Faults as data: which calls of the subject fail, and from when on.

use spillproof_faults::{FaultError, Plan, SiteId};
use std::fmt;

/// A fault plan and when it is in force. It is out of force in the second round, where everything must be served again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The rules. One that never fires makes the case inconclusive.
    pub plan: Plan,
    /// From when on they are in force; their counts start there.
    pub from: InForce,
}

/// From when on a plan is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InForce {
    /// From the subject's first call on.
    Start,
    /// From the case's first step on.
    Baseline,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match self.from {
            InForce::Start => "from the start",
            InForce::Baseline => "from the first step on",
        };
        write!(f, "{} ({from})", self.plan)
    }
}

/// A call that went as a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The function.
    pub site: SiteId,
    /// Which call of those that the rule counts, from 1.
    pub nth: u64,
    /// What it returned, unless it only moved less, took longer or raised a signal.
    pub error: Option<FaultError>,
}

impl fmt::Display for Fired {
    /// `pwrite #3 ENOSPC`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.site.site().name, self.nth)?;
        self.error
            .map_or(Ok(()), |error| write!(f, " {}", error.name()))
    }
}

/// What became of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleAccount {
    /// The rule as it is written.
    pub rule: String,
    /// Calls that it counted.
    pub counted: u64,
    /// Times that it fired.
    pub fired: u64,
}

impl fmt::Display for RuleAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            counted,
            fired,
        } = self;
        write!(f, "{rule}: {fired} of {counted} calls")
    }
}
