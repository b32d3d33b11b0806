//! A stream with its staging slot, and copies that are complete when they return.
#![allow(unsafe_code)]

use super::{Context, DeviceAddress, pinned::PinnedSlot, result::RawResult};
use crate::Error;
use cudarc::driver::sys::CUstream;
use std::{mem::ManuallyDrop, sync::Arc};

const NON_BLOCKING: u32 = 1;

/// A lane for copies: a stream with the slot that its copies go through. Nothing but this lane touches the slot
/// while a copy is in flight, also when waiting for that copy failed.
pub(crate) struct Lane {
    context: Arc<Context>,
    raw: CUstream,
    slot: ManuallyDrop<PinnedSlot>,
    /// A copy was started and not yet seen to end.
    in_flight: bool,
}

// SAFETY: a CUstream may be used from any thread on which its context is current, which every call sees to.
unsafe impl Send for Lane {}

impl Lane {
    /// Makes a stream and a slot of `slot_bytes` for it.
    ///
    /// # Errors
    /// The stream cannot be made, or there is no host memory for the slot.
    pub(crate) fn new(context: &Arc<Context>, slot_bytes: usize) -> Result<Self, Error> {
        let slot = PinnedSlot::new(context, slot_bytes)?;
        context.bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle into a local.
        let result = unsafe { (context.symbols().create_stream)(&mut raw, NON_BLOCKING) };
        context.check("cuStreamCreate", result)?;
        Ok(Self {
            context: Arc::clone(context),
            raw,
            slot: ManuallyDrop::new(slot),
            in_flight: false,
        })
    }

    /// Why the slot is pageable, if it is.
    pub(crate) fn refusal(&self) -> Option<&Error> {
        self.slot.refusal()
    }

    /// The slot, when nothing is in flight.
    pub(crate) fn slot(&mut self) -> Result<&mut [u8], Error> {
        self.settle()?;
        Ok(self.slot.bytes_mut())
    }

    /// Copies `len` bytes from the device to the start of the slot and gives them out.
    pub(crate) fn download(&mut self, from: DeviceAddress, len: usize) -> Result<&mut [u8], Error> {
        self.settle()?;
        let target = &mut self.slot.bytes_mut()[..len];
        // SAFETY: `target` is `len` bytes that this lane owns; nobody touches them before `settle` has seen the copy
        // end. An address that is no device memory is the driver's to refuse.
        let result = unsafe {
            (self.context.symbols().to_host)(target.as_mut_ptr().cast(), from, len, self.raw)
        };
        self.see_through("cuMemcpyDtoHAsync", result)?;
        Ok(&mut self.slot.bytes_mut()[..len])
    }

    /// Copies the first `len` bytes of the slot to the device.
    pub(crate) fn upload(&mut self, to: DeviceAddress, len: usize) -> Result<(), Error> {
        self.settle()?;
        let source = &self.slot.bytes_mut()[..len];
        // SAFETY: `source` is `len` bytes that this lane owns and that stay unchanged until `settle` has seen the
        // copy end. An address that is no device memory is the driver's to refuse.
        let result = unsafe {
            (self.context.symbols().to_device)(to, source.as_ptr().cast(), len, self.raw)
        };
        self.see_through("cuMemcpyHtoDAsync", result)
    }

    /// Fills the first `len` bytes of the slot and copies them to the device, piece by piece: one travels while the next is filled.
    pub(crate) fn upload_by_pieces(
        &mut self,
        to: DeviceAddress,
        len: usize,
        piece_bytes: usize,
        mut fill: impl FnMut(u64, &mut [u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.settle()?;
        let pieces = self.slot.bytes_mut()[..len].chunks_mut(piece_bytes);
        let mut outcome = Ok(());
        for (piece, offset) in pieces.zip((0u64..).step_by(piece_bytes)) {
            outcome = fill(offset, piece).and_then(|()| {
                self.in_flight = true;
                // SAFETY: `piece` is memory that this lane owns, and stays unchanged until `settle` has seen the copy end, as pieces do
                // not overlap. An address that is no device memory is the driver's to refuse.
                let result = unsafe {
                    (self.context.symbols().to_device)(
                        to + offset,
                        piece.as_ptr().cast(),
                        piece.len(),
                        self.raw,
                    )
                };
                self.context.check("cuMemcpyHtoDAsync", result)
            });
            if outcome.is_err() {
                break;
            }
        }
        let waited = match self.in_flight {
            true => self.finish(),
            false => Ok(()),
        };
        outcome.and(waited)
    }

    /// Waits for the copy that was just asked for. One that is said to have failed may be under way all the same ("may also return
    /// error codes from previous, asynchronous launches", CUDA driver API): it would end in what the slot holds next.
    fn see_through(&mut self, call: &'static str, result: RawResult) -> Result<(), Error> {
        let asked = self.context.check(call, result);
        self.in_flight = true;
        let waited = self.finish();
        asked.and(waited)
    }

    /// Waits for the copy just started. When waiting fails, one wait for the whole context follows, so that callers
    /// may free the device memory in the meantime; when that fails too the slot stays locked until `settle` succeeds.
    fn finish(&mut self) -> Result<(), Error> {
        let waited = self.settle();
        if waited.is_err() && self.context.synchronize().is_ok() {
            self.in_flight = false;
        }
        waited
    }

    fn settle(&mut self) -> Result<(), Error> {
        self.context.bind()?;
        if self.in_flight {
            // SAFETY: the stream is ours and alive.
            let result = unsafe { (self.context.symbols().synchronize_stream)(self.raw) };
            self.context.check("cuStreamSynchronize", result)?;
            self.in_flight = false;
        }
        Ok(())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            self.context.note(error);
        }
        let destroyed = self.context.bind().and_then(|()| {
            // SAFETY: created once in `new`, destroyed once here.
            let result = unsafe { (self.context.symbols().destroy_stream)(self.raw) };
            self.context.check("cuStreamDestroy", result)
        });
        if let Err(error) = destroyed {
            self.context.note(error);
        }
        if !self.in_flight || self.context.is_lost() {
            // SAFETY: dropped once, here, and not used after. Where a copy may still run the slot is leaked instead:
            // the copy would write into whatever is mapped there next.
            unsafe { ManuallyDrop::drop(&mut self.slot) };
        }
    }
}
