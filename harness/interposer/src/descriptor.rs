//! What is known of the process's descriptors: whether each is open on something inside the scope, and by which name it was opened.
//!
//! Only `/proc/self/fd` is believed, or a name that it has shown to lead to itself (`names`). A wrapped call that opens, closes or duplicates
//! a descriptor makes what was known of it unknown, and the next one that uses it looks it up: a child made by `vfork` runs in this memory
//! with descriptors of its own. libc's inner calls (`fopen`, `socket`) pass unseen, so an entry can be stale; before a rule counts a call,
//! it is looked up anew.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

use crate::names::{Moment, Name, Shown};

/// Descriptors with an entry; higher ones are looked up every time.
const TRACKED: usize = 65536;

static KNOWN: Known = Known {
    highest: AtomicI32::new(-1),
    shown: Shown::nothing(),
    entries: [const { Entry::unknown() }; TRACKED],
};

/// Together, so that a call looks at few pages: after a system call each has to be found anew.
#[repr(C, align(4096))]
struct Known {
    highest: AtomicI32,
    shown: Shown,
    entries: [Entry; TRACKED],
}

#[repr(align(32))]
struct Entry {
    /// Bits of the constants below.
    state: AtomicU8,
    /// The name that opened it; 0 where that is not known.
    name: AtomicU64,
    /// What was known of that name before; 0 where that is nothing.
    called: AtomicU64,
}

/// Neither: nobody has looked.
const PLACE: u8 = INSIDE | OUTSIDE;
const INSIDE: u8 = 1;
const OUTSIDE: u8 = 2;
/// The ledger has the descriptor: asking it takes longer.
const ENTERED: u8 = 4;
/// The name that opened it is inside.
const NAMED_INSIDE: u8 = 8;

impl Entry {
    const fn unknown() -> Entry {
        Entry {
            state: AtomicU8::new(0),
            name: AtomicU64::new(0),
            called: AtomicU64::new(0),
        }
    }
}

/// What a call that opens knows of its descriptor.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Opened {
    /// Whether the ledger has it.
    pub(crate) is_entered: bool,
    /// The name that surely means what it opened, unless links lead elsewhere, and whether that is inside.
    pub(crate) name: Option<(Name, bool)>,
}

/// Whether the descriptor is open inside the scope, if that is known.
#[inline]
pub(crate) fn known(number: i32) -> Option<bool> {
    match entry(number)?.state.load(Ordering::Relaxed) & PLACE {
        INSIDE => Some(true),
        OUTSIDE => Some(false),
        _ => None,
    }
}

/// What is known of a descriptor as a question about it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    number: i32,
    state: u8,
}

/// To be called before the question that [`remember`] is told the answer to.
#[inline]
pub(crate) fn asked(number: i32) -> Asked {
    let state = entry(number).map_or(0, |entry| entry.state.load(Ordering::Acquire));
    Asked { number, state }
}

/// Remembers the answer to a question, unless a call of another thread has changed the descriptor since it was asked.
pub(crate) fn remember(asked: Asked, is_inside: bool) {
    if let Some(entry) = entry(asked.number) {
        note(asked.number);
        let seen = asked.state & !PLACE | place(is_inside);
        let order = Ordering::Relaxed;
        let _ = entry
            .state
            .compare_exchange(asked.state, seen, order, order);
    }
}

/// The name by which a descriptor was opened, if that is known.
pub(crate) fn opened_by(number: i32) -> Option<Name> {
    Name::checked(entry(number)?.name.load(Ordering::Relaxed))
}

/// The kernel calls what the descriptor is open on by the name that opened it.
pub(crate) fn called(number: i32, name: Name, moment: Moment) {
    KNOWN.shown.add(name, moment);
    if let Some(entry) = entry(number) {
        entry.called.store(moment.of(name), Ordering::Relaxed);
    }
}

/// Whether the kernel calls what the descriptor is open on by the name that opened it, as far as is known.
#[inline]
pub(crate) fn is_called(number: i32, now: Moment) -> bool {
    entry(number).is_some_and(|entry| {
        let name = Name::checked(entry.name.load(Ordering::Relaxed));
        name.is_some_and(|name| now.is_fresh(name, entry.called.load(Ordering::Relaxed)))
    })
}

/// Whether the ledger surely has the descriptor, unless it was closed unseen since.
#[inline]
pub(crate) fn is_marked(number: i32) -> bool {
    entry(number).is_some_and(|entry| entry.state.load(Ordering::Relaxed) & ENTERED != 0)
}

/// Whether the ledger may have the descriptor.
#[inline]
pub(crate) fn is_entered(number: i32) -> bool {
    match entry(number) {
        Some(entry) => entry.state.load(Ordering::Relaxed) & ENTERED != 0,
        None => number >= 0,
    }
}

/// Forgets a descriptor that a call has changed, and remembers whether the ledger has it.
#[inline]
pub(crate) fn mark(number: i32, is_entered: bool) {
    if let Some(entry) = entry(number) {
        note(number);
        let mark = if is_entered { ENTERED } else { 0 };
        entry.called.store(0, Ordering::Relaxed);
        entry.state.store(mark, Ordering::Relaxed);
    }
}

/// Remembers a descriptor that a call has opened.
#[inline]
pub(crate) fn open(number: i32, opened: Opened) {
    if let Some(entry) = entry(number) {
        note(number);
        let mut state = if opened.is_entered { ENTERED } else { 0 };
        let (mut name, mut called) = (0, 0);
        if let Some((opener, is_inside)) = opened.name {
            (name, called) = (opener.word(), KNOWN.shown.of(opener));
            state |= if is_inside { NAMED_INSIDE } else { 0 };
        }
        entry.called.store(called, Ordering::Relaxed);
        entry.name.store(name, Ordering::Relaxed);
        entry.state.store(state, Ordering::Relaxed);
    }
}

/// Whether the descriptor is open inside the scope, where the name that opened it was known to lead to itself before, and still is.
#[inline]
pub(crate) fn known_by_name(number: i32, now: Moment) -> Option<bool> {
    let asked = asked(number);
    if !is_called(number, now) {
        return None;
    }
    let is_inside = asked.state & NAMED_INSIDE != 0;
    remember(asked, is_inside);
    Some(is_inside)
}

/// The descriptors from the first to the last that were ever seen.
pub(crate) fn seen(first: u32, last: u32) -> std::ops::RangeInclusive<i32> {
    let highest = KNOWN.highest.load(Ordering::Relaxed);
    let last = i32::try_from(last).unwrap_or(i32::MAX).min(highest);
    let first = i32::try_from(first).unwrap_or(i32::MAX);
    first..=last
}

const fn place(is_inside: bool) -> u8 {
    if is_inside { INSIDE } else { OUTSIDE }
}

#[inline]
fn note(number: i32) {
    // To look is cheaper than to store, and it seldom grows.
    if KNOWN.highest.load(Ordering::Relaxed) < number {
        KNOWN.highest.fetch_max(number, Ordering::Relaxed);
    }
}

#[inline]
fn entry(number: i32) -> Option<&'static Entry> {
    KNOWN.entries.get(usize::try_from(number).ok()?)
}
