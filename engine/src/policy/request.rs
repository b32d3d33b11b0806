//! How much is asked back, and below what free memory files are used.

use crate::error::Error;

/// 2^64, the first number of bytes that no `u64` holds.
const TWO_POW_64: f64 = 18_446_744_073_709_551_616.0;

const BYTES_PER_GIB: f64 = 1_073_741_824.0;

/// How much device memory is asked back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryRequest {
    /// All of it.
    Full,
    /// At least so many bytes; 0 asks for nothing.
    AtLeast(u64),
}

impl MemoryRequest {
    /// The request that a number of bytes means: 2^64 and more, infinity too, means all (E1); fractions round up,
    /// since at least so much is asked for.
    ///
    /// # Errors
    /// NaN and negative numbers (E2).
    pub fn from_f64(bytes: f64) -> Result<Self, Error> {
        if bytes.is_nan() || bytes < 0.0 {
            return Err(Error::InvalidArgument(format!(
                "{bytes} bytes cannot be freed: ask for 0 or more, or for nothing in particular to mean all"
            )));
        }
        if bytes >= TWO_POW_64 {
            return Ok(Self::Full);
        }
        Ok(Self::AtLeast(bytes.ceil() as u64))
    }
}

/// Below how much remaining host memory a block goes to its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Threshold {
    /// Files are turned off.
    Off,
    /// A block goes to its file when host memory would fall below so many bytes; 0 is the same as off.
    Below(u64),
}

impl Threshold {
    /// The threshold that a text of GiB means: 0 turns files off, fractions count exactly, and more than 2^64
    /// bytes is the same as 2^64 − 1.
    ///
    /// # Errors
    /// Anything that is not a finite, non-negative decimal number; `variable` is named in the error.
    pub fn parse_gib(variable: &'static str, text: &str) -> Result<Self, Error> {
        let bytes = parse_gib(variable, text)?;
        Ok(if bytes == 0 {
            Self::Off
        } else {
            Self::Below(bytes)
        })
    }
}

/// Bytes of a decimal number of GiB. A number above 0 never becomes 0 bytes: that would turn a limit off.
pub(crate) fn parse_gib(variable: &'static str, text: &str) -> Result<u64, Error> {
    let invalid = || Error::InvalidSetting {
        variable,
        value: text.to_owned(),
        remedy: "give a number of GiB, 0 or more, such as 0.5 or 512".into(),
    };
    // `f64::from_str` also takes nan, inf, infinity and signs; none of them is a size.
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
        || text.starts_with(['+', '-'])
    {
        return Err(invalid());
    }
    let gib: f64 = text.parse().map_err(|_| invalid())?;
    let bytes = gib * BYTES_PER_GIB;
    Ok(if bytes >= TWO_POW_64 {
        u64::MAX
    } else {
        bytes.ceil() as u64
    })
}
