//! The table of driver functions: complete, or a typed error, before anything is called.
#![allow(unsafe_code)]

use super::{DeviceAddress, result::RawResult};
use crate::Error;
use cudarc::driver::sys::{self, CUcontext, CUdevice, CUevent, CUstream};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

macro_rules! symbols {
    ($($field:ident = $symbol:literal: fn($($argument:ty),*);)*) => {
        /// Addresses of the driver's functions, each of the type that `cuda.h` gives it.
        pub(super) struct Symbols {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> RawResult,)*
        }

        impl Symbols {
            /// Looks every symbol up.
            ///
            /// # Errors
            /// [`Error::CudaMissing`], or [`Error::CudaTooOld`] with everything that is missing.
            pub(super) fn load() -> Result<Self, Error> {
                check_presence()?;
                // culib() panics when the library does not open; it has just done so, yet it may go away in between.
                let library = std::panic::catch_unwind(|| {
                    // SAFETY: as in check_presence; the library then stays open for the life of the process.
                    unsafe { sys::culib() }
                })
                .map_err(|_| Error::CudaMissing("libcuda.so.1 went away while it was opened".into()))?;
                let mut missing = Vec::new();
                $(
                    // SAFETY: the symbol, where it exists, is the driver function of that name, and the type in the
                    // table is its declaration in cuda.h (versioned names: of exactly that version). A result is a
                    // 32-bit C enum, for which RawResult is a transparent u32.
                    let $field = unsafe {
                        library.get::<unsafe extern "C" fn($($argument),*) -> RawResult>($symbol.as_bytes())
                    };
                    if $field.is_err() {
                        missing.push($symbol.to_owned());
                    }
                )*
                match ($($field,)*) {
                    ($(Ok($field),)*) => Ok(Self { $($field: *$field,)* }),
                    _ => Err(Error::CudaTooOld { missing }),
                }
            }
        }
    };
}

// cuMemAlloc and not the stream-ordered pool: units freed are the device's again at once and another process can take
// them (E12), with no trimming to forget. Real drivers give memory out in units of 2 MiB that small allocations share
// (measured on an H100: freeing half of 1000 × 4 KiB gives nothing back, 20 × 1 048 577 bytes take 40 MiB): bytes that
// the engine reports as freed are the sum of the blocks' bytes, and cuMemGetInfo agrees once whole units are free.
symbols! {
    init = "cuInit": fn(c_uint);
    device_count = "cuDeviceGetCount": fn(*mut c_int);
    device = "cuDeviceGet": fn(*mut CUdevice, c_int);
    retain_context = "cuDevicePrimaryCtxRetain": fn(*mut CUcontext, CUdevice);
    release_context = "cuDevicePrimaryCtxRelease_v2": fn(CUdevice);
    set_context = "cuCtxSetCurrent": fn(CUcontext);
    synchronize = "cuCtxSynchronize": fn();
    memory_info = "cuMemGetInfo_v2": fn(*mut usize, *mut usize);
    allocate = "cuMemAlloc_v2": fn(*mut DeviceAddress, usize);
    free = "cuMemFree_v2": fn(DeviceAddress);
    register = "cuMemHostRegister_v2": fn(*mut c_void, usize, c_uint);
    unregister = "cuMemHostUnregister": fn(*mut c_void);
    to_device = "cuMemcpyHtoDAsync_v2": fn(DeviceAddress, *const c_void, usize, CUstream);
    to_host = "cuMemcpyDtoHAsync_v2": fn(*mut c_void, DeviceAddress, usize, CUstream);
    create_stream = "cuStreamCreate": fn(*mut CUstream, c_uint);
    destroy_stream = "cuStreamDestroy_v2": fn(CUstream);
    synchronize_stream = "cuStreamSynchronize": fn(CUstream);
    create_event = "cuEventCreate": fn(*mut CUevent, c_uint);
    destroy_event = "cuEventDestroy_v2": fn(CUevent);
    record_event = "cuEventRecord": fn(CUevent, CUstream);
    synchronize_event = "cuEventSynchronize": fn(CUevent);
    error_name = "cuGetErrorName": fn(RawResult, *mut *const c_char);
}

fn check_presence() -> Result<(), Error> {
    // SAFETY: opening libcuda runs its initialisers, which is what every CUDA program does; it is looked up under
    // fixed names by the system's loader.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(Error::CudaMissing(
        "libcuda.so.1 was not found; install a driver, or name its directory in LD_LIBRARY_PATH"
            .into(),
    ))
}

impl Symbols {
    /// The driver's name of a result, `unknown result` when it has none.
    pub(super) fn name_of(&self, result: RawResult) -> String {
        let mut name = std::ptr::null();
        // SAFETY: the call writes one pointer into `name`, which outlives it.
        let status = unsafe { (self.error_name)(result, &mut name) };
        if status != RawResult::SUCCESS || name.is_null() {
            return "unknown result".into();
        }
        // SAFETY: on success the pointer is a NUL-terminated string in the library's static storage.
        unsafe { CStr::from_ptr(name) }
            .to_string_lossy()
            .into_owned()
    }
}
