//! What the engine can be told: a builder, with the process environment on top.

mod builder;
mod size;
#[cfg(test)]
mod tests;

pub use builder::SettingsBuilder;

use crate::policy::Threshold;
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// A CUDA device, `cuda:N`. There is no abstraction over other kinds (E40).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    ordinal: u32,
}

impl Device {
    /// The driver's number of it.
    #[must_use]
    pub fn ordinal(self) -> u32 {
        self.ordinal
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{}", self.ordinal)
    }
}

/// What becomes of data in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileTier {
    /// It stays mapped for reading.
    Mapped,
    /// Nothing of it stays mapped or in RAM.
    Closed,
}

/// What to do with an offload directory that lives in memory (E35).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TmpfsPolicy {
    /// Refuse it.
    Refuse,
    /// Use it, and count what is in it as RAM.
    CountAsRam,
}

/// Whether what is written to files and read from them passes the kernel's page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileIo {
    /// Written through the page cache where that has room: a file that is larger than [`FileIo::DIRECT_BYTES`] and than an eighth of the
    /// memory available when it is made is written past it. Files of at least that size are read from the page cache as far as they are in
    /// it, and past it else.
    Auto,
    /// Files of any size are written past it, and read past it what is not in it.
    Direct,
    /// Written and read through it.
    Cached,
}

impl FileIo {
    /// Smaller files are not worth a second descriptor, bytes.
    pub const DIRECT_BYTES: u64 = 64 << 20;
    /// The part of the available memory that a file may take in the page cache. From a tenth on the kernel writes back what waits there, from a
    /// fifth on it makes writers wait (`vm.dirty_background_ratio`, `vm.dirty_ratio`).
    pub const CACHE_SHARE: u64 = 8;
}

/// When files are written and read by cuFile (GPUDirect Storage).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CuFileUse {
    /// Where it works on the offload directory and moves bytes directly between device and storage. Its compatibility
    /// mode costs time and host memory, and gains nothing over staging.
    Auto,
    /// Where it works, in its compatibility mode too.
    On,
    /// Never: the library is not even loaded.
    Off,
}

/// Checked settings of one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    device: Device,
    directory: PathBuf,
    staging_bytes: u64,
    slot_bytes: u64,
    io_threads: usize,
    threshold: Threshold,
    ram_limit_bytes: Option<u64>,
    file_tier: FileTier,
    tmpfs: TmpfsPolicy,
    durable: bool,
    file_io: FileIo,
    cufile: CuFileUse,
    cufile_open_bound: Duration,
}

impl Settings {
    /// A builder that holds the defaults.
    #[must_use]
    pub fn builder() -> SettingsBuilder {
        SettingsBuilder::default()
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The directory in which the engine makes its own.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Most pinned and staging host memory that the engine ever holds, bytes.
    #[must_use]
    pub fn staging_bytes(&self) -> u64 {
        self.staging_bytes
    }

    /// Bytes of one staging slot: the budget divided among the I/O threads of both directions, a multiple of 256 KiB.
    #[must_use]
    pub fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    /// Number of I/O threads for each direction, to the device and from it; 1 makes runs deterministic.
    #[must_use]
    pub fn io_threads(&self) -> usize {
        self.io_threads
    }

    /// Below what remaining host memory blocks go to files.
    #[must_use]
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// Host memory that the engine may plan with, bytes; `None` leaves it to the machine.
    #[must_use]
    pub fn ram_limit_bytes(&self) -> Option<u64> {
        self.ram_limit_bytes
    }

    /// What becomes of data in files.
    #[must_use]
    pub fn file_tier(&self) -> FileTier {
        self.file_tier
    }

    /// What to do with an offload directory that lives in memory.
    #[must_use]
    pub fn tmpfs(&self) -> TmpfsPolicy {
        self.tmpfs
    }

    /// Whether a file is synchronised with its disk before device memory is given back.
    #[must_use]
    pub fn durable(&self) -> bool {
        self.durable
    }

    /// Whether files are written and read past the page cache.
    #[must_use]
    pub fn file_io(&self) -> FileIo {
        self.file_io
    }

    /// When files are written and read by cuFile.
    #[must_use]
    pub fn cufile(&self) -> CuFileUse {
        self.cufile
    }

    /// How long the cuFile driver may take to open.
    #[must_use]
    pub fn cufile_open_bound(&self) -> Duration {
        self.cufile_open_bound
    }
}
