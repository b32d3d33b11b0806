//! The staged way: every byte passes a pinned slot, so that host memory stays inside the declared budget whatever
//! the block's size (E30). A chunk is one slot; chunks of a block travel in parallel, one a thread.

use super::{
    CHECKSUM_BYTES, Checksums, Contents, DeviceSpan, FileRange, RamCopy, StoredSpan, Traffic,
    Transfer, TransferPath, file_range::padded_bytes, ram_copy::RamCopyBuilder, workers::Workers,
};
use crate::{
    Error,
    cancellation::Stop,
    cuda::{Context, DeviceAddress, Lane},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Reads a block's original contents: offset in the block, and where to put the bytes.
pub(crate) type SourceRead = Arc<dyn Fn(u64, &mut [u8]) -> Result<(), Error> + Send + Sync>;

/// I/O threads with a lane each.
pub(crate) struct Staged {
    /// Before the lanes: threads are joined first.
    workers: Workers,
    lanes: Arc<Lanes>,
    slot_bytes: u64,
    traffic: Arc<Traffic>,
    /// Why slots are pageable: settled when they were made, so that nobody waits for a lane to learn it.
    pageable_reasons: Vec<String>,
}

/// One lane a thread. Callers who read or write device memory themselves take one that is idle.
struct Lanes(Vec<Mutex<Lane>>);

impl Lanes {
    fn get(&self, thread: usize) -> MutexGuard<'_, Lane> {
        self.0[thread]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// One that nobody uses just now, else the first.
    fn any(&self) -> MutexGuard<'_, Lane> {
        let idle = self.0.iter().find_map(|lane| match lane.try_lock() {
            Ok(lane) => Some(lane),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        idle.unwrap_or_else(|| self.get(0))
    }
}

impl Staged {
    /// Starts `io_threads` threads with a slot of `slot_bytes` each.
    ///
    /// # Errors
    /// No host memory, no stream, or no thread.
    pub(crate) fn new(
        context: &Arc<Context>,
        io_threads: usize,
        slot_bytes: u64,
        traffic: Arc<Traffic>,
    ) -> Result<Self, Error> {
        let slot_len = usize::try_from(slot_bytes)
            .map_err(|_| Error::InvalidArgument(format!("a slot of {slot_bytes} bytes")))?;
        let lanes = (0..io_threads)
            .map(|_| Lane::new(context, slot_len))
            .collect::<Result<Vec<_>, _>>()?;
        let pageable_reasons = lanes
            .iter()
            .filter_map(|lane| lane.refusal().map(ToString::to_string))
            .collect();
        Ok(Self {
            pageable_reasons,
            workers: Workers::new(io_threads)?,
            lanes: Arc::new(Lanes(lanes.into_iter().map(Mutex::new).collect())),
            slot_bytes,
            traffic,
        })
    }

    /// Why slots are pageable, one reason each; empty when all are pinned.
    pub(crate) fn pageable_reasons(&self) -> Vec<String> {
        self.pageable_reasons.clone()
    }

    /// Copies the span to anonymous memory.
    pub(crate) fn store_to_ram(&self, from: DeviceSpan, stop: &Stop) -> Result<RamCopy, Error> {
        let copy = Arc::new(RamCopyBuilder::new(from.bytes, self.slot_bytes));
        let target = Arc::clone(&copy);
        self.each_chunk(from, stop, move |lane, chunk| {
            let contents = lane.download(chunk.address, chunk.len)?;
            target.put(chunk.index, contents)
        })?;
        copy.finish()
    }

    /// Copies a RAM copy to the span, verifying checksums.
    pub(crate) fn load_from_ram(
        &self,
        from: &Arc<RamCopy>,
        to: DeviceSpan,
        stop: &Stop,
    ) -> Result<(), Error> {
        let source = Arc::clone(from);
        self.each_chunk(to, stop, move |lane, chunk| {
            let contents = source.chunk(chunk.index);
            source
                .checksums()
                .verify(chunk.index, contents, "the copy in RAM")?;
            lane.slot()?[..chunk.len].copy_from_slice(contents);
            lane.upload(chunk.address, chunk.len)
        })
    }

    /// Fills the span with what `read` gives.
    pub(crate) fn load_from_source(
        &self,
        read: SourceRead,
        to: DeviceSpan,
        stop: &Stop,
    ) -> Result<(), Error> {
        self.each_chunk(to, stop, move |lane, chunk| {
            read(chunk.offset, &mut lane.slot()?[..chunk.len])?;
            lane.upload(chunk.address, chunk.len)
        })
    }

    /// Copies device memory out, on the calling thread.
    pub(crate) fn read_device(
        &self,
        mut address: DeviceAddress,
        out: &mut [u8],
    ) -> Result<(), Error> {
        self.workers.refuse_child()?;
        for window in out.chunks_mut(self.slot_len()) {
            // Window by window: others who read beside this one, and the I/O threads, get theirs in between.
            let mut lane = self.lanes.any();
            window.copy_from_slice(lane.download(address, window.len())?);
            address += window.len() as u64;
        }
        Ok(())
    }

    /// Overwrites the span with what `contents` gives, window after window, on the calling thread.
    pub(crate) fn write_device(
        &self,
        to: DeviceSpan,
        contents: &mut Contents<'_>,
        stop: &Stop,
    ) -> Result<(), Error> {
        let mut lane = self.lanes.any();
        let mut offset = 0;
        while offset < to.bytes {
            stop.check()?;
            let len = (to.bytes - offset).min(self.slot_bytes) as usize;
            let window = &mut lane.slot()?[..len];
            // What `contents` leaves out must not be what the slot carried before.
            window.fill(0);
            contents(offset, window)?;
            lane.upload(to.address + offset, len)?;
            offset += len as u64;
        }
        Ok(())
    }

    /// A slot's length fits the address space: it was mapped.
    fn slot_len(&self) -> usize {
        self.slot_bytes as usize
    }

    /// Settings make slots of whole multiples; others have a checksum a slot.
    fn checksum_bytes(&self) -> u64 {
        if self.slot_bytes.is_multiple_of(CHECKSUM_BYTES) {
            CHECKSUM_BYTES
        } else {
            self.slot_bytes
        }
    }

    fn each_chunk(
        &self,
        span: DeviceSpan,
        stop: &Stop,
        task: impl Fn(&mut Lane, Chunk) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let (lanes, stop) = (Arc::clone(&self.lanes), stop.clone());
        let slot_bytes = self.slot_bytes;
        self.workers
            .run(span.bytes.div_ceil(slot_bytes), move |thread, index| {
                stop.check()?;
                let offset = index * slot_bytes;
                let chunk = Chunk {
                    index,
                    offset,
                    address: span.address + offset,
                    len: (span.bytes - offset).min(slot_bytes) as usize,
                };
                task(&mut lanes.get(thread), chunk)
            })
    }
}

/// The part of a block that one slot takes.
struct Chunk {
    index: u64,
    /// In the block.
    offset: u64,
    address: DeviceAddress,
    len: usize,
}

impl Chunk {
    /// How much of it lies before `end`, an offset in the block.
    fn part_before(&self, end: u64) -> usize {
        end.saturating_sub(self.offset).min(self.len as u64) as usize
    }
}

impl Staged {
    /// As [`Transfer::store`], for a span whose first `done` bytes (a multiple of 4096) are in the file already: these are
    /// copied out for their checksums only.
    pub(super) fn store_rest(
        &self,
        from: DeviceSpan,
        to: &Arc<FileRange>,
        done: u64,
        stop: &Stop,
    ) -> Result<Checksums, Error> {
        let checksums = Checksums::new(from.bytes, self.checksum_bytes());
        let (sums, target, traffic) =
            (checksums.clone(), Arc::clone(to), Arc::clone(&self.traffic));
        self.each_chunk(from, stop, move |lane, chunk| {
            sums.record_window(chunk.offset, lane.download(chunk.address, chunk.len)?);
            let skipped = chunk.part_before(done);
            if skipped == chunk.len {
                return Ok(());
            }
            // Slots are multiples of the alignment, so the last chunk's padding fits.
            let padded = padded_bytes(chunk.len as u64) as usize;
            let contents = &mut lane.slot()?[..padded];
            contents[chunk.len..].fill(0);
            target.write_all_at(&contents[skipped..], chunk.offset + skipped as u64)?;
            traffic.count_written((padded - skipped) as u64);
            Ok(())
        })?;
        Ok(checksums)
    }

    /// As [`Transfer::load`], for a span whose first `done` bytes are on the device already: these are copied out and
    /// verified, the others read.
    pub(super) fn load_rest(
        &self,
        from: &Arc<FileRange>,
        checksums: &Checksums,
        to: DeviceSpan,
        done: u64,
        stop: &Stop,
    ) -> Result<(), Error> {
        let (sums, source, traffic) = (
            checksums.clone(),
            Arc::clone(from),
            Arc::clone(&self.traffic),
        );
        self.each_chunk(to, stop, move |lane, chunk| {
            let there = chunk.part_before(done);
            if there > 0 {
                lane.download(chunk.address, there)?;
            }
            let contents = &mut lane.slot()?[..chunk.len];
            let missing = &mut contents[there..];
            source.read_exact_at(missing, chunk.offset + there as u64)?;
            traffic.count_read(missing.len() as u64);
            sums.verify_window(
                chunk.offset,
                contents,
                &source.file().path().display().to_string(),
            )?;
            if there < chunk.len {
                lane.upload(chunk.address, chunk.len)?;
            }
            Ok(())
        })
    }
}

impl Transfer for Staged {
    fn store(
        &self,
        from: DeviceSpan,
        to: &Arc<FileRange>,
        stop: &Stop,
    ) -> Result<StoredSpan, Error> {
        Ok(StoredSpan {
            checksums: self.store_rest(from, to, 0, stop)?,
            path: TransferPath::Staged,
        })
    }

    fn load(
        &self,
        from: &Arc<FileRange>,
        checksums: &Checksums,
        to: DeviceSpan,
        stop: &Stop,
    ) -> Result<TransferPath, Error> {
        from.check_len()?;
        self.load_rest(from, checksums, to, 0, stop)?;
        Ok(TransferPath::Staged)
    }
}
