//! What is known of the process's descriptors: whether each is open on something inside the scope.
//!
//! Only `/proc/self/fd` is believed. A wrapped call that opens, closes or duplicates a descriptor makes the entry unknown, and the next
//! one that uses it looks it up: a child made by `vfork` runs in this memory with descriptors of its own. libc's inner calls (`fopen`,
//! `socket`) pass unseen, so an entry can be stale; before a rule counts a call, it is looked up anew.
//!
//! All of it is a byte for each descriptor, so that a call looks at one place.

use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

/// Descriptors with an entry; higher ones are looked up every time.
const TRACKED: usize = 65536;

static ENTRIES: [AtomicU8; TRACKED] = [const { AtomicU8::new(0) }; TRACKED];
static HIGHEST: AtomicI32 = AtomicI32::new(-1);

/// Neither: nobody has looked.
const PLACE: u8 = INSIDE | OUTSIDE;
const INSIDE: u8 = 1;
const OUTSIDE: u8 = 2;
/// The ledger has the descriptor: asking it takes longer.
const ENTERED: u8 = 4;

/// Whether the descriptor is open inside the scope, if that is known.
#[inline]
pub(crate) fn known(number: i32) -> Option<bool> {
    match entry(number)?.load(Ordering::Relaxed) & PLACE {
        INSIDE => Some(true),
        OUTSIDE => Some(false),
        _ => None,
    }
}

/// Remembers what a lookup has shown, unless a call of another thread has changed the descriptor meanwhile.
pub(crate) fn remember(number: i32, is_inside: bool) {
    let place = if is_inside { INSIDE } else { OUTSIDE };
    if let Some(entry) = entry(number) {
        note(number);
        let found = entry.load(Ordering::Relaxed);
        let seen = found & ENTERED | place;
        let _ = entry.compare_exchange(found, seen, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whether the ledger surely has the descriptor, unless it was closed unseen since.
#[inline]
pub(crate) fn is_marked(number: i32) -> bool {
    entry(number).is_some_and(|entry| entry.load(Ordering::Relaxed) & ENTERED != 0)
}

/// Whether the ledger may have the descriptor.
#[inline]
pub(crate) fn is_entered(number: i32) -> bool {
    match entry(number) {
        Some(entry) => entry.load(Ordering::Relaxed) & ENTERED != 0,
        None => number >= 0,
    }
}

/// Forgets where a descriptor is that a call has changed, and remembers whether the ledger has it.
#[inline]
pub(crate) fn mark(number: i32, is_entered: bool) {
    if let Some(entry) = entry(number) {
        note(number);
        let mark = if is_entered { ENTERED } else { 0 };
        entry.store(mark, Ordering::Relaxed);
    }
}

/// The descriptors from the first to the last that were ever seen.
pub(crate) fn seen(first: u32, last: u32) -> std::ops::RangeInclusive<i32> {
    let highest = HIGHEST.load(Ordering::Relaxed);
    let last = i32::try_from(last).unwrap_or(i32::MAX).min(highest);
    let first = i32::try_from(first).unwrap_or(i32::MAX);
    first..=last
}

#[inline]
fn note(number: i32) {
    // To look is cheaper than to store, and it seldom grows.
    if HIGHEST.load(Ordering::Relaxed) < number {
        HIGHEST.fetch_max(number, Ordering::Relaxed);
    }
}

#[inline]
fn entry(number: i32) -> Option<&'static AtomicU8> {
    ENTRIES.get(usize::try_from(number).ok()?)
}
