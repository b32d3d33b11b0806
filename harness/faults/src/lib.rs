//! Fault sites, fault plans, and the memory that the harness shares with the interposer inside each subject.
//!
//! # Fault model
//! A fault is a call at the border of the engine (libc, the CUDA driver, cuFile) that fails, moves fewer bytes, takes
//! longer, or raises a signal. [`SITES`] says of each function how its failure looks and which errors it can return: a call
//! is never made to say what its documentation does not let it say, nor to lie about bytes that it moved.
//! - A failing call is not made at all, or (`after`) it is made and then reported as failed. `close` is always made: Linux
//!   frees the descriptor whatever it returns, so that an error before it would be a leak that no kernel shows.
//! - libc's calls count only where they touch the *scope*, the directories of a case, so that counts do not depend on what a
//!   runtime does elsewhere; a rule with `path=` counts calls on such paths anywhere. Calls of CUDA and cuFile always count.
//! - Not modelled: errors that come later than the call that caused them, unless they are planned at the later call; a
//!   handle or memory that a *failed* call still made; the third and later faults of one call; calls that pass no wrapped
//!   symbol (static binaries, raw system calls by other means than `syscall`, io_uring).
//!
//! # Parts
//! [`SITES`] and [`SPELLINGS`] are the one table, with [`for_each_libc_site`] and kin for who needs the symbols as
//! identifiers. [`Plan`] is what a person writes, [`Shared`] the harness's side of the memory and [`Attached`] the subject's.
//! What [`Attached`] does after [`Attached::open`] allocates nothing, locks nothing and calls no libc: its system calls are
//! raw ones, so that no wrapped symbol is passed.

mod error;
mod glob;
mod nearest;
mod plan;
mod shared;
mod signal;
mod site;
mod table;

pub use error::{Domain, ERRORS, FaultError, names};
pub use glob::{matches, matches_path};
pub use plan::{
    Action, Glob, GlobError, MAX_CALLER_GLOB_BYTES, MAX_DELAY, MAX_PATH_GLOB_BYTES, MAX_RULES,
    Plan, PlanError, Rule, RuleError, When,
};
pub use shared::{
    AttachError, Attached, Attachment, CALLER_BYTES, Call, Decision, Entering, Facts, LedgerEntry,
    LedgerView, MAX_ATTACHMENTS, MAX_RECEIPTS, MAX_ROWS, MAX_SCOPE_BYTES, MAX_SCOPES, Named,
    Options, Outcome, PATH_BYTES, Presence, Process, Receipt, Recorded, Row, RuleCount, Rules,
    ScopePath, Shared, SharedError, Taken, TraceEntry, TraceView,
};
pub use signal::{Signal, Signals};
pub use site::{
    After, Effect, Failure, Key, Kind, Library, MAX_ARITY, Short, Site, SiteId, Size, Spelling,
    SpellingId, Target,
};
pub use table::{SITE_COUNT, SITES, SPELLING_COUNT, SPELLINGS};

/// The environment variable that names the shared memory to a subject: a path such as `/proc/PID/fd/N`.
pub const FAULTS_VARIABLE: &str = "SPILLPROOF_FAULTS";

/// How a process exits at its start when the interposer cannot attach it: none of the shell's or of sysexits.h.
pub const NOT_ATTACHED_STATUS: i32 = 97;
