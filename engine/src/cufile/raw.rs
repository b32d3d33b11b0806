//! The structures of `cufile.h`. Enumerations in them are plain integers here: the library may answer with any number.

use std::ffi::{c_int, c_uint, c_void};

/// `CUfileError_t`, which calls return by value.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawStatus {
    /// `CUfileOpError`, 0 for success.
    pub(super) code: c_int,
    /// `CUresult`, meaningful with code 5011.
    pub(super) cuda: c_int,
}

/// `CUfileHandle_t`.
pub(super) type RawHandle = *mut c_void;

/// `CU_FILE_HANDLE_TYPE_OPAQUE_FD`.
pub(super) const OPAQUE_DESCRIPTOR: c_int = 1;

/// The union in `CUfileDescr_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union RawFile {
    pub(super) descriptor: c_int,
    /// Gives the union its size and alignment; used by handle types of other systems.
    pub(super) handle: *mut c_void,
}

/// `CUfileDescr_t`.
#[repr(C)]
pub(super) struct RawDescriptor {
    pub(super) kind: c_int,
    pub(super) file: RawFile,
    /// For file systems in user space; null.
    pub(super) operations: *const c_void,
}

/// `CUfileDrvProps_t`, and room behind it for a library whose structure is longer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawProperties {
    /// Version of the kernel module nvidia-fs, 0.0 when it is not loaded.
    pub(super) major_version: c_uint,
    pub(super) minor_version: c_uint,
    pub(super) poll_threshold_size: usize,
    pub(super) max_direct_io_size: usize,
    /// A bit for each kind of storage that can be reached directly, numbered by `CUfileDriverStatusFlags`.
    pub(super) status_flags: c_uint,
    pub(super) control_flags: c_uint,
    pub(super) feature_flags: c_uint,
    pub(super) max_device_cache_size: c_uint,
    pub(super) per_buffer_cache_size: c_uint,
    pub(super) max_device_pinned_mem_size: c_uint,
    pub(super) max_batch_io_size: c_uint,
    pub(super) max_batch_io_timeout_msecs: c_uint,
    pub(super) reserved: [u64; 16],
}

// The layout that a C compiler gives them on both of our architectures (LP64).
const _: () = {
    assert!(size_of::<RawStatus>() == 8);
    assert!(size_of::<RawDescriptor>() == 24);
    assert!(std::mem::offset_of!(RawDescriptor, file) == 8);
    assert!(std::mem::offset_of!(RawDescriptor, operations) == 16);
    assert!(std::mem::offset_of!(RawProperties, status_flags) == 24);
    assert!(std::mem::offset_of!(RawProperties, feature_flags) == 32);
    assert!(std::mem::offset_of!(RawProperties, reserved) == 56);
};
