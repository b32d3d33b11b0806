//! Digests of logical contents, computed from a manifest alone.

use crate::{DigestAlgorithm, Manifest, ManifestError, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Window through which contents are generated, bytes: it stays in a core's cache.
const WINDOW_BYTES: u64 = 64 << 10;

/// A digest of some [`DigestAlgorithm`], in lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    pub(crate) fn from_hexadecimal(text: String) -> Self {
        Self(text)
    }

    /// The whole digest: 64 hexadecimal characters of SHA-256, 32 of XXH3-128, and whatever a subject sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The digest by `algorithm` that `tensor` of `manifest` must have, from the fill of its storage.
///
/// Contiguous tensors are generated in windows; strided ones are gathered element by element.
///
/// # Errors
/// A tensor of an unknown storage, one that leaves it, or a malformed fill.
pub fn tensor_digest(
    manifest: &Manifest,
    tensor: &Tensor,
    algorithm: DigestAlgorithm,
) -> Result<Digest, ManifestError> {
    let storage = manifest.storage_of(tensor)?;
    let span = tensor.span_bytes()?;
    let mut hasher = algorithm.hasher();
    if tensor.is_contiguous() {
        let mut window = vec![0; span.min(WINDOW_BYTES) as usize];
        let mut done = 0;
        while done < span {
            let len = (span - done).min(window.len() as u64) as usize;
            storage
                .fill
                .write(tensor.byte_offset + done, &mut window[..len])?;
            hasher.update(&window[..len]);
            done += len as u64;
        }
    } else {
        let mut bytes = vec![0; span as usize];
        storage.fill.write(tensor.byte_offset, &mut bytes)?;
        tensor.for_each_element(|at| hasher.update(&bytes[at]));
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    //! Digests of views against digests of the bytes they select.
    use super::*;

    fn manifest() -> Manifest {
        Manifest::from_json(
            r#"{"storages":[{"name":"s","bytes":24,"fill":{"seed":7}}],
                "tensors":[{"name":"a","dtype":"f32","shape":[2,3],"storage":"s"},
                           {"name":"t","dtype":"f32","shape":[3,2],"strides":[1,3],"storage":"s"},
                           {"name":"e","dtype":"f32","shape":[0,4],"storage":"s"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_transposed_view_digests_its_logical_order() {
        let manifest = manifest();
        let mut bytes = [0; 24];
        manifest.storages[0].fill.write(0, &mut bytes).unwrap();
        let order = [0, 3, 1, 4, 2, 5];
        let gathered: Vec<u8> = order
            .iter()
            .flat_map(|i| bytes[i * 4..i * 4 + 4].to_vec())
            .collect();
        for algorithm in DigestAlgorithm::ALL {
            let digest = |index: usize| {
                tensor_digest(&manifest, &manifest.tensors[index], *algorithm).unwrap()
            };
            assert_eq!(digest(0), algorithm.digest(&bytes));
            assert_eq!(digest(1), algorithm.digest(&gathered));
        }
    }

    #[test]
    fn a_tensor_of_several_windows_has_the_digest_of_its_bytes() {
        let bytes = 2 * WINDOW_BYTES + 77;
        let manifest = Manifest::from_json(&format!(
            r#"{{"storages":[{{"name":"s","bytes":{bytes},"fill":{{"seed":7}}}}],
                "tensors":[{{"name":"a","dtype":"u8","shape":[{bytes}],"storage":"s"}}]}}"#
        ))
        .unwrap();
        let mut contents = vec![0; bytes as usize];
        manifest.storages[0].fill.write(0, &mut contents).unwrap();
        for algorithm in DigestAlgorithm::ALL {
            let digest = tensor_digest(&manifest, &manifest.tensors[0], *algorithm).unwrap();
            assert_eq!(digest, algorithm.digest(&contents), "{algorithm}");
        }
    }

    #[test]
    fn an_empty_tensor_has_the_digest_of_nothing() {
        let manifest = manifest();
        for algorithm in DigestAlgorithm::ALL {
            let digest = tensor_digest(&manifest, &manifest.tensors[2], *algorithm).unwrap();
            assert_eq!(digest, algorithm.digest(&[]), "{algorithm}");
        }
    }
}
