//! Models from both sources: what is refused, and how what is accepted lies.

mod manifests;
mod safetensors;

use super::{Layout, Source};

/// Bytes of a tensor as loaded from its source.
fn contents(layout: &Layout, source: &Source, name: &str) -> Vec<u8> {
    let tensor = layout
        .tensors
        .iter()
        .find(|tensor| tensor.name == name)
        .unwrap();
    let mut bytes = vec![0; tensor.span_bytes as usize];
    if let Some(block) = tensor.block {
        source.read(block, tensor.offset_bytes, &mut bytes).unwrap();
    }
    bytes
}
