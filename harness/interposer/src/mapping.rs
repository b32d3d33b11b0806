//! Where files inside the scope are mapped.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Mappings that are known at a time; further ones count as outside the scope.
const TRACKED: usize = 8192;

static MAPPINGS: [Mapping; TRACKED] = [const { Mapping::free() }; TRACKED];
/// Entries from here on were never used.
static USED: AtomicUsize = AtomicUsize::new(0);

const FREE: u8 = 0;
const CLAIMED: u8 = 1;
const LIVE: u8 = 2;

struct Mapping {
    state: AtomicU8,
    start: AtomicUsize,
    end: AtomicUsize,
    /// Bytes that are still mapped.
    left: AtomicUsize,
}

impl Mapping {
    const fn free() -> Mapping {
        Mapping {
            state: AtomicU8::new(FREE),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        }
    }

    fn is_live(&self) -> bool {
        self.state.load(Ordering::Acquire) == LIVE
    }

    /// Bytes that it shares with a range.
    fn overlap(&self, start: usize, end: usize) -> usize {
        let (own_start, own_end) = (
            self.start.load(Ordering::Relaxed),
            self.end.load(Ordering::Relaxed),
        );
        own_end.min(end).saturating_sub(own_start.max(start))
    }
}

/// Remembers a mapping of a file inside the scope.
pub(crate) fn add(start: usize, bytes: usize) {
    let bytes = whole_pages(bytes);
    for (index, mapping) in MAPPINGS.iter().enumerate() {
        let claim =
            mapping
                .state
                .compare_exchange(FREE, CLAIMED, Ordering::AcqRel, Ordering::Relaxed);
        if claim.is_err() {
            continue;
        }
        mapping.start.store(start, Ordering::Relaxed);
        mapping
            .end
            .store(start.saturating_add(bytes), Ordering::Relaxed);
        mapping.left.store(bytes, Ordering::Relaxed);
        USED.fetch_max(index + 1, Ordering::Release);
        mapping.state.store(LIVE, Ordering::Release);
        return;
    }
}

/// Whether any page of a range maps a file inside the scope.
pub(crate) fn is_known(start: usize, bytes: usize) -> bool {
    let end = start.saturating_add(bytes.max(1));
    let is_hit = |mapping: &Mapping| mapping.is_live() && mapping.overlap(start, end) > 0;
    used().iter().any(is_hit)
}

/// Forgets a range that is mapped no longer; `gone` hears the start of each mapping of which nothing is left.
pub(crate) fn remove(start: usize, bytes: usize, mut gone: impl FnMut(usize)) {
    let bytes = whole_pages(bytes);
    let end = start.saturating_add(bytes);
    for mapping in used() {
        if !mapping.is_live() {
            continue;
        }
        let overlap = mapping.overlap(start, end);
        if overlap == 0 {
            continue;
        }
        let left = mapping.left.fetch_sub(overlap, Ordering::AcqRel);
        if left <= overlap {
            gone(mapping.start.load(Ordering::Relaxed));
            mapping.state.store(FREE, Ordering::Release);
        }
    }
}

/// Untrusted lengths, too: what the kernel refuses comes here first.
fn whole_pages(bytes: usize) -> usize {
    bytes
        .checked_next_multiple_of(rustix::param::page_size())
        .unwrap_or(usize::MAX)
}

fn used() -> &'static [Mapping] {
    &MAPPINGS[..USED.load(Ordering::Acquire).min(TRACKED)]
}
