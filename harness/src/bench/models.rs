//! Models of any size whose digests are quick, also for a subject that uses SHA-256: that of one tensor is one thread's work, so each
//! is looked at through several.

use crate::case::{MIB, Model};
use spillproof_protocol::{Dtype, Fill, Manifest, Storage, Tensor};

/// Bytes that a tensor has at least, where its storage has more than one.
const LEAST_TENSOR_BYTES: u64 = 64 * MIB;

/// Tensors of one storage at most.
const MOST_TENSORS: u64 = 32;

/// Bytes of a storage of a model that is no single tensor.
const STORAGE_BYTES: u64 = 256 * MIB;

/// One storage of f32, which moves as one; a large one is cut into tensors side by side.
pub(super) fn tensor(name: &str, seed: u64, bytes: u64) -> Model {
    model(name, seed, bytes, bytes)
}

/// Storages of 256 MiB of f32.
pub(super) fn layers(name: &str, seed: u64, bytes: u64) -> Model {
    model(name, seed, bytes, STORAGE_BYTES)
}

fn model(name: &str, seed: u64, bytes: u64, storage_bytes: u64) -> Model {
    let mut manifest = Manifest {
        storages: Vec::new(),
        tensors: Vec::new(),
    };
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(storage_bytes);
        let number = manifest.storages.len();
        let storage = format!("s{number}");
        let parts = parts(length);
        for part in 0..parts {
            manifest.tensors.push(Tensor {
                name: format!("t{number}.{part}"),
                dtype: Dtype::F32,
                shape: vec![length / parts / 4],
                strides: None,
                storage: storage.clone(),
                byte_offset: part * (length / parts),
            });
        }
        manifest.storages.push(Storage {
            name: storage,
            bytes: length,
            fill: Fill::Seed(seed * 1000 + number as u64),
        });
        at += length;
    }
    Model {
        name: name.into(),
        manifest,
        file: None,
    }
}

/// As many as leave each of them whole pages.
fn parts(bytes: u64) -> u64 {
    let wanted = (bytes / LEAST_TENSOR_BYTES).clamp(1, MOST_TENSORS);
    (1..=wanted)
        .rev()
        .find(|parts| bytes.is_multiple_of(parts * 4096))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    //! Every byte belongs to one tensor.
    use super::*;

    fn covered(model: &Model) -> u64 {
        model.manifest.check().unwrap();
        let spans = model.manifest.tensors.iter();
        spans.map(|tensor| tensor.span_bytes().unwrap()).sum()
    }

    #[test]
    fn models_have_the_bytes_that_were_asked_for() {
        for bytes in [4096, 1 << 20, 200 << 20, 300 << 20, 4 << 30, 32 << 30] {
            let one = tensor("m", 1, bytes);
            assert_eq!((one.manifest.storages.len(), covered(&one)), (1, bytes));
            assert_eq!(covered(&layers("m", 1, bytes)), bytes);
        }
        assert_eq!(tensor("m", 1, 1 << 20).manifest.tensors.len(), 1);
        assert_eq!(tensor("m", 1, 32 << 30).manifest.tensors.len(), 32);
        assert_eq!(layers("m", 1, 8 << 30).manifest.storages.len(), 32);
    }
}
