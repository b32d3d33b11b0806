//! Seeded contents: bytes that are a function of their position, so that a model of any size needs no file.

use crate::error::Error;
use serde::Deserialize;

/// What bytes a storage holds. The rule is that of the subject protocol, section "Contents".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fill {
    /// SplitMix64 words in counter mode from this seed, little-endian.
    Seed(u64),
    /// A pattern, repeated.
    Repeat(Pattern),
}

/// A non-empty run of bytes, written in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// The pattern that hexadecimal digits mean.
    ///
    /// # Errors
    /// No digits, an odd number of them, or something else than digits: [`Error::InvalidArgument`].
    pub fn from_hex(hex: &str) -> Result<Self, Error> {
        let invalid = || {
            Error::InvalidArgument(format!(
                "fill pattern {hex:?} is not usable: give at least one byte as two hexadecimal digits each"
            ))
        };
        if hex.is_empty() || !hex.len().is_multiple_of(2) {
            return Err(invalid());
        }
        hex.as_bytes()
            .chunks_exact(2)
            .map(|digits| {
                let high = char::from(digits[0]).to_digit(16)?;
                let low = char::from(digits[1]).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()
            })
            .collect::<Option<Vec<u8>>>()
            .map(Self)
            .ok_or_else(invalid)
    }
}

impl TryFrom<String> for Pattern {
    type Error = Error;

    fn try_from(hex: String) -> Result<Self, Error> {
        Self::from_hex(&hex)
    }
}

impl Fill {
    /// Writes the bytes from `offset` of the storage on into `out`.
    pub fn write(&self, offset: u64, out: &mut [u8]) {
        match self {
            Self::Seed(seed) => write_seeded(*seed, offset, out),
            Self::Repeat(Pattern(pattern)) => {
                let start = (offset % pattern.len() as u64) as usize;
                for (byte, value) in out.iter_mut().zip(pattern.iter().cycle().skip(start)) {
                    *byte = *value;
                }
            }
        }
    }
}

/// Word `index` of the contents of `seed`: SplitMix64's output function over a counter.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn write_seeded(seed: u64, offset: u64, out: &mut [u8]) {
    let mut index = offset / 8;
    let skip = (offset % 8) as usize;
    let (head, rest) = out.split_at_mut(if skip == 0 {
        0
    } else {
        (8 - skip).min(out.len())
    });
    if !head.is_empty() {
        head.copy_from_slice(&word(seed, index).to_le_bytes()[skip..skip + head.len()]);
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

#[cfg(test)]
mod tests {
    //! The generator against the vector of the specification, and random access against a whole fill.
    use super::*;

    #[test]
    fn the_first_word_is_the_one_in_the_specification() {
        let mut out = [0; 8];
        Fill::Seed(0).write(0, &mut out);
        assert_eq!(out, [0xaf, 0xcd, 0x1d, 0x7b, 0x39, 0xa8, 0x20, 0xe2]);
    }

    #[test]
    fn any_window_equals_the_same_window_of_the_whole() {
        let pattern = Pattern::from_hex("0102030405").unwrap();
        for fill in [Fill::Seed(42), Fill::Repeat(pattern)] {
            let mut whole = vec![0; 100];
            fill.write(0, &mut whole);
            for start in 0..40 {
                for len in 0..30 {
                    let mut part = vec![0; len];
                    fill.write(start as u64, &mut part);
                    assert_eq!(part, whole[start..start + len], "{fill:?} at {start}+{len}");
                }
            }
        }
    }

    #[test]
    fn a_pattern_that_is_not_hexadecimal_is_refused() {
        for bad in ["", "0", "0g", "é", "+1", "0x00"] {
            let error = Pattern::from_hex(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
