//! Changing a tensor on the device.

use super::{Engine, request::others_then_own, state::BlockId};
use crate::{
    Error, HostCopy,
    transfer::{Contents, DeviceSpan},
};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

impl Engine {
    /// Overwrites a tensor's span on the device, as a training step or a patch would: brings its block in, then asks
    /// `contents` for the bytes from an offset on, window after window. Host copies become invalid, also for tensors
    /// that share the bytes; views keep showing the old ones.
    ///
    /// # Errors
    /// No such model or tensor; what a request can fail with while it brings the block in; the error of `contents`.
    /// The host's copy, where there was one, is then current again and the block off the device; a block that was on
    /// the device only is changed up to where it failed.
    pub fn write_tensor(
        &self,
        name: &str,
        tensor: &str,
        contents: &mut Contents<'_>,
    ) -> Result<(), Error> {
        let _operation = self.begin()?;
        let (id, offset_bytes, span_bytes) = {
            let mut state = self.state();
            let found = state.find(name)?;
            let layout = &found.layout.tensors[found.tensor_index(tensor)?];
            let Some(block) = layout.block else {
                return Ok(());
            };
            let found = (found.id(block), layout.offset_bytes, layout.span_bytes);
            let now = state.tick();
            state.model(found.0.model)?.last_use = now;
            found
        };
        let address = self.bring_in_alone(id)?;
        let target = DeviceSpan {
            address: address + offset_bytes,
            bytes: span_bytes,
        };
        let written = catch_unwind(AssertUnwindSafe(|| {
            // Writes that other streams still do to the block come before this one.
            self.context.synchronize()?;
            self.staged.write_device(target, contents)
        }));
        match written {
            Ok(Ok(())) => {
                self.state().block(id)?.invalidate_host_copies();
                Ok(())
            }
            Ok(Err(error)) => {
                // The error that began it tells more; memory that the driver keeps is counted in the status.
                let _ = self.abandon_write(id);
                Err(error)
            }
            Err(panic) => {
                let _ = self.abandon_write(id);
                resume_unwind(panic)
            }
        }
    }

    fn bring_in_alone(&self, id: BlockId) -> Result<u64, Error> {
        let (resident, bytes) = {
            let mut state = self.state();
            state.touch(id)?;
            let bytes = state.model(id.model)?.layout.blocks[id.block].bytes;
            (state.block(id)?.span(), bytes)
        };
        if let Some(span) = resident {
            return Ok(span.address);
        }
        let buffer = self.allocate(
            id.model,
            bytes,
            &|state| others_then_own(state, id.model),
            &mut 0,
        )?;
        let address = buffer.address();
        self.load_block(id, buffer)?;
        Ok(address)
    }

    /// The device's bytes are neither old nor new: where the host has the old ones, those count.
    fn abandon_write(&self, id: BlockId) -> Result<(), Error> {
        let has_copy = self.state().block(id)?.host_copy() != HostCopy::None;
        if has_copy {
            self.release_block(id)?;
        }
        Ok(())
    }
}
