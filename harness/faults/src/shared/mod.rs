//! The memory that the harness shares with the interposer in each subject.
//!
//! It is one memfd, made by the harness and opened by subjects through `/proc/PID/fd/N`. Nothing is locked: counters are
//! added to, rows are claimed by one atomic step and become valid by the last store, so that a process killed at any
//! instruction leaves at most one row that is visibly unfinished. The other side is not trusted: whatever a subject writes
//! here, reading neither panics nor believes a length. It is no security border, though: a subject can spoil its own results.

mod attached;
mod decide;
mod entry;
mod harness;
mod layout;
mod ledger;
mod own;
mod presence;
mod process;
mod rules;
mod trace;
mod words;

pub use attached::{AttachError, Attached, Rules, ScopePath};
pub use decide::{Call, Decision, Facts, Outcome};
pub use entry::{Attachment, LedgerEntry, LedgerView, Receipt, RuleCount, TraceEntry, TraceView};
pub use harness::{Options, Shared, SharedError};
pub use layout::{
    CALLER_BYTES, MAX_ATTACHMENTS, MAX_RECEIPTS, MAX_ROWS, MAX_SCOPE_BYTES, MAX_SCOPES, PATH_BYTES,
};
pub use ledger::{Entering, Named, Row, Taken};
pub use presence::{Presence, Process};
pub use trace::Recorded;
