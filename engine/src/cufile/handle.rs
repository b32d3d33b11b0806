//! A file that is registered with cuFile, and transfers with it.
#![allow(unsafe_code)]

use super::{
    Driver,
    answer::{Failure, move_all},
    driver::check,
    raw::{OPAQUE_DESCRIPTOR, RawDescriptor, RawFile, RawHandle},
};
use crate::cuda::DeviceAddress;
use nix::errno::Errno;
use std::{fs::File, os::fd::AsRawFd, sync::Arc};

/// Device memory as cuFile addresses it: an allocation, registered or not, and a place in it.
#[derive(Clone, Copy)]
pub(crate) struct DevicePlace {
    pub(crate) base: DeviceAddress,
    pub(crate) offset: u64,
}

/// A registered descriptor, which is closed after it was deregistered.
pub(crate) struct Handle {
    driver: Arc<Driver>,
    raw: RawHandle,
    /// Open until after the handle was deregistered (fields go after `drop`): the library's handle is `0xabababab00000000`
    /// and the descriptor's number (seen), so that one which outlives its descriptor names the next file with that number.
    _file: File,
}

// SAFETY: "All APIs are thread-safe" (cuFile API Reference Guide, Usage); the handle is only ever given to the library.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Registers `file`, which is closed at once when cuFile refuses it (F26).
    ///
    /// # Errors
    /// The library's code.
    pub(crate) fn register(driver: &Arc<Driver>, file: File) -> Result<Self, Failure> {
        let mut raw = std::ptr::null_mut();
        let mut descriptor = RawDescriptor {
            kind: OPAQUE_DESCRIPTOR,
            file: RawFile {
                // The other half of the union is read by nobody for this kind; it is not left undefined all the same.
                handle: std::ptr::null_mut(),
            },
            operations: std::ptr::null(),
        };
        descriptor.file.descriptor = file.as_raw_fd();
        // SAFETY: both point to locals of the types that cufile.h declares; the descriptor is open, and stays so until the
        // handle was deregistered (see drop).
        let status = unsafe { (driver.symbols.register_handle)(&mut raw, &mut descriptor) };
        check("cuFileHandleRegister", status)?;
        Ok(Self {
            driver: Arc::clone(driver),
            raw,
            _file: file,
        })
    }

    /// Writes `bytes` of device memory to the file. Not ordered with any stream.
    ///
    /// # Errors
    /// See [`Failure`]; a part may have been written.
    pub(crate) fn write(
        &self,
        from: DevicePlace,
        bytes: usize,
        file_offset: u64,
        moved: impl FnMut(u64),
    ) -> Result<(), Failure> {
        let step = |done: usize| {
            Errno::clear();
            // SAFETY: the handle is registered. The device range is the caller's allocation (see `transfer`); an address
            // that is none is the library's to refuse.
            let returned = unsafe {
                (self.driver.symbols.write)(
                    self.raw,
                    from.base as *const _,
                    bytes - done,
                    offset(file_offset, done),
                    offset(from.offset, done),
                )
            };
            (returned, Errno::last_raw())
        };
        move_all("cuFileWrite", bytes, file_offset, step, moved)
    }

    /// Reads `bytes` of the file to device memory. Not ordered with any stream; complete when it returns.
    ///
    /// # Errors
    /// See [`Failure`]; a part may have been read.
    pub(crate) fn read(
        &self,
        to: DevicePlace,
        bytes: usize,
        file_offset: u64,
        moved: impl FnMut(u64),
    ) -> Result<(), Failure> {
        let step = |done: usize| {
            Errno::clear();
            // SAFETY: as in `write`.
            let returned = unsafe {
                (self.driver.symbols.read)(
                    self.raw,
                    to.base as *mut _,
                    bytes - done,
                    offset(file_offset, done),
                    offset(to.offset, done),
                )
            };
            (returned, Errno::last_raw())
        };
        move_all("cuFileRead", bytes, file_offset, step, moved)
    }
}

/// As C has it. Offsets are inside a file or an allocation, so they fit; one that did not would be refused as negative.
fn offset(start: u64, done: usize) -> libc::off_t {
    libc::off_t::try_from(start + done as u64).unwrap_or(-1)
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.driver.is_open() {
            // SAFETY: registered once in `register`, deregistered once here, with its descriptor still open.
            unsafe { (self.driver.symbols.deregister_handle)(self.raw) };
        }
    }
}
