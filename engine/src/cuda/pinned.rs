//! Host memory that copies go through.
#![allow(unsafe_code)]

use super::Context;
use crate::Error;
use memmap2::MmapMut;
use std::{mem::ManuallyDrop, sync::Arc};

/// A page-aligned slot of host memory, registered with the driver where it lets us: then copies run at full speed;
/// else it stays pageable and everything works, slower (F5, F6).
///
/// Registered and not `cuMemHostAlloc`: the memory stays ours, ordinary and cached, good for reading by the CPU and
/// for direct file transfers, and a refusal costs only speed.
pub(super) struct PinnedSlot {
    context: Arc<Context>,
    memory: ManuallyDrop<MmapMut>,
    refusal: Option<Error>,
}

impl PinnedSlot {
    /// Makes a slot of `bytes`.
    ///
    /// # Errors
    /// The host has no memory for it.
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, Error> {
        let mut memory = MmapMut::map_anon(bytes).map_err(|source| Error::Io {
            operation: "mmap",
            path: "anonymous memory (staging)".into(),
            source,
        })?;
        let refusal = context
            .bind()
            .and_then(|()| {
                // SAFETY: the range is exactly our mapping, which outlives the registration (see drop). Flags 0:
                // usable by this context only, no device address for it.
                let result = unsafe {
                    (context.symbols().register)(memory.as_mut_ptr().cast(), memory.len(), 0)
                };
                context.check("cuMemHostRegister", result)
            })
            .err();
        Ok(Self {
            context: Arc::clone(context),
            memory: ManuallyDrop::new(memory),
            refusal,
        })
    }

    /// Why the slot is pageable, if it is.
    pub(super) fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

impl Drop for PinnedSlot {
    fn drop(&mut self) {
        let unregistered = match self.refusal {
            Some(_) => Ok(()),
            None => self.unregister(),
        };
        match unregistered {
            // SAFETY: dropped once, here, and not used after.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.memory) },
            // It stays mapped for the life of the process: what comes to be there next would count as registered.
            Err(error) => self.context.note(error),
        }
    }
}

impl PinnedSlot {
    fn unregister(&mut self) -> Result<(), Error> {
        self.context.bind().and_then(|()| {
            // SAFETY: registered once in `new`, unregistered once here, still mapped.
            let result =
                unsafe { (self.context.symbols().unregister)(self.memory.as_mut_ptr().cast()) };
            self.context.check("cuMemHostUnregister", result)
        })
    }
}
