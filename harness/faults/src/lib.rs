//! Fault sites, fault plans, and the memory that the harness shares with the interposer inside each subject.

mod error;
mod glob;
mod nearest;
mod plan;
mod shared;
mod signal;
mod site;
mod syscall;
mod table;

pub use error::{Domain, ERRORS, FaultError, names};
pub use glob::{matches, matches_path};
pub use plan::{
    Action, Glob, GlobError, MAX_CALLER_GLOB_BYTES, MAX_DELAY, MAX_PATH_GLOB_BYTES, MAX_RULES,
    Plan, PlanError, Rule, RuleError, When,
};
pub use shared::{
    AttachError, Attached, Attachment, CALLER_BYTES, Call, Decision, Entering, Facts, LedgerEntry,
    LedgerView, MAX_ATTACHMENTS, MAX_RECEIPTS, MAX_ROWS, MAX_SCOPE_BYTES, MAX_SCOPES, Options,
    Outcome, PATH_BYTES, Receipt, Recorded, RuleCount, Rules, ScopePath, Shared, SharedError,
    Taken, TraceEntry, TraceView,
};
pub use signal::{Signal, Signals};
pub use site::{
    After, Effect, Failure, Key, Kind, Library, MAX_ARITY, Short, Site, SiteId, Size, Spelling,
    SpellingId, Target,
};
pub use syscall::site_of_syscall;
pub use table::{SITE_COUNT, SITES, SPELLING_COUNT, SPELLINGS};

/// The environment variable that names the shared memory to a subject: a path such as `/proc/PID/fd/N`.
pub const FAULTS_VARIABLE: &str = "SPILLPROOF_FAULTS";

/// How a process exits at its start when the interposer cannot attach it: never silently without faults.
pub const NOT_ATTACHED_STATUS: i32 = 117;
