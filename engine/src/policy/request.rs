//! How much is asked back, and below what free memory files are used.

use crate::error::Error;

/// 2^64, the first number of bytes that no `u64` holds.
pub(crate) const TWO_POW_64: f64 = 18_446_744_073_709_551_616.0;

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
