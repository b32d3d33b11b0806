//! Sizes written as decimal numbers of a binary unit.

use crate::{error::Error, policy::TWO_POW_64};

/// A binary unit of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// 2^20 bytes.
    Mib,
    /// 2^30 bytes.
    Gib,
}

/// Bytes of a decimal number of `unit`. Fractions count (S14) and round up, so that a number above 0 is never
/// 0 bytes, which would turn a limit off; 2^64 bytes and more are 2^64 − 1.
pub(super) fn parse_size(variable: &'static str, text: &str, unit: Unit) -> Result<u64, Error> {
    let (unit_bytes, unit_name) = match unit {
        Unit::Mib => (1_048_576.0, "MiB"),
        Unit::Gib => (1_073_741_824.0, "GiB"),
    };
    let invalid = || Error::InvalidSetting {
        variable,
        value: text.to_owned(),
        remedy: format!("give a number of {unit_name}, 0 or more, such as 0.5 or 512"),
    };
    // `f64::from_str` takes nan, inf, infinity and signs too; none of them is a size.
    let starts_well = text.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let has_words = text.contains(|c: char| c.is_alphabetic() && c != 'e' && c != 'E');
    if !starts_well || has_words {
        return Err(invalid());
    }
    let number: f64 = text.parse().map_err(|_| invalid())?;
    // Too small for a number, such as 1e-400: it must not become the 0 that turns a limit off.
    let digits = text.split(['e', 'E']).next().unwrap_or(text);
    if number == 0.0 && digits.contains(|c: char| ('1'..='9').contains(&c)) {
        return Err(invalid());
    }
    // Scaling by a power of two is exact.
    let bytes = (number * unit_bytes).ceil();
    Ok(if bytes >= TWO_POW_64 {
        u64::MAX
    } else {
        bytes as u64
    })
}
