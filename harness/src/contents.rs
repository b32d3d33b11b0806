//! What a tensor contains, whatever it is digested with.

use crate::case::Model;
use spillproof_protocol::{Digest, DigestAlgorithm, Fill, ManifestError, Tensor, tensor_digest};
use std::{
    collections::HashMap,
    panic::resume_unwind,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Digests of so many bytes are made by several threads.
const MANY_BYTES: u64 = 64 << 20;

/// Threads that make them.
const MOST_THREADS: usize = 8;

/// What was written over a storage, in order.
pub(crate) type History = Vec<Overlay>;

/// Bytes of a storage that a step overwrote.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Overlay {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    pub(crate) fill: Fill,
}

/// The contents of a tensor at one moment, told by their origin.
#[derive(Clone, Debug)]
pub struct Contents {
    model: Arc<Model>,
    /// The tensor's place in the manifest.
    index: usize,
    history: History,
}

impl Contents {
    /// Of the tensor at this place of the model's manifest, which has it, after this.
    pub(crate) fn new(model: &Arc<Model>, index: usize, history: &History) -> Self {
        Self {
            model: Arc::clone(model),
            index,
            history: history.clone(),
        }
    }

    fn tensor(&self) -> &Tensor {
        &self.model.manifest.tensors[self.index]
    }

    /// The tensor's name.
    pub(crate) fn name(&self) -> &str {
        &self.tensor().name
    }

    /// Their digest. Those of generated contents are the dearest thing the harness computes, and cases share models: they are made
    /// once.
    ///
    /// # Errors
    /// A manifest that does not hold together.
    pub fn digest(&self, algorithm: DigestAlgorithm) -> Result<Digest, ManifestError> {
        type Form = (Vec<u64>, Option<Vec<u64>>, u64);
        type Key = (DigestAlgorithm, Fill, History, u64, Form);
        static KNOWN: LazyLock<Mutex<HashMap<Key, Digest>>> = LazyLock::new(Mutex::default);
        if let Some(file) = &self.model.file {
            return Ok(file.digests[self.index].by(algorithm).clone());
        }
        let (manifest, tensor) = (&self.model.manifest, self.tensor());
        let key = (
            algorithm,
            manifest.storage_of(tensor)?.fill.clone(),
            self.history.clone(),
            tensor.byte_offset,
            (
                tensor.shape.clone(),
                tensor.strides.clone(),
                tensor.dtype.bits(),
            ),
        );
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = known().get(&key) {
            return Ok(digest.clone());
        }
        let digest = match self.history.is_empty() {
            true => tensor_digest(manifest, tensor, algorithm)?,
            false => self.overwritten_digest(algorithm)?,
        };
        known().insert(key, digest.clone());
        Ok(digest)
    }

    fn overwritten_digest(&self, algorithm: DigestAlgorithm) -> Result<Digest, ManifestError> {
        let tensor = self.tensor();
        let storage = self.model.manifest.storage_of(tensor)?;
        let span = tensor.span_bytes()?;
        let mut bytes = vec![0; span as usize];
        storage.fill.write(tensor.byte_offset, &mut bytes)?;
        for overlay in &self.history {
            let start = overlay.start.max(tensor.byte_offset);
            let end = (overlay.start + overlay.bytes).min(tensor.byte_offset + span);
            if start < end {
                let window =
                    (start - tensor.byte_offset) as usize..(end - tensor.byte_offset) as usize;
                let of_fill = start - overlay.start;
                overlay.fill.write(of_fill, &mut bytes[window])?;
            }
        }
        if tensor.is_contiguous() {
            return Ok(algorithm.digest(&bytes));
        }
        let mut hasher = algorithm.hasher();
        tensor.for_each_element(|element| hasher.update(&bytes[element]));
        Ok(hasher.finish())
    }
}

/// The digests of all of these, in their order.
///
/// # Errors
/// A manifest that does not hold together.
pub(crate) fn digests(
    contents: &[&Contents],
    algorithm: DigestAlgorithm,
) -> Result<Vec<Digest>, ManifestError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            match contents.get(index) {
                Some(one) => found.push((index, one.digest(algorithm))),
                None => return found,
            }
        }
    };
    let mut found = thread::scope(|scope| {
        let others: Vec<_> = (1..threads(contents)).map(|_| scope.spawn(work)).collect();
        let mut found = work();
        for other in others {
            found.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        found
    });
    found.sort_unstable_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, digest)| digest).collect()
}

/// How many threads make digests: cases run beside each other, so only many bytes get more than their case's own.
fn threads(contents: &[&Contents]) -> usize {
    let spans = contents.iter().map(|one| one.tensor().span_bytes());
    let bytes = spans.map(|bytes| bytes.unwrap_or(0)).sum::<u64>();
    if bytes < MANY_BYTES {
        return 1;
    }
    thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_THREADS))
}
