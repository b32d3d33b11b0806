//! I/O threads with a lane each, and the chunks of a span that travel through them.

use super::{DeviceSpan, workers::Workers};
use crate::{
    Error,
    cancellation::Stop,
    cuda::{Context, Lane},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Threads that live as long as the engine, each with a stream and a slot of its own.
pub(super) struct Pool {
    /// Before the lanes: threads are joined first.
    workers: Workers,
    lanes: Arc<Lanes>,
    slot_bytes: u64,
}

struct Lanes(Vec<Mutex<Lane>>);

impl Lanes {
    fn get(&self, thread: usize) -> MutexGuard<'_, Lane> {
        self.0[thread]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Starts `threads` threads, named after `role`, with a slot of `slot_bytes` each, which may be of pieces.
    ///
    /// # Errors
    /// No host memory, no stream or event, or no thread.
    pub(super) fn new(
        context: &Arc<Context>,
        role: &str,
        threads: usize,
        slot_bytes: u64,
        piece_bytes: Option<usize>,
    ) -> Result<Self, Error> {
        let slot_len = usize::try_from(slot_bytes)
            .map_err(|_| Error::InvalidArgument(format!("a slot of {slot_bytes} bytes")))?;
        let lanes = (0..threads)
            .map(|_| match piece_bytes {
                Some(bytes) => Lane::with_pieces(context, slot_len, bytes),
                None => Lane::new(context, slot_len),
            })
            .map(|lane| lane.map(Mutex::new))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            workers: Workers::new(role, threads)?,
            lanes: Arc::new(Lanes(lanes)),
            slot_bytes,
        })
    }

    /// Why slots are pageable, one reason each. Waits for nobody who uses one.
    pub(super) fn refusals(&self) -> Vec<String> {
        let lanes = self.lanes.0.iter().filter_map(|lane| lane.try_lock().ok());
        lanes
            .filter_map(|lane| lane.refusal().map(ToString::to_string))
            .collect()
    }

    /// A lane that nobody uses just now.
    pub(super) fn idle(&self) -> Option<MutexGuard<'_, Lane>> {
        self.lanes.0.iter().find_map(|lane| match lane.try_lock() {
            Ok(lane) => Some(lane),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    /// The first lane, as soon as it is free.
    pub(super) fn first(&self) -> MutexGuard<'_, Lane> {
        self.lanes.get(0)
    }

    /// As [`Workers::refuse_child`].
    pub(super) fn refuse_child(&self) -> Result<(), Error> {
        self.workers.refuse_child()
    }

    /// Does `task` for each chunk of the span, in parallel; none is under way any more when it returns.
    ///
    /// # Errors
    /// That of the first chunk, in order, that failed; [`Error::Cancelled`].
    pub(super) fn each_chunk(
        &self,
        span: DeviceSpan,
        stop: &Stop,
        task: impl Fn(&mut Lane, Chunk) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let (lanes, stop) = (Arc::clone(&self.lanes), stop.clone());
        let ending = Arc::clone(&self.lanes);
        let slot_bytes = self.slot_bytes;
        let task = move |thread, index| {
            stop.check()?;
            let offset = index * slot_bytes;
            let chunk = Chunk {
                index,
                offset,
                address: span.address + offset,
                len: (span.bytes - offset).min(slot_bytes) as usize,
            };
            task(&mut lanes.get(thread), chunk)
        };
        let chunks = span.bytes.div_ceil(slot_bytes);
        self.workers
            .run(chunks, task, move |thread| ending.get(thread).finish())
    }
}

/// The part of a block that one slot takes.
pub(super) struct Chunk {
    pub(super) index: u64,
    /// In the block.
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) len: usize,
}

impl Chunk {
    /// How much of it lies before `end`, an offset in the block.
    pub(super) fn part_before(&self, end: u64) -> usize {
        end.saturating_sub(self.offset).min(self.len as u64) as usize
    }
}
