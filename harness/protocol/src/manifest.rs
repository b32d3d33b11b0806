//! Models as data: storages with contents, and tensors that look into them.

use crate::{Fill, FillError};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, ops::Range};

/// A model: storages and the tensors that refer to them, in visiting order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Runs of bytes.
    pub storages: Vec<Storage>,
    /// Named, typed views of storages.
    pub tensors: Vec<Tensor>,
}

/// A run of bytes that tensors refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Unique name.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Contents.
    pub fill: Fill,
}

/// A tensor: dtype, shape and strides over a storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Unique name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes; empty for a scalar.
    pub shape: Vec<u64>,
    /// Strides in elements; absent means contiguous, row-major.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strides: Option<Vec<u64>>,
    /// Name of the storage.
    pub storage: String,
    /// Offset of the first element in the storage, bytes.
    #[serde(default)]
    pub byte_offset: u64,
}

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident $text:literal $bits:literal;)*) => {
        /// Element types.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Dtype { $($(#[$doc])* #[serde(rename = $text)] $name,)* }

        impl Dtype {
            /// Every element type.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Bits per element.
            #[must_use]
            pub fn bits(self) -> u64 {
                match self { $(Self::$name => $bits,)* }
            }

            /// The name used in manifests.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

dtypes! {
    /// IEEE double.
    F64 "f64" 64;
    /// IEEE single.
    F32 "f32" 32;
    /// IEEE half.
    F16 "f16" 16;
    /// bfloat16.
    Bf16 "bf16" 16;
    /// 8-bit float, 4 exponent bits.
    F8E4m3 "f8_e4m3" 8;
    /// 8-bit float, 5 exponent bits.
    F8E5m2 "f8_e5m2" 8;
    /// 8-bit scale, 8 exponent bits.
    F8E8m0 "f8_e8m0" 8;
    /// 4-bit float, packed.
    F4E2m1 "f4_e2m1" 4;
    /// Signed 64-bit.
    I64 "i64" 64;
    /// Signed 32-bit.
    I32 "i32" 32;
    /// Signed 16-bit.
    I16 "i16" 16;
    /// Signed 8-bit.
    I8 "i8" 8;
    /// Signed 4-bit, packed.
    I4 "i4" 4;
    /// Unsigned 64-bit.
    U64 "u64" 64;
    /// Unsigned 32-bit.
    U32 "u32" 32;
    /// Unsigned 16-bit.
    U16 "u16" 16;
    /// Unsigned 8-bit.
    U8 "u8" 8;
    /// Unsigned 4-bit, packed.
    U4 "u4" 4;
    /// One byte per truth value.
    Bool "bool" 8;
    /// Complex of two singles.
    C64 "c64" 64;
}

/// What is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the documented form.
    #[error("manifest is not valid: {0}")]
    Json(String),
    /// A name used twice.
    #[error("name {0:?} is used twice")]
    DuplicateName(String),
    /// A tensor of a storage that is not there.
    #[error("tensor {tensor:?} refers to storage {storage:?}, which is not in the manifest")]
    UnknownStorage {
        /// The tensor.
        tensor: String,
        /// The name it gives.
        storage: String,
    },
    /// Arithmetic on the sizes overflows 64 bits.
    #[error("tensor {0:?}: its size overflows 64 bits")]
    Overflow(String),
    /// Strides of another length than the shape, or on packed elements.
    #[error("tensor {0:?}: strides do not fit its shape or dtype")]
    Strides(String),
    /// The tensor reaches past the end of its storage.
    #[error("tensor {tensor:?} ends at byte {end}, its storage has {bytes}")]
    OutOfStorage {
        /// The tensor.
        tensor: String,
        /// Where it would end.
        end: u64,
        /// What its storage has.
        bytes: u64,
    },
    /// Malformed contents.
    #[error(transparent)]
    Fill(#[from] FillError),
}

impl Manifest {
    /// Parses and checks a manifest.
    ///
    /// # Errors
    /// Everything that the specification calls `invalid_model`.
    pub fn from_json(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self =
            serde_json::from_str(text).map_err(|error| ManifestError::Json(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks names, sizes, ranges and fills.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        let mut names = BTreeSet::new();
        for storage in &self.storages {
            if !names.insert(&storage.name) {
                return Err(ManifestError::DuplicateName(storage.name.clone()));
            }
            storage.fill.write(0, &mut [])?;
        }
        let mut names = BTreeSet::new();
        for tensor in &self.tensors {
            if !names.insert(&tensor.name) {
                return Err(ManifestError::DuplicateName(tensor.name.clone()));
            }
            let storage = self.storage_of(tensor)?;
            let end = tensor
                .byte_offset
                .checked_add(tensor.span_bytes()?)
                .ok_or_else(|| ManifestError::Overflow(tensor.name.clone()))?;
            if end > storage.bytes {
                return Err(ManifestError::OutOfStorage {
                    tensor: tensor.name.clone(),
                    end,
                    bytes: storage.bytes,
                });
            }
        }
        Ok(())
    }

    /// The storage that `tensor` names.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn storage_of(&self, tensor: &Tensor) -> Result<&Storage, ManifestError> {
        self.storages
            .iter()
            .find(|storage| storage.name == tensor.storage)
            .ok_or_else(|| ManifestError::UnknownStorage {
                tensor: tensor.name.clone(),
                storage: tensor.storage.clone(),
            })
    }
}

impl Tensor {
    /// Number of elements; `None` on overflow.
    fn elements(&self) -> Option<u64> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape
            .iter()
            .try_fold(1u64, |product, size| product.checked_mul(*size))
    }

    /// Whether its elements lie in row-major order without gaps.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        let Some(strides) = &self.strides else {
            return true;
        };
        if self.elements() == Some(0) {
            return true;
        }
        let mut expected = 1u64;
        self.shape.iter().zip(strides).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == expected;
            expected = expected.wrapping_mul(*size);
            fits
        })
    }

    /// Bytes from the first to past the last element.
    ///
    /// # Errors
    /// Overflow, or strides that do not fit.
    pub fn span_bytes(&self) -> Result<u64, ManifestError> {
        let overflow = || ManifestError::Overflow(self.name.clone());
        let elements = self.elements().ok_or_else(overflow)?;
        let spanned = match &self.strides {
            Some(strides) if strides.len() != self.shape.len() => {
                return Err(ManifestError::Strides(self.name.clone()));
            }
            _ if elements == 0 => 0,
            Some(_) if self.is_contiguous() => elements,
            Some(_) if self.dtype.bits() < 8 => {
                return Err(ManifestError::Strides(self.name.clone()));
            }
            Some(strides) => {
                let last = self
                    .shape
                    .iter()
                    .zip(strides)
                    .try_fold(0u64, |sum, (size, stride)| {
                        stride
                            .checked_mul(size - 1)
                            .and_then(|step| sum.checked_add(step))
                    });
                last.and_then(|last| last.checked_add(1))
                    .ok_or_else(overflow)?
            }
            None => elements,
        };
        let bits = spanned
            .checked_mul(self.dtype.bits())
            .ok_or_else(overflow)?;
        Ok(bits.div_ceil(8))
    }

    /// Calls `visit` with the byte range of each element, relative to the first, in row-major order.
    /// Only for elements of whole bytes.
    pub fn for_each_element(&self, mut visit: impl FnMut(Range<usize>)) {
        let width = (self.dtype.bits() / 8) as usize;
        let elements = self.elements().unwrap_or(0);
        let mut index = vec![0u64; self.shape.len()];
        let contiguous: Vec<u64> = (0..self.shape.len())
            .map(|d| self.shape[d + 1..].iter().product())
            .collect();
        let strides = self.strides.as_ref().unwrap_or(&contiguous);
        for _ in 0..elements {
            let at = index
                .iter()
                .zip(strides)
                .map(|(i, stride)| i * stride)
                .sum::<u64>() as usize
                * width;
            visit(at..at + width);
            for (i, size) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *size {
                    break;
                }
                *i = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Manifests that must be refused, one defect each.
    use super::*;

    fn tensor(fields: &str) -> Result<Manifest, ManifestError> {
        Manifest::from_json(&format!(
            r#"{{"storages":[{{"name":"s","bytes":64,"fill":{{"seed":1}}}}],"tensors":[{{"name":"t","storage":"s",{fields}}}]}}"#
        ))
    }

    #[test]
    fn sizes_that_overflow_or_leave_the_storage_are_refused() {
        let huge = u64::MAX;
        assert!(matches!(
            tensor(&format!(r#""dtype":"f32","shape":[{huge},2]"#)),
            Err(ManifestError::Overflow(_))
        ));
        assert!(matches!(
            tensor(&format!(r#""dtype":"u8","shape":[1],"byte_offset":{huge}"#)),
            Err(ManifestError::Overflow(_))
        ));
        assert!(matches!(
            tensor(r#""dtype":"u8","shape":[65]"#),
            Err(ManifestError::OutOfStorage { end: 65, .. })
        ));
        assert!(matches!(
            tensor(&format!(
                r#""dtype":"u8","shape":[2,2],"strides":[{huge},1]"#
            )),
            Err(ManifestError::Overflow(_))
        ));
    }

    #[test]
    fn strides_must_fit_shape_and_packing() {
        assert!(matches!(
            tensor(r#""dtype":"u8","shape":[2],"strides":[1,1]"#),
            Err(ManifestError::Strides(_))
        ));
        assert!(matches!(
            tensor(r#""dtype":"i4","shape":[2,2],"strides":[1,2]"#),
            Err(ManifestError::Strides(_))
        ));
        assert_eq!(
            tensor(r#""dtype":"i4","shape":[3]"#).unwrap().tensors[0].span_bytes(),
            Ok(2)
        );
        assert_eq!(
            tensor(r#""dtype":"f64","shape":[]"#).unwrap().tensors[0].span_bytes(),
            Ok(8)
        );
    }

    #[test]
    fn unknown_names_types_and_fields_are_refused() {
        for bad in [
            r#""dtype":"f3","shape":[]"#,
            r#""dtype":"u8","shape":[-1]"#,
            r#""dtype":"u8","shape":[],"colour":1"#,
            r#""dtype":"u8""#,
        ] {
            assert!(matches!(tensor(bad), Err(ManifestError::Json(_))), "{bad}");
        }
        let twice = r#"{"storages":[{"name":"s","bytes":1,"fill":{"seed":1}},{"name":"s","bytes":1,"fill":{"seed":1}}],"tensors":[]}"#;
        assert_eq!(
            Manifest::from_json(twice),
            Err(ManifestError::DuplicateName("s".into()))
        );
    }
}
