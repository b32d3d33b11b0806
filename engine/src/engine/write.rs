//! Changing a tensor on the device.

use super::{Engine, operation::Operation, request::others_then_own, state::BlockId, turn::Moves};
use crate::{
    Error, HostCopy,
    cancellation::Stop,
    transfer::{Contents, DeviceSpan},
};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

impl Engine {
    /// Overwrites a tensor's span on the device, as a training step or a patch would: brings its block in, then asks
    /// `contents` for the bytes from an offset on, window after window. Host copies become invalid, also for tensors
    /// that share the bytes; views keep showing the old ones. A request's visitor that looks at the block is waited for;
    /// nobody else's operation goes on before the write has ended.
    ///
    /// # Errors
    /// No such model or tensor; what a request can fail with while it brings the block in; the error of `contents`.
    /// The host's copy, where there was one, is then current again and the block off the device; a block that was on
    /// the device only, or whose file somebody cut, is changed up to where it failed.
    pub fn write_tensor(
        &self,
        name: &str,
        tensor: &str,
        contents: &mut Contents<'_>,
    ) -> Result<(), Error> {
        self.write(&Stop::never(), name, tensor, contents)
    }

    pub(super) fn write(
        &self,
        stop: &Stop,
        name: &str,
        tensor: &str,
        contents: &mut Contents<'_>,
    ) -> Result<(), Error> {
        let mut operation = self.begin(stop, Moves::Any)?;
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
        let (address, was_brought) = self.with_memory(&mut operation, |operation| {
            self.state().still_has(id.model, name)?;
            self.bring_in_alone(operation, id)
        })?;
        let target = DeviceSpan {
            address: address + offset_bytes,
            bytes: span_bytes,
        };
        let mut may_be_changed = false;
        let written = catch_unwind(AssertUnwindSafe(|| {
            self.wait_for_pins(&operation, &[id])?;
            let stop = self.stop_of_write(&operation, id)?;
            // Writes that other streams still do to the block come before this one.
            self.context.synchronize()?;
            let mut given = |offset: u64, out: &mut [u8]| {
                contents(offset, out)?;
                may_be_changed = true;
                Ok(())
            };
            self.staged.write_device(target, &mut given, &stop)
        }));
        if !matches!(written, Ok(Ok(()))) && (was_brought || may_be_changed) {
            // The error that began it tells more; memory that the driver keeps is counted in the status.
            let _ = self.abandon_write(id);
        }
        match written {
            Ok(Ok(())) => {
                let outdated = self.state().block(id)?.invalidate_host_copies();
                drop(outdated);
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Where the host has the old bytes a write can end at any time, as they count then. Where only the device has them,
    /// a write that has begun has to go through (E38); a copy in a file that somebody cut is none.
    fn stop_of_write(&self, operation: &Operation<'_>, id: BlockId) -> Result<Stop, Error> {
        operation.stop().check()?;
        // Why it was forgotten is no reason to refuse new bytes.
        let _ = self.check_file_copy(id);
        match self.state().block(id)?.host_copy() {
            HostCopy::None => Ok(Stop::never()),
            HostCopy::Ram | HostCopy::File => Ok(operation.stop().clone()),
        }
    }

    /// The block's device address, and whether it was not on the device before.
    fn bring_in_alone(&self, operation: &Operation<'_>, id: BlockId) -> Result<(u64, bool), Error> {
        let (resident, bytes) = {
            let mut state = self.state();
            state.touch(id)?;
            let bytes = state.model(id.model)?.layout.blocks[id.block].bytes;
            (state.block(id)?.span(), bytes)
        };
        if let Some(span) = resident {
            return Ok((span.address, false));
        }
        let buffer = self.allocate(
            operation,
            bytes,
            &|state| others_then_own(state, id.model),
            &mut 0,
        )?;
        let address = buffer.address();
        self.load_block(operation.stop(), id, buffer)?;
        Ok((address, true))
    }

    /// The device's bytes may be neither old nor new: where the host has the old ones, those count. Where somebody cut
    /// their file meanwhile, the device's are all that is left.
    fn abandon_write(&self, id: BlockId) -> Result<(), Error> {
        self.check_file_copy(id)?;
        let has_copy = self.state().block(id)?.host_copy() != HostCopy::None;
        if has_copy {
            self.release_block(id)?;
        }
        Ok(())
    }
}
