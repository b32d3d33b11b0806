//! What is known of the process's descriptors: whether each is open on something inside the scope.
//!
//! Only `/proc/self/fd` is believed. A wrapped call that opens, closes or duplicates a descriptor makes the entry unknown, and the next
//! one that uses it looks it up: a child made by `vfork` runs in this memory with descriptors of its own. libc's inner calls (`fopen`,
//! `socket`) pass unseen, so an entry can be stale; before a rule counts a call, it is looked up anew.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

/// Descriptors with an entry; higher ones are looked up every time.
const TRACKED: usize = 65536;

static PLACES: [AtomicU8; TRACKED] = [const { AtomicU8::new(UNKNOWN) }; TRACKED];
/// Whether the ledger has the descriptor: asking it takes longer.
static ENTERED: [AtomicBool; TRACKED] = [const { AtomicBool::new(false) }; TRACKED];
static HIGHEST: AtomicI32 = AtomicI32::new(-1);

const UNKNOWN: u8 = 0;
const INSIDE: u8 = 1;
const OUTSIDE: u8 = 2;

/// Whether the descriptor is open inside the scope, if that is known.
pub(crate) fn known(number: i32) -> Option<bool> {
    match entry(number)?.load(Ordering::Relaxed) {
        INSIDE => Some(true),
        OUTSIDE => Some(false),
        _ => None,
    }
}

/// Remembers what a lookup has shown.
pub(crate) fn remember(number: i32, is_inside: bool) {
    let place = if is_inside { INSIDE } else { OUTSIDE };
    set(number, place);
}

/// Forgets what a call has changed.
pub(crate) fn forget(number: i32) {
    set(number, UNKNOWN);
}

/// Whether the ledger may have the descriptor.
pub(crate) fn is_entered(number: i32) -> bool {
    match usize::try_from(number) {
        Err(_) => false,
        Ok(index) => ENTERED
            .get(index)
            .is_none_or(|entered| entered.load(Ordering::Relaxed)),
    }
}

/// Whether the ledger surely has the descriptor, unless it was closed unseen since.
pub(crate) fn is_marked(number: i32) -> bool {
    let index = usize::try_from(number).ok();
    index
        .and_then(|index| ENTERED.get(index))
        .is_some_and(|entered| entered.load(Ordering::Relaxed))
}

/// Remembers whether the ledger has it.
pub(crate) fn mark(number: i32, is_entered: bool) {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    if let Some(entered) = ENTERED.get(index) {
        entered.store(is_entered, Ordering::Relaxed);
    }
}

/// The descriptors from the first to the last that were ever seen.
pub(crate) fn seen(first: u32, last: u32) -> std::ops::RangeInclusive<i32> {
    let highest = HIGHEST.load(Ordering::Relaxed);
    let last = i32::try_from(last).unwrap_or(i32::MAX).min(highest);
    let first = i32::try_from(first).unwrap_or(i32::MAX);
    first..=last
}

fn set(number: i32, place: u8) {
    if let Some(entry) = entry(number) {
        // To look is cheaper than to store, and it seldom grows.
        if HIGHEST.load(Ordering::Relaxed) < number {
            HIGHEST.fetch_max(number, Ordering::Relaxed);
        }
        entry.store(place, Ordering::Relaxed);
    }
}

fn entry(number: i32) -> Option<&'static AtomicU8> {
    PLACES.get(usize::try_from(number).ok()?)
}
