//! The CUDA driver. Errors are those of the driver API reference, 12.8, most telling first; any call may also report what
//! an earlier asynchronous one left behind (CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_ECC_UNCORRECTABLE and kin).

use super::row::{collect, cuda};
use crate::error::{FaultError, names::*};
use crate::site::{After, Key, Kind, Site, Size};

const INIT: &[FaultError] = &[
    CUDA_ERROR_NO_DEVICE,
    CUDA_ERROR_UNKNOWN,
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
    CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE,
    CUDA_ERROR_SYSTEM_NOT_READY,
    CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_OPERATING_SYSTEM,
    CUDA_ERROR_STUB_LIBRARY,
    CUDA_ERROR_INVALID_DEVICE,
    CUDA_ERROR_INVALID_VALUE,
];
const CONTEXT: &[FaultError] = &[
    CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_DEVICE_UNAVAILABLE,
    CUDA_ERROR_INVALID_DEVICE,
    CUDA_ERROR_ECC_UNCORRECTABLE,
    CUDA_ERROR_UNKNOWN,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_DEINITIALIZED,
    CUDA_ERROR_INVALID_CONTEXT,
    CUDA_ERROR_INVALID_VALUE,
];
const ALLOCATE: &[FaultError] = &[
    CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_ILLEGAL_ADDRESS,
    CUDA_ERROR_ECC_UNCORRECTABLE,
    CUDA_ERROR_INVALID_CONTEXT,
    CUDA_ERROR_NOT_SUPPORTED,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_DEINITIALIZED,
    CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_UNKNOWN,
];
/// What most calls can say: what an earlier asynchronous operation left behind goes first.
const WORK: &[FaultError] = &[
    CUDA_ERROR_ILLEGAL_ADDRESS,
    CUDA_ERROR_ECC_UNCORRECTABLE,
    CUDA_ERROR_LAUNCH_FAILED,
    CUDA_ERROR_UNKNOWN,
    CUDA_ERROR_INVALID_CONTEXT,
    CUDA_ERROR_CONTEXT_IS_DESTROYED,
    CUDA_ERROR_INVALID_HANDLE,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_DEINITIALIZED,
    CUDA_ERROR_INVALID_VALUE,
];
const FREE: &[FaultError] = &[
    CUDA_ERROR_ILLEGAL_ADDRESS,
    CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_ECC_UNCORRECTABLE,
    CUDA_ERROR_INVALID_CONTEXT,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_DEINITIALIZED,
    CUDA_ERROR_UNKNOWN,
];
const MAKE: &[FaultError] = &[
    CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_ILLEGAL_ADDRESS,
    CUDA_ERROR_INVALID_CONTEXT,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_DEINITIALIZED,
    CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_UNKNOWN,
];
/// "Not ready" is an answer more than an error, so it stands last.
const QUERY: &[FaultError] = &[
    CUDA_ERROR_ILLEGAL_ADDRESS,
    CUDA_ERROR_ECC_UNCORRECTABLE,
    CUDA_ERROR_LAUNCH_FAILED,
    CUDA_ERROR_INVALID_CONTEXT,
    CUDA_ERROR_INVALID_HANDLE,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_DEINITIALIZED,
    CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_READY,
];
const POOL: &[FaultError] = &[
    CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_SUPPORTED,
    CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_INVALID_DEVICE,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_DEINITIALIZED,
];
const VIRTUAL: &[FaultError] = &[
    CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_NOT_PERMITTED,
    CUDA_ERROR_NOT_SUPPORTED,
    CUDA_ERROR_INVALID_DEVICE,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_DEINITIALIZED,
    CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_UNKNOWN,
];
const VIRTUAL_END: &[FaultError] = &[
    CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_PERMITTED,
    CUDA_ERROR_NOT_SUPPORTED,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_DEINITIALIZED,
];
const REGISTER: &[FaultError] = &[
    CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
    CUDA_ERROR_NOT_SUPPORTED,
    CUDA_ERROR_NOT_PERMITTED,
    CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_INVALID_CONTEXT,
    CUDA_ERROR_ILLEGAL_ADDRESS,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_DEINITIALIZED,
];

/// A copy of as many bytes as an argument says.
const fn copy(arity: u8, size_arg: u8) -> Site {
    cuda(arity, WORK).sized(Size::Arg(size_arg))
}

/// An allocation of device memory, of as many bytes as an argument says, whose address the first argument receives.
const fn allocate(arity: u8, size_arg: u8) -> Site {
    cuda(arity, ALLOCATE)
        .sized(Size::Arg(size_arg))
        .makes(Kind::DeviceMemory, Key::Out(0))
}

/// Hands the rows of the CUDA driver to a macro, as the documentation of the table says.
#[macro_export]
macro_rules! for_each_cuda_site {
    ($callback:ident) => {
        $callback! { Cuda;
            cuInit [cuInit] = cuda(1, INIT);
            cuDeviceGetCount [cuDeviceGetCount] = cuda(1, &[
                CUDA_ERROR_NOT_INITIALIZED, CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_DEINITIALIZED,
                CUDA_ERROR_INVALID_VALUE,
            ]);
            cuDevicePrimaryCtxRetain [cuDevicePrimaryCtxRetain] =
                cuda(2, CONTEXT).makes(Kind::Context, Key::Arg(1));
            cuDevicePrimaryCtxRelease [cuDevicePrimaryCtxRelease cuDevicePrimaryCtxRelease_v2] = cuda(1, &[
                CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_DEINITIALIZED,
                CUDA_ERROR_NOT_INITIALIZED, CUDA_ERROR_INVALID_VALUE,
            ]).ends(Kind::Context, Key::Arg(0));
            cuCtxCreate [cuCtxCreate_v2] = cuda(3, CONTEXT).makes(Kind::Context, Key::Out(0));
            cuCtxCreate_v3 [cuCtxCreate_v3] = cuda(5, CONTEXT).makes(Kind::Context, Key::Out(0));
            cuCtxCreate_v4 [cuCtxCreate_v4] = cuda(4, CONTEXT).makes(Kind::Context, Key::Out(0));
            cuCtxDestroy [cuCtxDestroy_v2] = cuda(1, FREE).ends(Kind::Context, Key::Arg(0));
            cuCtxSynchronize [cuCtxSynchronize] = cuda(0, WORK);
            cuCtxSynchronize_v2 [cuCtxSynchronize_v2] = cuda(1, WORK);

            cuMemAlloc [cuMemAlloc_v2] = allocate(2, 1);
            cuMemAllocPitch [cuMemAllocPitch_v2] =
                allocate(5, 2).sized(Size::PitchTimes { pitch_arg: 1, rows_arg: 3 });
            cuMemAllocManaged [cuMemAllocManaged] = allocate(3, 1);
            cuMemAllocAsync [cuMemAllocAsync cuMemAllocAsync_ptsz] = allocate(3, 1);
            cuMemAllocFromPoolAsync [cuMemAllocFromPoolAsync cuMemAllocFromPoolAsync_ptsz] = allocate(4, 1);
            cuMemFree [cuMemFree_v2] = cuda(1, FREE).ends(Kind::DeviceMemory, Key::Arg(0));
            cuMemFreeAsync [cuMemFreeAsync cuMemFreeAsync_ptsz] =
                cuda(2, FREE).ends(Kind::DeviceMemory, Key::Arg(0));
            cuMemGetInfo [cuMemGetInfo_v2] = cuda(2, WORK);

            cuMemPoolCreate [cuMemPoolCreate] = cuda(2, POOL).makes(Kind::MemoryPool, Key::Out(0));
            cuMemPoolDestroy [cuMemPoolDestroy] = cuda(1, POOL).ends(Kind::MemoryPool, Key::Arg(0));
            cuMemPoolTrimTo [cuMemPoolTrimTo] = cuda(2, POOL).sized(Size::Arg(1));
            cuMemPoolSetAttribute [cuMemPoolSetAttribute] = cuda(3, POOL);
            cuMemPoolGetAttribute [cuMemPoolGetAttribute] = cuda(3, POOL);
            cuMemPoolSetAccess [cuMemPoolSetAccess] = cuda(3, POOL);
            cuMemPoolGetAccess [cuMemPoolGetAccess] = cuda(3, POOL);
            cuMemPoolExportToShareableHandle [cuMemPoolExportToShareableHandle] = cuda(4, POOL).after(After::Never);
            cuMemPoolImportFromShareableHandle [cuMemPoolImportFromShareableHandle] =
                cuda(4, POOL).makes(Kind::MemoryPool, Key::Out(0));
            cuMemPoolExportPointer [cuMemPoolExportPointer] = cuda(2, POOL);
            cuMemPoolImportPointer [cuMemPoolImportPointer] = cuda(3, POOL).makes(Kind::DeviceMemory, Key::Out(0));

            cuMemAddressReserve [cuMemAddressReserve] =
                cuda(5, VIRTUAL).sized(Size::Arg(1)).makes(Kind::AddressRange, Key::Out(0));
            cuMemAddressFree [cuMemAddressFree] =
                cuda(2, VIRTUAL_END).sized(Size::Arg(1)).ends(Kind::AddressRange, Key::Arg(0));
            cuMemCreate [cuMemCreate] =
                cuda(4, VIRTUAL).sized(Size::Arg(1)).makes(Kind::PhysicalMemory, Key::Out(0));
            cuMemRelease [cuMemRelease] = cuda(1, VIRTUAL_END).ends(Kind::PhysicalMemory, Key::Arg(0));
            cuMemMap [cuMemMap] = cuda(5, VIRTUAL).sized(Size::Arg(1)).makes(Kind::DeviceMapping, Key::Arg(0));
            cuMemUnmap [cuMemUnmap] =
                cuda(2, VIRTUAL_END).sized(Size::Arg(1)).ends(Kind::DeviceMapping, Key::Arg(0));
            cuMemSetAccess [cuMemSetAccess] = cuda(4, &[
                CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_INVALID_VALUE,
                CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_NOT_INITIALIZED, CUDA_ERROR_DEINITIALIZED,
            ]).sized(Size::Arg(1));

            cuMemAllocHost [cuMemAllocHost_v2] =
                cuda(2, ALLOCATE).sized(Size::Arg(1)).makes(Kind::PinnedMemory, Key::Out(0));
            cuMemHostAlloc [cuMemHostAlloc] =
                cuda(3, ALLOCATE).sized(Size::Arg(1)).makes(Kind::PinnedMemory, Key::Out(0));
            cuMemFreeHost [cuMemFreeHost] = cuda(1, FREE).ends(Kind::PinnedMemory, Key::Arg(0));
            cuMemHostRegister [cuMemHostRegister_v2] =
                cuda(3, REGISTER).sized(Size::Arg(1)).makes(Kind::RegisteredMemory, Key::Arg(0));
            cuMemHostUnregister [cuMemHostUnregister] = cuda(1, &[
                CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_INVALID_VALUE,
                CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_NOT_INITIALIZED, CUDA_ERROR_DEINITIALIZED,
            ]).ends(Kind::RegisteredMemory, Key::Arg(0));

            cuMemcpy [cuMemcpy cuMemcpy_ptds] = copy(3, 2);
            cuMemcpyAsync [cuMemcpyAsync cuMemcpyAsync_ptsz] = copy(4, 2);
            cuMemcpyPeer [cuMemcpyPeer cuMemcpyPeer_ptds] = copy(5, 4);
            cuMemcpyPeerAsync [cuMemcpyPeerAsync cuMemcpyPeerAsync_ptsz] = copy(6, 4);
            cuMemcpyHtoD [cuMemcpyHtoD_v2 cuMemcpyHtoD_v2_ptds] = copy(3, 2);
            cuMemcpyHtoDAsync [cuMemcpyHtoDAsync_v2 cuMemcpyHtoDAsync_v2_ptsz] = copy(4, 2);
            cuMemcpyDtoH [cuMemcpyDtoH_v2 cuMemcpyDtoH_v2_ptds] = copy(3, 2);
            cuMemcpyDtoHAsync [cuMemcpyDtoHAsync_v2 cuMemcpyDtoHAsync_v2_ptsz] = copy(4, 2);
            cuMemcpyDtoD [cuMemcpyDtoD_v2 cuMemcpyDtoD_v2_ptds] = copy(3, 2);
            cuMemcpyDtoDAsync [cuMemcpyDtoDAsync_v2 cuMemcpyDtoDAsync_v2_ptsz] = copy(4, 2);
            cuMemcpyDtoA [cuMemcpyDtoA_v2 cuMemcpyDtoA_v2_ptds] = copy(4, 3);
            cuMemcpyAtoD [cuMemcpyAtoD_v2 cuMemcpyAtoD_v2_ptds] = copy(4, 3);
            cuMemcpyHtoA [cuMemcpyHtoA_v2 cuMemcpyHtoA_v2_ptds] = copy(4, 3);
            cuMemcpyHtoAAsync [cuMemcpyHtoAAsync_v2 cuMemcpyHtoAAsync_v2_ptsz] = copy(5, 3);
            cuMemcpyAtoH [cuMemcpyAtoH_v2 cuMemcpyAtoH_v2_ptds] = copy(4, 3);
            cuMemcpyAtoHAsync [cuMemcpyAtoHAsync_v2 cuMemcpyAtoHAsync_v2_ptsz] = copy(5, 3);
            cuMemcpyAtoA [cuMemcpyAtoA_v2 cuMemcpyAtoA_v2_ptds] = copy(5, 4);
            cuMemcpy2D [cuMemcpy2D_v2 cuMemcpy2D_v2_ptds] = cuda(1, WORK);
            cuMemcpy2DUnaligned [cuMemcpy2DUnaligned_v2 cuMemcpy2DUnaligned_v2_ptds] = cuda(1, WORK);
            cuMemcpy2DAsync [cuMemcpy2DAsync_v2 cuMemcpy2DAsync_v2_ptsz] = cuda(2, WORK);
            cuMemcpy3D [cuMemcpy3D_v2 cuMemcpy3D_v2_ptds] = cuda(1, WORK);
            cuMemcpy3DAsync [cuMemcpy3DAsync_v2 cuMemcpy3DAsync_v2_ptsz] = cuda(2, WORK);
            cuMemcpy3DPeer [cuMemcpy3DPeer cuMemcpy3DPeer_ptds] = cuda(1, WORK);
            cuMemcpy3DPeerAsync [cuMemcpy3DPeerAsync cuMemcpy3DPeerAsync_ptsz] = cuda(2, WORK);
            cuMemcpyBatchAsync [cuMemcpyBatchAsync cuMemcpyBatchAsync_ptsz] = cuda(9, WORK);
            cuMemcpyBatchAsync_v2 [cuMemcpyBatchAsync_v2 cuMemcpyBatchAsync_v2_ptsz] = cuda(8, WORK);
            cuMemcpy3DBatchAsync [cuMemcpy3DBatchAsync cuMemcpy3DBatchAsync_ptsz] = cuda(5, WORK);
            cuMemcpy3DBatchAsync_v2 [cuMemcpy3DBatchAsync_v2 cuMemcpy3DBatchAsync_v2_ptsz] = cuda(4, WORK);
            cuMemcpyWithAttributesAsync [cuMemcpyWithAttributesAsync cuMemcpyWithAttributesAsync_ptsz] = copy(5, 2);
            cuMemcpy3DWithAttributesAsync [cuMemcpy3DWithAttributesAsync cuMemcpy3DWithAttributesAsync_ptsz] =
                cuda(3, WORK);

            cuStreamCreate [cuStreamCreate] = cuda(2, MAKE).makes(Kind::Stream, Key::Out(0));
            cuStreamCreateWithPriority [cuStreamCreateWithPriority] =
                cuda(3, MAKE).makes(Kind::Stream, Key::Out(0));
            cuStreamDestroy [cuStreamDestroy_v2] = cuda(1, FREE).ends(Kind::Stream, Key::Arg(0));
            cuStreamSynchronize [cuStreamSynchronize cuStreamSynchronize_ptsz] = cuda(1, WORK);
            cuStreamQuery [cuStreamQuery cuStreamQuery_ptsz] = cuda(1, QUERY);
            cuStreamWaitEvent [cuStreamWaitEvent cuStreamWaitEvent_ptsz] = cuda(3, WORK);
            cuEventCreate [cuEventCreate] = cuda(2, MAKE).makes(Kind::Event, Key::Out(0));
            cuEventDestroy [cuEventDestroy_v2] = cuda(1, FREE).ends(Kind::Event, Key::Arg(0));
            cuEventRecord [cuEventRecord cuEventRecord_ptsz] = cuda(2, WORK);
            cuEventRecordWithFlags [cuEventRecordWithFlags cuEventRecordWithFlags_ptsz] = cuda(3, WORK);
            cuEventQuery [cuEventQuery] = cuda(1, QUERY);
            cuEventSynchronize [cuEventSynchronize] = cuda(1, WORK);
            cuEventElapsedTime [cuEventElapsedTime cuEventElapsedTime_v2] = cuda(3, QUERY);
        }
    };
}

for_each_cuda_site!(collect);
