//! A block's contents in anonymous host memory.

use super::Checksums;
use crate::{Error, memory};
use memmap2::{Mmap, MmapMut};
use std::{
    io,
    sync::{Mutex, PoisonError},
};

/// Contents in anonymous maps, one a chunk: each returns to the system at once when dropped (E31), whatever the
/// allocator would have kept.
pub(crate) struct RamCopy {
    bytes: u64,
    chunks: Vec<Mmap>,
    checksums: Checksums,
}

impl RamCopy {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn checksums(&self) -> &Checksums {
        &self.checksums
    }

    pub(super) fn chunk(&self, index: u64) -> &[u8] {
        &self.chunks[index as usize]
    }

    /// Copies out of the block from `offset` on. The caller has checked the range.
    pub(crate) fn read_at(&self, mut offset: u64, mut out: &mut [u8]) {
        let chunk_bytes = self.checksums.chunk_bytes();
        while !out.is_empty() {
            let chunk = self.chunk(offset / chunk_bytes);
            let from = &chunk[(offset % chunk_bytes) as usize..];
            let len = from.len().min(out.len());
            let (head, rest) = out.split_at_mut(len);
            head.copy_from_slice(&from[..len]);
            out = rest;
            offset += len as u64;
        }
    }
}

/// A copy in the making: workers put chunks in, in any order.
pub(super) struct RamCopyBuilder {
    bytes: u64,
    chunks: Vec<Mutex<Option<Mmap>>>,
    checksums: Checksums,
}

impl RamCopyBuilder {
    pub(super) fn new(bytes: u64, chunk_bytes: u64) -> Self {
        let checksums = Checksums::new(bytes, chunk_bytes);
        Self {
            bytes,
            chunks: (0..checksums.count()).map(|_| Mutex::default()).collect(),
            checksums,
        }
    }

    /// Copies one chunk.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub(super) fn put(&self, chunk: u64, contents: &[u8]) -> Result<(), Error> {
        let failed = |source| refused(contents.len() as u64, source);
        let mut memory = MmapMut::map_anon(contents.len()).map_err(failed)?;
        memory.copy_from_slice(contents);
        self.checksums.record(chunk, contents);
        let memory = memory.make_read_only().map_err(failed)?;
        *self.chunks[chunk as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }

    /// # Errors
    /// A chunk was never put in.
    pub(super) fn finish(&self) -> Result<RamCopy, Error> {
        let chunks = self
            .chunks
            .iter()
            .map(|chunk| {
                chunk
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take()
                    .ok_or_else(|| Error::Internal("a RAM copy lacks a chunk".into()))
            })
            .collect::<Result<_, _>>()?;
        Ok(RamCopy {
            bytes: self.bytes,
            chunks,
            checksums: self.checksums.clone(),
        })
    }
}

/// The error of a map that was not made; no memory is no place on the host.
fn refused(wanted: u64, source: io::Error) -> Error {
    if source.raw_os_error() == Some(libc::ENOMEM) {
        // Asked for the message only.
        let available = memory::available_bytes().unwrap_or(0);
        return Error::HostMemory { wanted, available };
    }
    Error::Io {
        operation: "mmap",
        path: "anonymous memory (RAM tier)".into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    //! Windows over chunk borders, an incomplete copy, and what a refused map means.
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn any_window_equals_the_same_window_of_the_whole() {
        let whole: Vec<u8> = (0..10).collect();
        let builder = RamCopyBuilder::new(10, 4);
        for index in [2, 0, 1] {
            let at = index as usize * 4;
            builder.put(index, &whole[at..(at + 4).min(10)]).unwrap();
        }
        let copy = builder.finish().unwrap();
        for start in 0..10 {
            for end in start..=10 {
                let mut out = vec![0; end - start];
                copy.read_at(start as u64, &mut out);
                assert_eq!(out, whole[start..end], "{start}..{end}");
            }
        }
    }

    #[test]
    fn no_memory_for_a_map_is_no_host_memory_and_another_refusal_is_not() {
        for (errno, kind) in [
            (libc::ENOMEM, ErrorKind::HostMemory),
            (libc::EPERM, ErrorKind::Io),
        ] {
            let error = refused(7, io::Error::from_raw_os_error(errno));
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn a_copy_without_one_of_its_chunks_is_no_copy() {
        let builder = RamCopyBuilder::new(10, 4);
        builder.put(0, &[0; 4]).unwrap();
        assert!(builder.finish().is_err());
    }
}
