//! The harness's own idea of every model: what each tensor must contain, and how many file bytes
//! its journeys can justify. Computed from manifests and steps alone, never from an engine.

use crate::{
    case::Model,
    contents::{self, Contents, History, Overlay},
};
use spillproof_protocol::{Digest, DigestAlgorithm, Fill, ManifestError, Tensor};
use std::{collections::BTreeMap, sync::Arc};

/// Files are laid out in units of this many bytes.
const FILE_UNIT_BYTES: u64 = 4096;

/// A model as it must be.
#[derive(Clone, Debug)]
pub struct Shadow {
    model: Arc<Model>,
    /// What storages may have become: one history, except where a modification failed, which leaves the old or the new bytes.
    histories: BTreeMap<String, Vec<History>>,
}

impl Shadow {
    /// A freshly loaded model.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        Self {
            model: Arc::new(model.clone()),
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
        if self.model.file.is_some() {
            return Err(ShadowError::NotGenerated(tensor.into()));
        }
        let found = self.tensor(tensor)?;
        let (storage, start, bytes) = (
            found.storage.clone(),
            found.byte_offset,
            found.span_bytes()?,
        );
        let storage_bytes = self.model.manifest.storage_of(found)?.bytes;
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

    /// Decides what a failed modification left by the digests that were seen, which are by this algorithm. Where they fit nothing
    /// that could be there, the old bytes stay expected.
    ///
    /// # Errors
    /// A manifest that does not hold together.
    pub fn observe(
        &mut self,
        seen: &BTreeMap<String, Digest>,
        algorithm: DigestAlgorithm,
    ) -> Result<(), ShadowError> {
        let mut decided = Vec::new();
        for (storage, histories) in &self.histories {
            let mut fitting = Vec::new();
            for history in histories {
                if histories.len() == 1 || self.fits(storage, history, seen, algorithm)? {
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
        algorithm: DigestAlgorithm,
    ) -> Result<bool, ShadowError> {
        let tensors = self.model.manifest.tensors.iter().enumerate();
        for (index, tensor) in tensors.filter(|(_, tensor)| tensor.storage == storage) {
            if let Some(digest) = seen.get(&tensor.name)
                && *digest != Contents::new(&self.model, index, history).digest(algorithm)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a tensor may contain now; the first is what it does if nothing that failed left a trace.
    ///
    /// # Errors
    /// No such tensor.
    pub fn possible_contents(&self, tensor: &str) -> Result<Vec<Contents>, ShadowError> {
        let named = |found: &Tensor| found.name == tensor;
        let Some(index) = self.model.manifest.tensors.iter().position(named) else {
            return Err(ShadowError::UnknownTensor(tensor.into()));
        };
        let storage = &self.model.manifest.tensors[index].storage;
        let contents = |history: &History| Contents::new(&self.model, index, history);
        Ok(match self.histories.get(storage) {
            Some(histories) => histories.iter().map(contents).collect(),
            None => vec![contents(&History::new())],
        })
    }

    /// What every tensor must contain now, in the manifest's order.
    #[must_use]
    pub fn contents(&self) -> Vec<Contents> {
        let unchanged = History::new();
        let tensors = self.model.manifest.tensors.iter().enumerate();
        let contents = tensors.map(|(index, tensor)| {
            let histories = self.histories.get(&tensor.storage);
            let history = histories.and_then(|histories| histories.first());
            Contents::new(&self.model, index, history.unwrap_or(&unchanged))
        });
        contents.collect()
    }

    /// What every tensor must digest to now, by name.
    ///
    /// # Errors
    /// A manifest that does not hold together.
    pub fn digests(
        &self,
        algorithm: DigestAlgorithm,
    ) -> Result<BTreeMap<String, Digest>, ShadowError> {
        let contents = self.contents();
        let digests = contents::digests(&contents.iter().collect::<Vec<_>>(), algorithm)?;
        let names = contents.iter().map(|one| one.name().to_owned());
        Ok(names.zip(digests).collect())
    }

    fn tensor(&self, name: &str) -> Result<&Tensor, ShadowError> {
        let mut tensors = self.model.manifest.tensors.iter();
        let found = tensors.find(|tensor| tensor.name == name);
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
        for tensor in &self.model.manifest.tensors {
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

#[cfg(test)]
mod tests {
    //! Expected contents after modifications, and the bytes that journeys can justify.
    use super::*;
    use spillproof_protocol::Manifest;

    const SHA256: DigestAlgorithm = DigestAlgorithm::Sha256;

    fn possible(shadow: &Shadow, tensor: &str) -> Vec<Digest> {
        let contents = shadow.possible_contents(tensor).unwrap();
        let digests = contents.iter().map(|one| one.digest(SHA256).unwrap());
        digests.collect()
    }

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
        let before = shadow.digests(SHA256).unwrap();
        shadow.modify("a", &Fill::Seed(9)).unwrap();
        let after = shadow.digests(SHA256).unwrap();
        assert_ne!(before["a"], after["a"]);
        assert_ne!(before["b"], after["b"]);
        assert_eq!(before["c"], after["c"]);
        let mut b = vec![0; 100];
        Fill::Seed(7).write(50, &mut b).unwrap();
        Fill::Seed(9).write(50, &mut b[..50]).unwrap();
        assert_eq!(after["b"], SHA256.digest(&b));
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
            new.digests(SHA256).unwrap()
        };
        let mut undecided = shadow(model);
        undecided.modify_perhaps("a", &Fill::Seed(9)).unwrap();
        undecided.modify_perhaps("a", &Fill::Seed(10)).unwrap();
        assert_eq!(undecided.digests(SHA256), old.digests(SHA256));
        let possible_b = possible(&undecided, "b");
        let wanted = [&[][..], &[9], &[10]].map(|seeds| new(seeds)["b"].clone());
        assert_eq!(possible_b, wanted);

        // What tells nothing decides nothing, and what cannot be is not taken up.
        let only = |digests: BTreeMap<String, Digest>, name: &str| {
            BTreeMap::from([(name.to_owned(), digests[name].clone())])
        };
        undecided.observe(&only(new(&[10]), "c"), SHA256).unwrap();
        undecided.observe(&only(new(&[11]), "a"), SHA256).unwrap();
        assert_eq!(possible(&undecided, "a").len(), 3);
        assert_eq!(undecided.digests(SHA256), old.digests(SHA256));

        let mut decided = undecided.clone();
        decided.observe(&only(new(&[10]), "b"), SHA256).unwrap();
        assert_eq!(decided.digests(SHA256).unwrap(), new(&[10]));
        decided
            .observe(&old.digests(SHA256).unwrap(), SHA256)
            .unwrap();
        assert_eq!(decided.digests(SHA256).unwrap(), new(&[10]));
        undecided
            .observe(&old.digests(SHA256).unwrap(), SHA256)
            .unwrap();
        assert_eq!(possible(&undecided, "a").len(), 1);
        assert_eq!(undecided.digests(SHA256), old.digests(SHA256));

        // What is written afterwards is certain.
        undecided.modify_perhaps("a", &Fill::Seed(9)).unwrap();
        undecided.modify("a", &Fill::Seed(12)).unwrap();
        assert_eq!(undecided.digests(SHA256).unwrap(), new(&[12]));
        assert_eq!(undecided.digests(SHA256).unwrap(), new(&[9, 12]));
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
