//! The subject's side. Nothing here allocates, locks, or goes through libc.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering::AcqRel;

use rustix::fd::{AsFd, AsRawFd, RawFd};
use rustix::fs::{Mode, OFlags, SealFlags, fcntl_get_seals, fstat, open};
use rustix::io::Errno;

use super::layout::{
    Lengths, MAGIC, MAX_ROWS, MAX_SCOPE_BYTES, MAX_SCOPES, SCOPES, VERSION, fingerprint, header,
    scope, site,
};
use super::ledger::{self, Entering, Row, Taken};
use super::own::Own;
use super::trace::{self, Recorded};
use super::words::Words;
use crate::site::{Kind, SiteId, SpellingId};

/// Why a process cannot attach itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The file cannot be opened or mapped.
    #[error("cannot {operation} it: {source}")]
    Io {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// The file is something else, or its owner may still cut it.
    #[error("it is no memory of a harness for faults; pass the path that the harness made")]
    NotShared,
    /// The file is of another build.
    #[error(
        "it is of another build (version {found}, this one is {VERSION}); build harness and interposer from one tree"
    )]
    OtherBuild {
        /// Its version.
        found: u64,
    },
}

/// Rules that may concern a call, by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub(super) bits: u64,
    by_path: u64,
    by_caller: u64,
}

impl Rules {
    /// Whether there is none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Whether one of them asks for the path, also of a call outside the scope.
    #[inline]
    pub fn need_path(self) -> bool {
        self.bits & self.by_path != 0
    }

    /// Whether one of them asks for the caller.
    #[inline]
    pub fn need_caller(self) -> bool {
        self.bits & self.by_caller != 0
    }

    /// Whether one of them counts a call wherever its path lies.
    pub(super) fn has_path(self, rule: usize) -> bool {
        self.by_path & 1 << rule != 0
    }

    pub(super) fn has_caller(self, rule: usize) -> bool {
        self.by_caller & 1 << rule != 0
    }
}

/// A path inside the scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopePath<'a> {
    /// Which directory of the scope.
    pub scope: usize,
    /// The path below it, without a leading `/`; empty for the directory itself.
    pub relative: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Prefix {
    bytes: [u8; MAX_SCOPE_BYTES],
    length: usize,
}

/// The shared memory, seen from a subject.
#[derive(Debug)]
pub struct Attached {
    pub(super) words: Words,
    lengths: Lengths,
    scopes: [Prefix; MAX_SCOPES],
    scope_count: usize,
    own: Own,
}

impl Attached {
    /// Opens and maps the memory; no descriptor stays open.
    pub fn open(path: &CStr) -> Result<Attached, AttachError> {
        let io = |operation| move |source| AttachError::Io { operation, source };
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::empty()).map_err(io("open"))?;
        // The standard library would close it through libc.
        let file = ManuallyDrop::new(file);
        let attached = Attached::map(&*file);
        close_raw(file.as_raw_fd());
        attached
    }

    /// Maps the memory of an open file.
    pub(super) fn map(file: impl AsFd) -> Result<Attached, AttachError> {
        let io = |operation| move |source| AttachError::Io { operation, source };
        let bytes = fstat(&file).map_err(io("look at"))?.st_size as u64;
        // What could shrink could also kill the process at a later access.
        let seals = fcntl_get_seals(&file).map_err(|_| AttachError::NotShared)?;
        if !seals.contains(SealFlags::SHRINK) || bytes < header::WORDS as u64 * 8 {
            return Err(AttachError::NotShared);
        }
        let head = Words::map(file.as_fd(), header::WORDS).map_err(io("map"))?;
        if head.get(header::MAGIC) != MAGIC {
            return Err(AttachError::NotShared);
        }
        let found = head.get(header::VERSION);
        if found != VERSION || head.get(header::FINGERPRINT) != fingerprint() {
            return Err(AttachError::OtherBuild { found });
        }
        let rows = |word: usize| {
            let rows = head.get(word);
            let fits = (1..=MAX_ROWS as u64).contains(&rows);
            fits.then_some(rows as usize).ok_or(AttachError::NotShared)
        };
        let lengths = Lengths {
            ledger_rows: rows(header::LEDGER_ROWS)?,
            trace_rows: rows(header::TRACE_ROWS)?,
        };
        if bytes < lengths.words() as u64 * 8 {
            return Err(AttachError::NotShared);
        }
        let words = Words::map(file.as_fd(), lengths.words()).map_err(io("map"))?;
        Ok(Attached::with(words, lengths))
    }

    fn with(words: Words, lengths: Lengths) -> Attached {
        let empty = Prefix {
            bytes: [0; MAX_SCOPE_BYTES],
            length: 0,
        };
        let mut scopes = [empty; MAX_SCOPES];
        let scope_count = words.get(header::SCOPES).min(MAX_SCOPES as u64) as usize;
        for (index, prefix) in scopes.iter_mut().enumerate().take(scope_count) {
            let start = SCOPES + index * scope::WORDS;
            let length = words.get(start + scope::BYTES);
            prefix.length = length.min(MAX_SCOPE_BYTES as u64) as usize;
            words.bytes(start + scope::TEXT, &mut prefix.bytes);
        }
        Attached {
            words,
            lengths,
            scopes,
            scope_count,
            own: Own::new(),
        }
    }

    /// Where an absolute path without `.` and `..` lies in the scope.
    #[inline]
    pub fn scope<'a>(&self, path: &'a [u8]) -> Option<ScopePath<'a>> {
        let scopes = self.scopes[..self.scope_count].iter().enumerate();
        for (scope, prefix) in scopes {
            let Some((start, rest)) = path.split_at_checked(prefix.length) else {
                continue;
            };
            if !is_same(start, &prefix.bytes[..prefix.length]) {
                continue;
            }
            match rest.split_first() {
                None => {
                    let relative = rest;
                    return Some(ScopePath { scope, relative });
                }
                Some((b'/', relative)) => return Some(ScopePath { scope, relative }),
                Some(_) => {}
            }
        }
        None
    }

    /// The directories of the scope, absolute, without a `/` at the end.
    pub fn scopes(&self) -> impl Iterator<Item = &[u8]> {
        let scopes = &self.scopes[..self.scope_count];
        scopes.iter().map(|prefix| &prefix.bytes[..prefix.length])
    }

    /// Counts a call that touches the scope or has no file; its number among those of its site, from 1.
    #[inline]
    pub fn count(&self, spelling: SpellingId) -> u64 {
        let spelled = spelling.spelling();
        let nth = (!spelled.is_last).then_some(spelled.nth);
        self.count_by(spelled.site, nth)
    }

    /// As [`Self::count`], by the number of the spelling among those of the site; none for the last.
    #[inline(always)]
    pub fn count_by(&self, of: SiteId, spelling: Option<u8>) -> u64 {
        let counts = self.words.part::<{ site::WORDS }>(site::rules(of));
        // Those by the last spelling are the site's less those by the others: one locked step less for nearly every call.
        if let Some(nth) = spelling {
            counts[site::SPELLED + usize::from(nth) % site::SPELLED_WORDS].fetch_add(1, AcqRel);
        }
        counts[site::CALLS].fetch_add(1, AcqRel).wrapping_add(1)
    }

    /// The rules in force that name a site.
    #[inline]
    pub fn rules(&self, of: SiteId) -> Rules {
        let armed = self.words.get(header::ARMED);
        let bits = self.words.get(site::rules(of)) & armed;
        if bits == 0 {
            return Rules {
                bits,
                by_path: 0,
                by_caller: 0,
            };
        }
        Rules {
            bits,
            by_path: self.words.get(header::BY_PATH),
            by_caller: self.words.get(header::BY_CALLER),
        }
    }

    /// Whether a call of the site is only to be counted: no rule in force names it, and nothing is recorded.
    #[inline]
    pub fn is_quiet(&self, of: SiteId) -> bool {
        self.words.get(site::heard(of)) == 0
    }

    /// A call of the subject makes a name mean another thing than before: said before the call, and behind it where it succeeded.
    pub fn give_name(&self) {
        self.words.add(header::NAMES, 1);
    }

    /// How often that was.
    #[inline]
    pub fn names_given(&self) -> u64 {
        self.words.get(header::NAMES)
    }

    /// Whether calls are to be recorded.
    #[inline]
    pub fn is_recording(&self) -> bool {
        self.words.get(header::RECORDING) == 1
    }

    /// Records a call, in place of which a full trace counts it as lost.
    pub fn record(&self, call: &Recorded<'_>) {
        trace::record(&self.words, self.lengths, call);
    }

    /// The calling thread is about to call `vfork`: what follows in it may be the child's.
    pub fn lend_memory(&self) {
        self.own.lend();
    }

    /// The process is about to make a child that shares its memory and runs beside it.
    pub fn share_memory(&self) {
        self.own.share();
    }

    /// Whether no child shares the memory of the process.
    #[inline]
    pub fn has_own_memory(&self) -> bool {
        self.own.is_alone()
    }

    /// Enters something that exists now; false when the ledger has no room, which it counts.
    #[inline]
    pub fn enter(&self, thing: &Entering<'_>) -> bool {
        ledger::enter(&self.words, self.lengths, self.own.pid(), thing)
    }

    /// Finds the row of something of this process.
    #[inline]
    pub fn find(&self, kind: Kind, key: u64) -> Option<Row> {
        ledger::find(&self.words, self.lengths, self.own.pid(), kind, key)
    }

    /// Finds something of this process that a call is about to end, *before* the call: afterwards its key may already be
    /// another's. Nothing when the ledger does not know it.
    #[inline]
    pub fn take(&self, kind: Kind, key: u64) -> Option<Taken> {
        ledger::take(&self.words, self.lengths, self.own.pid(), kind, key)
    }

    /// How large it is, bytes.
    pub fn bytes(&self, taken: Taken) -> u64 {
        ledger::bytes(&self.words, taken)
    }

    /// The call succeeded: the thing is gone.
    #[inline(always)]
    pub fn end(&self, taken: Taken) {
        ledger::end(&self.words, taken);
    }

    /// The call failed: the thing still exists.
    pub fn restore(&self, taken: Taken) {
        ledger::restore(&self.words, taken);
    }
}

/// As `==`, which is a function of libc's, in a page of its own that has to be found after each system call.
#[inline]
fn is_same(left: &[u8], right: &[u8]) -> bool {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let differ = |found: u64, (left, right): (&[u8; 8], &[u8; 8])| {
        found | u64::from_ne_bytes(*left) ^ u64::from_ne_bytes(*right)
    };
    let whole = left.iter().zip(right).fold(0, differ);
    let rest = left_rest.iter().zip(right_rest);
    rest.fold(whole, |found, (left, right)| {
        found | u64::from(left ^ right)
    }) == 0
}

/// Closes a descriptor without libc.
pub(super) fn close_raw(descriptor: RawFd) {
    // SAFETY: both callers own the descriptor alone, in a `ManuallyDrop`, and do not use it afterwards.
    unsafe { rustix::io::close(descriptor) }
}
