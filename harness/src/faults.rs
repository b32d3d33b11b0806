//! Fault plans as cases have them, and what became of their rules.

pub use spillproof_faults::{
    Action, FaultError, Library, Plan, PlanError, Rule, Signal, SiteId, When,
};

use std::{fmt, ops::Range, path::PathBuf, str::FromStr};

/// A fault plan, and when it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Calls that fail. A rule that never fires makes the case inconclusive.
    pub plan: Plan,
    /// The case's own steps, from 0, that are done while it is in force. Where the last of them starts a subject in a dead one's
    /// place, it is in force until that one is open.
    pub steps: Range<usize>,
    /// Whether the calls of that time are recorded.
    pub records: bool,
}

impl Faults {
    /// From the first step on and until the second round.
    #[must_use]
    pub fn throughout(plan: Plan) -> Self {
        Self {
            plan,
            steps: 0..usize::MAX,
            records: false,
        }
    }

    /// While the subject quits, with everything loaded that its steps leave there: no second round comes before it.
    pub const CLOSING: Range<usize> = usize::MAX - 1..usize::MAX;

    /// Whether it is in force while the subject quits.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.steps == Self::CLOSING
    }

    /// The same over a case of which only these steps are left, numbered from 0 and in order.
    #[must_use]
    pub fn left_with(self, steps: impl Iterator<Item = usize>) -> Self {
        if self.is_closing() {
            return self;
        }
        let (mut start, mut count) = (0, 0);
        for step in steps {
            start += usize::from(step < self.steps.start);
            count += usize::from(self.steps.contains(&step));
        }
        let end = match self.steps.end {
            usize::MAX => usize::MAX,
            _ => start + count,
        };
        Self {
            steps: start..end,
            ..self
        }
    }
}

impl FromStr for Faults {
    type Err = PlanError;

    /// A plan in force throughout.
    fn from_str(text: &str) -> Result<Self, PlanError> {
        text.parse().map(Self::throughout)
    }
}

/// A call that went as a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The function.
    pub site: SiteId,
    /// Which call of those that the rule counts, from 1.
    pub nth: u64,
    /// What it returned, unless it only moved less, took longer or raised a signal.
    pub error: Option<FaultError>,
    /// Whether the call was made all the same, and only said to have failed.
    pub after: bool,
    /// What the call was to end, by the key that the ledger has it under; of one that opens, its flags; else 0.
    pub key: u64,
    /// Orders it among the rows of the ledger.
    pub serial: u64,
    /// The file that it was about, relative to the offload directory where it is inside; empty where there is none.
    pub path: PathBuf,
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
