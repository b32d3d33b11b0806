//! Calls of the emulated driver and of its cuFile.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::hint::black_box;
use std::mem::transmute;
use std::os::fd::RawFd;

use crate::play::BYTES;

type One = unsafe extern "C" fn(usize) -> u32;
type Two = unsafe extern "C" fn(*mut u64, usize) -> u32;
type Copy = unsafe extern "C" fn(u64, *const c_void, usize, u64) -> u32;
type Register = unsafe extern "C" fn(*mut u64, *const Description) -> u64;

/// `CUfileDescr_t`.
#[repr(C)]
struct Description {
    /// 1: a descriptor.
    sort: u32,
    number: u64,
    operations: usize,
}

/// A device with a context, memory and a stream.
pub(crate) struct Device {
    allocate: Two,
    free: One,
    copy: Copy,
    synchronize: One,
    make: Two,
    destroy: One,
    register: Register,
    deregister: One,
    memory: u64,
    stream: u64,
}

impl Device {
    pub(crate) fn open() -> Device {
        let load = |name: &CStr| {
            // SAFETY: a terminated name of a library without constructors of its own.
            let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
            assert!(!library.is_null(), "{name:?}");
            library
        };
        let (driver, cufile) = (load(c"libcuda.so.1"), load(c"libcufile.so.0"));
        let find = |library, name: &CStr| {
            // SAFETY: the handle is open, the name terminated.
            let address = unsafe { libc::dlsym(library, name.as_ptr()) };
            assert!(!address.is_null(), "{name:?}");
            address
        };
        let cuda = |name| find(driver, name);
        // SAFETY: functions by their types in cuda.h and cufile.h, with memory to write to.
        unsafe {
            let init: One = transmute(cuda(c"cuInit"));
            let retain: Two = transmute(cuda(c"cuDevicePrimaryCtxRetain"));
            let current: One = transmute(cuda(c"cuCtxSetCurrent"));
            let open: extern "C" fn() -> u64 = transmute(find(cufile, c"cuFileDriverOpen"));
            let mut device = Device {
                allocate: transmute::<*mut c_void, Two>(cuda(c"cuMemAlloc_v2")),
                free: transmute::<*mut c_void, One>(cuda(c"cuMemFree_v2")),
                copy: transmute::<*mut c_void, Copy>(cuda(c"cuMemcpyHtoDAsync_v2")),
                synchronize: transmute::<*mut c_void, One>(cuda(c"cuStreamSynchronize")),
                make: transmute::<*mut c_void, Two>(cuda(c"cuStreamCreate")),
                destroy: transmute::<*mut c_void, One>(cuda(c"cuStreamDestroy_v2")),
                register: transmute::<*mut c_void, Register>(find(cufile, c"cuFileHandleRegister")),
                deregister: transmute::<*mut c_void, One>(find(cufile, c"cuFileHandleDeregister")),
                memory: 0,
                stream: 0,
            };
            let mut context = 0u64;
            assert_eq!(init(0), 0);
            assert_eq!(retain(&raw mut context, 0), 0);
            assert_eq!(current(context as usize), 0);
            assert_eq!((device.allocate)(&raw mut device.memory, 1 << 16), 0);
            assert_eq!((device.make)(&raw mut device.stream, 0), 0);
            assert_eq!(open() as u32, 0);
            device
        }
    }

    pub(crate) fn allocate_and_free(&self) {
        let mut address = 0u64;
        // SAFETY: as above.
        unsafe {
            assert_eq!((self.allocate)(&raw mut address, 1 << 16), 0);
            black_box((self.free)(address as usize));
        }
    }

    pub(crate) fn copy(&self, from: *const c_void) {
        // SAFETY: as above; the copy is over before the function returns.
        unsafe {
            black_box((self.copy)(self.memory, from, BYTES, self.stream));
            assert_eq!((self.synchronize)(self.stream as usize), 0);
        }
    }

    pub(crate) fn make_stream(&self) {
        let mut stream = 0u64;
        // SAFETY: as above.
        unsafe {
            assert_eq!((self.make)(&raw mut stream, 0), 0);
            black_box((self.destroy)(stream as usize));
        }
    }

    pub(crate) fn register(&self, number: RawFd) {
        let description = Description {
            sort: 1,
            number: number as u64,
            operations: 0,
        };
        let mut handle = 0u64;
        // SAFETY: as above.
        unsafe {
            let status = (self.register)(&raw mut handle, &raw const description);
            assert_eq!(status as u32, 0);
            black_box((self.deregister)(handle as usize));
        }
    }
}
