//! Manifests: models as data, in the JSON of the subject protocol.

use super::{dtype::Dtype, fill::Fill, layout::Layout};
use crate::error::Error;
use serde::Deserialize;

/// A model: storages with contents, and the tensors that look into them, in visiting order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Runs of bytes.
    pub storages: Vec<ManifestStorage>,
    /// Named, typed views of storages; several may share one.
    pub tensors: Vec<ManifestTensor>,
}

/// A run of bytes that tensors refer to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestStorage {
    /// Unique name.
    pub name: String,
    /// Length, bytes.
    pub bytes: u64,
    /// Contents.
    pub fill: Fill,
}

/// A tensor: dtype, shape and strides over a storage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestTensor {
    /// Unique name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes; empty for a scalar.
    pub shape: Vec<u64>,
    /// Strides, elements; absent means contiguous, row-major.
    #[serde(default)]
    pub strides: Option<Vec<u64>>,
    /// Name of the storage.
    pub storage: String,
    /// Offset of the first element in the storage, bytes.
    #[serde(default)]
    pub byte_offset: u64,
}

impl Manifest {
    /// Parses and checks a manifest.
    ///
    /// # Errors
    /// [`Error::InvalidModel`]: not JSON, an unknown field or dtype, a repeated or unknown name, a size that
    /// overflows, strides that do not fit, a tensor that leaves its storage, a pattern that is not hexadecimal.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let manifest: Self = serde_json::from_str(text)
            .map_err(|error| Error::InvalidModel(format!("manifest is not valid: {error}")))?;
        Layout::of_manifest(&manifest)?;
        Ok(manifest)
    }
}
