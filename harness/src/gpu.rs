//! GPUs as data: what a subject finds when it looks for one.

use crate::case::MIB;
use std::fmt;

/// The GPU that the subject finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpu {
    /// No CUDA library at all.
    Absent,
    /// Devices of one capacity.
    Present {
        /// Number of devices.
        devices: usize,
        /// Capacity of each, bytes.
        vram_bytes: u64,
        /// What cuInit returns, 0 for success.
        cuinit_result: u32,
        /// Driver symbols that the library lacks.
        withheld: Vec<&'static str>,
        /// The library for GPUDirect Storage.
        cufile: CuFile,
    },
}

impl Gpu {
    /// One healthy device.
    #[must_use]
    pub fn with_vram(vram_bytes: u64) -> Self {
        Self::Present {
            devices: 1,
            vram_bytes,
            cuinit_result: 0,
            withheld: Vec::new(),
            cufile: CuFile::Absent,
        }
    }

    /// Whether a real driver cannot be made to look like this.
    #[must_use]
    pub fn is_emulated_only(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::Present {
                devices,
                cuinit_result,
                withheld,
                cufile,
                ..
            } => {
                *devices != 1
                    || *cuinit_result != 0
                    || !withheld.is_empty()
                    || cufile.is_emulated_only()
            }
        }
    }

    /// Whether its cuFile is closed by nobody's call, and takes along what was registered with it.
    #[must_use]
    pub fn cufile_closes_by_itself(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::Present { cufile, .. } => matches!(
                cufile,
                CuFile::Present {
                    fault: Some(CuFileFault::ClosesAfter(_)),
                    ..
                }
            ),
        }
    }
}

impl fmt::Display for Gpu {
    /// `1 × 32 MiB`, and what is wrong with the driver.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Present {
            devices,
            vram_bytes,
            cuinit_result,
            withheld,
            cufile,
        } = self
        else {
            return f.write_str("no CUDA library");
        };
        write!(f, "{devices} × {} MiB", vram_bytes / MIB)?;
        if *cuinit_result != 0 {
            write!(f, ", cuInit returns {cuinit_result}")?;
        }
        if !withheld.is_empty() {
            write!(f, ", without {}", withheld.join(", "))?;
        }
        write!(f, ", cuFile {cufile}")
    }
}

/// The library for GPUDirect Storage that the subject finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CuFile {
    /// None; one that the machine has is kept out of sight.
    Absent,
    /// Whatever the machine has; a healthy one that transfers directly where the device is emulated.
    AsFound,
    /// One that behaves like this.
    Present {
        /// Whether it transfers through its own buffers in host memory.
        compat: bool,
        /// What is wrong with it.
        fault: Option<CuFileFault>,
    },
}

/// What is wrong with a cuFile library. Codes are its own, as in `cufile.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CuFileFault {
    /// The driver does not open.
    OpenRefused(u32),
    /// The opening of the driver does not return.
    OpenHangs,
    /// No file is registered.
    HandlesRefused(u32),
    /// No memory is registered.
    BuffersRefused(u32),
    /// A transfer moves at most this many bytes.
    Short(u64),
    /// Somebody else in the process closes the driver after this many transfers.
    ClosesAfter(u64),
}

impl CuFile {
    /// One without a fault that transfers directly.
    pub const DIRECT: Self = Self::Present {
        compat: false,
        fault: None,
    };

    /// One without a fault that transfers through its own buffers.
    pub const COMPAT: Self = Self::Present {
        compat: true,
        fault: None,
    };

    /// Whether an emulated one gets so far as to transfer directly.
    #[must_use]
    pub fn transfers_directly(self) -> bool {
        match self {
            Self::Absent | Self::Present { compat: true, .. } => false,
            Self::AsFound => true,
            Self::Present {
                compat: false,
                fault,
            } => match fault {
                Some(
                    CuFileFault::OpenRefused(_)
                    | CuFileFault::OpenHangs
                    | CuFileFault::HandlesRefused(_),
                ) => false,
                None
                | Some(
                    CuFileFault::BuffersRefused(_)
                    | CuFileFault::Short(_)
                    | CuFileFault::ClosesAfter(_),
                ) => true,
            },
        }
    }

    /// Whether a machine's own library cannot be made to be like this.
    #[must_use]
    pub fn is_emulated_only(self) -> bool {
        match self {
            Self::Absent | Self::AsFound => false,
            Self::Present { .. } => true,
        }
    }
}

impl fmt::Display for CuFile {
    /// `absent`, `as found`, or the words of the emulated library: `compat,handles_refused=5027`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (compat, fault) = match self {
            Self::Absent => return f.write_str("absent"),
            Self::AsFound => return f.write_str("as found"),
            Self::Present { compat, fault } => (compat, fault),
        };
        f.write_str(if *compat { "compat" } else { "direct" })?;
        match fault {
            None => Ok(()),
            Some(CuFileFault::OpenRefused(code)) => write!(f, ",open_refused={code}"),
            Some(CuFileFault::OpenHangs) => f.write_str(",open_hangs"),
            Some(CuFileFault::HandlesRefused(code)) => write!(f, ",handles_refused={code}"),
            Some(CuFileFault::BuffersRefused(code)) => write!(f, ",buffers_refused={code}"),
            Some(CuFileFault::Short(bytes)) => write!(f, ",short={bytes}"),
            Some(CuFileFault::ClosesAfter(transfers)) => write!(f, ",closes_after={transfers}"),
        }
    }
}
