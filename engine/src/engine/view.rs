//! What the host sees of a tensor: a copy in RAM, or the file through a map.
#![allow(unsafe_code)]

use super::{Engine, device_tensor::check_range, reports::Tier, state::FileCopy};
use crate::{
    Error, FileTier,
    model::{Dtype, Layout, TensorLayout},
    transfer::RamCopy,
};
use memmap2::{Mmap, UncheckedAdvice};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Pages of a map that are resident at a time for a reader, bytes.
const MAP_WINDOW_BYTES: usize = 4 << 20;
/// Buffer of a reader that has no map, bytes.
const READ_WINDOW_BYTES: usize = 256 << 10;

/// A tensor's bytes on the host, as they were when the view was made: it stays valid and unchanged when the tensor is
/// reloaded, rewritten or dropped, and the file goes with the last view (E33).
pub struct TensorView {
    layout: Arc<Layout>,
    tensor: usize,
    tier: Tier,
    backing: Backing,
}

enum Backing {
    /// The tensor has no bytes.
    Empty,
    Ram(Arc<RamCopy>),
    File(FileBacking),
}

struct FileBacking {
    // Dropped before the file's range is given back.
    map: Option<Arc<Mmap>>,
    copy: Arc<FileCopy>,
}

impl Engine {
    /// A view of what the host holds of a tensor: its RAM copy, or its file. A file that is not kept mapped is mapped
    /// as long as the view lives. Moves nothing and waits for no operation.
    ///
    /// # Errors
    /// No such model or tensor, or the tensor is on the device only.
    pub fn map(&self, name: &str, tensor: &str) -> Result<TensorView, Error> {
        let (layout, index, found) = {
            let state = self.state();
            let model = state.find(name)?;
            let index = model.tensor_index(tensor)?;
            let found = model.layout.tensors[index].block.map(|block| {
                let block = &model.blocks[block];
                (block.ram.clone(), block.file.clone(), block.map.clone())
            });
            (Arc::clone(&model.layout), index, found)
        };
        let (tier, backing) = match found {
            None => (Tier::Ram, Backing::Empty),
            Some((Some(copy), _, _)) => (Tier::Ram, Backing::Ram(copy)),
            Some((None, Some(copy), kept)) => {
                // Without a map the view reads through the descriptor (F50).
                let map = kept.or_else(|| copy.range.map().ok().map(Arc::new));
                let tier = match self.settings().file_tier() {
                    FileTier::Mapped if map.is_some() => Tier::Mapped,
                    FileTier::Mapped | FileTier::Closed => Tier::File,
                };
                (tier, Backing::File(FileBacking { map, copy }))
            }
            Some((None, None, _)) => {
                return Err(Error::NotOnHost {
                    model: name.to_owned(),
                    tensor: tensor.to_owned(),
                });
            }
        };
        Ok(TensorView {
            layout,
            tensor: index,
            tier,
            backing,
        })
    }
}

impl TensorView {
    fn tensor(&self) -> &TensorLayout {
        &self.layout.tensors[self.tensor]
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.tensor().name
    }

    /// Its element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.tensor().dtype
    }

    /// Its sizes; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.tensor().shape
    }

    /// Its strides in elements; `None` for contiguous.
    #[must_use]
    pub fn strides(&self) -> Option<&[u64]> {
        self.tensor().strides.as_deref()
    }

    /// Bytes from its first element to past its last.
    #[must_use]
    pub fn span_bytes(&self) -> u64 {
        self.tensor().span_bytes
    }

    /// Where the view reads from; RAM for a tensor without bytes.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Copies bytes of its span, from `offset` on. From a file: the length is checked first, and the bytes that are handed out
    /// are those whose checksum was right, so that a file that somebody cut or changed is an error, not wrong weights (E22);
    /// `out` holds zeros then. What is not caught is a cut within the microseconds between the check and the copy.
    ///
    /// # Errors
    /// The range leaves the span, or the file is corrupt or cannot be read.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        check_range(self.tensor(), offset, out.len())?;
        let start = self.tensor().offset_bytes + offset;
        match &self.backing {
            Backing::Empty => Ok(()),
            Backing::Ram(copy) => {
                copy.read_at(start, out);
                Ok(())
            }
            Backing::File(file) => file.read_at(start, out),
        }
    }
}

impl FileBacking {
    fn read_at(&self, start: u64, out: &mut [u8]) -> Result<(), Error> {
        if out.is_empty() {
            return Ok(());
        }
        let checksums = &self.copy.checksums;
        let end = start + out.len() as u64;
        let what = self.copy.range.file().path().display().to_string();
        for chunk in start / checksums.chunk_bytes()..end.div_ceil(checksums.chunk_bytes()) {
            let chunk_start = chunk * checksums.chunk_bytes();
            let chunk_end = (chunk_start + checksums.chunk_bytes()).min(self.copy.range.bytes());
            let (mut hash, mut at) = (Xxh3::new(), chunk_start);
            // One pass: the bytes that are hashed are those that are handed out.
            self.sweep(chunk_start, chunk_end, &mut |window| {
                let window_end = at + window.len() as u64;
                let (from, to) = (start.max(at), end.min(window_end));
                if from < to {
                    let target = &mut out[(from - start) as usize..(to - start) as usize];
                    target.copy_from_slice(&window[(from - at) as usize..(to - at) as usize]);
                    hash.update(&window[..(from - at) as usize]);
                    hash.update(target);
                    hash.update(&window[(to - at) as usize..]);
                } else {
                    hash.update(window);
                }
                at = window_end;
            })?;
            checksums
                .verify_sum(chunk, hash.digest(), &what)
                .inspect_err(|_| out.fill(0))?;
        }
        Ok(())
    }

    /// Hands the block's bytes out in windows, in order, keeping no more than a window of them resident.
    fn sweep(&self, start: u64, end: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let Some(map) = &self.map else {
            return self.sweep_descriptor(start, end, take);
        };
        // The map is the block's, so both fit the address space.
        let (mut at, end) = (start as usize, end as usize);
        while at < end {
            let len = MAP_WINDOW_BYTES.min(end - at);
            self.copy.range.check_len()?;
            take(&map[at..at + len]);
            // SAFETY: the map is a shared, read-only one of a file, so pages that are dropped come back with the same
            // contents at the next access, this reader's or another's. That it fails would only cost memory.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, at, len) };
            at += len;
        }
        Ok(())
    }

    fn sweep_descriptor(
        &self,
        start: u64,
        end: u64,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        let mut buffer = vec![0; READ_WINDOW_BYTES.min((end - start) as usize)];
        let mut at = start;
        while at < end {
            let len = (buffer.len() as u64).min(end - at) as usize;
            self.copy.range.check_len()?;
            self.copy.range.read_exact_at(&mut buffer[..len], at)?;
            take(&buffer[..len]);
            at += len as u64;
        }
        Ok(())
    }
}
