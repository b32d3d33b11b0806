//! The ledger: what exists, each with the call that made it. An open hash table by kind, process and key.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::{LedgerEntry, LedgerView};
use super::layout::{CALLER_BYTES, LEDGER, Lengths, PATH_BYTES, header, ledger, state};
use super::trace::end_of;
use super::words::{Words, store};
use crate::site::{Kind, SiteId};

/// Rows looked at before a thing counts as lost or unknown.
const MAX_PROBES: usize = 1024;
/// Rows that are tried first, and how many of them for each key.
const NEAR_ROWS: usize = 64;
const NEAR_PROBES: usize = 4;
/// The words of a row's path.
const PATH: Range<usize> = ledger::PATH..ledger::PATH + PATH_BYTES / 8;
/// The words of a row's caller.
const CALLER: Range<usize> = ledger::CALLER..ledger::CALLER + CALLER_BYTES / 8;
/// Where a state word has its state; the serial number stands above.
const STATE_BITS: u64 = 7;
const SERIAL_LIMIT: u64 = u64::MAX >> 3;

/// Something that exists now.
#[derive(Debug, Clone, Copy)]
pub struct Entering<'a> {
    /// What.
    pub kind: Kind,
    /// Which, within the process.
    pub key: u64,
    /// How large, bytes.
    pub bytes: u64,
    /// The site that made it.
    pub site: SiteId,
    /// Which call of the site.
    pub nth: u64,
    /// The path relative to the scope.
    pub path: Named<'a>,
    /// The file name of the library that called, empty where it is not known.
    pub caller: &'a [u8],
}

/// What a row has as path.
#[derive(Debug, Clone, Copy)]
pub enum Named<'a> {
    /// This, and nothing where it is empty.
    Path(&'a [u8]),
    /// What another row has; nothing if that is another thing's by now.
    AsIn(Row),
}

/// A row of something that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    row: usize,
    state: u64,
}

/// A row whose thing is about to end. End or restore it when the call has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the row stays in the state `ending` until it is ended or restored"]
pub struct Taken {
    /// The serial number above the state, as while it ends.
    state: NonZeroU64,
    row: usize,
}

#[inline]
pub(super) fn enter(words: &Words, lengths: Lengths, pid: u32, thing: &Entering<'_>) -> bool {
    words.announce(header::SERIAL);
    let owner = owner(pid, thing.kind);
    for row in rows(lengths, owner, thing.key) {
        let row = words.part::<{ ledger::WORDS }>(place(row));
        let found = row[ledger::STATE].load(Ordering::Acquire);
        let is_free = matches!(found & STATE_BITS, state::FREE | state::ENDED);
        if !is_free || !swap(&row[ledger::STATE], found, state::CLAIMED) {
            continue;
        }
        let serial = words.next_serial() & SERIAL_LIMIT;
        let set = |word: usize, value| row[word].store(value, Ordering::Release);
        set(ledger::OWNER, owner);
        set(ledger::KEY, thing.key);
        set(ledger::BYTES, thing.bytes);
        set(ledger::SITE, u64::from(thing.site.0));
        set(ledger::NTH, thing.nth);
        match thing.path {
            Named::Path(path) => store(&row[PATH], end_of(path)),
            Named::AsIn(other) => copy_path(words, other, &row[PATH]),
        }
        store(&row[CALLER], thing.caller);
        set(ledger::STATE, serial << 3 | state::WHOLE);
        return true;
    }
    words.add(header::LEDGER_LOST, 1);
    false
}

/// To the zero behind it.
fn copy_path(words: &Words, from: Row, into: &[AtomicU64]) {
    let row = words.part::<{ ledger::WORDS }>(place(from.row));
    for (from, into) in row[PATH].iter().zip(into) {
        let word = from.load(Ordering::Acquire);
        into.store(word, Ordering::Release);
        if word >> 56 == 0 {
            break;
        }
    }
    // Another thing may have come in meanwhile.
    if row[ledger::STATE].load(Ordering::Acquire) != from.state {
        store(into, b"");
    }
}

#[inline(always)]
pub(super) fn find(words: &Words, lengths: Lengths, pid: u32, kind: Kind, key: u64) -> Option<Row> {
    let owner = owner(pid, kind);
    for index in rows(lengths, owner, key) {
        let row = words.part::<{ ledger::WORDS }>(place(index));
        let found = row[ledger::STATE].load(Ordering::Acquire);
        match found & STATE_BITS {
            state::FREE => return None,
            state::WHOLE => {}
            _ => continue,
        }
        let is_it = row[ledger::OWNER].load(Ordering::Acquire) == owner
            && row[ledger::KEY].load(Ordering::Acquire) == key;
        if is_it {
            return Some(Row {
                row: index,
                state: found,
            });
        }
    }
    None
}

#[inline(always)]
pub(super) fn take(
    words: &Words,
    lengths: Lengths,
    pid: u32,
    kind: Kind,
    key: u64,
) -> Option<Taken> {
    let Row { row, state: found } = find(words, lengths, pid, kind, key)?;
    let ending = NonZeroU64::new(found & !STATE_BITS | state::ENDING)?;
    // Where another thread takes it at the same moment, it is that one's.
    let is_taken = swap(words.at(place(row) + ledger::STATE), found, ending.get());
    is_taken.then_some(Taken { row, state: ending })
}

#[inline]
fn swap(word: &AtomicU64, from: u64, to: u64) -> bool {
    let swapped = word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    swapped.is_ok()
}

#[inline]
pub(super) fn end(words: &Words, taken: Taken) {
    let ended = taken.state.get() & !STATE_BITS | state::ENDED;
    words.set(place(taken.row) + ledger::STATE, ended);
}

pub(super) fn bytes(words: &Words, taken: Taken) -> u64 {
    words.get(place(taken.row) + ledger::BYTES)
}

pub(super) fn restore(words: &Words, taken: Taken) {
    let whole = taken.state.get() & !STATE_BITS | state::WHOLE;
    words.set(place(taken.row) + ledger::STATE, whole);
}

pub(super) fn view(words: &Words, lengths: Lengths) -> LedgerView {
    let mut view = LedgerView {
        lost: words.get(header::LEDGER_LOST),
        ..LedgerView::default()
    };
    for row in 0..lengths.ledger_rows {
        let start = place(row);
        let found = words.get(start + ledger::STATE);
        if matches!(found & STATE_BITS, state::FREE | state::ENDED) {
            continue;
        }
        let entry = entry(words, start, found);
        // Another thing may have come in while the row was being read.
        let is_same = words.get(start + ledger::STATE) == found;
        match entry {
            Some(entry) if is_same => view.entries.push(entry),
            Some(_) | None => view.unreadable += 1,
        }
    }
    view.entries.sort_by_key(|entry| entry.serial);
    view
}

fn entry(words: &Words, start: usize, found: u64) -> Option<LedgerEntry> {
    let is_ending = match found & STATE_BITS {
        state::WHOLE => false,
        state::ENDING => true,
        _ => return None,
    };
    let owner = words.get(start + ledger::OWNER);
    Some(LedgerEntry {
        kind: Kind::checked(owner & 0xffff_ffff)?,
        key: words.get(start + ledger::KEY),
        bytes: words.get(start + ledger::BYTES),
        site: SiteId::checked(words.get(start + ledger::SITE))?,
        nth: words.get(start + ledger::NTH),
        serial: found >> 3,
        pid: (owner >> 32) as u32,
        path: words.text(start + ledger::PATH, PATH_BYTES),
        caller: words.text(start + ledger::CALLER, CALLER_BYTES),
        is_ending,
    })
}

#[inline]
fn owner(pid: u32, kind: Kind) -> u64 {
    u64::from(pid) << 32 | kind as u64
}

#[inline]
fn place(row: usize) -> usize {
    LEDGER + row * ledger::WORDS
}

/// The rows in which a key may lie, in order: a few of those that everybody tries first, then of all. New keys come all the time, and over
/// the whole table each would find its row out of the cache.
#[inline]
fn rows(lengths: Lengths, owner: u64, key: u64) -> impl Iterator<Item = usize> {
    let count = lengths.ledger_rows;
    let mixed = (key ^ owner.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let first = (mixed >> 32) as usize;
    let near = first % NEAR_ROWS;
    (0..NEAR_PROBES + count.min(MAX_PROBES)).map(move |step| {
        // A division by what only the run knows takes longer than all the rest.
        match step < NEAR_PROBES && near + step < count {
            true => near + step,
            false => (first + step) % count,
        }
    })
}
