//! What the harness reads out of the shared memory.

use crate::site::{Kind, SiteId};

/// A process that attached itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// Its number.
    pub pid: u32,
    /// Its start time, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    /// Orders it among the rows of the ledger: what was made before is another program's, under the same number.
    pub serial: u64,
}

/// Proof that a rule fired, written before its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The rule, by its index in the plan.
    pub rule: usize,
    /// The call, as the rule counts.
    pub nth: u64,
    /// The site that was called.
    pub site: SiteId,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// Bytes that the call was about, 0 where there are none.
    pub size: u64,
    /// What the call was to end, by the key that the ledger has it under; of one that opens, its flags; else 0.
    pub key: u64,
    /// The path, relative to the scope where it is inside; its end, if it is long; empty where there is none.
    pub path: String,
    /// Orders it among receipts, recorded calls and rows of the ledger.
    pub serial: u64,
}

/// What a rule has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleCount {
    /// Calls that it counted.
    pub counted: u64,
    /// Times that it fired.
    pub fired: u64,
}

/// A call that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEntry {
    /// Orders it.
    pub serial: u64,
    /// The site.
    pub site: SiteId,
    /// Which call of the site, from 1.
    pub nth: u64,
    /// Bytes that it is about, 0 where there are none.
    pub size: u64,
    /// The offset in the file, where the call has one.
    pub offset: Option<u64>,
    /// The path relative to the scope; its end, if it is long; empty where there is none.
    pub path: String,
    /// The file name of the library that called.
    pub caller: String,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
}

/// The trace, in the order of the serial numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceView {
    /// Calls.
    pub entries: Vec<TraceEntry>,
    /// Calls that found no room.
    pub lost: u64,
    /// Rows that nobody finished or that hold no call: their process was killed, or wrote over them.
    pub unreadable: usize,
}

/// Something that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// What it is.
    pub kind: Kind,
    /// Which, within its process.
    pub key: u64,
    /// How large, bytes.
    pub bytes: u64,
    /// The site that made it.
    pub site: SiteId,
    /// Which call of the site, from 1.
    pub nth: u64,
    /// Orders it.
    pub serial: u64,
    /// The process that made it.
    pub pid: u32,
    /// The path relative to the scope; its end, if it is long; empty where there is none.
    pub path: String,
    /// The file name of the library that called.
    pub caller: String,
    /// A call that ends it was under way.
    pub is_ending: bool,
}

/// The ledger, in the order of the serial numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerView {
    /// What exists.
    pub entries: Vec<LedgerEntry>,
    /// Things that found no room.
    pub lost: u64,
    /// Rows that nobody finished or that make no sense: their process was killed, or wrote over them.
    pub unreadable: usize,
}

impl LedgerView {
    /// What these processes hold as the programs that they are now. What a process held before it became another program went
    /// with that, but for descriptors, which `/proc` shows; and what the dead held is gone.
    #[must_use]
    pub fn held_by(mut self, living: &[Attachment]) -> Self {
        self.entries.retain(|entry| {
            let mut newest = living.iter().rev();
            newest
                .find(|process| process.pid == entry.pid)
                .is_some_and(|process| process.serial < entry.serial)
        });
        self
    }
}

#[cfg(test)]
mod tests {
    //! Whose rows count.
    use super::*;
    use crate::plan::Plan;
    use crate::shared::{Attached, Entering, Named, Options, Shared};

    #[test]
    fn what_a_process_held_as_another_program_or_before_it_died_is_not_held() {
        let (shared, file) = Shared::create(&Plan::default(), &Options::default()).unwrap();
        let attached = Attached::map(&file).unwrap();
        let enter = |key| {
            let thing = Entering {
                kind: Kind::DeviceMemory,
                key,
                bytes: 1,
                site: SiteId::named("cuMemAlloc"),
                nth: key,
                path: Named::Path(b""),
                caller: b"",
            };
            assert!(attached.enter(&thing));
        };
        let held = |living: &[Attachment]| -> Vec<u64> {
            let held = shared.ledger().held_by(living);
            held.entries.iter().map(|entry| entry.key).collect()
        };
        attached.attach();
        enter(1);
        assert_eq!(held(&shared.attachments()), [1]);
        // As the program that it becomes does.
        attached.attach();
        enter(2);
        assert_eq!(held(&shared.attachments()), [2]);
        assert_eq!(held(&shared.attachments()[..1]), [1, 2]);
        assert_eq!(held(&[]), []);
    }
}
