//! Which library an address belongs to, by file name.
//!
//! From `/proc/self/maps`: the loader's own calls take its lock, which a wrapped call may meet anywhere. What was found is kept, so after a
//! library was unloaded its addresses go on meaning it. A full table is still asked; what it has not is looked up at every call.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::attach::callers;
use crate::maps;

/// Longest name that is told; longer ones are cut.
pub(crate) const NAME_BYTES: usize = 64;
const RANGES: usize = 256;

/// What was found.
#[repr(C)]
pub(crate) struct Table {
    /// The row that was right last: mostly it is again.
    last: AtomicUsize,
    used: AtomicUsize,
    rows: [Range; RANGES],
}

struct Range {
    is_whole: AtomicU8,
    start: AtomicUsize,
    end: AtomicUsize,
    name_bytes: AtomicUsize,
    name: [AtomicU64; NAME_BYTES / 8],
}

/// A library's file name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name {
    /// In the table.
    Kept(&'static [u8]),
    /// Where the table is full.
    Own {
        /// Zero-padded.
        bytes: [u8; NAME_BYTES],
        /// How many of them there are.
        length: usize,
    },
}

impl Table {
    pub(crate) const fn empty() -> Table {
        Table {
            last: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            rows: [const { Range::free() }; RANGES],
        }
    }
}

impl Name {
    fn of(path: &[u8]) -> ([u8; NAME_BYTES], usize) {
        let file = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let mut bytes = [0; NAME_BYTES];
        let length = file.len().min(NAME_BYTES);
        bytes[..length].copy_from_slice(&file[..length]);
        (bytes, length)
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Name::Kept(bytes) => bytes,
            Name::Own { bytes, length } => &bytes[..*length],
        }
    }
}

impl Range {
    const fn free() -> Range {
        Range {
            is_whole: AtomicU8::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            name_bytes: AtomicUsize::new(0),
            name: [const { AtomicU64::new(0) }; NAME_BYTES / 8],
        }
    }

    fn holds(&self, address: usize) -> bool {
        self.is_whole.load(Ordering::Acquire) == 1
            && self.start.load(Ordering::Relaxed) <= address
            && address < self.end.load(Ordering::Relaxed)
    }

    /// Of a row that is whole.
    fn name(&'static self) -> Name {
        let length = self.name_bytes.load(Ordering::Relaxed).min(NAME_BYTES);
        // SAFETY: the words are as many bytes, and nobody writes to a row that is whole.
        Name::Kept(unsafe { std::slice::from_raw_parts((&raw const self.name).cast(), length) })
    }
}

/// The file name of the library (or the program) at an address; empty for memory of no file.
#[inline]
pub(crate) fn library_at(address: usize) -> Name {
    let last = &callers().rows[callers().last.load(Ordering::Relaxed).min(RANGES - 1)];
    match last.holds(address) {
        true => last.name(),
        false => look_up(address),
    }
}

#[cold]
fn look_up(address: usize) -> Name {
    let used = &callers().rows[..callers().used.load(Ordering::Acquire).min(RANGES)];
    if let Some(index) = used.iter().position(|range| range.holds(address)) {
        callers().last.store(index, Ordering::Relaxed);
        return used[index].name();
    }
    let found = maps::find(address, |range, path| {
        (range.start, range.end, Name::of(path))
    });
    let Some((start, end, (bytes, length))) = found else {
        return Name::Kept(b"");
    };
    let index = callers().used.fetch_add(1, Ordering::AcqRel);
    if let Some(range) = callers().rows.get(index) {
        range.start.store(start, Ordering::Relaxed);
        range.end.store(end, Ordering::Relaxed);
        range.name_bytes.store(length, Ordering::Relaxed);
        for (bytes, word) in bytes.as_chunks::<8>().0.iter().zip(&range.name) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        range.is_whole.store(1, Ordering::Release);
    }
    Name::Own { bytes, length }
}
