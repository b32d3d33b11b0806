//! Fault plans as cases have them, and what became of their rules.

pub use spillproof_faults::{FaultError, Plan, PlanError, SiteId};

use std::fmt;

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
