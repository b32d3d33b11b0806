//! Device memory that cuFile has pinned for direct transfers.
#![allow(unsafe_code)]

use super::{Driver, answer::Failure, code::Code, driver::check};
use crate::cuda::DeviceAddress;
use std::sync::Arc;

/// A registered allocation; deregistered when dropped, or by [`Registration::release`], which must be before it is freed.
pub(crate) struct Registration {
    driver: Arc<Driver>,
    address: DeviceAddress,
    is_registered: bool,
}

impl Registration {
    /// Registers `bytes` of device memory.
    ///
    /// # Errors
    /// The library's code, 5036 when the device cannot pin so much (F28); transfers work without, slower.
    pub(crate) fn new(
        driver: &Arc<Driver>,
        address: DeviceAddress,
        bytes: usize,
    ) -> Result<Self, Failure> {
        // SAFETY: the caller's allocation, with its length in bytes; flags 0. Memory that is none is the library's to
        // refuse.
        let status = unsafe { (driver.symbols.register_buffer)(address as *const _, bytes, 0) };
        check("cuFileBufRegister", status)?;
        Ok(Self {
            driver: Arc::clone(driver),
            address,
            is_registered: true,
        })
    }

    /// Deregisters the memory, and tells when the library refuses.
    ///
    /// # Errors
    /// The library's code, of the second try; that it is not registered is none.
    pub(crate) fn release(mut self) -> Result<(), Failure> {
        self.deregister()
    }

    fn deregister(&mut self) -> Result<(), Failure> {
        if !std::mem::take(&mut self.is_registered) || !self.driver.is_open() {
            return Ok(());
        }
        let attempt = || {
            // SAFETY: registered once in `new`, with the memory still allocated; deregistering what is not registered is
            // the library's to refuse.
            let status =
                unsafe { (self.driver.symbols.deregister_buffer)(self.address as *const _) };
            match Code(status.code.saturating_abs()) {
                Code::MEMORY_NOT_REGISTERED => Ok(()),
                _ => check("cuFileBufDeregister", status),
            }
        };
        attempt().or_else(|_| attempt())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // What a transfer failed with tells more.
        let _ = self.deregister();
    }
}
