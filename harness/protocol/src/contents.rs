//! What bytes a storage holds: a counter-based generator with random access, and repeated patterns.

use serde::{Deserialize, Serialize};

/// The contents of a storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fill {
    /// SplitMix64 words in counter mode from this seed.
    Seed(u64),
    /// These bytes, hexadecimal, repeated.
    Repeat(String),
}

/// A fill that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fill pattern {0:?} is not a non-empty string of hexadecimal bytes")]
pub struct FillError(String);

impl Fill {
    /// Writes the bytes from `offset` of the storage on into `out`.
    ///
    /// # Errors
    /// A repeated pattern that is empty or not hexadecimal.
    pub fn write(&self, offset: u64, out: &mut [u8]) -> Result<(), FillError> {
        match self {
            Self::Seed(seed) => {
                fill_seeded(*seed, offset, out);
                Ok(())
            }
            Self::Repeat(hex) => {
                let pattern = parse_hex(hex).ok_or_else(|| FillError(hex.clone()))?;
                let start = offset % pattern.len() as u64;
                for (byte, value) in out
                    .iter_mut()
                    .zip(pattern.iter().cycle().skip(start as usize))
                {
                    *byte = *value;
                }
                Ok(())
            }
        }
    }
}

fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn fill_seeded(seed: u64, offset: u64, out: &mut [u8]) {
    let skip = (offset % 8) as usize;
    let mut index = offset / 8;
    let mut rest = out;
    if skip != 0 {
        let head = (8 - skip).min(rest.len());
        rest[..head].copy_from_slice(&word(seed, index).to_le_bytes()[skip..skip + head]);
        rest = &mut rest[head..];
        index += 1;
    }
    let mut words = rest.chunks_exact_mut(8);
    for chunk in &mut words {
        chunk.copy_from_slice(&word(seed, index).to_le_bytes());
        index += 1;
    }
    let tail = words.into_remainder();
    let len = tail.len();
    tail.copy_from_slice(&word(seed, index).to_le_bytes()[..len]);
}

fn parse_hex(hex: &str) -> Option<Vec<u8>> {
    if hex.is_empty() || !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    //! The generator against the vector in PROTOCOL.md, and random access against a whole fill.
    use super::*;

    #[test]
    fn the_first_word_is_the_one_in_the_specification() {
        let mut out = [0; 8];
        Fill::Seed(0).write(0, &mut out).unwrap();
        assert_eq!(out, [0xaf, 0xcd, 0x1d, 0x7b, 0x39, 0xa8, 0x20, 0xe2]);
    }

    #[test]
    fn any_window_equals_the_same_window_of_the_whole() {
        for fill in [Fill::Seed(42), Fill::Repeat("0102030405".into())] {
            let mut whole = vec![0; 100];
            fill.write(0, &mut whole).unwrap();
            for start in 0..40 {
                for len in 0..30 {
                    let mut part = vec![0; len];
                    fill.write(start as u64, &mut part).unwrap();
                    assert_eq!(part, whole[start..start + len], "{fill:?} at {start}+{len}");
                }
            }
        }
    }

    #[test]
    fn a_pattern_that_is_not_hexadecimal_is_refused() {
        for bad in ["", "0", "0g", "é"] {
            assert!(
                Fill::Repeat(bad.into()).write(0, &mut [0]).is_err(),
                "{bad}"
            );
        }
    }
}
