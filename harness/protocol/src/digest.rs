//! Digests of logical contents, computed from a manifest alone.

use crate::{Manifest, ManifestError, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Window through which contents are generated, bytes: it stays in a core's cache.
const WINDOW_BYTES: u64 = 64 << 10;

/// Lower-case hexadecimal SHA-256.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// Ends a running SHA-256.
    #[must_use]
    pub fn finish(hasher: Sha256) -> Self {
        Self(
            hasher
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }

    /// The whole digest, 64 hexadecimal characters when it came from [`Digest::of`].
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

/// The digest that `tensor` of `manifest` must have, from the fill of its storage.
///
/// Contiguous tensors are generated in windows; strided ones are gathered element by element.
///
/// # Errors
/// A tensor of an unknown storage, one that leaves it, or a malformed fill.
pub fn tensor_digest(manifest: &Manifest, tensor: &Tensor) -> Result<Digest, ManifestError> {
    let storage = manifest.storage_of(tensor)?;
    let span = tensor.span_bytes()?;
    let mut hasher = Sha256::new();
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
    Ok(Digest::finish(hasher))
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
        assert_eq!(
            tensor_digest(&manifest, &manifest.tensors[0]).unwrap(),
            Digest::of(&bytes)
        );
        assert_eq!(
            tensor_digest(&manifest, &manifest.tensors[1]).unwrap(),
            Digest::of(&gathered)
        );
    }

    #[test]
    fn an_empty_tensor_has_the_digest_of_nothing() {
        let manifest = manifest();
        let digest = tensor_digest(&manifest, &manifest.tensors[2]).unwrap();
        assert_eq!(digest, Digest::of(&[]));
        assert!(digest.as_str().starts_with("e3b0c442"));
    }
}
