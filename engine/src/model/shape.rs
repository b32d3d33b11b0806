//! How many bytes a dtype, a shape and strides cover.

use super::dtype::Dtype;

/// Why a shape covers no number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    /// The number of elements or bytes is above 2^64 − 1.
    #[error("its size overflows 64 bits")]
    Overflow,
    /// Another number of strides than of sizes.
    #[error("it has {sizes} sizes and {strides} strides; give one stride for each size")]
    StrideCount {
        /// Number of sizes.
        sizes: usize,
        /// Number of strides.
        strides: usize,
    },
    /// Elements that share bytes cannot be strided.
    #[error("packed elements must be contiguous")]
    PackedStrides,
}

/// Bytes from the first to past the last element; 0 when there is none.
pub(crate) fn span_bytes(
    dtype: Dtype,
    shape: &[u64],
    strides: Option<&[u64]>,
) -> Result<u64, ShapeError> {
    if let Some(strides) = strides
        && strides.len() != shape.len()
    {
        return Err(ShapeError::StrideCount {
            sizes: shape.len(),
            strides: strides.len(),
        });
    }
    let elements = elements(shape)?;
    if elements == 0 {
        return Ok(0);
    }
    let spanned = match strides {
        Some(strides) if !is_contiguous(shape, strides) => {
            if dtype.bits() < 8 {
                return Err(ShapeError::PackedStrides);
            }
            strided_elements(shape, strides)?
        }
        Some(_) | None => elements,
    };
    spanned
        .checked_mul(dtype.bits())
        .map(|bits| bits.div_ceil(8))
        .ok_or(ShapeError::Overflow)
}

fn elements(shape: &[u64]) -> Result<u64, ShapeError> {
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1u64, |product, size| product.checked_mul(*size))
        .ok_or(ShapeError::Overflow)
}

/// Whether elements lie in row-major order without gaps. The shape has elements, and their number fits.
fn is_contiguous(shape: &[u64], strides: &[u64]) -> bool {
    let mut expected = 1u64;
    shape.iter().zip(strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == expected;
        expected = expected.saturating_mul(*size);
        fits
    })
}

/// Elements from the first to past the furthest one.
fn strided_elements(shape: &[u64], strides: &[u64]) -> Result<u64, ShapeError> {
    shape
        .iter()
        .zip(strides)
        .try_fold(1u64, |furthest, (size, stride)| {
            stride
                .checked_mul(size - 1)
                .and_then(|step| furthest.checked_add(step))
        })
        .ok_or(ShapeError::Overflow)
}

#[cfg(test)]
mod tests {
    //! Spans by hand, and shapes that have none.
    use super::*;

    #[test]
    fn spans_count_bytes_from_the_first_to_past_the_last_element() {
        for (dtype, shape, strides, bytes) in [
            (Dtype::F32, vec![], None, 4),
            (Dtype::F32, vec![2, 3], None, 24),
            (Dtype::F32, vec![3, 2], Some(vec![1, 3]), 24),
            (Dtype::F16, vec![2, 2], Some(vec![10, 1]), 24),
            (Dtype::U8, vec![5], Some(vec![0]), 1),
            (Dtype::U8, vec![1, 7], Some(vec![999, 1]), 7),
            (Dtype::C64, vec![0, u64::MAX, u64::MAX], None, 0),
            (Dtype::I4, vec![0], Some(vec![9]), 0),
            (Dtype::U4, vec![7], None, 4),
            (Dtype::F4E2m1, vec![2, 3], Some(vec![3, 1]), 3),
        ] {
            assert_eq!(
                span_bytes(dtype, &shape, strides.as_deref()),
                Ok(bytes),
                "{dtype:?} {shape:?} {strides:?}"
            );
        }
    }

    #[test]
    fn shapes_without_a_span_are_told_apart() {
        let max = u64::MAX;
        for (dtype, shape, strides, error) in [
            (Dtype::U8, vec![max, 2], None, ShapeError::Overflow),
            (Dtype::F32, vec![1 << 62], None, ShapeError::Overflow),
            (Dtype::U8, vec![3], Some(vec![max]), ShapeError::Overflow),
            (
                Dtype::U8,
                vec![2, 2],
                Some(vec![max - 1, 2]),
                ShapeError::Overflow,
            ),
            (
                Dtype::U4,
                vec![2, 2],
                Some(vec![4, 1]),
                ShapeError::PackedStrides,
            ),
            (
                Dtype::U8,
                vec![0, 2],
                Some(vec![1]),
                ShapeError::StrideCount {
                    sizes: 2,
                    strides: 1,
                },
            ),
        ] {
            assert_eq!(
                span_bytes(dtype, &shape, strides.as_deref()),
                Err(error),
                "{dtype:?} {shape:?} {strides:?}"
            );
        }
    }
}
