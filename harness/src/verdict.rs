//! Verdicts: what a run is worth.

use crate::invariants::Violation;

/// The judgement of one case on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was measured and every invariant held.
    Pass,
    /// At least one invariant was violated.
    Fail(Vec<Violation>),
    /// Nothing was violated, but something was not measured.
    Inconclusive(Vec<String>),
    /// The case does not apply here.
    Skipped(String),
    /// A dirty or lost device, a directory that could not be made: nobody's fault.
    Infrastructure(String),
}

impl Verdict {
    /// The word printed for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail(_) => "FAIL",
            Self::Inconclusive(_) => "????",
            Self::Skipped(_) => "SKIP",
            Self::Infrastructure(_) => "INFR",
        }
    }

    /// Whether a gate may open.
    #[must_use]
    pub fn is_green(&self) -> bool {
        match self {
            Self::Pass | Self::Skipped(_) => true,
            Self::Fail(_) | Self::Inconclusive(_) | Self::Infrastructure(_) => false,
        }
    }
}
