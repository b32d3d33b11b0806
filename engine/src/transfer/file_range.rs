//! A block's range of a model's spill file, held by whoever needs its contents.

use super::attachment::Attachment;
use crate::{
    Error, FileIo, memory,
    model::FILE_ALIGNMENT_BYTES,
    spill::{FileMap, SpillFile},
};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// `bytes` with the padding that they take in a file (E19).
pub(crate) fn padded_bytes(bytes: u64) -> u64 {
    bytes.next_multiple_of(FILE_ALIGNMENT_BYTES)
}

/// A spill file and the blocks whose ranges in it are in use. The last range that goes takes the file with it.
pub(crate) struct ModelFile {
    /// Dropped before the file.
    attachment: Attachment,
    file: SpillFile,
    uses: Mutex<Uses>,
    crowds_cache: OnceLock<bool>,
}

#[derive(Default)]
struct Uses {
    /// Offset and bytes, with padding, of each block's range. Taken out only after the range was discarded, so that a range
    /// is never punched under its next contents.
    ranges: BTreeMap<usize, (u64, u64)>,
    /// Its model goes, and all of its ranges with it: their space returns at once.
    abandoned: bool,
    /// Its model is gone: it goes with the last range.
    without_model: bool,
}

impl ModelFile {
    pub(crate) fn new(file: SpillFile) -> Self {
        Self {
            attachment: Attachment::default(),
            file,
            uses: Mutex::default(),
            crowds_cache: OnceLock::new(),
        }
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its ranges are about to go, all but those that views hold: space returns with the file or by
    /// [`Self::discard_unused`], not range by range. Punching holes waits for the disk, 2.6 ms each on ext4, and a
    /// model has hundreds of ranges.
    pub(crate) fn abandon(&self) {
        if self.file.is_ours() {
            self.uses().abandoned = true;
        }
    }

    /// Gives the space back of everything that no range holds, as views may keep the file for long.
    pub(crate) fn discard_unused(&self) {
        if !self.file.is_ours() {
            return;
        }
        let mut uses = self.uses();
        (uses.abandoned, uses.without_model) = (false, true);
        let mut held: Vec<(u64, u64)> = uses.ranges.values().copied().collect();
        if held.is_empty() {
            return;
        }
        held.sort_unstable();
        held.push((self.file.len(), 0));
        let mut at = 0;
        for (offset, bytes) in held {
            // Space that cannot be given back now is given back with the file.
            let _ = self.file.discard(at, offset - at);
            at = offset + bytes;
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What cuFile has of it.
    pub(super) fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// A further descriptor of it, for direct I/O where the filesystem does that.
    pub(super) fn open_direct(&self) -> Result<File, Error> {
        self.file.open_direct()
    }

    pub(crate) fn len(&self) -> u64 {
        self.file.len()
    }

    /// Whether it would take much of what the machine has to spare for the page cache. Asked of the machine once: a file is written in one way.
    pub(super) fn crowds_cache(&self) -> bool {
        if self.len() < FileIo::DIRECT_BYTES {
            return false;
        }
        *self.crowds_cache.get_or_init(|| {
            // Where it cannot be told there is none to spare.
            let available = memory::available_bytes().unwrap_or(0);
            self.len() > available / FileIo::CACHE_SHARE
        })
    }

    /// Bytes of the ranges that somebody holds, views too, padding included.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.uses().ranges.values().map(|(_, bytes)| bytes).sum()
    }

    /// Notices truncation (E22).
    pub(crate) fn check_len(&self) -> Result<(), Error> {
        self.file.check_len()
    }
}

/// One block's range of a file. When the last holder lets go the range's space returns to the filesystem.
pub(crate) struct FileRange {
    file: Arc<ModelFile>,
    block: usize,
    offset: u64,
    bytes: u64,
}

impl FileRange {
    /// Takes the range of `block` and reserves its space (E25). `None` when an older copy of the block is still
    /// held there, by a view for instance.
    ///
    /// # Errors
    /// The space cannot be reserved.
    pub(crate) fn take(
        file: &Arc<ModelFile>,
        block: usize,
        offset: u64,
        bytes: u64,
    ) -> Result<Option<Self>, Error> {
        match file.uses().ranges.entry(block) {
            Entry::Occupied(_) => return Ok(None),
            Entry::Vacant(free) => free.insert((offset, padded_bytes(bytes))),
        };
        let range = Self {
            file: Arc::clone(file),
            block,
            offset,
            bytes,
        };
        file.file.reserve(offset, padded_bytes(bytes))?;
        Ok(Some(range))
    }

    pub(crate) fn file(&self) -> &Arc<ModelFile> {
        &self.file
    }

    /// Where it starts in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes without padding.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes with padding.
    pub(crate) fn file_bytes(&self) -> u64 {
        padded_bytes(self.bytes)
    }

    pub(crate) fn write_all_at(&self, contents: &[u8], offset: u64) -> Result<(), Error> {
        self.file.file.write_all_at(contents, self.offset + offset)
    }

    pub(crate) fn read_exact_at(&self, out: &mut [u8], offset: u64) -> Result<(), Error> {
        self.file.file.read_exact_at(out, self.offset + offset)
    }

    /// As [`Self::write_all_at`], past the page cache where possible; how many bytes went so.
    pub(super) fn write_direct_at(&self, contents: &[u8], offset: u64) -> Result<u64, Error> {
        let offset = self.offset + offset;
        self.file.file.write_direct_at(contents, offset)
    }

    /// As [`Self::read_exact_at`], past the page cache where possible; how many bytes came so.
    pub(super) fn read_direct_at(&self, out: &mut [u8], offset: u64) -> Result<u64, Error> {
        self.file.file.read_direct_at(out, self.offset + offset)
    }

    /// Notices truncation (E22).
    pub(crate) fn check_len(&self) -> Result<(), Error> {
        self.file.file.check_len()
    }

    /// Learns of bytes that did not reach their file (F42).
    pub(crate) fn close_once(&self) -> Result<(), Error> {
        self.file.file.close_once()
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.file.sync()
    }

    /// Maps the contents to ask which pages are in memory.
    pub(super) fn map_to_ask(&self) -> Result<FileMap, Error> {
        self.file.file.map_as_it_is(self.offset, self.bytes)
    }

    /// Maps the contents read-only (E20).
    pub(crate) fn map(&self) -> Result<FileMap, Error> {
        self.file.file.map(self.offset, self.bytes)
    }

    /// As [`Self::read_exact_at`], out of a map of this range.
    pub(crate) fn read_mapped_at(
        &self,
        map: &FileMap,
        out: &mut [u8],
        offset: u64,
    ) -> Result<(), Error> {
        self.file.file.read_mapped_at(map, offset, out)
    }
}

impl Drop for FileRange {
    fn drop(&mut self) {
        let file = &self.file;
        if !file.file.is_ours() {
            // Whoever held the lock when this child was forked does not run in it.
            return;
        }
        {
            let mut uses = file.uses();
            let is_last = uses.without_model && uses.ranges.len() == 1;
            if uses.abandoned || is_last {
                // Its space returns with that of others.
                uses.ranges.remove(&self.block);
                return;
            }
        }
        // Space that cannot be given back now is given back with the file.
        let _ = file.file.discard(self.offset, self.file_bytes());
        file.uses().ranges.remove(&self.block);
    }
}
