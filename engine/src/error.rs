//! Everything that can go wrong, as values. Nothing in this crate panics on bad input or a failing call.

use crate::FreeReport;
use std::{fmt, io, path::PathBuf};

/// What kept an operation from being done. The state is then the old one (E24, E28, E38).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument outside its range.
    #[error("{0}")]
    InvalidArgument(String),
    /// A forked child called an engine of its parent.
    #[error(
        "the engine belongs to process {opened_by}, not to its forked child; open one in the child"
    )]
    OtherProcess {
        /// The process that opened it.
        opened_by: u32,
    },
    /// A setting that cannot be used.
    #[error("{variable}={value:?} is not usable: {remedy}")]
    InvalidSetting {
        /// The environment variable, or the builder's field.
        variable: &'static str,
        /// What it was set to.
        value: String,
        /// What to set instead.
        remedy: String,
    },
    /// A manifest or a safetensors file that cannot be used; the message names file or tensor, value and defect.
    #[error("{0}")]
    InvalidModel(String),
    /// No model of that name is loaded.
    #[error("no model {0:?} is loaded; load it first")]
    UnknownModel(String),
    /// The model has no such tensor.
    #[error("model {model:?} has no tensor {tensor:?}")]
    UnknownTensor {
        /// The model.
        model: String,
        /// The name that it does not have.
        tensor: String,
    },
    /// A model of that name is loaded already.
    #[error("a model {0:?} is loaded already; drop it first or choose another name")]
    ModelExists(String),
    /// A view was asked of a tensor that only the device holds.
    #[error("tensor {tensor:?} of model {model:?} is on the device only; free its memory first")]
    NotOnHost {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
    },
    /// The offload directory cannot be used.
    #[error("offload directory {} {reason}: {remedy}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// Something that the engine did not make has the chosen name; it was left untouched (E34).
    #[error("{} exists already and is not the engine's; remove it or choose another offload directory", .0.display())]
    AlreadyExists(PathBuf),
    /// No CUDA library could be opened.
    #[error("no CUDA library: {0}")]
    CudaMissing(String),
    /// The CUDA library lacks symbols that the engine needs.
    #[error("the CUDA library is too old, it lacks {}: install a newer driver", missing.join(", "))]
    CudaTooOld {
        /// The symbols that are not there.
        missing: Vec<String>,
    },
    /// `cuInit` failed.
    #[error("cuInit failed with {code} ({name}): check the driver")]
    CudaInit {
        /// The driver's result.
        code: u32,
        /// Its symbol or description, as far as the driver gives one.
        name: String,
    },
    /// The device's ordinal is out of range.
    #[error("there is no device cuda:{ordinal}: the driver shows {count}")]
    NoDevice {
        /// The ordinal asked for.
        ordinal: u32,
        /// How many devices there are.
        count: u32,
    },
    /// The device named is not a CUDA device (E40).
    #[error("device {0:?} is not supported: only cuda:N is")]
    UnsupportedDevice(String),
    /// Device memory is exhausted, and letting go of everything that may leave did not suffice.
    #[error("out of device memory: {wanted} bytes wanted, {free} of {total} free")]
    DeviceOom {
        /// Bytes of the allocation that failed.
        wanted: u64,
        /// Bytes free on the device then.
        free: u64,
        /// Bytes that the device has.
        total: u64,
    },
    /// Any other CUDA call failed.
    #[error("{call} failed with {code} ({name})")]
    Cuda {
        /// The driver's function.
        call: &'static str,
        /// The driver's result.
        code: u32,
        /// Its symbol or description, as far as the driver gives one.
        name: String,
    },
    /// Neither RAM nor, with files turned off, anything else takes the bytes.
    #[error(
        "no host memory for {wanted} bytes, {available} available; set MMAP_MEM_THRESHOLD_GB to let them go to files"
    )]
    HostMemory {
        /// Bytes to be placed.
        wanted: u64,
        /// Bytes available.
        available: u64,
    },
    /// The filesystem, a quota or a size limit is exhausted.
    #[error("disk full: {operation} of {wanted} bytes at {}{}{}", path.display(), available_text(*available), source_text(source.as_ref()))]
    DiskFull {
        /// The file or directory.
        path: PathBuf,
        /// The call that failed or, for a plan, `reserve`.
        operation: &'static str,
        /// Bytes wanted.
        wanted: u64,
        /// Bytes that the filesystem gives to us, where known.
        available: Option<u64>,
        /// ENOSPC, EDQUOT or EFBIG, when a call said so.
        source: Option<io::Error>,
    },
    /// Any other file call failed.
    #[error("{operation} of {} failed: {source}", path.display())]
    Io {
        /// The call that failed.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that are not what was written (E22).
    #[error("{what} is corrupt: {detail}")]
    Corrupt {
        /// The file, or the tensor.
        what: String,
        /// What was expected and what is there.
        detail: String,
    },
    /// cuFile failed, and so did the staged way that was taken instead (F67).
    #[error("{second} (the staged way, after cuFile: {first})")]
    AfterCuFile {
        /// What cuFile failed with.
        first: String,
        /// What the operation failed with in the end.
        #[source]
        second: Box<Error>,
    },
    /// The operation was cancelled.
    #[error("{0} was cancelled")]
    Cancelled(&'static str),
    /// Freeing memory ended early, after something had left. It is of the kind of its cause.
    #[error("{cause} (after {} bytes had left the device)", report.freed_bytes)]
    FreedLess {
        /// What ended it.
        #[source]
        cause: Box<Error>,
        /// What left before that, and stays away.
        report: Box<FreeReport>,
    },
    /// An I/O thread panicked; its work is lost, the source data is not (E29).
    #[error("an I/O thread panicked: {0}")]
    WorkerPanicked(String),
    /// What a visitor, or whoever gives a write's contents, failed with; handed through as it is.
    #[error(transparent)]
    Caller(Box<dyn std::error::Error + Send + Sync>),
    /// A defect of the engine.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The kind, one of a closed list.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidArgument(_)
            | Self::OtherProcess { .. }
            | Self::ModelExists(_)
            | Self::NotOnHost { .. } => ErrorKind::InvalidArgument,
            Self::InvalidSetting { .. } => ErrorKind::InvalidSetting,
            Self::InvalidModel(_) => ErrorKind::InvalidModel,
            Self::UnknownModel(_) => ErrorKind::UnknownModel,
            Self::UnknownTensor { .. } => ErrorKind::UnknownTensor,
            Self::Directory { .. } | Self::AlreadyExists(_) => ErrorKind::Directory,
            Self::CudaMissing(_) => ErrorKind::CudaMissing,
            Self::CudaTooOld { .. } => ErrorKind::CudaTooOld,
            // CUDA_ERROR_NO_DEVICE
            Self::CudaInit { code: 100, .. } => ErrorKind::NoDevice,
            Self::CudaInit { .. } => ErrorKind::CudaInit,
            Self::NoDevice { .. } => ErrorKind::NoDevice,
            Self::UnsupportedDevice(_) => ErrorKind::UnsupportedDevice,
            Self::DeviceOom { .. } => ErrorKind::DeviceOom,
            Self::Cuda { .. } => ErrorKind::DeviceError,
            Self::HostMemory { .. } => ErrorKind::HostMemory,
            Self::DiskFull { .. } => ErrorKind::DiskFull,
            Self::Io { .. } => ErrorKind::Io,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::AfterCuFile { second, .. } => second.kind(),
            Self::Cancelled(_) => ErrorKind::Cancelled,
            Self::FreedLess { cause, .. } => cause.kind(),
            Self::Caller(_) | Self::WorkerPanicked(_) | Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Whether the process or the machine has no descriptors left: for a while, and whatever was to be opened.
    pub(crate) fn is_out_of_descriptors(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
            }
            _ => false,
        }
    }

    /// The error of a failed file call: ENOSPC, EDQUOT and EFBIG become [`Error::DiskFull`] (F48).
    pub(crate) fn from_call(
        operation: &'static str,
        path: impl Into<PathBuf>,
        wanted: u64,
        source: io::Error,
    ) -> Self {
        let path = path.into();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Self::DiskFull {
                path,
                operation,
                wanted,
                available: None,
                source: Some(source),
            },
            Some(_) | None => Self::Io {
                operation,
                path,
                source,
            },
        }
    }
}

fn available_text(available: Option<u64>) -> String {
    available.map_or_else(String::new, |bytes| format!(", {bytes} available"))
}

fn source_text(source: Option<&io::Error>) -> String {
    source.map_or_else(String::new, |source| format!(": {source}"))
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What an [`Error`] means to a caller: a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word that the subject protocol uses.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

kinds! {
    /// An argument outside its range, or of something in another state.
    InvalidArgument = "invalid_argument",
    /// A setting that cannot be used.
    InvalidSetting = "invalid_setting",
    /// A manifest or safetensors file that cannot be used.
    InvalidModel = "invalid_model",
    /// No model of that name.
    UnknownModel = "unknown_model",
    /// No tensor of that name.
    UnknownTensor = "unknown_tensor",
    /// The offload directory cannot be used.
    Directory = "directory",
    /// No CUDA library.
    CudaMissing = "cuda_missing",
    /// A CUDA library without a needed symbol.
    CudaTooOld = "cuda_too_old",
    /// `cuInit` failed.
    CudaInit = "cuda_init",
    /// No such device.
    NoDevice = "no_device",
    /// Not a CUDA device.
    UnsupportedDevice = "unsupported_device",
    /// Device memory is exhausted.
    DeviceOom = "device_oom",
    /// Another failing CUDA call.
    DeviceError = "device_error",
    /// No place in RAM or files.
    HostMemory = "host_memory",
    /// The filesystem or a quota is full.
    DiskFull = "disk_full",
    /// Another failing file call.
    Io = "io",
    /// Length or checksum mismatch.
    Corrupt = "corrupt",
    /// Cancelled.
    Cancelled = "cancelled",
    /// A defect of the engine, or a caller's own error.
    Internal = "internal",
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    //! Which errno means a full disk, and that messages carry value and remedy.
    use super::*;

    #[test]
    fn a_quota_and_a_size_limit_count_as_a_full_disk() {
        for errno in [libc::ENOSPC, libc::EDQUOT, libc::EFBIG] {
            let error = Error::from_call("pwrite", "/d/f", 7, io::Error::from_raw_os_error(errno));
            assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
            assert!(error.to_string().contains("pwrite of 7 bytes at /d/f"));
        }
        for errno in [libc::EIO, libc::ENOTSUP, libc::EROFS] {
            let error = Error::from_call("pwrite", "/d/f", 7, io::Error::from_raw_os_error(errno));
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        }
    }

    #[test]
    fn a_setting_error_names_variable_value_and_remedy() {
        let error = Error::InvalidSetting {
            variable: "MMAP_MEM_THRESHOLD_GB",
            value: "12x".into(),
            remedy: "give a number of GiB".into(),
        };
        assert_eq!(
            error.to_string(),
            "MMAP_MEM_THRESHOLD_GB=\"12x\" is not usable: give a number of GiB"
        );
    }
}
