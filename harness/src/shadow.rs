//! The harness's own idea of every model: what each tensor must contain, and how many file bytes
//! its journeys can justify. Computed from manifests and steps alone, never from an engine.

use crate::case::Model;
use sha2::{Digest as _, Sha256};
use spillproof_protocol::{Digest, Fill, Manifest, ManifestError, Tensor, tensor_digest};
use std::{
    collections::{BTreeMap, HashMap},
    panic::resume_unwind,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Files are laid out in units of this many bytes.
const FILE_UNIT_BYTES: u64 = 4096;

/// Digests of a model of so many bytes are made by several threads.
const LARGE_MODEL_BYTES: u64 = 64 << 20;

/// Threads that make them.
const MOST_THREADS: usize = 8;

/// A model as it must be.
#[derive(Clone, Debug)]
pub struct Shadow {
    manifest: Manifest,
    file_digests: Option<Vec<Digest>>,
    /// What storages may have become: one history, except where a modification failed, which leaves the old or the new bytes.
    histories: BTreeMap<String, Vec<History>>,
}

/// What was written over a storage, in order.
type History = Vec<Overlay>;

/// Bytes of a storage that a step overwrote.
#[derive(Clone, Debug, PartialEq)]
struct Overlay {
    start: u64,
    bytes: u64,
    fill: Fill,
}

impl Shadow {
    /// A freshly loaded model.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        Self {
            manifest: model.manifest.clone(),
            file_digests: model.file.as_ref().map(|file| file.digests.clone()),
            histories: BTreeMap::new(),
        }
    }

    /// Overwrites the span of a tensor. Answers the bytes that may have to be written again.
    ///
    /// # Errors
    /// No such tensor, or one whose contents the harness does not generate itself.
    pub fn modify(&mut self, tensor: &str, fill: &Fill) -> Result<u64, ShadowError> {
        self.overwrite(tensor, fill, |histories, overlay| {
            for history in histories {
                push(history, overlay.clone());
            }
        })
    }

    /// As [`Shadow::modify`] for a modification that failed: the old bytes are there or the new ones, which the next digests decide.
    ///
    /// # Errors
    /// As [`Shadow::modify`].
    pub fn modify_perhaps(&mut self, tensor: &str, fill: &Fill) -> Result<u64, ShadowError> {
        self.overwrite(tensor, fill, |histories, overlay| {
            for mut history in histories.clone() {
                push(&mut history, overlay.clone());
                if !histories.contains(&history) {
                    histories.push(history);
                }
            }
        })
    }

    fn overwrite(
        &mut self,
        tensor: &str,
        fill: &Fill,
        change: impl FnOnce(&mut Vec<History>, &Overlay),
    ) -> Result<u64, ShadowError> {
        if self.file_digests.is_some() {
            return Err(ShadowError::NotGenerated(tensor.into()));
        }
        let found = self.tensor(tensor)?;
        let (storage, start, bytes) = (
            found.storage.clone(),
            found.byte_offset,
            found.span_bytes()?,
        );
        let storage_bytes = self.manifest.storage_of(found)?.bytes;
        let overlay = Overlay {
            start,
            bytes,
            fill: fill.clone(),
        };
        let histories = self.histories.entry(storage);
        change(histories.or_insert_with(|| vec![History::new()]), &overlay);
        Ok(padded(storage_bytes))
    }

    /// Whether a failed modification left more than one thing that can be there.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.histories.values().any(|histories| histories.len() > 1)
    }

    /// Decides what a failed modification left by the digests that were seen. Where they fit nothing that could be there, the
    /// old bytes stay expected.
    ///
    /// # Errors
    /// A manifest that does not hold together.
    pub fn observe(&mut self, seen: &BTreeMap<String, Digest>) -> Result<(), ShadowError> {
        let mut decided = Vec::new();
        for (storage, histories) in &self.histories {
            let mut fitting = Vec::new();
            for history in histories {
                if histories.len() == 1 || self.fits(storage, history, seen)? {
                    fitting.push(history.clone());
                }
            }
            if !fitting.is_empty() && fitting.len() < histories.len() {
                decided.push((storage.clone(), fitting));
            }
        }
        self.histories.extend(decided);
        Ok(())
    }

    fn fits(
        &self,
        storage: &str,
        history: &History,
        seen: &BTreeMap<String, Digest>,
    ) -> Result<bool, ShadowError> {
        let tensors = self.manifest.tensors.iter();
        for tensor in tensors.filter(|tensor| tensor.storage == storage) {
            if let Some(digest) = seen.get(&tensor.name)
                && *digest != self.digest_after(tensor, history)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a tensor may digest to now; the first is what it is if nothing that failed left a trace.
    ///
    /// # Errors
    /// No such tensor, or a manifest that does not hold together.
    pub fn possible_digests(&self, tensor: &str) -> Result<Vec<Digest>, ShadowError> {
        let named = |found: &Tensor| found.name == tensor;
        let Some(index) = self.manifest.tensors.iter().position(named) else {
            return Err(ShadowError::UnknownTensor(tensor.into()));
        };
        let found = &self.manifest.tensors[index];
        match self.histories.get(&found.storage) {
            Some(histories) => {
                let digests = histories.iter();
                digests
                    .map(|history| self.digest_after(found, history))
                    .collect()
            }
            None => Ok(vec![self.digest(index, found)?]),
        }
    }

    /// What every tensor must digest to now, by name.
    ///
    /// # Errors
    /// A manifest that does not hold together.
    pub fn digests(&self) -> Result<BTreeMap<String, Digest>, ShadowError> {
        let tensors = &self.manifest.tensors;
        let next = AtomicUsize::new(0);
        let work = || {
            let mut found = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(tensor) = tensors.get(index) else {
                    return found;
                };
                let digest = self.digest(index, tensor);
                found.push(digest.map(|digest| (tensor.name.clone(), digest)));
            }
        };
        let found = thread::scope(|scope| {
            let others: Vec<_> = (1..self.digest_threads())
                .map(|_| scope.spawn(work))
                .collect();
            let mut found = work();
            for other in others {
                found.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            found
        });
        found.into_iter().collect()
    }

    /// How many threads make digests: cases run beside each other, so only a large model gets more than its case's own.
    fn digest_threads(&self) -> usize {
        let bytes: u64 = self
            .manifest
            .storages
            .iter()
            .map(|storage| storage.bytes)
            .sum();
        if bytes < LARGE_MODEL_BYTES {
            return 1;
        }
        thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_THREADS))
    }

    fn digest(&self, index: usize, tensor: &Tensor) -> Result<Digest, ShadowError> {
        if let Some(digests) = &self.file_digests {
            return digests
                .get(index)
                .cloned()
                .ok_or_else(|| ShadowError::UnknownTensor(tensor.name.clone()));
        }
        let histories = self.histories.get(&tensor.storage);
        match histories.and_then(|histories| histories.first()) {
            Some(history) => self.digest_after(tensor, history),
            None => Ok(generated_digest(&self.manifest, tensor)?),
        }
    }

    fn digest_after(&self, tensor: &Tensor, history: &History) -> Result<Digest, ShadowError> {
        if history.is_empty() {
            return Ok(generated_digest(&self.manifest, tensor)?);
        }
        let storage = self.manifest.storage_of(tensor)?;
        let span = tensor.span_bytes()?;
        let mut bytes = vec![0; span as usize];
        storage
            .fill
            .write(tensor.byte_offset, &mut bytes)
            .map_err(ManifestError::from)?;
        for overlay in history {
            let start = overlay.start.max(tensor.byte_offset);
            let end = (overlay.start + overlay.bytes).min(tensor.byte_offset + span);
            if start < end {
                let window =
                    (start - tensor.byte_offset) as usize..(end - tensor.byte_offset) as usize;
                overlay
                    .fill
                    .write(start - overlay.start, &mut bytes[window])
                    .map_err(ManifestError::from)?;
            }
        }
        if tensor.is_contiguous() {
            return Ok(Digest::of(&bytes));
        }
        let mut hasher = Sha256::new();
        tensor.for_each_element(|element| hasher.update(&bytes[element]));
        Ok(Digest::finish(hasher))
    }

    fn tensor(&self, name: &str) -> Result<&Tensor, ShadowError> {
        let found = self
            .manifest
            .tensors
            .iter()
            .find(|tensor| tensor.name == name);
        found.ok_or_else(|| ShadowError::UnknownTensor(name.into()))
    }

    /// Bytes that tensors refer to, each run of a storage once.
    ///
    /// # Errors
    /// A manifest that does not hold together.
    pub fn referenced_bytes(&self) -> Result<u64, ShadowError> {
        Ok(self.runs()?.iter().map(|(start, end)| end - start).sum())
    }

    /// File bytes that one complete write of the model takes: each run padded to whole units.
    ///
    /// # Errors
    /// A manifest that does not hold together.
    pub fn file_bytes(&self) -> Result<u64, ShadowError> {
        Ok(self
            .runs()?
            .iter()
            .map(|(start, end)| padded(end - start))
            .sum())
    }

    /// Maximal runs of bytes that overlapping or touching tensors cover, by storage.
    fn runs(&self) -> Result<Vec<(u64, u64)>, ShadowError> {
        let mut spans: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        for tensor in &self.manifest.tensors {
            let bytes = tensor.span_bytes()?;
            if bytes > 0 {
                let span = (tensor.byte_offset, tensor.byte_offset + bytes);
                spans.entry(&tensor.storage).or_default().push(span);
            }
        }
        let mut runs = Vec::new();
        for spans in spans.values_mut() {
            spans.sort_unstable();
            let mut current = spans[0];
            for span in &spans[1..] {
                if span.0 <= current.1 {
                    current.1 = current.1.max(span.1);
                } else {
                    runs.push(current);
                    current = *span;
                }
            }
            runs.push(current);
        }
        Ok(runs)
    }
}

/// What is overwritten whole leaves no trace.
fn push(history: &mut History, overlay: Overlay) {
    let end = overlay.start + overlay.bytes;
    history.retain(|old| old.start < overlay.start || old.start + old.bytes > end);
    history.push(overlay);
}

/// Why the harness has no expectation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShadowError {
    /// The case names a tensor that its model lacks.
    #[error("the case names tensor {0:?}, which its model lacks")]
    UnknownTensor(String),
    /// The model came from a file; its contents after a modification cannot be generated.
    #[error("tensor {0:?} comes from a file and cannot be modified by a case")]
    NotGenerated(String),
    /// The manifest does not hold together.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(FILE_UNIT_BYTES)
}

/// Digests of generated contents are the dearest thing the harness computes, and cases share models.
fn generated_digest(manifest: &Manifest, tensor: &Tensor) -> Result<Digest, ManifestError> {
    type Key = (Fill, u64, Vec<u64>, Option<Vec<u64>>, u64);
    static KNOWN: LazyLock<Mutex<HashMap<Key, Digest>>> = LazyLock::new(Mutex::default);
    let storage = manifest.storage_of(tensor)?;
    let key = (
        storage.fill.clone(),
        tensor.byte_offset,
        tensor.shape.clone(),
        tensor.strides.clone(),
        tensor.dtype.bits(),
    );
    let known = || {
        KNOWN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    if let Some(digest) = known().get(&key) {
        return Ok(digest.clone());
    }
    let digest = tensor_digest(manifest, tensor)?;
    known().insert(key, digest.clone());
    Ok(digest)
}

#[cfg(test)]
mod tests {
    //! Expected contents after modifications, and the bytes that journeys can justify.
    use super::*;

    fn shadow(tensors: &str) -> Shadow {
        let text = format!(
            r#"{{"storages":[{{"name":"s","bytes":100000,"fill":{{"seed":7}}}}],"tensors":[{tensors}]}}"#
        );
        let manifest = Manifest::from_json(&text).unwrap();
        Shadow::new(&Model {
            name: "m".into(),
            manifest,
            file: None,
        })
    }

    #[test]
    fn a_modification_shows_in_every_tensor_that_shares_its_bytes() {
        let mut shadow = shadow(
            r#"{"name":"a","dtype":"u8","shape":[100],"storage":"s"},
               {"name":"b","dtype":"u8","shape":[100],"storage":"s","byte_offset":50},
               {"name":"c","dtype":"u8","shape":[100],"storage":"s","byte_offset":200}"#,
        );
        let before = shadow.digests().unwrap();
        shadow.modify("a", &Fill::Seed(9)).unwrap();
        let after = shadow.digests().unwrap();
        assert_ne!(before["a"], after["a"]);
        assert_ne!(before["b"], after["b"]);
        assert_eq!(before["c"], after["c"]);
        let mut b = vec![0; 100];
        Fill::Seed(7).write(50, &mut b).unwrap();
        Fill::Seed(9).write(50, &mut b[..50]).unwrap();
        assert_eq!(after["b"], Digest::of(&b));
    }

    #[test]
    fn a_modification_that_failed_leaves_the_old_or_the_new_bytes_and_nothing_else() {
        let model = r#"{"name":"a","dtype":"u8","shape":[100],"storage":"s"},
               {"name":"b","dtype":"u8","shape":[100],"storage":"s","byte_offset":50},
               {"name":"c","dtype":"u8","shape":[100],"storage":"s","byte_offset":200}"#;
        let old = shadow(model);
        let new = |seeds: &[u64]| {
            let mut new = shadow(model);
            for seed in seeds {
                new.modify("a", &Fill::Seed(*seed)).unwrap();
            }
            new.digests().unwrap()
        };
        let mut undecided = shadow(model);
        undecided.modify_perhaps("a", &Fill::Seed(9)).unwrap();
        undecided.modify_perhaps("a", &Fill::Seed(10)).unwrap();
        assert_eq!(undecided.digests(), old.digests());
        let possible = undecided.possible_digests("b").unwrap();
        let wanted = [&[][..], &[9], &[10]].map(|seeds| new(seeds)["b"].clone());
        assert_eq!(possible, wanted);

        // What tells nothing decides nothing, and what cannot be is not taken up.
        let only = |digests: BTreeMap<String, Digest>, name: &str| {
            BTreeMap::from([(name.to_owned(), digests[name].clone())])
        };
        undecided.observe(&only(new(&[10]), "c")).unwrap();
        undecided.observe(&only(new(&[11]), "a")).unwrap();
        assert_eq!(undecided.possible_digests("a").unwrap().len(), 3);
        assert_eq!(undecided.digests(), old.digests());

        let mut decided = undecided.clone();
        decided.observe(&only(new(&[10]), "b")).unwrap();
        assert_eq!(decided.digests().unwrap(), new(&[10]));
        decided.observe(&old.digests().unwrap()).unwrap();
        assert_eq!(decided.digests().unwrap(), new(&[10]));
        undecided.observe(&old.digests().unwrap()).unwrap();
        assert_eq!(undecided.possible_digests("a").unwrap().len(), 1);
        assert_eq!(undecided.digests(), old.digests());

        // What is written afterwards is certain.
        undecided.modify_perhaps("a", &Fill::Seed(9)).unwrap();
        undecided.modify("a", &Fill::Seed(12)).unwrap();
        assert_eq!(undecided.digests().unwrap(), new(&[12]));
        assert_eq!(undecided.digests().unwrap(), new(&[9, 12]));
    }

    #[test]
    fn shared_bytes_count_once_and_unreferenced_ones_not_at_all() {
        let shadow = shadow(
            r#"{"name":"a","dtype":"u8","shape":[4000],"storage":"s"},
               {"name":"tied","dtype":"u8","shape":[4000],"storage":"s"},
               {"name":"touching","dtype":"u8","shape":[1000],"storage":"s","byte_offset":4000},
               {"name":"far","dtype":"u8","shape":[10],"storage":"s","byte_offset":90000},
               {"name":"empty","dtype":"u8","shape":[0],"storage":"s","byte_offset":50000}"#,
        );
        assert_eq!(shadow.referenced_bytes().unwrap(), 5010);
        assert_eq!(shadow.file_bytes().unwrap(), 8192 + 4096);
    }
}
