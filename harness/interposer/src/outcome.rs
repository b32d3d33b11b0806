//! How results of calls look, and making one that looks failed.

use spillproof_faults::{Domain, Failure, FaultError};

use crate::errno;

/// `CU_FILE_CUDA_DRIVER_ERROR`: the driver's own code stands beside it.
const CUFILE_CUDA_DRIVER_ERROR: usize = 5011;
/// What a missing function answers with: `CUDA_ERROR_NOT_FOUND`, `CU_FILE_DRIVER_NOT_INITIALIZED`.
const CUDA_NOT_FOUND: usize = 500;
const CUFILE_NOT_INITIALIZED: usize = 5001;

/// The result of a call that fails so; sets `errno` where such a call does.
pub(crate) fn failed(failure: Failure, error: FaultError) -> usize {
    let code = error.code as usize;
    match failure {
        Failure::MinusOne | Failure::MapFailed | Failure::RawSyscall => {
            errno::set(error.code);
            usize::MAX
        }
        Failure::ReturnsErrno => code,
        Failure::CudaResult => code,
        Failure::CuFileError => match error.domain {
            Domain::Cuda => code << 32 | CUFILE_CUDA_DRIVER_ERROR,
            Domain::CuFile | Domain::Errno => code,
        },
        Failure::CuFileBytes => match error.domain {
            Domain::Errno => {
                errno::set(error.code);
                usize::MAX
            }
            Domain::CuFile | Domain::Cuda => code.wrapping_neg(),
        },
        Failure::Void => 0,
    }
}

/// The result of a function that does not exist without this library, whose wrapper was found in its place.
pub(crate) fn missing(failure: Failure) -> usize {
    match failure {
        Failure::MinusOne | Failure::MapFailed | Failure::RawSyscall => {
            errno::set(libc::ENOSYS);
            usize::MAX
        }
        Failure::ReturnsErrno => libc::ENOSYS as usize,
        Failure::CudaResult => CUDA_NOT_FOUND,
        Failure::CuFileError => CUFILE_NOT_INITIALIZED,
        Failure::CuFileBytes => CUFILE_NOT_INITIALIZED.wrapping_neg(),
        Failure::Void => 0,
    }
}

/// Whether a result is that of a call that failed. Functions that return an `int` leave the high half of the register alone.
#[inline]
pub(crate) fn is_failed(failure: Failure, result: usize) -> bool {
    // One by one, as in `effect::begin`.
    if failure == Failure::MinusOne {
        return result == usize::MAX || result == u32::MAX as usize;
    }
    if failure == Failure::CudaResult {
        return result as u32 != 0;
    }
    is_failed_otherwise(failure, result)
}

#[inline(never)]
fn is_failed_otherwise(failure: Failure, result: usize) -> bool {
    match failure {
        Failure::MinusOne | Failure::RawSyscall => {
            result == usize::MAX || result == u32::MAX as usize
        }
        Failure::MapFailed => result == usize::MAX,
        Failure::ReturnsErrno | Failure::CudaResult | Failure::CuFileError => result as u32 != 0,
        Failure::CuFileBytes => (result as isize) < 0,
        Failure::Void => false,
    }
}
