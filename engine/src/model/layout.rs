//! Which bytes of a model are kept, and where they lie in its file.

use super::{dtype::Dtype, manifest::Manifest, shape::span_bytes};
use crate::error::Error;
use std::collections::{HashMap, HashSet};

/// Payloads start at multiples of this many bytes of the file (E19).
pub(crate) const FILE_ALIGNMENT_BYTES: u64 = 4096;

/// A block starts at a multiple of this many bytes of its storage, as device allocations do: a tensor keeps the alignment that it
/// had in its storage, which kernels may rely on.
const DEVICE_ALIGNMENT_BYTES: u64 = 256;

/// Blocks and tensors of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// In visiting order.
    pub(crate) tensors: Vec<TensorLayout>,
    /// In the order of their first tensors.
    pub(crate) blocks: Vec<BlockLayout>,
    /// Length of a file that holds every block, padding included.
    pub(crate) file_bytes: u64,
    /// Places in `tensors`, by name.
    indices: HashMap<String, usize>,
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorLayout {
    /// Unique name.
    pub(crate) name: String,
    /// Element type.
    pub(crate) dtype: Dtype,
    /// Sizes.
    pub(crate) shape: Vec<u64>,
    /// Strides, elements; `None` means contiguous.
    pub(crate) strides: Option<Vec<u64>>,
    /// Its block; `None` when it has no bytes (E15).
    pub(crate) block: Option<usize>,
    /// Offset of its first element in the block, bytes.
    pub(crate) offset_bytes: u64,
    /// Bytes from the first to past the last element.
    pub(crate) span_bytes: u64,
}

/// A maximal run of bytes of one storage that tensors cover, from the alignment before it on: the unit of residency
/// (E17, E18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockLayout {
    /// Length, bytes; never 0.
    pub(crate) bytes: u64,
    /// Where it starts in the model's file, a multiple of 4096.
    pub(crate) file_offset: u64,
    /// The tensors in it, in visiting order.
    pub(crate) tensors: Vec<usize>,
}

impl BlockLayout {
    /// Bytes that it takes in the file, padding included.
    pub(crate) fn file_bytes(&self) -> u64 {
        // The layout's total is checked, so no part of it overflows.
        self.bytes.next_multiple_of(FILE_ALIGNMENT_BYTES)
    }
}

/// A tensor before blocks are known: which storage it looks into, and where.
pub(super) struct PlacedTensor {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Option<Vec<u64>>,
    pub(super) storage: usize,
    pub(super) start: u64,
    pub(super) span_bytes: u64,
}

/// Where a block comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockOrigin {
    pub(super) storage: usize,
    pub(super) start: u64,
}

impl Layout {
    /// Checks a manifest and lays it out.
    pub(super) fn of_manifest(manifest: &Manifest) -> Result<(Self, Vec<BlockOrigin>), Error> {
        let mut storages = HashMap::new();
        for (index, storage) in manifest.storages.iter().enumerate() {
            if storages.insert(storage.name.as_str(), index).is_some() {
                return Err(Error::InvalidModel(format!(
                    "storage name {:?} is used twice",
                    storage.name
                )));
            }
        }
        let mut placed = Vec::with_capacity(manifest.tensors.len());
        for tensor in &manifest.tensors {
            let invalid =
                |what: String| Error::InvalidModel(format!("tensor {:?}: {what}", tensor.name));
            let storage = *storages
                .get(tensor.storage.as_str())
                .ok_or_else(|| invalid(format!("there is no storage {:?}", tensor.storage)))?;
            let span_bytes = span_bytes(tensor.dtype, &tensor.shape, tensor.strides.as_deref())
                .map_err(|error| invalid(error.to_string()))?;
            let end = tensor.byte_offset.checked_add(span_bytes).ok_or_else(|| {
                invalid(format!(
                    "{span_bytes} bytes from byte {} on overflow 64 bits",
                    tensor.byte_offset
                ))
            })?;
            let available = manifest.storages[storage].bytes;
            if end > available {
                return Err(invalid(format!(
                    "it ends at byte {end} of storage {:?}, which has {available}",
                    tensor.storage
                )));
            }
            placed.push(PlacedTensor {
                name: tensor.name.clone(),
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                strides: tensor.strides.clone(),
                storage,
                start: tensor.byte_offset,
                span_bytes,
            });
        }
        Self::of_placed(placed)
    }

    /// The place of a tensor in visiting order.
    pub(crate) fn index_of(&self, tensor: &str) -> Option<usize> {
        self.indices.get(tensor).copied()
    }

    /// Lays tensors out whose ranges are checked.
    pub(super) fn of_placed(placed: Vec<PlacedTensor>) -> Result<(Self, Vec<BlockOrigin>), Error> {
        let mut names = HashSet::new();
        if let Some(twice) = placed.iter().find(|tensor| !names.insert(&tensor.name)) {
            return Err(Error::InvalidModel(format!(
                "tensor name {:?} is used twice",
                twice.name
            )));
        }
        let runs = covered_runs(&placed);
        let mut layout = Self {
            tensors: Vec::with_capacity(placed.len()),
            blocks: Vec::with_capacity(runs.len()),
            file_bytes: 0,
            indices: placed
                .iter()
                .enumerate()
                .map(|(index, tensor)| (tensor.name.clone(), index))
                .collect(),
        };
        let mut origins = Vec::with_capacity(runs.len());
        let mut block_of = vec![None; placed.len()];
        for run in runs {
            for tensor in &run.tensors {
                block_of[*tensor] = Some((layout.blocks.len(), run.start));
            }
            let bytes = run.end - run.start;
            layout.blocks.push(BlockLayout {
                bytes,
                file_offset: layout.file_bytes,
                tensors: run.tensors,
            });
            origins.push(BlockOrigin {
                storage: run.storage,
                start: run.start,
            });
            // File offsets are signed 64-bit in the system's calls.
            layout.file_bytes = bytes
                .checked_next_multiple_of(FILE_ALIGNMENT_BYTES)
                .and_then(|padded| layout.file_bytes.checked_add(padded))
                .filter(|total| i64::try_from(*total).is_ok())
                .ok_or_else(|| {
                    Error::InvalidModel("the model's bytes do not fit in one file".into())
                })?;
        }
        for (tensor, block) in placed.into_iter().zip(block_of) {
            layout.tensors.push(TensorLayout {
                block: block.map(|(block, _)| block),
                offset_bytes: block.map_or(0, |(_, start)| tensor.start - start),
                name: tensor.name,
                dtype: tensor.dtype,
                shape: tensor.shape,
                strides: tensor.strides,
                span_bytes: tensor.span_bytes,
            });
        }
        Ok((layout, origins))
    }
}

/// A run of one storage's bytes, and the tensors in it.
struct Run {
    storage: usize,
    start: u64,
    end: u64,
    tensors: Vec<usize>,
}

/// Merges overlapping and touching spans, each from the alignment before it on; the result is in the order of each run's first tensor.
fn covered_runs(placed: &[PlacedTensor]) -> Vec<Run> {
    let mut order: Vec<usize> = (0..placed.len())
        .filter(|index| placed[*index].span_bytes > 0)
        .collect();
    order.sort_by_key(|index| (placed[*index].storage, placed[*index].start));
    let mut runs: Vec<Run> = Vec::new();
    for index in order {
        let tensor = &placed[index];
        let start = tensor.start - tensor.start % DEVICE_ALIGNMENT_BYTES;
        let end = tensor.start + tensor.span_bytes;
        match runs.last_mut() {
            Some(run) if run.storage == tensor.storage && start <= run.end => {
                run.end = run.end.max(end);
                run.tensors.push(index);
            }
            Some(_) | None => runs.push(Run {
                storage: tensor.storage,
                start,
                end,
                tensors: vec![index],
            }),
        }
    }
    for run in &mut runs {
        run.tensors.sort_unstable();
    }
    runs.sort_by_key(|run| run.tensors[0]);
    runs
}
