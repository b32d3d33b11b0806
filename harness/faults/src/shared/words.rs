//! The mapping, reached as bounds-checked atomic words.
#![allow(unsafe_code)]

use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::layout::header;

/// A shared mapping. The other side may write anything into it at any time, so nothing read from it is trusted.
#[derive(Debug)]
pub(super) struct Words {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping lives as long as the value, belongs to no thread, and is only reached through atomics.
unsafe impl Send for Words {}
// SAFETY: as above; every access is atomic, so shared references from several threads cannot race.
unsafe impl Sync for Words {}

impl Words {
    /// Maps the first `count` words of a file that is at least that long and sealed against shrinking.
    pub(super) fn map(file: BorrowedFd<'_>, count: usize) -> Result<Words, Errno> {
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours. The file is sealed
        // against shrinking, so its pages cannot vanish below the mapping.
        let start = unsafe {
            mmap(
                null_mut(),
                count * 8,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Words { start, count })
    }

    /// The word at an index.
    #[inline]
    pub(super) fn at(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "word {index} lies outside the mapping");
        // SAFETY: the index is inside the mapping, which is page-aligned, readable, writable and lives as long as
        // `self`; other processes change the word only atomically.
        unsafe { self.start.add(index).as_ref() }
    }

    /// So many words from an index on: looked for once.
    #[inline(always)]
    pub(super) fn part<const WORDS: usize>(&self, index: usize) -> &[AtomicU64; WORDS] {
        let fits = index <= self.count && self.count - index >= WORDS;
        assert!(fits, "words from {index} on lie outside the mapping");
        // SAFETY: as below, of all of them.
        unsafe { self.start.add(index).cast().as_ref() }
    }

    /// Says that a word will be needed: where its page has to be found first, that goes on beside other work, but not beside a locked step.
    #[inline]
    pub(super) fn announce(&self, index: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: no address is wrong for this.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.start.as_ptr().wrapping_add(index).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = index;
    }

    /// The value at an index.
    #[inline]
    pub(super) fn get(&self, index: usize) -> u64 {
        self.at(index).load(Ordering::Acquire)
    }

    /// Stores a value; stores before it are visible to whoever sees it.
    #[inline]
    pub(super) fn set(&self, index: usize, value: u64) {
        self.at(index).store(value, Ordering::Release);
    }

    /// Adds to a counter; what it was.
    #[inline(always)]
    pub(super) fn add(&self, index: usize, value: u64) -> u64 {
        self.at(index).fetch_add(value, Ordering::AcqRel)
    }

    /// The next serial number, from 1.
    #[inline(always)]
    pub(super) fn next_serial(&self) -> u64 {
        self.add(header::SERIAL, 1).wrapping_add(1)
    }

    /// Takes the next of so many rows; the number that were taken before does not say how many there are.
    pub(super) fn take_row(&self, next: usize, rows: usize) -> Option<usize> {
        let row = usize::try_from(self.add(next, 1)).ok()?;
        (row < rows).then_some(row)
    }

    /// Stores bytes, cut to `words` words, and a zero behind them where there is room. What stands behind that stays as it was.
    pub(super) fn set_bytes(&self, index: usize, words: usize, bytes: &[u8]) {
        let field = (0..words).map(|word| self.at(index + word));
        store(field, bytes);
    }

    /// Reads bytes into a buffer of whole words.
    pub(super) fn bytes(&self, index: usize, into: &mut [u8]) {
        for (word, chunk) in into.chunks_mut(8).enumerate() {
            chunk.copy_from_slice(&self.get(index + word).to_le_bytes()[..chunk.len()]);
        }
    }

    /// The text in a field of zero-padded bytes, with what is no text replaced.
    pub(super) fn text(&self, index: usize, bytes: usize) -> String {
        let mut buffer = vec![0; bytes];
        self.bytes(index, &mut buffer);
        let end = buffer.iter().position(|byte| *byte == 0);
        buffer.truncate(end.unwrap_or(bytes));
        String::from_utf8_lossy(&buffer).into_owned()
    }
}

/// Stores bytes in a field, cut to it, and a zero behind them where there is room. What stands behind that stays as it was.
#[inline]
pub(super) fn store<'a>(field: impl IntoIterator<Item = &'a AtomicU64>, bytes: &[u8]) {
    let mut field = field.into_iter();
    let (whole, rest) = bytes.as_chunks::<8>();
    for value in whole {
        let Some(word) = field.next() else {
            return;
        };
        word.store(u64::from_le_bytes(*value), Ordering::Release);
    }
    if let Some(word) = field.next() {
        word.store(last_word(rest), Ordering::Release);
    }
}

/// Fewer than eight bytes, with zeros behind them. In registers: a word that was put together in memory has to wait there before it is read.
#[inline]
fn last_word(bytes: &[u8]) -> u64 {
    let (mut word, mut bits, mut bytes) = (0, 0, bytes);
    if let Some((part, rest)) = bytes.split_first_chunk::<4>() {
        (word, bits, bytes) = (u64::from(u32::from_le_bytes(*part)), 32, rest);
    }
    if let Some((part, rest)) = bytes.split_first_chunk::<2>() {
        word |= u64::from(u16::from_le_bytes(*part)) << bits;
        (bits, bytes) = (bits + 16, rest);
    }
    match bytes.first() {
        Some(byte) => word | u64::from(*byte) << bits,
        None => word,
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the range is the one mapped by `map`; references into it borrow `self` and are gone.
        // A failure leaves the mapping in place, which harms nothing.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.count * 8) };
    }
}
