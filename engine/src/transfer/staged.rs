//! The staged way: every byte passes a pinned slot, so that host memory stays inside the declared budget whatever
//! the block's size (E30). A chunk is one slot; chunks of a block travel in parallel, one a thread. What leaves the device
//! has threads and slots of its own, so that loads never wait for stores.

use super::{
    CHECKSUM_BYTES, Checksums, Contents, DeviceSpan, FileRange, RamCopy, StoredSpan, Traffic,
    Transfer, TransferPath, file_range::padded_bytes, pool::Pool, ram_copy::RamCopyBuilder,
};
use crate::{
    Error, FileIo,
    cancellation::Stop,
    cuda::{Context, DeviceAddress, Lane},
    spill::FileMap,
};
use std::sync::{Arc, MutexGuard};

/// Reads a block's original contents: offset in the block, and where to put the bytes.
pub(crate) type SourceRead = Arc<dyn Fn(u64, &mut [u8]) -> Result<(), Error> + Send + Sync>;

/// Chunks of checksums that are read from the page cache at a time: they fit into the cache of a processor.
const CACHED_PIECE_CHUNKS: u64 = 2;

/// Threads and slots for both directions.
pub(crate) struct Staged {
    leaving: Pool,
    arriving: Pool,
    slot_bytes: u64,
    file_io: FileIo,
    traffic: Arc<Traffic>,
    /// Why slots are pageable: settled when they were made, so that nobody waits for a lane to learn it.
    pageable_reasons: Vec<String>,
}

impl Staged {
    /// Starts `io_threads` threads for each direction, with a slot of `slot_bytes` each.
    ///
    /// # Errors
    /// No host memory, no stream or event, or no thread.
    pub(crate) fn new(
        context: &Arc<Context>,
        io_threads: usize,
        slot_bytes: u64,
        file_io: FileIo,
        traffic: Arc<Traffic>,
    ) -> Result<Self, Error> {
        let piece_bytes = (CACHED_PIECE_CHUNKS * checksum_bytes(slot_bytes)).min(slot_bytes);
        let pool = |role, pieces| Pool::new(context, role, io_threads, slot_bytes, pieces);
        let leaving = pool("leaving", None)?;
        let arriving = pool("arriving", Some(piece_bytes as usize))?;
        let mut pageable_reasons = leaving.refusals();
        pageable_reasons.extend(arriving.refusals());
        Ok(Self {
            leaving,
            arriving,
            slot_bytes,
            file_io,
            traffic,
            pageable_reasons,
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
        self.leaving.each_chunk(from, stop, move |lane, chunk| {
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
        self.arriving.each_chunk(to, stop, move |lane, chunk| {
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
        self.arriving.each_chunk(to, stop, move |lane, chunk| {
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
        self.arriving.refuse_child()?;
        for window in out.chunks_mut(self.slot_len()) {
            // Window by window: others who read beside this one, and the I/O threads, get theirs in between.
            let mut lane = self.any_lane();
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
        let mut lane = self.any_lane();
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

    /// Whether what is written to the file goes past the page cache, where it can.
    fn writes_direct(&self, range: &FileRange) -> bool {
        match self.file_io {
            FileIo::Auto => range.file().crowds_cache(),
            FileIo::Direct => true,
            FileIo::Cached => false,
        }
    }

    /// Whether what is read from the file and is not in the page cache comes past it, where it can.
    fn reads_direct(&self, range: &FileRange) -> bool {
        match self.file_io {
            FileIo::Auto => range.file().len() >= FileIo::DIRECT_BYTES,
            FileIo::Direct => true,
            FileIo::Cached => false,
        }
    }

    /// A lane that nobody uses just now, else one that is waited for.
    fn any_lane(&self) -> MutexGuard<'_, Lane> {
        let idle = self.arriving.idle().or_else(|| self.leaving.idle());
        idle.unwrap_or_else(|| self.arriving.first())
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
        let checksums = Checksums::new(from.bytes, checksum_bytes(self.slot_bytes));
        let is_direct = self.writes_direct(to);
        let (sums, target, traffic) =
            (checksums.clone(), Arc::clone(to), Arc::clone(&self.traffic));
        self.leaving.each_chunk(from, stop, move |lane, chunk| {
            sums.record_window(chunk.offset, lane.download(chunk.address, chunk.len)?);
            let skipped = chunk.part_before(done);
            if skipped == chunk.len {
                return Ok(());
            }
            // Slots are multiples of the alignment, so the last chunk's padding fits.
            let padded = padded_bytes(chunk.len as u64) as usize;
            let contents = &mut lane.slot()?[..padded];
            contents[chunk.len..].fill(0);
            let (contents, offset) = (&contents[skipped..], chunk.offset + skipped as u64);
            if is_direct {
                traffic.count_direct_written(target.write_direct_at(contents, offset)?);
            } else {
                target.write_all_at(contents, offset)?;
            }
            traffic.count_written(contents.len() as u64);
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
        let is_direct = self.reads_direct(from);
        // Asked which pages are in memory; without it none is taken to be.
        let residency = is_direct.then(|| from.map_to_ask().ok()).flatten();
        let name = from.file().path().display().to_string();
        let (sums, source, traffic) = (
            checksums.clone(),
            Arc::clone(from),
            Arc::clone(&self.traffic),
        );
        self.arriving.each_chunk(to, stop, move |lane, chunk| {
            let there = chunk.part_before(done);
            if there > 0 {
                lane.download(chunk.address, there)?;
            }
            let offset = chunk.offset + there as u64;
            let missing = chunk.len - there;
            let is_resident = |map: &FileMap| map.is_resident(offset, missing);
            let reads_cache = missing > 0 && residency.as_ref().is_some_and(is_resident);
            if there == 0 && reads_cache {
                // Hashed while the processor's own cache has what was read, and copied while the next pieces are: in one
                // run on an H200, 12 threads made 39 GB/s of it, and 27 with a wait for all of a slot.
                lane.upload_by_pieces(chunk.address, chunk.len, |at, piece| {
                    source.read_exact_at(piece, offset + at)?;
                    sums.verify_window(offset + at, piece, &name)
                })?;
            } else {
                let slot = lane.slot()?;
                if is_direct && missing > 0 && !reads_cache {
                    let padded = padded_bytes(chunk.len as u64) as usize;
                    let missing = &mut slot[there..padded];
                    traffic.count_direct_read(source.read_direct_at(missing, offset)?);
                } else {
                    source.read_exact_at(&mut slot[there..chunk.len], offset)?;
                }
                sums.verify_window(chunk.offset, &slot[..chunk.len], &name)?;
                if missing > 0 {
                    lane.upload(chunk.address, chunk.len)?;
                }
            }
            traffic.count_read(missing as u64);
            Ok(())
        })
    }
}

/// Settings make slots of whole multiples; others have a checksum a slot.
fn checksum_bytes(slot_bytes: u64) -> u64 {
    if slot_bytes.is_multiple_of(CHECKSUM_BYTES) {
        CHECKSUM_BYTES
    } else {
        slot_bytes
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
