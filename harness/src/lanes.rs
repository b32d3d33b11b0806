//! Steps beside each other: lanes, and the moments at which one of them goes on.

use crate::case::Step;
use std::{fmt, time::Duration};

/// Most requests that are outstanding at a time: one for each lane.
pub const MOST_LANES: usize = 8;

/// Steps that follow each other, beside those of other lanes.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane {
    /// The steps.
    pub steps: Vec<Step>,
}

/// When a lane goes on. A moment that can no longer come, because no other lane has anything left to do, counts as come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So many steps of a lane have been answered.
    Answered {
        /// The lane, from 0.
        lane: usize,
        /// How many.
        steps: usize,
    },
    /// So many steps of a lane have been begun.
    Begun {
        /// The lane, from 0.
        lane: usize,
        /// How many.
        steps: usize,
    },
    /// The device holds so many bytes more than when the lanes began.
    DeviceHolds {
        /// How many.
        more_bytes: u64,
    },
    /// The device holds so many bytes fewer than when the lanes began.
    DeviceLacks {
        /// How many.
        fewer_bytes: u64,
    },
    /// The subject has written so many file bytes since the lanes began.
    Written {
        /// How many.
        bytes: u64,
    },
    /// So much time has passed since the lanes began: a moment that nobody sees from outside, chosen by a seed.
    Passed(Duration),
}

impl Moment {
    /// Whether the subject's own doing brings it, in less time than it takes to look: it then stands still at every system call
    /// while it is waited for.
    #[must_use]
    pub fn is_fleeting(&self) -> bool {
        match self {
            Self::Begun { .. }
            | Self::DeviceHolds { .. }
            | Self::DeviceLacks { .. }
            | Self::Written { .. } => true,
            Self::Answered { .. } | Self::Passed(_) => false,
        }
    }

    /// Whether other lanes bring it, and not the clock: what is done then must not come when they are through.
    #[must_use]
    pub fn is_brought(&self) -> bool {
        match self {
            Self::Answered { .. }
            | Self::Begun { .. }
            | Self::DeviceHolds { .. }
            | Self::DeviceLacks { .. }
            | Self::Written { .. } => true,
            Self::Passed(_) => false,
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { lane, steps } => write!(f, "lane {lane} has {steps} answers"),
            Self::Begun { lane, steps } => write!(f, "lane {lane} has asked {steps} times"),
            Self::DeviceHolds { more_bytes } => write!(f, "the device holds {more_bytes} more"),
            Self::DeviceLacks { fewer_bytes } => write!(f, "the device holds {fewer_bytes} fewer"),
            Self::Written { bytes } => write!(f, "{bytes} are written"),
            Self::Passed(time) => write!(f, "{} us have passed", time.as_micros()),
        }
    }
}
