//! The device that a case runs on: what the subject gets to see of it, and what is read of it from outside.

mod absence;
mod discovery;
mod emulated;
mod facts;
mod nvml;
mod occupancy;
mod reading;
mod slot;
mod turn;
mod withheld;

pub use discovery::{Discovered, EMULATED_BYTES, discover};
pub use emulated::{EmulatedGpu, EmulatorOptions};
pub use facts::{GpuFacts, gpu_facts};
pub use nvml::CudaGpu;
pub use reading::{BoardReading, CufileMoves, DeviceReading, NvmlReading, NvmlScope, Survivor};
pub use withheld::{WithheldError, withhold};

use crate::{ballast::Ballast, error::HarnessError};
use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

/// Which device, as it stands in a case's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// `emulated`.
    Emulated,
    /// `cuda:N`, a real GPU.
    Cuda {
        /// Its number in the order of the PCI bus.
        ordinal: u32,
    },
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Emulated => f.pad("emulated"),
            Self::Cuda { ordinal } => f.pad(&format!("cuda:{ordinal}")),
        }
    }
}

/// What a subject is given as its GPU.
#[derive(Debug)]
pub enum DeviceUnderTest {
    /// No CUDA library.
    Absent {
        /// Where the loader looks first.
        libraries: PathBuf,
    },
    /// A board and the emulated driver.
    Emulated(EmulatedGpu),
    /// A real GPU.
    Cuda(CudaGpu),
}

impl DeviceUnderTest {
    /// A machine without CUDA. `into` is created and stays empty, unless this machine has a CUDA library on the
    /// loader's default path: then empty files of its names stand before it, which the loader refuses.
    ///
    /// # Errors
    /// `into` cannot be written.
    pub fn absent(into: &Path) -> Result<Self, HarnessError> {
        fs::create_dir_all(into).map_err(HarnessError::path("create", into))?;
        if absence::system_has_cuda() {
            absence::block(into, &emulated::LIBRARY_NAMES)?;
        }
        Ok(Self::Absent {
            libraries: into.to_owned(),
        })
    }

    /// What the subject's environment needs for it.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        match self {
            Self::Absent { libraries } => vec![("LD_LIBRARY_PATH".into(), libraries.into())],
            Self::Emulated(gpu) => gpu.environment(),
            Self::Cuda(gpu) => gpu.environment(),
        }
    }

    /// Bytes taken on the device by everybody, read without waiting for a process that may be stopped; nothing where there
    /// is no device, or none that answers.
    #[must_use]
    pub fn glance_used_bytes(&self) -> Option<u64> {
        match self {
            Self::Absent { .. } => None,
            Self::Emulated(gpu) => Some(gpu.board().glance_used_bytes()),
            Self::Cuda(gpu) => Some(gpu.reading(&[]).ok()?.device_used_bytes),
        }
    }

    /// The ballast that lies on a real GPU since an earlier case.
    pub(crate) fn kept_ballast(&self) -> Option<Ballast> {
        match self {
            Self::Absent { .. } | Self::Emulated(_) => None,
            Self::Cuda(gpu) => gpu.kept(),
        }
    }

    /// Reads the device. `pids` are the subject's processes.
    ///
    /// # Errors
    /// The board or the management library fails.
    pub fn reading(&self, pids: &[u32]) -> Result<DeviceReading, HarnessError> {
        match self {
            Self::Absent { .. } => Ok(DeviceReading::Absent),
            Self::Emulated(gpu) => Ok(DeviceReading::Board(gpu.reading(pids)?)),
            Self::Cuda(gpu) => Ok(DeviceReading::Nvml(gpu.reading(pids)?)),
        }
    }
}
