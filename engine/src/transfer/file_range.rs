//! A block's range of a model's spill file, held by whoever needs its contents.

use super::attachment::Attachment;
use crate::{
    Error,
    model::FILE_ALIGNMENT_BYTES,
    spill::{FileMap, SpillFile},
};
use std::{
    collections::BTreeSet,
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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
    /// Taken out only after the range was discarded, so that a range is never punched under its next contents.
    used: Mutex<BTreeSet<usize>>,
    abandoned: AtomicBool,
}

impl ModelFile {
    pub(crate) fn new(file: SpillFile) -> Self {
        Self {
            attachment: Attachment::default(),
            file,
            used: Mutex::default(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Nothing will be written to it again: space returns with the file, not range by range. Punching holes waits for the
    /// disk, 2.6 ms each on ext4, and a model has hundreds of ranges.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
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
        let is_free = file
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(block);
        if !is_free {
            return Ok(None);
        }
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

    /// Notices truncation (E22).
    pub(crate) fn check_len(&self) -> Result<(), Error> {
        self.file.file.check_len()
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.file.sync()
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
        if !self.file.abandoned.load(Ordering::Relaxed) {
            // Space that cannot be given back now is given back with the file.
            let _ = self
                .file
                .file
                .discard(self.offset, padded_bytes(self.bytes));
        }
        self.file
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.block);
    }
}
