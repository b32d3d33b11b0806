//! Readings of a subject from outside: `/proc/PID` and the directories it writes to.
//!
//! Every probe says so when the process is gone: silence would read as "all is well".

mod bounds;
mod faults;
mod files;
mod ledger;
mod memory;
mod meter;
mod peak;
mod process;
mod writes;

pub use bounds::PeakVerdict;
pub use files::{FileEntry, FileKind, FilesReading, files};
pub use ledger::LedgerReading;
pub(crate) use ledger::ledger;
pub use memory::ProcessMemory;
pub use meter::WriteMeter;
pub use peak::{PeakReading, PeakWatch, Uss, UssReading};
pub use process::{ProcessReading, address_space_bytes, process};
pub use writes::written_bytes;

use std::io;

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The process has ended: it is a zombie, or nothing at all.
    #[error("process {pid} is gone")]
    Gone {
        /// Its id.
        pid: u32,
    },
    /// The process lives, but this of it cannot be read.
    #[error("cannot read {what}: {source}")]
    Unreadable {
        /// The path, and what is wrong with it.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl ProbeError {
    /// The same, for what procfs reports.
    fn of_procfs(pid: u32, what: &str, error: procfs::ProcError) -> Self {
        let source = match error {
            procfs::ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
            procfs::ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
            procfs::ProcError::Io(error, _) => error,
            other @ (procfs::ProcError::Incomplete(_)
            | procfs::ProcError::Other(_)
            | procfs::ProcError::InternalError(_)) => io::Error::other(other.to_string()),
        };
        Self::of(pid, what, source)
    }

    /// `NotFound` and `ESRCH` are how /proc says that a process has ended.
    fn of(pid: u32, what: &str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound
            || source.raw_os_error() == Some(libc::ESRCH)
            || !lives(pid)
        {
            Self::Gone { pid }
        } else {
            Self::Unreadable {
                what: format!("/proc/{pid}/{what}"),
                source,
            }
        }
    }
}

/// Whether the process exists and is not a zombie.
fn lives(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|status| ProcessMemory::parse(&status))
        .is_some()
}
