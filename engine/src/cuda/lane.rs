//! A stream with its staging slot, and copies that are complete when they return, or, piece by piece, once the lane has finished.
#![allow(unsafe_code)]

use super::{Context, DeviceAddress, event::Event, pinned::PinnedSlot, result::RawResult};
use crate::Error;
use cudarc::driver::sys::CUstream;
use std::{mem::ManuallyDrop, ops::Range, sync::Arc};

const NON_BLOCKING: u32 = 1;

/// A lane for copies: a stream with the slot that its copies go through. Nothing but this lane touches the slot
/// while a copy is in flight, also when waiting for that copy failed.
pub(crate) struct Lane {
    context: Arc<Context>,
    raw: CUstream,
    slot: ManuallyDrop<PinnedSlot>,
    /// Behind the copies of the slot's pieces, one for each.
    marks: Vec<Event>,
    piece_bytes: usize,
    in_flight: InFlight,
    /// How waiting for pieces ended where somebody else had to, as he wanted the lane; whose pieces they are has yet to be told.
    untold: Option<RawResult>,
}

/// Copies that were started and not yet seen to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InFlight {
    Nothing,
    /// Each has its mark.
    Marked,
    /// Only the whole stream can be waited for.
    Something,
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
            marks: Vec::new(),
            piece_bytes: slot_bytes,
            in_flight: InFlight::Nothing,
            untold: None,
        })
    }

    /// As [`Self::new`], for [`Self::upload_by_pieces`].
    ///
    /// # Errors
    /// As there, or an event cannot be made.
    pub(crate) fn with_pieces(
        context: &Arc<Context>,
        slot_bytes: usize,
        piece_bytes: usize,
    ) -> Result<Self, Error> {
        let mut lane = Self::new(context, slot_bytes)?;
        lane.piece_bytes = piece_bytes;
        for _ in 0..slot_bytes.div_ceil(piece_bytes) {
            lane.marks.push(Event::new(context)?);
        }
        Ok(lane)
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

    /// Fills the first `len` bytes of the slot and has them copied to the device, piece by piece. A piece is filled as soon as its own
    /// copy before has ended, so that others travel meanwhile. The last ones may travel still when this returns: [`Self::finish`]
    /// waits for them, and tells if they failed.
    pub(crate) fn upload_by_pieces(
        &mut self,
        to: DeviceAddress,
        len: usize,
        mut fill: impl FnMut(u64, &mut [u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self.in_flight {
            InFlight::Marked => self.context.bind()?,
            InFlight::Nothing | InFlight::Something => self.settle()?,
        }
        for (index, offset) in (0..len).step_by(self.piece_bytes).enumerate() {
            let Some(mark) = self.marks.get_mut(index) else {
                return Err(Error::Internal(format!("a lane without mark {index}")));
            };
            mark.wait()?;
            let part = offset..len.min(offset + self.piece_bytes);
            fill(offset as u64, &mut self.slot.bytes_mut()[part.clone()])?;
            let uploaded = self.start_upload(to + offset as u64, part, index);
            if uploaded.is_err() {
                // It may be under way all the same, as in `see_through`, and has no mark.
                return uploaded.and(self.wait_for_all());
            }
            self.in_flight = InFlight::Marked;
        }
        Ok(())
    }

    fn start_upload(
        &mut self,
        to: DeviceAddress,
        part: Range<usize>,
        mark: usize,
    ) -> Result<(), Error> {
        self.in_flight = InFlight::Something;
        let source = &self.slot.bytes_mut()[part];
        // SAFETY: `source` is memory that this lane owns, and stays unchanged until its mark, or the whole stream, has been waited
        // for. An address that is no device memory is the driver's to refuse.
        let result = unsafe {
            (self.context.symbols().to_device)(to, source.as_ptr().cast(), source.len(), self.raw)
        };
        self.context.check("cuMemcpyHtoDAsync", result)?;
        self.marks[mark].record(self.raw)
    }

    /// Waits for the copy that was just asked for. One that is said to have failed may be under way all the same ("may also return
    /// error codes from previous, asynchronous launches", CUDA driver API): it would end in what the slot holds next.
    fn see_through(&mut self, call: &'static str, result: RawResult) -> Result<(), Error> {
        let asked = self.context.check(call, result);
        self.in_flight = InFlight::Something;
        let waited = self.wait_for_all();
        asked.and(waited)
    }

    /// Waits for every piece that was started, and tells if one failed, also where somebody else has waited for it: for whoever had the
    /// pieces uploaded, and nobody else. When it fails the slot is locked until something has waited for its stream after all.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        let waited = self.wait_for_all();
        if self.in_flight != InFlight::Nothing {
            self.in_flight = InFlight::Something;
        }
        match self.untold.take() {
            Some(result) => self.context.check("cuStreamSynchronize", result),
            None => waited,
        }
    }

    /// Waits for every copy that was started. When waiting fails, one wait for the whole context follows, so that callers
    /// may free the device memory in the meantime; when that fails too the slot stays locked until `settle` succeeds.
    fn wait_for_all(&mut self) -> Result<(), Error> {
        if self.in_flight == InFlight::Nothing {
            return Ok(());
        }
        let waited = self.settle();
        if waited.is_err() && self.context.synchronize().is_ok() {
            self.landed();
        }
        waited
    }

    fn settle(&mut self) -> Result<(), Error> {
        self.context.bind()?;
        if self.in_flight != InFlight::Nothing {
            // SAFETY: the stream is ours and alive.
            let result = unsafe { (self.context.symbols().synchronize_stream)(self.raw) };
            if let Err(error) = self.context.check("cuStreamSynchronize", result) {
                if self.in_flight == InFlight::Marked {
                    self.untold = Some(result);
                }
                return Err(error);
            }
            self.landed();
        }
        Ok(())
    }

    fn landed(&mut self) {
        self.in_flight = InFlight::Nothing;
        self.marks.iter_mut().for_each(|mark| mark.is_ahead = false);
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
        if self.in_flight == InFlight::Nothing || self.context.is_lost() {
            // SAFETY: dropped once, here, and not used after. Where a copy may still run the slot is leaked instead:
            // the copy would write into whatever is mapped there next.
            unsafe { ManuallyDrop::drop(&mut self.slot) };
        }
    }
}
