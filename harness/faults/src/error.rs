//! The errors that calls can be made to return: names and numbers in one table.

use std::fmt;

use crate::nearest::nearest;

/// Whose numbers an error is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Domain {
    /// `errno`, with the numbers of asm-generic, which x86-64 and aarch64 share.
    Errno = 1,
    /// `CUresult` (cuda.h).
    Cuda = 2,
    /// `CUfileOpError` (cufile.h).
    CuFile = 3,
}

/// An error that a call can be made to return.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultError {
    /// Whose number it is.
    pub domain: Domain,
    /// The number, positive.
    pub code: i32,
}

impl FaultError {
    /// The error of that name, or of another name for the same number.
    pub fn named(name: &str) -> Option<FaultError> {
        let other = OTHER_NAMES.iter().find(|(other, _)| *other == name);
        let name = other.map_or(name, |(_, name)| name);
        let found = ERRORS.iter().find(|(known, _)| *known == name);
        found.map(|(_, error)| *error)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = ERRORS.iter().find(|(_, error)| *error == self);
        found.map_or("unknown", |(name, _)| name)
    }

    /// Whether a correct caller answers it with the same call again, so that it never ends where it is planned for good.
    pub fn is_transient(self) -> bool {
        const TRANSIENT: [FaultError; 3] =
            [names::EINTR, names::EAGAIN, names::CUDA_ERROR_NOT_READY];
        TRANSIENT.contains(&self)
    }

    /// The error of that number, if the table has it.
    pub fn checked(domain: u64, code: u64) -> Option<FaultError> {
        let of = |error: &FaultError| (error.domain as u64, error.code as u64) == (domain, code);
        let found = ERRORS.iter().find(|(_, error)| of(error));
        found.map(|(_, error)| *error)
    }

    /// The nearest name, for messages.
    pub fn nearest(word: &str) -> Option<&'static str> {
        nearest(word, ERRORS.iter().map(|(name, _)| *name))
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Debug for FaultError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name(), self.code)
    }
}

/// Second names in use.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("ENOTSUP", "EOPNOTSUPP"),
    ("EWOULDBLOCK", "EAGAIN"),
    ("EDEADLOCK", "EDEADLK"),
];

macro_rules! errors {
    ($($domain:ident { $($name:ident = $code:literal)+ })+) => {
        /// Every error by name, for the rows of the table.
        pub mod names {
            use super::{Domain, FaultError};
            $($(
                #[doc = concat!(stringify!($domain), " ", stringify!($code))]
                pub const $name: FaultError = FaultError { domain: Domain::$domain, code: $code };
            )+)+
        }

        /// Every error with its name.
        pub const ERRORS: &[(&str, FaultError)] = &[$($((stringify!($name), names::$name),)+)+];
    };
}

errors! {
    Errno {
        EPERM = 1 ENOENT = 2 EINTR = 4 EIO = 5 ENXIO = 6 EBADF = 9 EAGAIN = 11 ENOMEM = 12 EACCES = 13 EFAULT = 14
        EBUSY = 16 EEXIST = 17 EXDEV = 18 ENODEV = 19 ENOTDIR = 20 EISDIR = 21 EINVAL = 22 ENFILE = 23 EMFILE = 24
        ETXTBSY = 26 EFBIG = 27 ENOSPC = 28 ESPIPE = 29 EROFS = 30 EMLINK = 31 EPIPE = 32 EDEADLK = 35
        ENAMETOOLONG = 36 ENOLCK = 37 ENOSYS = 38 ENOTEMPTY = 39 ELOOP = 40 EOVERFLOW = 75 EOPNOTSUPP = 95
        EDQUOT = 122
    }
    Cuda {
        CUDA_ERROR_INVALID_VALUE = 1 CUDA_ERROR_OUT_OF_MEMORY = 2 CUDA_ERROR_NOT_INITIALIZED = 3
        CUDA_ERROR_DEINITIALIZED = 4 CUDA_ERROR_STUB_LIBRARY = 34 CUDA_ERROR_DEVICE_UNAVAILABLE = 46
        CUDA_ERROR_NO_DEVICE = 100 CUDA_ERROR_INVALID_DEVICE = 101 CUDA_ERROR_INVALID_CONTEXT = 201
        CUDA_ERROR_MAP_FAILED = 205 CUDA_ERROR_UNMAP_FAILED = 206 CUDA_ERROR_ECC_UNCORRECTABLE = 214
        CUDA_ERROR_NVLINK_UNCORRECTABLE = 220 CUDA_ERROR_OPERATING_SYSTEM = 304 CUDA_ERROR_INVALID_HANDLE = 400
        CUDA_ERROR_ILLEGAL_STATE = 401 CUDA_ERROR_NOT_FOUND = 500 CUDA_ERROR_NOT_READY = 600
        CUDA_ERROR_ILLEGAL_ADDRESS = 700 CUDA_ERROR_LAUNCH_TIMEOUT = 702 CUDA_ERROR_CONTEXT_IS_DESTROYED = 709
        CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED = 712 CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED = 713
        CUDA_ERROR_LAUNCH_FAILED = 719 CUDA_ERROR_NOT_PERMITTED = 800 CUDA_ERROR_NOT_SUPPORTED = 801
        CUDA_ERROR_SYSTEM_NOT_READY = 802 CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803
        CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE = 804 CUDA_ERROR_UNKNOWN = 999
    }
    CuFile {
        CU_FILE_DRIVER_NOT_INITIALIZED = 5001 CU_FILE_DRIVER_INVALID_PROPS = 5002
        CU_FILE_DRIVER_UNSUPPORTED_LIMIT = 5003 CU_FILE_DRIVER_VERSION_MISMATCH = 5004
        CU_FILE_DRIVER_VERSION_READ_ERROR = 5005 CU_FILE_DRIVER_CLOSING = 5006
        CU_FILE_PLATFORM_NOT_SUPPORTED = 5007 CU_FILE_IO_NOT_SUPPORTED = 5008 CU_FILE_DEVICE_NOT_SUPPORTED = 5009
        CU_FILE_NVFS_DRIVER_ERROR = 5010 CU_FILE_CUDA_DRIVER_ERROR = 5011 CU_FILE_CUDA_POINTER_INVALID = 5012
        CU_FILE_CUDA_MEMORY_TYPE_INVALID = 5013 CU_FILE_CUDA_POINTER_RANGE_ERROR = 5014
        CU_FILE_CUDA_CONTEXT_MISMATCH = 5015 CU_FILE_INVALID_MAPPING_SIZE = 5016
        CU_FILE_INVALID_MAPPING_RANGE = 5017 CU_FILE_INVALID_FILE_TYPE = 5018 CU_FILE_INVALID_FILE_OPEN_FLAG = 5019
        CU_FILE_DIO_NOT_SET = 5020 CU_FILE_INVALID_VALUE = 5022 CU_FILE_MEMORY_ALREADY_REGISTERED = 5023
        CU_FILE_MEMORY_NOT_REGISTERED = 5024 CU_FILE_PERMISSION_DENIED = 5025 CU_FILE_DRIVER_ALREADY_OPEN = 5026
        CU_FILE_HANDLE_NOT_REGISTERED = 5027 CU_FILE_HANDLE_ALREADY_REGISTERED = 5028
        CU_FILE_DEVICE_NOT_FOUND = 5029 CU_FILE_INTERNAL_ERROR = 5030 CU_FILE_GETNEWFD_FAILED = 5031
        CU_FILE_NVFS_SETUP_ERROR = 5033 CU_FILE_IO_DISABLED = 5034 CU_FILE_BATCH_SUBMIT_FAILED = 5035
        CU_FILE_GPU_MEMORY_PINNING_FAILED = 5036 CU_FILE_BATCH_FULL = 5037 CU_FILE_ASYNC_NOT_SUPPORTED = 5038
        CU_FILE_INTERNAL_BATCH_SETUP_ERROR = 5039 CU_FILE_INTERNAL_BATCH_SUBMIT_ERROR = 5040
        CU_FILE_INTERNAL_BATCH_GETSTATUS_ERROR = 5041 CU_FILE_INTERNAL_BATCH_CANCEL_ERROR = 5042
        CU_FILE_NOMEM_ERROR = 5043 CU_FILE_IO_ERROR = 5044 CU_FILE_INTERNAL_BUF_REGISTER_ERROR = 5045
    }
}

#[cfg(test)]
mod tests {
    //! Which errors end by themselves.
    use super::*;

    #[test]
    fn only_what_asks_for_another_try_is_transient() {
        let transient: Vec<&str> = ERRORS
            .iter()
            .filter(|(_, error)| error.is_transient())
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(transient, ["EINTR", "EAGAIN", "CUDA_ERROR_NOT_READY"]);
    }
}
