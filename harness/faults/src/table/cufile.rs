//! GPUDirect Storage. Errors are those of cufile.h and of the cuFile API reference, 1.20, most telling first. What comes
//! back in life differs from both: reads and writes report an errno as well as cuFile's own codes.

use super::row::{collect, cufile};
use crate::error::{FaultError, names::*};
use crate::site::{After, Failure, Key, Kind, Site, Size};

const OPEN: &[FaultError] = &[
    CU_FILE_NVFS_SETUP_ERROR,
    CU_FILE_DRIVER_NOT_INITIALIZED,
    CU_FILE_NVFS_DRIVER_ERROR,
    CU_FILE_DRIVER_VERSION_MISMATCH,
    CU_FILE_DRIVER_VERSION_READ_ERROR,
    CU_FILE_DRIVER_INVALID_PROPS,
    CU_FILE_DRIVER_UNSUPPORTED_LIMIT,
    CU_FILE_PLATFORM_NOT_SUPPORTED,
    CU_FILE_CUDA_DRIVER_ERROR,
    CU_FILE_DEVICE_NOT_FOUND,
    CU_FILE_PERMISSION_DENIED,
    CU_FILE_NOMEM_ERROR,
    CU_FILE_INTERNAL_ERROR,
];
const HANDLE: &[FaultError] = &[
    CU_FILE_IO_NOT_SUPPORTED,
    CU_FILE_HANDLE_NOT_REGISTERED,
    CU_FILE_INTERNAL_ERROR,
    CU_FILE_INVALID_FILE_TYPE,
    CU_FILE_INVALID_FILE_OPEN_FLAG,
    CU_FILE_DIO_NOT_SET,
    CU_FILE_HANDLE_ALREADY_REGISTERED,
    CU_FILE_GETNEWFD_FAILED,
    CU_FILE_NVFS_SETUP_ERROR,
    CU_FILE_DRIVER_NOT_INITIALIZED,
    CU_FILE_PERMISSION_DENIED,
    CU_FILE_INVALID_VALUE,
    CU_FILE_NOMEM_ERROR,
    CU_FILE_PLATFORM_NOT_SUPPORTED,
];
const BUFFER: &[FaultError] = &[
    CU_FILE_GPU_MEMORY_PINNING_FAILED,
    CU_FILE_CUDA_DRIVER_ERROR,
    CU_FILE_MEMORY_ALREADY_REGISTERED,
    CU_FILE_CUDA_POINTER_INVALID,
    CU_FILE_CUDA_MEMORY_TYPE_INVALID,
    CU_FILE_CUDA_POINTER_RANGE_ERROR,
    CU_FILE_INVALID_MAPPING_SIZE,
    CU_FILE_INVALID_MAPPING_RANGE,
    CU_FILE_NVFS_DRIVER_ERROR,
    CU_FILE_DRIVER_NOT_INITIALIZED,
    CU_FILE_INVALID_VALUE,
    CU_FILE_INTERNAL_BUF_REGISTER_ERROR,
    CU_FILE_NOMEM_ERROR,
    CU_FILE_INTERNAL_ERROR,
];
const READ: &[FaultError] = &[
    CU_FILE_INTERNAL_ERROR,
    EIO,
    CU_FILE_GETNEWFD_FAILED,
    CU_FILE_CUDA_DRIVER_ERROR,
    EINTR,
    EINVAL,
    CU_FILE_DRIVER_NOT_INITIALIZED,
    CU_FILE_DRIVER_CLOSING,
    CU_FILE_HANDLE_NOT_REGISTERED,
    CU_FILE_INVALID_VALUE,
    CU_FILE_CUDA_POINTER_RANGE_ERROR,
    CU_FILE_CUDA_CONTEXT_MISMATCH,
    CU_FILE_INVALID_MAPPING_RANGE,
    CU_FILE_PERMISSION_DENIED,
    CU_FILE_IO_DISABLED,
    CU_FILE_IO_ERROR,
    EAGAIN,
    EBADF,
];
const WRITE: &[FaultError] = &[
    ENOSPC,
    CU_FILE_INTERNAL_ERROR,
    EIO,
    CU_FILE_GETNEWFD_FAILED,
    CU_FILE_CUDA_DRIVER_ERROR,
    EDQUOT,
    EFBIG,
    EPERM,
    EINTR,
    EINVAL,
    CU_FILE_DRIVER_NOT_INITIALIZED,
    CU_FILE_DRIVER_CLOSING,
    CU_FILE_HANDLE_NOT_REGISTERED,
    CU_FILE_INVALID_VALUE,
    CU_FILE_CUDA_POINTER_RANGE_ERROR,
    CU_FILE_CUDA_CONTEXT_MISMATCH,
    CU_FILE_INVALID_MAPPING_RANGE,
    CU_FILE_PERMISSION_DENIED,
    CU_FILE_IO_DISABLED,
    CU_FILE_IO_ERROR,
    EAGAIN,
    EBADF,
];
const ASYNCHRONOUS: &[FaultError] = &[
    CU_FILE_ASYNC_NOT_SUPPORTED,
    CU_FILE_INTERNAL_ERROR,
    CU_FILE_CUDA_DRIVER_ERROR,
    CU_FILE_DRIVER_NOT_INITIALIZED,
    CU_FILE_HANDLE_NOT_REGISTERED,
    CU_FILE_INVALID_VALUE,
    CU_FILE_PERMISSION_DENIED,
    CU_FILE_NOMEM_ERROR,
];
const STREAM: &[FaultError] = &[
    CU_FILE_ASYNC_NOT_SUPPORTED,
    CU_FILE_CUDA_DRIVER_ERROR,
    CU_FILE_DRIVER_NOT_INITIALIZED,
    CU_FILE_INVALID_VALUE,
    CU_FILE_INTERNAL_ERROR,
];
const SETTING: &[FaultError] = &[
    CU_FILE_DRIVER_ALREADY_OPEN,
    CU_FILE_INVALID_VALUE,
    CU_FILE_DRIVER_UNSUPPORTED_LIMIT,
    CU_FILE_DRIVER_NOT_INITIALIZED,
    CU_FILE_INTERNAL_ERROR,
];
const CLOSE: &[FaultError] = &[
    CU_FILE_DRIVER_NOT_INITIALIZED,
    CU_FILE_DRIVER_CLOSING,
    CU_FILE_NVFS_DRIVER_ERROR,
    CU_FILE_INTERNAL_ERROR,
];

/// A transfer that returns the bytes moved.
const fn transfer(errors: &'static [FaultError]) -> Site {
    cufile(5, errors).fails_as(Failure::CuFileBytes)
}

/// Hands the rows of cuFile to a macro, as the documentation of the table says.
#[macro_export]
macro_rules! for_each_cufile_site {
    ($callback:ident) => {
        $callback! { CuFile;
            cuFileDriverOpen [cuFileDriverOpen] = cufile(0, OPEN).after(After::Never);
            cuFileDriverClose [cuFileDriverClose cuFileDriverClose_v2] = cufile(0, CLOSE);
            cuFileDriverGetProperties [cuFileDriverGetProperties] = cufile(1, &[
                CU_FILE_DRIVER_NOT_INITIALIZED, CU_FILE_DRIVER_VERSION_MISMATCH, CU_FILE_INVALID_VALUE,
                CU_FILE_INTERNAL_ERROR,
            ]);
            cuFileGetVersion [cuFileGetVersion] = cufile(1, &[
                CU_FILE_DRIVER_VERSION_READ_ERROR, CU_FILE_INVALID_VALUE, CU_FILE_INTERNAL_ERROR,
            ]);
            cuFileSetParameterSizeT [cuFileSetParameterSizeT] = cufile(2, SETTING);
            cuFileSetParameterBool [cuFileSetParameterBool] = cufile(2, SETTING);
            cuFileSetParameterString [cuFileSetParameterString] = cufile(2, SETTING);
            cuFileSetParameterPosixPoolSlabArray [cuFileSetParameterPosixPoolSlabArray] = cufile(3, SETTING);
            cuFileSetParameterGpuBounceBufferSlabArray [cuFileSetParameterGpuBounceBufferSlabArray] =
                cufile(3, SETTING);

            cuFileHandleRegister [cuFileHandleRegister] =
                cufile(2, HANDLE).makes(Kind::CuFileHandle, Key::Out(0));
            cuFileHandleDeregister [cuFileHandleDeregister] =
                cufile(1, &[]).fails_as(Failure::Void).ends(Kind::CuFileHandle, Key::Arg(0));
            cuFileBufRegister [cuFileBufRegister] =
                cufile(3, BUFFER).sized(Size::Arg(1)).makes(Kind::CuFileBuffer, Key::Arg(0));
            cuFileBufDeregister [cuFileBufDeregister] = cufile(1, &[
                CU_FILE_MEMORY_NOT_REGISTERED, CU_FILE_INVALID_VALUE, CU_FILE_DRIVER_NOT_INITIALIZED,
                CU_FILE_CUDA_DRIVER_ERROR, CU_FILE_INTERNAL_ERROR,
            ]).ends(Kind::CuFileBuffer, Key::Arg(0));

            cuFileRead [cuFileRead] = transfer(READ).counted(2).at(3);
            cuFileWrite [cuFileWrite] = transfer(WRITE).counted(2).at(3);
            cuFileReadv [cuFileReadv] = transfer(READ).at(3);
            cuFileWritev [cuFileWritev] = transfer(WRITE).at(3);
            cuFileReadAsync [cuFileReadAsync] = cufile(7, ASYNCHRONOUS).sized(Size::Pointed(2));
            cuFileWriteAsync [cuFileWriteAsync] = cufile(7, ASYNCHRONOUS).sized(Size::Pointed(2));
            cuFileStreamRegister [cuFileStreamRegister] =
                cufile(2, STREAM).makes(Kind::CuFileStream, Key::Arg(0));
            cuFileStreamDeregister [cuFileStreamDeregister] =
                cufile(1, STREAM).ends(Kind::CuFileStream, Key::Arg(0));

            cuFileBatchIOSetUp [cuFileBatchIOSetUp] = cufile(2, &[
                CU_FILE_INTERNAL_BATCH_SETUP_ERROR, CU_FILE_DRIVER_NOT_INITIALIZED, CU_FILE_INVALID_VALUE,
                CU_FILE_NOMEM_ERROR, CU_FILE_INTERNAL_ERROR,
            ]).makes(Kind::CuFileBatch, Key::Out(0));
            cuFileBatchIOSubmit [cuFileBatchIOSubmit] = cufile(4, &[
                CU_FILE_BATCH_SUBMIT_FAILED, CU_FILE_BATCH_FULL, CU_FILE_INTERNAL_BATCH_SUBMIT_ERROR,
                CU_FILE_HANDLE_NOT_REGISTERED, CU_FILE_INVALID_VALUE, CU_FILE_CUDA_DRIVER_ERROR,
                CU_FILE_INTERNAL_ERROR,
            ]).after(After::Never);
            cuFileBatchIOGetStatus [cuFileBatchIOGetStatus] = cufile(5, &[
                CU_FILE_INTERNAL_BATCH_GETSTATUS_ERROR, CU_FILE_INVALID_VALUE, CU_FILE_INTERNAL_ERROR,
            ]);
            cuFileBatchIOCancel [cuFileBatchIOCancel] = cufile(1, &[
                CU_FILE_INTERNAL_BATCH_CANCEL_ERROR, CU_FILE_INVALID_VALUE, CU_FILE_INTERNAL_ERROR,
            ]);
            cuFileBatchIODestroy [cuFileBatchIODestroy] =
                cufile(1, &[]).fails_as(Failure::Void).ends(Kind::CuFileBatch, Key::Arg(0));
        }
    };
}

for_each_cufile_site!(collect);
