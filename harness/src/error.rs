//! The harness's own errors. What a subject does wrong is a [`Finding`](crate::subject::Finding), never one of these.

use std::{io, path::PathBuf};

/// Why the harness could not do its work: a verdict of "infrastructure", nobody's defect.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A file or directory of the harness's own could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Path {
        /// What was attempted, an infinitive.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A subject could not be started.
    #[error("cannot start the subject {}: {source}; build it first, or name an executable", program.display())]
    Start {
        /// The executable.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A system call that supervision rests on failed.
    #[error("{call} failed: {source}; Linux 5.11 or newer is needed")]
    System {
        /// The call's name.
        call: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The stand-in CUDA library cannot be given to a subject.
    #[error("cannot use the CUDA library {}: {reason}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// The board of an emulated GPU failed.
    #[error("emulated GPU board: {0}")]
    Board(String),
    /// A GPU could not be read.
    #[error("cannot read {device}: {reason}")]
    Device {
        /// Which, as in `cuda:0`.
        device: String,
        /// What the management library said.
        reason: String,
    },
    /// The process that holds device memory beside the subject failed.
    #[error("ballast: {0}")]
    Ballast(String),
    /// The case does not hold together, or cannot run where it is.
    #[error("{0}")]
    Case(String),
    /// A probe of the subject failed for a reason other than its death.
    #[error(transparent)]
    Probe(#[from] crate::probe::ProbeError),
}

impl HarnessError {
    /// A closure for `map_err` that names what was attempted on which path.
    pub fn path(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Path {
            action,
            path,
            source,
        }
    }

    /// A closure for `map_err` that names a system call.
    pub(crate) fn system<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            call,
            source: source.into(),
        }
    }
}
