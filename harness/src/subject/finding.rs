//! What a subject did that the protocol does not allow. A finding is a result about the subject, not an error of the harness.

use serde_json::Value;
use spillproof_protocol::ErrorReply;
use std::{fmt, time::Duration};

/// How a call ended that the subject answered as the protocol says.
#[derive(Clone, Debug, PartialEq)]
pub enum CallOutcome {
    /// The verb's result.
    Ok(Value),
    /// A typed failure.
    Error(ErrorReply),
}

/// One of the two standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
        })
    }
}

/// A process that outlived its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftProcess {
    /// Its id.
    pub pid: u32,
    /// Its command line, or its name in brackets when that is empty.
    pub command: String,
}

/// What a subject did wrong, each its own way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A line that is not JSON.
    #[error("the answer to {verb} is not JSON: {line:?}")]
    Garbage {
        /// The verb that it should have answered.
        verb: &'static str,
        /// The line's beginning.
        line: String,
    },
    /// JSON, but not a reply: a field is unknown, missing or of another type.
    #[error("the answer to {verb} is not a reply: {reason}; it begins {line:?}")]
    MalformedReply {
        /// The verb.
        verb: &'static str,
        /// What is wrong.
        reason: String,
        /// The line's beginning.
        line: String,
    },
    /// Both `ok` and `error`.
    #[error("the answer to {verb} has both `ok` and `error`")]
    BothOkAndError {
        /// The verb.
        verb: &'static str,
    },
    /// Neither `ok` nor `error`.
    #[error("the answer to {verb} has neither `ok` nor `error`")]
    NeitherOkNorError {
        /// The verb.
        verb: &'static str,
    },
    /// An error whose kind is not in the closed list.
    #[error("the answer to {verb} has the unknown error kind {kind:?}")]
    UnknownErrorKind {
        /// The verb.
        verb: &'static str,
        /// The word.
        kind: String,
    },
    /// The reply of another request.
    #[error("the answer to {verb} carries the id {got}, not {expected}")]
    WrongId {
        /// The verb.
        verb: &'static str,
        /// The request's id.
        expected: u64,
        /// The reply's id.
        got: u64,
    },
    /// More than one line for one request, or a line that nobody asked for.
    #[error("after {after} came a second line that nobody asked for: {line:?}")]
    SecondReply {
        /// The verb that had been answered already, or "the start".
        after: &'static str,
        /// The line's beginning.
        line: String,
    },
    /// A line that passed the limit before it ended.
    #[error("the answer to {verb} passed {limit_bytes} bytes without an end of line")]
    Oversized {
        /// The verb.
        verb: &'static str,
        /// The limit.
        limit_bytes: usize,
    },
    /// A line that began and did not end.
    #[error(
        "the answer to {verb} stopped after {bytes} bytes without an end of line, within {deadline:?}"
    )]
    PartialLine {
        /// The verb.
        verb: &'static str,
        /// Bytes received.
        bytes: usize,
        /// What it had.
        deadline: Duration,
    },
    /// No answer in time.
    #[error("no answer to {verb} within {deadline:?}")]
    Hang {
        /// The verb.
        verb: &'static str,
        /// What it had.
        deadline: Duration,
    },
    /// `hello` was answered with another version.
    #[error("the subject speaks protocol version {got}, not {expected}")]
    WrongProtocol {
        /// The harness's version.
        expected: u32,
        /// The subject's.
        got: String,
    },
    /// The socket was closed by a process that lives on.
    #[error("the subject closed its socket during {verb} and lives on")]
    SocketClosed {
        /// The verb.
        verb: &'static str,
    },
    /// The subject ended by itself before `quit` was answered.
    #[error("the subject exited with status {status} during {verb}, before it answered `quit`")]
    ExitedEarly {
        /// What was going on.
        verb: &'static str,
        /// Its exit status, 0 included.
        status: i32,
    },
    /// A signal that the harness did not send.
    #[error("the subject died by {name} (signal {signal}) during {verb}{}", if *core { ", core dumped" } else { "" })]
    Signalled {
        /// What was going on.
        verb: &'static str,
        /// The signal's number.
        signal: i32,
        /// Its name, as in `SIGSEGV`.
        name: String,
        /// Whether the kernel wrote a core file.
        core: bool,
    },
    /// `quit` was answered, the exit status is not 0.
    #[error("the subject exited with status {status} after it answered `quit`; 0 is right")]
    ExitStatusAfterQuit {
        /// Its exit status.
        status: i32,
    },
    /// The socket was closed by the harness without `quit`; the subject should end with another status than 0.
    #[error(
        "the subject exited with status 0 when its socket closed without `quit`; another status is right"
    )]
    ExitStatusWithoutQuit,
    /// It should have ended, and did not.
    #[error("the subject was still running {deadline:?} after {}", if *quit { "it answered `quit`" } else { "its socket closed" })]
    Lingers {
        /// Whether `quit` was answered.
        quit: bool,
        /// What it had.
        deadline: Duration,
    },
    /// More on a standard stream than a subject has reason to write.
    #[error(
        "the subject wrote {bytes} bytes to {stream}; at most {limit_bytes} are taken for ordinary"
    )]
    Flood {
        /// Which.
        stream: Stream,
        /// How much, up to the end.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// Processes of its tree that outlived it.
    #[error("the subject left {} running: {}", counted(processes.len()), listed(processes))]
    LeftChildren {
        /// Which.
        processes: Vec<LeftProcess>,
    },
}

fn counted(count: usize) -> String {
    if count == 1 {
        "a process".into()
    } else {
        format!("{count} processes")
    }
}

fn listed(processes: &[LeftProcess]) -> String {
    processes
        .iter()
        .map(|process| format!("{} ({})", process.pid, process.command))
        .collect::<Vec<_>>()
        .join(", ")
}
