//! Device memory that cuFile has pinned for direct transfers.
#![allow(unsafe_code)]

use super::{Driver, answer::Failure, driver::check};
use crate::cuda::DeviceAddress;
use std::sync::Arc;

/// A registered allocation; deregistered when dropped, which must be before it is freed.
pub(crate) struct Registration {
    driver: Arc<Driver>,
    address: DeviceAddress,
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
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.driver.is_open() {
            // SAFETY: registered once in `new`, deregistered once here, with the memory still allocated. A refusal means
            // that it is not registered any more, which is what is wanted.
            let _ = unsafe { (self.driver.symbols.deregister_buffer)(self.address as *const _) };
        }
    }
}
