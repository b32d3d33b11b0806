//! A checksum per chunk, so that workers verify chunks independently and a reader only those that it reads.
//!
//! Files have chunks of [`CHECKSUM_BYTES`]: small enough that whoever reads a few bytes need not hash megabytes for them. Slots
//! are whole multiples of it.

use crate::Error;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use twox_hash::XxHash3_64;

/// Bytes of a file that share a checksum.
pub(crate) const CHECKSUM_BYTES: u64 = 256 << 10;

/// The xxh3-64 of every chunk of a block, without padding. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Checksums {
    chunk_bytes: u64,
    sums: Arc<[AtomicU64]>,
}

impl Checksums {
    /// Sums to be filled in, for a block of `bytes`.
    pub(crate) fn new(bytes: u64, chunk_bytes: u64) -> Self {
        Self {
            chunk_bytes,
            sums: (0..bytes.div_ceil(chunk_bytes))
                .map(|_| AtomicU64::new(0))
                .collect(),
        }
    }

    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Number of chunks.
    pub(crate) fn count(&self) -> u64 {
        self.sums.len() as u64
    }

    /// Records every chunk of a window that starts at `offset`, a chunk's start, and ends at a chunk's end or the block's.
    pub(crate) fn record_window(&self, offset: u64, contents: &[u8]) {
        for (chunk, part) in self.window(offset, contents) {
            self.record(chunk, part);
        }
    }

    /// Verifies every chunk of such a window.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming what was read and the first chunk that differs.
    pub(crate) fn verify_window(
        &self,
        offset: u64,
        contents: &[u8],
        what: &str,
    ) -> Result<(), Error> {
        for (chunk, part) in self.window(offset, contents) {
            self.verify(chunk, part, what)?;
        }
        Ok(())
    }

    fn window<'a>(&self, offset: u64, contents: &'a [u8]) -> impl Iterator<Item = (u64, &'a [u8])> {
        debug_assert!(offset.is_multiple_of(self.chunk_bytes));
        (offset / self.chunk_bytes..).zip(contents.chunks(self.chunk_bytes as usize))
    }

    pub(crate) fn record(&self, chunk: u64, contents: &[u8]) {
        self.sums[chunk as usize].store(XxHash3_64::oneshot(contents), Ordering::Relaxed);
    }

    /// # Errors
    /// [`Error::Corrupt`] naming what was read and which chunk.
    pub(crate) fn verify(&self, chunk: u64, contents: &[u8], what: &str) -> Result<(), Error> {
        self.verify_sum(chunk, XxHash3_64::oneshot(contents), what)
    }

    /// As [`Self::verify`], for a sum that was made piece by piece.
    pub(crate) fn verify_sum(&self, chunk: u64, found: u64, what: &str) -> Result<(), Error> {
        let recorded = self.sums[chunk as usize].load(Ordering::Relaxed);
        if found == recorded {
            return Ok(());
        }
        Err(Error::Corrupt {
            what: what.to_owned(),
            detail: format!(
                "checksum of chunk {chunk} is {found:016x}, {recorded:016x} was written"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    //! That a changed byte is noticed, in the right chunk.
    use super::*;

    #[test]
    fn windows_are_recorded_and_verified_chunk_by_chunk() {
        let checksums = Checksums::new(10, 2);
        let block: Vec<u8> = (0..10).collect();
        checksums.record_window(0, &block[..6]);
        checksums.record_window(6, &block[6..]);
        checksums.verify_window(4, &block[4..], "file").unwrap();
        checksums.verify(4, &block[8..], "file").unwrap();
        let error = checksums
            .verify_window(4, &[4, 5, 6, 8, 8, 9], "file")
            .unwrap_err();
        assert!(error.to_string().contains("chunk 3"), "{error}");
    }

    #[test]
    fn one_flipped_bit_is_corrupt_and_names_its_chunk() {
        let checksums = Checksums::new(10, 4);
        assert_eq!(checksums.count(), 3);
        let block = [7u8; 10];
        for (index, chunk) in block.chunks(4).enumerate() {
            checksums.record(index as u64, chunk);
        }
        checksums.verify(2, &block[8..], "file").unwrap();
        let error = checksums.verify(2, &[7, 6], "file m0").unwrap_err();
        assert!(error.to_string().contains("file m0"), "{error}");
        assert!(error.to_string().contains("chunk 2"), "{error}");
    }
}
