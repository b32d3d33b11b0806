//! Why a run has no numbers, and the time that a benchmark may take.

use crate::{error::HarnessError, probe::ProbeError, shadow::ShadowError, subject::Finding};
use spillproof_protocol::{ErrorKind, ErrorReply};
use std::time::{Duration, Instant};

/// Why a run was not completed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The subject answered with an error.
    #[error("{verb}: {}: {}", error.kind, error.message)]
    Refused {
        /// The verb.
        verb: &'static str,
        /// The answer.
        error: ErrorReply,
    },
    /// The subject did something else than answering.
    #[error("{0}")]
    Misbehaved(Finding),
    /// What the device holds is not what was loaded.
    #[error("wrong bytes after {after}: tensor {tensor} is {found}, not {expected}")]
    WrongBytes {
        /// The step.
        after: String,
        /// The tensor.
        tensor: String,
        /// Its digest.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// What was done is not what was asked for, so that its time means nothing.
    #[error("{0}")]
    Unlike(String),
    /// The row does not go the way that it is named after.
    #[error("{0}")]
    Unable(String),
    /// The time for all of it is over.
    #[error("the time limit came")]
    OutOfTime,
    /// The harness failed.
    #[error(transparent)]
    Harness(#[from] HarnessError),
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        Self::Harness(error.into())
    }
}

impl From<ShadowError> for Failure {
    fn from(error: ShadowError) -> Self {
        Self::Harness(HarnessError::Case(error.to_string()))
    }
}

impl Failure {
    /// Whether the machine lacks what the subject needs: nothing is wrong with anybody then.
    #[must_use]
    pub fn is_lack(&self) -> bool {
        match self {
            Self::Unable(_) => true,
            Self::Refused { verb, error } => {
                *verb == "open"
                    && matches!(
                        error.kind,
                        ErrorKind::CudaMissing
                            | ErrorKind::CudaTooOld
                            | ErrorKind::CudaInit
                            | ErrorKind::NoDevice
                            | ErrorKind::UnsupportedDevice
                    )
            }
            Self::Misbehaved(_)
            | Self::WrongBytes { .. }
            | Self::Unlike(_)
            | Self::OutOfTime
            | Self::Harness(_) => false,
        }
    }
}

/// Longest that one request may take.
const CALL_BOUND: Duration = Duration::from_secs(900);

/// How long all of a benchmark may take.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    limit: Option<Duration>,
}

impl Clock {
    /// From now on.
    #[must_use]
    pub fn start(limit: Option<Duration>) -> Self {
        Self {
            start: Instant::now(),
            limit,
        }
    }

    /// Since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// What is left of the limit, if there is one.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.saturating_sub(self.elapsed()))
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// How long the next request may take.
    #[must_use]
    pub fn call_bound(&self) -> Duration {
        self.left().map_or(CALL_BOUND, |left| left.min(CALL_BOUND))
    }
}
