//! Crashes as data: which signal, while which verb is worked on, at which moment.

use crate::case::Action;
use nix::sys::signal::Signal;
use std::fmt;

/// The end of a subject by a signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    /// The signal.
    pub signal: Deadly,
    /// What the subject is doing when it comes; nothing when absent.
    pub during: Option<Box<Action>>,
    /// When it comes, by what is seen from outside since the verb began.
    pub when: Moment,
}

/// A signal that ends a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadly {
    /// `SIGKILL`: it ends at once, whatever it was doing.
    Kill,
    /// `SIGTERM`: it gives back what it holds and ends.
    Terminate,
}

/// A moment that can be seen from outside the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A rule of the case's fault plan says: the process sends itself the signal. The plan is in force while the verb is worked
    /// on, and not around it.
    Planned,
    /// The verb has been sent.
    Sent,
    /// It has written this many file bytes.
    Written {
        /// Bytes.
        bytes: u64,
    },
    /// It has given this much device memory back.
    Freed {
        /// Bytes.
        bytes: u64,
    },
    /// It has taken this much device memory.
    Taken {
        /// Bytes.
        bytes: u64,
    },
    /// This many of the files that were in the offload directory are gone.
    Removed {
        /// Files.
        files: u64,
    },
}

impl Deadly {
    /// As the system calls it.
    #[must_use]
    pub fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::SIGKILL,
            Self::Terminate => Signal::SIGTERM,
        }
    }
}

impl fmt::Display for Deadly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "kill",
            Self::Terminate => "terminate",
        })
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.signal)?;
        let Some(during) = &self.during else {
            return f.write_str(" idle");
        };
        write!(f, " during {}, {}", during.label(), self.when)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Planned => f.write_str("as planned"),
            Self::Sent => f.write_str("at once"),
            Self::Written { bytes } => write!(f, "{bytes} bytes written"),
            Self::Freed { bytes } => write!(f, "{bytes} device bytes freed"),
            Self::Taken { bytes } => write!(f, "{bytes} device bytes taken"),
            Self::Removed { files } => write!(f, "{files} files removed"),
        }
    }
}
