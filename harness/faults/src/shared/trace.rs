//! The trace: which calls there were.

use rustix::process::getpid;
use rustix::thread::gettid;

use super::entry::{TraceEntry, TraceView};
use super::layout::{CALLER_BYTES, Lengths, PATH_BYTES, header, state, trace};
use super::words::Words;
use crate::site::SiteId;

/// A call to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// The site.
    pub site: SiteId,
    /// Which call of the site, from 1.
    pub nth: u64,
    /// Bytes that it is about, 0 where there are none.
    pub size: u64,
    /// The offset in the file, where the call has one.
    pub offset: Option<u64>,
    /// The path relative to the scope, empty where there is none.
    pub path: &'a [u8],
    /// The file name of the library that called.
    pub caller: &'a [u8],
}

pub(super) fn record(words: &Words, lengths: Lengths, call: &Recorded<'_>) {
    let Some(row) = words.take_row(header::NEXT_TRACE, lengths.trace_rows) else {
        return;
    };
    let start = lengths.trace() + row * trace::WORDS;
    words.set(start + trace::STATE, state::CLAIMED);
    let pid = getpid().as_raw_pid() as u32;
    let tid = gettid().as_raw_pid() as u32;
    words.set(start + trace::SERIAL, words.next_serial());
    words.set(start + trace::SITE, u64::from(call.site.0));
    words.set(start + trace::NTH, call.nth);
    words.set(start + trace::SIZE, call.size);
    words.set(start + trace::OFFSET, call.offset.unwrap_or(0));
    words.set(start + trace::HAS_OFFSET, u64::from(call.offset.is_some()));
    words.set(start + trace::WHO, u64::from(pid) | u64::from(tid) << 32);
    words.set_bytes(start + trace::PATH, PATH_BYTES / 8, end_of(call.path));
    words.set_bytes(start + trace::CALLER, CALLER_BYTES / 8, call.caller);
    words.set(start + trace::STATE, state::WHOLE);
}

/// The end of a path that is too long: there the file's name is.
pub(super) fn end_of(path: &[u8]) -> &[u8] {
    &path[path.len().saturating_sub(PATH_BYTES)..]
}

pub(super) fn view(words: &Words, lengths: Lengths) -> TraceView {
    let taken = words.get(header::NEXT_TRACE);
    let rows = taken.min(lengths.trace_rows as u64);
    let mut view = TraceView {
        lost: taken - rows,
        ..TraceView::default()
    };
    for row in 0..rows as usize {
        match entry(words, lengths.trace() + row * trace::WORDS) {
            Some(entry) => view.entries.push(entry),
            None => view.unreadable += 1,
        }
    }
    view.entries.sort_by_key(|entry| entry.serial);
    view
}

fn entry(words: &Words, start: usize) -> Option<TraceEntry> {
    if words.get(start + trace::STATE) != state::WHOLE {
        return None;
    }
    let who = words.get(start + trace::WHO);
    let has_offset = words.get(start + trace::HAS_OFFSET) == 1;
    Some(TraceEntry {
        serial: words.get(start + trace::SERIAL),
        site: SiteId::checked(words.get(start + trace::SITE))?,
        nth: words.get(start + trace::NTH),
        size: words.get(start + trace::SIZE),
        offset: has_offset.then(|| words.get(start + trace::OFFSET)),
        path: words.text(start + trace::PATH, PATH_BYTES),
        caller: words.text(start + trace::CALLER, CALLER_BYTES),
        pid: who as u32,
        tid: (who >> 32) as u32,
    })
}
