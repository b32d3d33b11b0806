//! Models: what tensors there are, which bytes they cover, and where those come from.

mod dtype;
mod fill;
mod layout;
mod manifest;
mod safetensors;
mod shape;
mod source;
#[cfg(test)]
mod tests;

pub use dtype::Dtype;
pub use fill::{Fill, Pattern};
pub(crate) use layout::{FILE_ALIGNMENT_BYTES, Layout, TensorLayout};
pub use manifest::{Manifest, ManifestStorage, ManifestTensor};
pub(crate) use safetensors::from_safetensors;
pub(crate) use source::Source;

use crate::error::Error;

/// Lays a manifest out.
///
/// # Errors
/// [`Error::InvalidModel`], as from [`Manifest::from_json`]; a manifest can also be built in code.
pub(crate) fn from_manifest(manifest: &Manifest) -> Result<(Layout, Source), Error> {
    let (layout, origins) = Layout::of_manifest(manifest)?;
    let fills = manifest
        .storages
        .iter()
        .map(|storage| storage.fill.clone())
        .collect();
    Ok((layout, Source::Seeded { fills, origins }))
}
