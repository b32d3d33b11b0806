//! Device memory with one owner.

use super::{Context, DeviceAddress};
use crate::Error;
use std::sync::Arc;

/// An allocation in device memory, never of zero bytes; freed when dropped, or by [`DeviceBuffer::release`].
pub(crate) struct DeviceBuffer {
    context: Arc<Context>,
    address: DeviceAddress,
    bytes: u64,
}

impl DeviceBuffer {
    /// Allocates `bytes` of device memory.
    ///
    /// # Errors
    /// [`Error::DeviceOom`], or another failing call.
    pub(crate) fn new(context: &Arc<Context>, bytes: u64) -> Result<Self, Error> {
        let address = context.allocate(bytes)?;
        Ok(Self {
            context: Arc::clone(context),
            address,
            bytes,
        })
    }

    pub(crate) fn address(&self) -> DeviceAddress {
        self.address
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Frees the memory and tells when the driver refuses (F9).
    ///
    /// # Errors
    /// The driver's; the memory is then the context's to retry, no longer the caller's.
    pub(crate) fn release(mut self) -> Result<(), Error> {
        self.free()
    }

    fn free(&mut self) -> Result<(), Error> {
        if self.bytes == 0 {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.context.free(self.address, bytes)
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if let Err(error) = self.free() {
            self.context.note(error);
        }
    }
}
