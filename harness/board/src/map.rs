//! The mapping of the tables, reached as bounds-checked atomic words.
#![allow(unsafe_code)]

use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::layout::{TABLE_BYTES, TABLE_WORDS};

/// The tables of a board, shared with every process that has it open.
#[derive(Debug)]
pub(crate) struct Words {
    start: NonNull<AtomicU64>,
}

// SAFETY: the mapping lives as long as the value, belongs to no thread, and is only reached through atomics.
unsafe impl Send for Words {}
// SAFETY: as above; every access is atomic, so shared references from several threads cannot race.
unsafe impl Sync for Words {}

impl Words {
    /// Maps the tables of a file that is at least that long.
    pub(crate) fn map(board: BorrowedFd<'_>) -> Result<Words, Errno> {
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours. The file is sealed
        // against shrinking, so its pages cannot vanish below the mapping.
        let start = unsafe {
            mmap(
                null_mut(),
                TABLE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                board,
                0,
            )
        }?;
        NonNull::new(start.cast())
            .map(|start| Words { start })
            .ok_or(Errno::NOMEM)
    }

    /// The word at an index.
    pub(crate) fn at(&self, index: usize) -> &AtomicU64 {
        assert!(index < TABLE_WORDS, "word {index} lies outside the tables");
        // SAFETY: the index is inside the mapping, which is page-aligned, readable, writable and lives as long as
        // `self`; other processes change the word only atomically.
        unsafe { self.start.add(index).as_ref() }
    }

    /// The value at an index.
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.at(index).load(Ordering::Acquire)
    }

    /// Stores a value; stores before it are visible to whoever sees it.
    pub(crate) fn set(&self, index: usize, value: u64) {
        self.at(index).store(value, Ordering::Release);
    }

    /// Stores text in a field of `words` words, cut at a character border and padded with zeros.
    pub(crate) fn set_text(&self, index: usize, words: usize, text: &str) {
        let mut end = text.len().min(words * 8);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut chunks = text.as_bytes()[..end].chunks(8);
        for word in index..index + words {
            let mut bytes = [0u8; 8];
            if let Some(chunk) = chunks.next() {
                bytes[..chunk.len()].copy_from_slice(chunk);
            }
            self.set(word, u64::from_le_bytes(bytes));
        }
    }

    /// The text in a field of `words` words.
    pub(crate) fn text(&self, index: usize, words: usize) -> String {
        let bytes: Vec<u8> = (index..index + words)
            .flat_map(|word| self.get(word).to_le_bytes())
            .take_while(|byte| *byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the range is the one mapped by `map`; references into it borrow `self` and are gone.
        // A failure leaves the mapping in place, which harms nothing.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), TABLE_BYTES) };
    }
}
