//! Which library an address belongs to, by file name.
//!
//! From `/proc/self/maps`: the loader's own calls take its lock, which a wrapped call may meet anywhere. What was found is kept, so after a
//! library was unloaded its addresses go on meaning it, until this table is full and everything is looked up anew.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::maps;

/// Longest name that is told; longer ones are cut.
pub(crate) const NAME_BYTES: usize = 64;
const RANGES: usize = 256;

static TABLE: [Range; RANGES] = [const { Range::free() }; RANGES];
static USED: AtomicUsize = AtomicUsize::new(0);

struct Range {
    is_whole: AtomicU8,
    start: AtomicUsize,
    end: AtomicUsize,
    name_bytes: AtomicUsize,
    name: [AtomicU64; NAME_BYTES / 8],
}

/// A library's file name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    bytes: [u8; NAME_BYTES],
    length: usize,
}

impl Name {
    const fn empty() -> Name {
        Name {
            bytes: [0; NAME_BYTES],
            length: 0,
        }
    }

    fn of(path: &[u8]) -> Name {
        let file = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let mut name = Name::empty();
        name.length = file.len().min(NAME_BYTES);
        name.bytes[..name.length].copy_from_slice(&file[..name.length]);
        name
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
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

    fn name(&self) -> Name {
        let mut name = Name::empty();
        let (words, _) = name.bytes.as_chunks_mut::<8>();
        for (bytes, word) in words.iter_mut().zip(&self.name) {
            *bytes = word.load(Ordering::Relaxed).to_le_bytes();
        }
        name.length = self.name_bytes.load(Ordering::Relaxed).min(NAME_BYTES);
        name
    }
}

/// The file name of the library (or the program) at an address; empty for memory of no file.
pub(crate) fn library_at(address: usize) -> Name {
    let used = &TABLE[..USED.load(Ordering::Acquire).min(RANGES)];
    if let Some(range) = used.iter().find(|range| range.holds(address)) {
        return range.name();
    }
    let found = maps::find(address, |range, path| {
        (range.start, range.end, Name::of(path))
    });
    let Some((start, end, name)) = found else {
        return Name::empty();
    };
    let index = USED.fetch_add(1, Ordering::AcqRel);
    if let Some(range) = TABLE.get(index) {
        range.start.store(start, Ordering::Relaxed);
        range.end.store(end, Ordering::Relaxed);
        range.name_bytes.store(name.length, Ordering::Relaxed);
        for (bytes, word) in name.bytes.chunks_exact(8).zip(&range.name) {
            let mut value = [0u8; 8];
            value.copy_from_slice(bytes);
            word.store(u64::from_le_bytes(value), Ordering::Relaxed);
        }
        range.is_whole.store(1, Ordering::Release);
    }
    name
}
