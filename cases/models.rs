//! Models for cases: plain ones of given sizes, and published checkpoints scaled down.

use serde_json::Value;
use spillproof_harness::case::Model;
use spillproof_protocol::{Dtype, Fill, Manifest, Storage, Tensor};

/// Sizes of at least this many elements are divided when a checkpoint is scaled.
const LARGE_SIZE: u64 = 64;

/// A model of byte tensors `t0`, `t1`, … of these sizes.
#[must_use]
pub fn plain(name: &str, seed: u64, sizes: &[u64]) -> Model {
    let mut builder = ModelBuilder::new(name, seed);
    for (index, bytes) in sizes.iter().enumerate() {
        builder = builder.tensor(&format!("t{index}"), Dtype::U8, &[*bytes]);
    }
    builder.build()
}

/// A published checkpoint of `fixtures/models`.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// The name of its file there.
    pub name: &'static str,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements.
    pub elements: u64,
    /// Every large size is divided by this in cases.
    pub divisor: u64,
    listing: &'static str,
}

/// All of them.
pub const PUBLISHED: [Published; 4] = [
    Published {
        name: "wan2.1-t2v-1.3b",
        tensors: 825,
        elements: 1_418_996_800,
        divisor: 16,
        listing: include_str!("../fixtures/models/wan2.1-t2v-1.3b.json"),
    },
    Published {
        name: "gpt2",
        tensors: 160,
        elements: 137_022_720,
        divisor: 8,
        listing: include_str!("../fixtures/models/gpt2.json"),
    },
    Published {
        name: "qwen2.5-0.5b",
        tensors: 290,
        elements: 494_032_768,
        divisor: 8,
        listing: include_str!("../fixtures/models/qwen2.5-0.5b.json"),
    },
    Published {
        name: "all-minilm-l6-v2",
        tensors: 104,
        elements: 22_713_728,
        divisor: 4,
        listing: include_str!("../fixtures/models/all-minilm-l6-v2.json"),
    },
];

impl Published {
    /// Names, dtypes and shapes, in the checkpoint's order.
    ///
    /// # Panics
    /// The listing in the repository is not of its documented form.
    #[must_use]
    pub fn listing(&self) -> Vec<(String, Dtype, Vec<u64>)> {
        let rows: serde_json::Map<String, Value> =
            parsed(serde_json::from_str(self.listing), self.name);
        let row = |(name, row): (&String, &Value)| {
            let dtype = parsed(serde_json::from_value(row["dtype"].clone()), name);
            let shape = parsed(serde_json::from_value(row["shape"].clone()), name);
            (name.clone(), dtype, shape)
        };
        rows.iter().map(row).collect()
    }

    /// The checkpoint with its large sizes divided, under the name `model`.
    #[must_use]
    pub fn scaled(&self, model: &str, seed: u64) -> Model {
        let mut builder = ModelBuilder::new(model, seed);
        for (name, dtype, shape) in self.listing() {
            let scale = |size: &u64| {
                if *size >= LARGE_SIZE {
                    size / self.divisor
                } else {
                    *size
                }
            };
            let shape: Vec<u64> = shape.iter().map(scale).collect();
            builder = builder.tensor(&name, dtype, &shape);
        }
        builder.build()
    }
}

fn parsed<T>(result: serde_json::Result<T>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("fixtures/models: {what}: {error}"))
}

/// Builds a model tensor by tensor.
#[derive(Clone, Debug)]
pub struct ModelBuilder {
    name: String,
    seed: u64,
    manifest: Manifest,
}

impl ModelBuilder {
    /// A model without tensors; storages get seeds from `seed` on.
    #[must_use]
    pub fn new(name: &str, seed: u64) -> Self {
        Self {
            name: name.into(),
            seed,
            manifest: Manifest {
                storages: Vec::new(),
                tensors: Vec::new(),
            },
        }
    }

    /// A contiguous tensor with a storage of its own.
    #[must_use]
    pub fn tensor(self, name: &str, dtype: Dtype, shape: &[u64]) -> Self {
        let bytes = (shape.iter().product::<u64>() * dtype.bits()).div_ceil(8);
        let fill = Fill::Seed(self.seed.wrapping_mul(1000) + self.manifest.storages.len() as u64);
        self.storage(name, bytes, fill)
            .view(name, name, dtype, shape, None, 0)
    }

    /// A storage.
    #[must_use]
    pub fn storage(mut self, name: &str, bytes: u64, fill: Fill) -> Self {
        self.manifest.storages.push(Storage {
            name: name.into(),
            bytes,
            fill,
        });
        self
    }

    /// A tensor that looks into a storage.
    #[must_use]
    pub fn view(
        mut self,
        name: &str,
        storage: &str,
        dtype: Dtype,
        shape: &[u64],
        strides: Option<&[u64]>,
        byte_offset: u64,
    ) -> Self {
        self.manifest.tensors.push(Tensor {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            strides: strides.map(<[u64]>::to_vec),
            storage: storage.into(),
            byte_offset,
        });
        self
    }

    /// The model.
    ///
    /// # Panics
    /// The tensors do not make a valid manifest.
    #[must_use]
    pub fn build(self) -> Model {
        if let Err(error) = self.manifest.check() {
            panic!("model {}: {error}", self.name);
        }
        Model {
            name: self.name,
            manifest: self.manifest,
            file: None,
        }
    }
}

#[cfg(test)]
mod tests {
    //! The listings of published checkpoints against their published totals.
    use super::*;

    #[test]
    fn published_checkpoints_have_their_published_totals() {
        for published in PUBLISHED {
            let listing = published.listing();
            let elements: u64 = listing
                .iter()
                .map(|(_, _, shape)| shape.iter().product::<u64>())
                .sum();
            assert_eq!(listing.len(), published.tensors, "{}", published.name);
            assert_eq!(elements, published.elements, "{}", published.name);
        }
    }

    #[test]
    fn scaled_checkpoints_keep_names_order_and_rank() {
        for published in PUBLISHED {
            let model = published.scaled("m", 1);
            for ((name, dtype, shape), tensor) in
                published.listing().iter().zip(&model.manifest.tensors)
            {
                assert_eq!(
                    (name, *dtype, shape.len()),
                    (&tensor.name, tensor.dtype, tensor.shape.len())
                );
            }
        }
    }
}
