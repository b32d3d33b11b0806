//! The ledger: what exists, each with the call that made it. An open hash table by kind, process and key.

use super::entry::{LedgerEntry, LedgerView};
use super::layout::{CALLER_BYTES, LEDGER, Lengths, PATH_BYTES, header, ledger, state};
use super::trace::end_of;
use super::words::Words;
use crate::site::{Kind, SiteId};

/// Rows looked at before a thing counts as lost or unknown.
const MAX_PROBES: usize = 1024;
/// Rows that are tried first, and how many of them for each key.
const NEAR_ROWS: usize = 64;
const NEAR_PROBES: usize = 4;
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
    /// The path relative to the scope, empty where there is none.
    pub path: &'a [u8],
    /// The file name of the library that called, empty where it is not known.
    pub caller: &'a [u8],
}

/// A row whose thing is about to end. End or restore it when the call has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the row stays in the state `ending` until it is ended or restored"]
pub struct Taken {
    row: usize,
    serial: u64,
    /// How large the thing is, bytes.
    pub bytes: u64,
}

pub(super) fn enter(words: &Words, lengths: Lengths, pid: u32, thing: &Entering<'_>) -> bool {
    let owner = owner(pid, thing.kind);
    for row in rows(lengths, owner, thing.key) {
        let start = place(row);
        let found = words.get(start + ledger::STATE);
        let is_free = matches!(found & STATE_BITS, state::FREE | state::ENDED);
        if !is_free || !words.swap(start + ledger::STATE, found, state::CLAIMED) {
            continue;
        }
        let serial = words.next_serial() & SERIAL_LIMIT;
        words.set(start + ledger::OWNER, owner);
        words.set(start + ledger::KEY, thing.key);
        words.set(start + ledger::BYTES, thing.bytes);
        words.set(start + ledger::SITE, u64::from(thing.site.0));
        words.set(start + ledger::NTH, thing.nth);
        words.set_bytes(start + ledger::PATH, PATH_BYTES / 8, end_of(thing.path));
        words.set_bytes(start + ledger::CALLER, CALLER_BYTES / 8, thing.caller);
        words.set(start + ledger::STATE, serial << 3 | state::WHOLE);
        return true;
    }
    words.add(header::LEDGER_LOST, 1);
    false
}

pub(super) fn take(
    words: &Words,
    lengths: Lengths,
    pid: u32,
    kind: Kind,
    key: u64,
) -> Option<Taken> {
    let owner = owner(pid, kind);
    for row in rows(lengths, owner, key) {
        let start = place(row);
        let found = words.get(start + ledger::STATE);
        match found & STATE_BITS {
            state::FREE => return None,
            state::WHOLE => {}
            _ => continue,
        }
        let is_it =
            words.get(start + ledger::OWNER) == owner && words.get(start + ledger::KEY) == key;
        let bytes = words.get(start + ledger::BYTES);
        let serial = found >> 3;
        if is_it && words.swap(start + ledger::STATE, found, serial << 3 | state::ENDING) {
            return Some(Taken { row, serial, bytes });
        }
    }
    None
}

pub(super) fn end(words: &Words, taken: Taken) {
    let ended = taken.serial << 3 | state::ENDED;
    words.set(place(taken.row) + ledger::STATE, ended);
}

pub(super) fn restore(words: &Words, taken: Taken) {
    let whole = taken.serial << 3 | state::WHOLE;
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

fn owner(pid: u32, kind: Kind) -> u64 {
    u64::from(pid) << 32 | kind as u64
}

fn place(row: usize) -> usize {
    LEDGER + row * ledger::WORDS
}

/// The rows in which a key may lie, in order: a few of those that everybody tries first, then of all. New keys come all the time, and over
/// the whole table each would find its row out of the cache.
fn rows(lengths: Lengths, owner: u64, key: u64) -> impl Iterator<Item = usize> {
    let count = lengths.ledger_rows;
    let mixed = (key ^ owner.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let first = (mixed >> 32) as usize;
    // A division by what only the run knows takes longer than all the rest.
    let near = match count < NEAR_ROWS {
        true => first % count,
        false => first % NEAR_ROWS,
    };
    let near = (near..count).take(NEAR_PROBES);
    near.chain((0..count.min(MAX_PROBES)).map(move |step| (first + step) % count))
}
