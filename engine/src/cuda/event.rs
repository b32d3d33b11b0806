//! A place in a stream's work that can be waited for, while what was asked for after it goes on.
#![allow(unsafe_code)]

use super::Context;
use crate::Error;
use cudarc::driver::sys::{CUevent, CUstream};
use std::sync::Arc;

/// `CU_EVENT_DISABLE_TIMING`: nobody asks when it happened.
const DISABLE_TIMING: u32 = 2;

/// An event, and whether somebody may still have to wait for it.
pub(super) struct Event {
    context: Arc<Context>,
    raw: CUevent,
    /// Recorded, and neither waited for nor made irrelevant by a wait for all of the stream.
    pub(super) is_ahead: bool,
}

// SAFETY: a CUevent may be used from any thread on which its context is current, which every caller sees to.
unsafe impl Send for Event {}

impl Event {
    /// Makes an event that was not recorded yet. The context is current.
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, Error> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle into a local.
        let result = unsafe { (context.symbols().create_event)(&mut raw, DISABLE_TIMING) };
        context.check("cuEventCreate", result)?;
        Ok(Self {
            context: Arc::clone(context),
            raw,
            is_ahead: false,
        })
    }

    /// Places it behind all that the stream has been asked for.
    pub(super) fn record(&mut self, stream: CUstream) -> Result<(), Error> {
        // SAFETY: both handles are alive.
        let result = unsafe { (self.context.symbols().record_event)(self.raw, stream) };
        self.context.check("cuEventRecord", result)?;
        self.is_ahead = true;
        Ok(())
    }

    /// Waits until what the stream had been asked for before has ended.
    pub(super) fn wait(&mut self) -> Result<(), Error> {
        if self.is_ahead {
            // SAFETY: the event is ours and alive.
            let result = unsafe { (self.context.symbols().synchronize_event)(self.raw) };
            self.context.check("cuEventSynchronize", result)?;
            self.is_ahead = false;
        }
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let destroyed = self.context.bind().and_then(|()| {
            // SAFETY: created once in `new`, destroyed once here; the driver keeps what is not over yet until it is.
            let result = unsafe { (self.context.symbols().destroy_event)(self.raw) };
            self.context.check("cuEventDestroy", result)
        });
        if let Err(error) = destroyed {
            self.context.note(error);
        }
    }
}
