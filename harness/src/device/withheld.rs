//! A copy of a shared library in which some symbols cannot be found, as in an older version of it.
//!
//! A symbol is withheld by making its dynamic entry local and hidden: `dlsym` passes over such entries, while the library's own references
//! to them still bind. Names, hash tables and addresses stay as they are.
//!
//! Taken: 64-bit little-endian ELF with section headers, as linkers write it for x86-64 and aarch64.

use std::ops::Range;

const SECTION_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const SHT_DYNSYM: u32 = 11;
/// `STB_LOCAL`, type "function".
const LOCAL_FUNCTION: u8 = 2;
/// `STV_HIDDEN`.
const HIDDEN: u8 = 2;

/// Why a symbol cannot be withheld.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WithheldError {
    /// Not a library of the kind that is taken, or a damaged one.
    #[error("not a 64-bit little-endian ELF library with a dynamic symbol table: {0}")]
    NotALibrary(&'static str),
    /// Withholding what is not there would prove nothing.
    #[error("it does not define {0:?}; check the spelling of the withheld symbol")]
    Missing(String),
}

/// Returns the library `bytes` with each of `symbols` withheld, in all versions.
///
/// # Errors
/// It is not such a library, or does not define one of the symbols.
pub fn withhold(mut bytes: Vec<u8>, symbols: &[String]) -> Result<Vec<u8>, WithheldError> {
    let (table, names) = dynamic_symbols(&bytes)?;
    for symbol in symbols {
        let entries: Vec<usize> = table
            .clone()
            .step_by(SYMBOL_BYTES)
            .filter(|&entry| defines(&bytes, entry, &names, symbol))
            .collect();
        if entries.is_empty() {
            return Err(WithheldError::Missing(symbol.clone()));
        }
        for entry in entries {
            bytes[entry + 4] = LOCAL_FUNCTION;
            bytes[entry + 5] = HIDDEN;
        }
    }
    Ok(bytes)
}

/// Where the dynamic symbols and their names lie in the file.
fn dynamic_symbols(bytes: &[u8]) -> Result<(Range<usize>, Range<usize>), WithheldError> {
    let cut = || WithheldError::NotALibrary("it is cut short");
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return Err(WithheldError::NotALibrary("wrong magic"));
    }
    let sections = offset(bytes, 0x28).ok_or_else(cut)?;
    let count = usize::from(u16::from_le_bytes(take(bytes, 0x3c).ok_or_else(cut)?));
    let header = |index: usize| sections.checked_add(index.checked_mul(SECTION_BYTES)?);
    let range = |section: usize| {
        bytes.get(section..section.checked_add(SECTION_BYTES)?)?;
        let start = offset(bytes, section + 0x18)?;
        let end = start.checked_add(offset(bytes, section + 0x20)?)?;
        (end <= bytes.len()).then_some(start..end)
    };
    for index in 0..count {
        let section = header(index)
            .filter(|&section| bytes.len().saturating_sub(SECTION_BYTES) >= section)
            .ok_or_else(cut)?;
        let kind = u32::from_le_bytes(take(bytes, section + 4).ok_or_else(cut)?);
        if kind != SHT_DYNSYM {
            continue;
        }
        let mut table = range(section).ok_or_else(cut)?;
        table.end -= table.len() % SYMBOL_BYTES;
        let link = u32::from_le_bytes(take(bytes, section + 0x28).ok_or_else(cut)?);
        let names = header(link as usize).and_then(range).ok_or_else(cut)?;
        return Ok((table, names));
    }
    Err(WithheldError::NotALibrary("no dynamic symbols"))
}

/// Whether the entry is a definition of that name.
fn defines(bytes: &[u8], entry: usize, names: &Range<usize>, symbol: &str) -> bool {
    let (Some(name), Some(section)) = (
        take(bytes, entry).map(u32::from_le_bytes),
        take(bytes, entry + 6).map(u16::from_le_bytes),
    ) else {
        return false;
    };
    let Some(name) = bytes[names.clone()].get(name as usize..) else {
        return false;
    };
    section != 0
        && name
            .strip_prefix(symbol.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn offset(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(take(bytes, at)?)).ok()
}

#[cfg(test)]
mod tests {
    //! What is refused. That patched libraries still load is in `tests/withheld.rs`.
    use super::*;

    #[test]
    fn what_is_not_a_library_is_refused() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01"] {
            assert!(matches!(
                withhold(bytes.to_vec(), &["cuInit".into()]),
                Err(WithheldError::NotALibrary(_))
            ));
        }
    }

    #[test]
    fn damaged_libraries_are_refused_without_a_panic() {
        let mut bytes = vec![0xff; 4096];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        for offset in [0u64, 64, 4090, u64::MAX] {
            bytes[0x28..0x30].copy_from_slice(&offset.to_le_bytes());
            assert!(withhold(bytes.clone(), &["cuInit".into()]).is_err());
        }
    }
}
