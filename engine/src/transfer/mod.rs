//! The way of bytes between device memory and the host: a seam with two implementations. [`Staged`] goes through pinned
//! slots inside the declared budget; [`CuFile`] lets NVIDIA's library move whole pages between device and file, and
//! leaves the rest, and whatever the library refuses, to the other.
//!
//! Every call is complete when it returns, also when it fails: nothing is then in flight that would outlive the
//! buffers it was given.

mod attachment;
mod checksums;
mod cufile;
mod file_range;
mod pool;
mod ram_copy;
mod staged;
mod workers;

pub(crate) use checksums::{CHECKSUM_BYTES, Checksums};
pub(crate) use cufile::{CuFile, Unusable};
pub(crate) use file_range::{FileRange, ModelFile};
pub(crate) use ram_copy::RamCopy;
pub(crate) use staged::{SourceRead, Staged};

use crate::{Error, cancellation::Stop, cuda::DeviceAddress};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// How bytes travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferPath {
    /// They did not move.
    None,
    /// Through pinned slots of host memory.
    Staged,
    /// Between device and file by cuFile, without passing host memory.
    CuFile,
    /// By cuFile, through buffers of its own in host memory.
    CuFileCompat,
}

/// Gives the bytes to be written, from an offset on.
pub type Contents<'a> = dyn FnMut(u64, &mut [u8]) -> Result<(), Error> + 'a;

/// A run of device memory. Whoever makes one keeps the allocation alive until the call that takes it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceSpan {
    pub(crate) address: DeviceAddress,
    pub(crate) bytes: u64,
}

/// A way between device and file. Each call tells which path its bytes really took, and looks at `stop` before each chunk.
pub(crate) trait Transfer: Send + Sync {
    /// Writes the span to the start of `to` and pads it with zeros (E19). Space is reserved by the caller, and so is
    /// durability. On an error nothing in `to` is valid.
    fn store(
        &self,
        from: DeviceSpan,
        to: &Arc<FileRange>,
        stop: &Stop,
    ) -> Result<StoredSpan, Error>;

    /// Reads the span back, verifying length and checksums (E22). On an error the span's contents are undefined.
    fn load(
        &self,
        from: &Arc<FileRange>,
        checksums: &Checksums,
        to: DeviceSpan,
        stop: &Stop,
    ) -> Result<TransferPath, Error>;

    /// What works less well than it should, for people.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A span that was written to its file.
#[derive(Debug)]
pub(crate) struct StoredSpan {
    /// What to verify on reading.
    pub(crate) checksums: Checksums,
    pub(crate) path: TransferPath,
}

/// File bytes moved since the engine was opened.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    written_bytes: AtomicU64,
    read_bytes: AtomicU64,
    direct_written_bytes: AtomicU64,
    direct_read_bytes: AtomicU64,
}

impl Traffic {
    pub(crate) fn count_written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Of what was written, what went past the page cache.
    fn count_direct_written(&self, bytes: u64) {
        self.direct_written_bytes
            .fetch_add(bytes, Ordering::Relaxed);
    }

    /// Of what was read, what came past the page cache.
    fn count_direct_read(&self, bytes: u64) {
        self.direct_read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts from zero again: what the engine moved to try a way out is not the models'.
    fn restart(&self) {
        self.written_bytes.store(0, Ordering::Relaxed);
        self.read_bytes.store(0, Ordering::Relaxed);
        self.direct_written_bytes.store(0, Ordering::Relaxed);
        self.direct_read_bytes.store(0, Ordering::Relaxed);
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn direct_written_bytes(&self) -> u64 {
        self.direct_written_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn direct_read_bytes(&self) -> u64 {
        self.direct_read_bytes.load(Ordering::Relaxed)
    }
}
