//! Where everything lies in the shared memory, in 64-bit words.

use crate::plan::{MAX_CALLER_GLOB_BYTES, MAX_PATH_GLOB_BYTES, MAX_RULES};
use crate::site::Site;
use crate::table::{SITE_COUNT, SITES};

/// "SPLFAULT", read as a little-endian word.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"SPLFAULT");
/// Raised with every change of this file or of what the words mean.
pub(super) const VERSION: u64 = 6;

/// Directories of a scope.
pub const MAX_SCOPES: usize = 4;
/// Longest directory of a scope, bytes.
pub const MAX_SCOPE_BYTES: usize = 504;
/// Attachments kept.
pub const MAX_ATTACHMENTS: usize = 1024;
/// Receipts kept; later ones are only counted.
pub const MAX_RECEIPTS: usize = 8192;
/// Bytes of a path that receipts, the trace and the ledger keep, its end.
pub const PATH_BYTES: usize = 128;
/// Bytes of a library's name that the trace and the ledger keep, its start.
pub const CALLER_BYTES: usize = 32;

/// Words of the header. What is written often has a cache line of its own.
pub(super) mod header {
    pub(in crate::shared) const MAGIC: usize = 0;
    pub(in crate::shared) const VERSION: usize = 1;
    /// Of the table of sites, so that numbers of another table are not taken for ours.
    pub(in crate::shared) const FINGERPRINT: usize = 2;
    pub(in crate::shared) const LEDGER_ROWS: usize = 3;
    pub(in crate::shared) const TRACE_ROWS: usize = 4;
    pub(in crate::shared) const SCOPES: usize = 5;
    /// Bit by rule: whether it is in force.
    pub(in crate::shared) const ARMED: usize = 8;
    /// Bit by rule: whether it asks for a path.
    pub(in crate::shared) const BY_PATH: usize = 9;
    /// Bit by rule: whether it asks for a caller.
    pub(in crate::shared) const BY_CALLER: usize = 10;
    /// Plans loaded so far.
    pub(in crate::shared) const GENERATION: usize = 11;
    /// 1 while the trace records.
    pub(in crate::shared) const RECORDING: usize = 12;
    /// Names given by subjects so far.
    pub(in crate::shared) const NAMES: usize = 13;
    /// The last serial number given to a receipt, a call recorded or a row of the ledger.
    pub(in crate::shared) const SERIAL: usize = 16;
    pub(in crate::shared) const NEXT_ATTACHMENT: usize = 24;
    pub(in crate::shared) const NEXT_RECEIPT: usize = 32;
    pub(in crate::shared) const NEXT_TRACE: usize = 40;
    pub(in crate::shared) const LEDGER_LOST: usize = 48;
    pub(in crate::shared) const WORDS: usize = 64;
}

/// A directory of the scope.
pub(super) mod scope {
    pub(in crate::shared) const BYTES: usize = 0;
    pub(in crate::shared) const TEXT: usize = 1;
    pub(in crate::shared) const WORDS: usize = 1 + super::MAX_SCOPE_BYTES / 8;
}

/// A process that attached itself, or that is expected to.
pub(super) mod attachment {
    pub(in crate::shared) const STATE: usize = 0;
    pub(in crate::shared) const PID: usize = 1;
    pub(in crate::shared) const START_TICKS: usize = 2;
    /// Bits of the two constants below.
    pub(in crate::shared) const HOW: usize = 3;
    pub(in crate::shared) const SERIAL: usize = 4;
    pub(in crate::shared) const WORDS: usize = 8;

    /// The process ended by itself.
    pub(in crate::shared) const HAS_ENDED: u64 = 1;
    /// Who started the process said so; it did not attach itself by this row.
    pub(in crate::shared) const IS_EXPECTED: u64 = 2;
}

/// A rule, compiled.
pub(super) mod rule {
    pub(in crate::shared) const ACTION: usize = 0;
    /// The error's domain, 0 for other actions.
    pub(in crate::shared) const DOMAIN: usize = 1;
    /// The error's code, bytes, nanoseconds, the signal's number.
    pub(in crate::shared) const VALUE: usize = 2;
    pub(in crate::shared) const AFTER: usize = 3;
    pub(in crate::shared) const FIRST: usize = 4;
    /// The largest number where there is no last.
    pub(in crate::shared) const LAST: usize = 5;
    pub(in crate::shared) const STEP: usize = 6;
    /// Calls counted.
    pub(in crate::shared) const COUNTED: usize = 7;
    /// Times that it fired.
    pub(in crate::shared) const FIRED: usize = 8;
    pub(in crate::shared) const PATH_BYTES: usize = 9;
    pub(in crate::shared) const CALLER_BYTES: usize = 10;
    pub(in crate::shared) const PATH: usize = 11;
    pub(in crate::shared) const CALLER: usize = PATH + super::MAX_PATH_GLOB_BYTES / 8;
    pub(in crate::shared) const WORDS: usize = CALLER + super::MAX_CALLER_GLOB_BYTES / 8 + 5;
}

/// A rule that fired.
pub(super) mod receipt {
    pub(in crate::shared) const STATE: usize = 0;
    pub(in crate::shared) const RULE: usize = 1;
    pub(in crate::shared) const NTH: usize = 2;
    pub(in crate::shared) const SITE: usize = 3;
    pub(in crate::shared) const PID: usize = 4;
    pub(in crate::shared) const TID: usize = 5;
    pub(in crate::shared) const SERIAL: usize = 6;
    pub(in crate::shared) const GENERATION: usize = 7;
    pub(in crate::shared) const SIZE: usize = 8;
    pub(in crate::shared) const KEY: usize = 9;
    pub(in crate::shared) const PATH: usize = 10;
    pub(in crate::shared) const WORDS: usize = PATH + super::PATH_BYTES / 8 + 6;
}

/// A row of a site: what every call of it looks at, together, in a cache line of its own.
pub(super) mod site {
    use crate::site::{SiteId, SpellingId};

    /// Bits of the rules that name it.
    #[inline]
    pub(in crate::shared) fn rules(site: SiteId) -> usize {
        super::BY_SITE + usize::from(site.0) * WORDS
    }

    /// How many calls of it were counted.
    #[inline]
    pub(in crate::shared) fn calls(site: SiteId) -> usize {
        rules(site) + CALLS
    }

    /// How many of them were by a spelling; not of the last of its site.
    #[inline]
    pub(in crate::shared) fn calls_by(spelling: SpellingId) -> usize {
        let spelling = spelling.spelling();
        rules(spelling.site) + SPELLED + usize::from(spelling.nth)
    }

    /// Whether a call of it is more than counted: a rule in force names it, or calls are recorded. 1 or 0.
    #[inline]
    pub(in crate::shared) fn heard(site: SiteId) -> usize {
        rules(site) + HEARD
    }

    pub(in crate::shared) const CALLS: usize = 1;
    pub(in crate::shared) const HEARD: usize = 2;
    pub(in crate::shared) const SPELLED: usize = 3;
    pub(in crate::shared) const WORDS: usize = 8;
    /// Room for all spellings but the last.
    pub(in crate::shared) const SPELLED_WORDS: usize = WORDS - SPELLED;
    const _: () = assert!(crate::table::MAX_SPELLINGS <= SPELLED_WORDS + 1);
}

/// A row of the ledger.
pub(super) mod ledger {
    /// The state in the low three bits, the serial number above them: a row that became another thing's has another state
    /// word, so that nobody who saw the first takes the second for it.
    pub(in crate::shared) const STATE: usize = 0;
    /// The kind in the low half, the process in the high half.
    pub(in crate::shared) const OWNER: usize = 1;
    pub(in crate::shared) const KEY: usize = 2;
    pub(in crate::shared) const BYTES: usize = 3;
    pub(in crate::shared) const SITE: usize = 4;
    pub(in crate::shared) const NTH: usize = 5;
    pub(in crate::shared) const PATH: usize = 8;
    pub(in crate::shared) const CALLER: usize = PATH + super::PATH_BYTES / 8;
    /// Whole cache lines, so that what is compared of a row is in one.
    pub(in crate::shared) const WORDS: usize = CALLER + super::CALLER_BYTES / 8 + 4;
}

/// A call in the trace.
pub(super) mod trace {
    pub(in crate::shared) const STATE: usize = 0;
    pub(in crate::shared) const SERIAL: usize = 1;
    pub(in crate::shared) const SITE: usize = 2;
    pub(in crate::shared) const NTH: usize = 3;
    pub(in crate::shared) const SIZE: usize = 4;
    pub(in crate::shared) const OFFSET: usize = 5;
    /// The process in the low half, the thread in the high half.
    pub(in crate::shared) const WHO: usize = 6;
    /// 1 where the call has an offset.
    pub(in crate::shared) const HAS_OFFSET: usize = 7;
    pub(in crate::shared) const PATH: usize = 8;
    pub(in crate::shared) const CALLER: usize = PATH + super::PATH_BYTES / 8;
    pub(in crate::shared) const WORDS: usize = CALLER + super::CALLER_BYTES / 8;
}

/// States of a row: anything but these two means that it never held anything.
pub(super) mod state {
    /// Complete.
    pub(in crate::shared) const WHOLE: u64 = 2;
    /// Claimed and not yet complete.
    pub(in crate::shared) const CLAIMED: u64 = 1;
    /// Of the ledger: the call that ends it is under way.
    pub(in crate::shared) const ENDING: u64 = 3;
    /// Of the ledger: ended; the search for a key goes on behind it.
    pub(in crate::shared) const ENDED: u64 = 4;
    /// Never used.
    pub(in crate::shared) const FREE: u64 = 0;
}

const fn round(words: usize) -> usize {
    words.next_multiple_of(8)
}

/// Where each part starts. What every call looks at is at the start: after a system call each page has to be found anew.
const BY_SITE: usize = header::WORDS;
pub(super) const SCOPES: usize = BY_SITE + round(SITE_COUNT * site::WORDS);
pub(super) const ATTACHMENTS: usize = SCOPES + round(MAX_SCOPES * scope::WORDS);
pub(super) const RULES: usize = ATTACHMENTS + round(MAX_ATTACHMENTS * attachment::WORDS);
pub(super) const RECEIPTS: usize = RULES + round(MAX_RULES * rule::WORDS);
pub(super) const LEDGER: usize = RECEIPTS + round(MAX_RECEIPTS * receipt::WORDS);

/// Rows of the parts whose length the harness chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) ledger_rows: usize,
    pub(super) trace_rows: usize,
}

/// Most rows of the ledger or the trace, so that no sum of theirs overflows.
pub const MAX_ROWS: usize = 1 << 22;

impl Lengths {
    pub(super) fn trace(self) -> usize {
        LEDGER + self.ledger_rows * ledger::WORDS
    }

    pub(super) fn words(self) -> usize {
        self.trace() + self.trace_rows * trace::WORDS
    }
}

/// Of the table, so that numbers of another table are not taken for ours.
pub(super) fn fingerprint() -> u64 {
    fingerprint_of(&SITES)
}

/// Of the names and spellings of sites, in order (FNV-1a).
fn fingerprint_of(sites: &[Site]) -> u64 {
    let names = sites.iter().flat_map(|site| {
        let names = std::iter::once(&site.name).chain(site.spellings);
        names.flat_map(|name| name.bytes().chain([0]))
    });
    names.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    //! What tells one table from another.
    use super::*;

    #[test]
    fn tables_that_differ_by_a_name_have_other_fingerprints() {
        let (first, rest) = SITES.split_first().unwrap();
        assert_ne!(fingerprint_of(rest), fingerprint());
        let mut renamed = SITES;
        renamed[0].spellings = &first.spellings[1..];
        assert_ne!(fingerprint_of(&renamed), fingerprint());
        renamed.swap(1, 2);
        renamed[0].spellings = first.spellings;
        assert_ne!(fingerprint_of(&renamed), fingerprint());
    }
}
