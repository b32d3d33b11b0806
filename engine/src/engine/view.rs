//! What the host sees of a tensor: a copy in RAM, or the file through a map.

use super::{Engine, device_tensor::check_range, reports::Tier, state::FileCopy};
use crate::{
    Error, FileTier,
    model::{Dtype, Layout, TensorLayout},
    spill::FileMap,
    transfer::RamCopy,
};
use std::{hash::Hasher as _, sync::Arc};
use twox_hash::XxHash3_64;

/// Buffer for what a reader did not ask for and its checksum needs, bytes.
const ASIDE_BYTES: u64 = 64 << 10;

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
    map: Option<Arc<FileMap>>,
    copy: Arc<FileCopy>,
}

impl Engine {
    /// A view of what the host holds of a tensor: its RAM copy, or its file. A file that is not kept mapped is mapped
    /// as long as the view lives. Moves nothing and waits for no operation.
    ///
    /// # Errors
    /// No such model or tensor, or the tensor is on the device only.
    pub fn map(&self, name: &str, tensor: &str) -> Result<TensorView, Error> {
        self.monitor.0.refuse_child()?;
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

    /// Copies bytes of its span, from `offset` on. From a file: the bytes that are handed out are those whose checksum was
    /// right, so that a file that somebody cut or changed, before or meanwhile, is an error, not wrong weights (E22);
    /// `out` holds zeros then.
    ///
    /// A map is read by a call of the kernel's that answers where a page is gone, so that no cut raises a SIGBUS, and no
    /// signal handler is installed. That copy costs what reading the descriptor costs, several times a `memcpy`. There
    /// is no way to borrow the mapped bytes: nobody could contain the signal of a reader who touches them himself.
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
        let read = self.copy.range.check_len();
        read.and_then(|()| self.read_verified(start, out))
            .inspect_err(|_| out.fill(0))
    }

    /// Chunk by chunk: what was asked for goes to `out` at once and is hashed there, so that the bytes that are handed
    /// out are those that were verified.
    fn read_verified(&self, start: u64, out: &mut [u8]) -> Result<(), Error> {
        let checksums = &self.copy.checksums;
        let end = start + out.len() as u64;
        let what = self.copy.range.file().path().display().to_string();
        for chunk in start / checksums.chunk_bytes()..end.div_ceil(checksums.chunk_bytes()) {
            let chunk_start = chunk * checksums.chunk_bytes();
            let chunk_end = (chunk_start + checksums.chunk_bytes()).min(self.copy.range.bytes());
            let (from, to) = (start.max(chunk_start), end.min(chunk_end));
            let mut hash = XxHash3_64::new();
            self.hash_aside(chunk_start, from, &mut hash)?;
            let target = &mut out[(from - start) as usize..(to - start) as usize];
            self.copy_at(from, target)?;
            hash.write(target);
            self.hash_aside(to, chunk_end, &mut hash)?;
            checksums.verify_sum(chunk, hash.finish(), &what)?;
        }
        Ok(())
    }

    /// Hashes the block's bytes from `start` to `end`.
    fn hash_aside(&self, start: u64, end: u64, hash: &mut XxHash3_64) -> Result<(), Error> {
        let mut buffer = vec![0; ASIDE_BYTES.min(end - start) as usize];
        let mut at = start;
        while at < end {
            let len = (end - at).min(ASIDE_BYTES);
            let window = &mut buffer[..len as usize];
            self.copy_at(at, window)?;
            hash.write(window);
            at += len;
        }
        Ok(())
    }

    fn copy_at(&self, at: u64, out: &mut [u8]) -> Result<(), Error> {
        match &self.map {
            Some(map) => self.copy.range.read_mapped_at(map, out, at),
            None => self.copy.range.read_exact_at(out, at),
        }
    }
}
