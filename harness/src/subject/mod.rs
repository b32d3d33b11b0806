//! A subject: started, spoken to, watched to its end, and reaped with everything it started.
//!
//! - Death with the harness: every subject is forked by one thread that lives as long as the harness, and asks for
//!   `SIGKILL` when that thread ends. The signal reaches the subject itself, not what it started in turn.
//! - Whole tree reaped: see `tree.rs`. No exit status is taken from anyone else.
//! - A subject cannot hold the harness up: each wait has a deadline, each line a limit, each stream a reader.

mod capture;
mod client;
mod command;
mod finding;
mod helper;
mod interrupt;
mod kin;
mod pidfd;
mod reply;
mod slices;
mod stepped;
mod taken;
mod trace;
mod tree;
mod unnamed;

pub use capture::Captured;
pub use command::{Limits, SubjectCommand, TREE_VARIABLE};
pub use finding::{CallOutcome, Finding, LeftProcess, Stream};
pub(crate) use helper::Helper;
pub use interrupt::Killed;
pub(crate) use stepped::{Stepped, Until};

use crate::{error::HarnessError, sandbox::Sandbox};
use capture::{Capture, flood};
use client::{Broken, Client};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};
use pidfd::pidfd;
use spillproof_protocol::Request;
use std::{
    ffi::OsString,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    process::Child,
    time::{Duration, Instant},
};
use tree::Tree;

/// How long a process whose socket closed may take to end before it counts as living on.
const CLOSING_GRACE: Duration = Duration::from_secs(1);

/// How long children may take to end after their subject.
const CHILDREN_GRACE: Duration = Duration::from_millis(200);

/// How long killed processes may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReport {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal.
    Signalled {
        /// Its number.
        signal: i32,
        /// Whether a core file was written.
        core: bool,
    },
    /// Not even by `SIGKILL`, in ten seconds: it hangs in the kernel.
    Unkillable,
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Signalled { signal, core } => write!(
                f,
                "{}{}",
                signal_name(*signal),
                if *core { ", core dumped" } else { "" }
            ),
            Self::Unkillable => f.write_str("still there 10 s after SIGKILL"),
        }
    }
}

/// All that is known of a subject once it is gone.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended.
    pub exit: ExitReport,
    /// Whether the harness killed it; `exit` says nothing about the subject then.
    pub killed: bool,
    /// Standard output.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
    /// Every finding of its life, in order, those that calls returned included.
    pub findings: Vec<Finding>,
}

/// A running subject. Dropping it kills and reaps the whole tree.
#[derive(Debug)]
pub struct Subject {
    child: Child,
    process: OwnedFd,
    client: Client,
    capture: Option<Capture>,
    tree: Tree,
    limits: Limits,
    findings: Vec<Finding>,
    broken: Option<Finding>,
    quit: bool,
    killed: bool,
    reaped: bool,
}

impl Subject {
    /// Starts a subject in its sandbox with a scrubbed environment: `PATH`, `HOME`, `TMPDIR`, `LANG`, `RUST_BACKTRACE`, `OFFLOAD_DIR`,
    /// the socket, then `device_env`, then what the command itself asks for.
    ///
    /// # Errors
    /// The executable cannot be run, or the system lacks what supervision needs.
    pub fn spawn(
        command: &SubjectCommand,
        sandbox: &Sandbox,
        device_env: Vec<(OsString, OsString)>,
        limits: Limits,
    ) -> Result<Self, HarnessError> {
        let mut started = command::start(command, sandbox, device_env, limits)?;
        let pid = started.child.id();
        let pipes = started.child.stdout.take().zip(started.child.stderr.take());
        let prepared = (|| {
            let process = pidfd(pid).map_err(HarnessError::system("pidfd_open"))?;
            let client = Client::new(started.socket, limits.line_bytes)
                .map_err(HarnessError::system("fcntl"))?;
            let (stdout, stderr) = pipes.ok_or_else(|| {
                HarnessError::system("pipe")(io::Error::from(io::ErrorKind::BrokenPipe))
            })?;
            let capture = Capture::start(pid, stdout.into(), stderr.into())
                .map_err(HarnessError::system("capture thread"))?;
            Ok((process, client, capture))
        })();
        match prepared {
            Ok((process, client, capture)) => Ok(Self {
                tree: Tree::new(pid, started.mark),
                child: started.child,
                process,
                client,
                capture: Some(capture),
                limits,
                findings: Vec::new(),
                broken: None,
                quit: false,
                killed: false,
                reaped: false,
            }),
            Err(error) => {
                // Fails only for a process that is gone already.
                let _ = started.child.kill();
                let _ = started.child.wait();
                tree::unregister(pid);
                Err(error)
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request and waits for its reply; nothing else is outstanding.
    ///
    /// # Errors
    /// What the subject did instead of answering. A subject that once broke the protocol is not spoken to again: later
    /// calls return the same finding.
    pub fn call(&mut self, request: &Request, deadline: Duration) -> Result<CallOutcome, Finding> {
        self.call_timed(request, deadline)
            .map(|(outcome, _)| outcome)
    }

    /// The same, with the time from the request to its reply: what the harness then looks at is not in it.
    ///
    /// # Errors
    /// As [`Subject::call`].
    pub fn call_timed(
        &mut self,
        request: &Request,
        deadline: Duration,
    ) -> Result<(CallOutcome, Duration), Finding> {
        let start = Instant::now();
        let called = self.speak_unseen(|client, process| client.call(request, deadline, process));
        let took = start.elapsed();
        // A question about what there is comes behind each request, and starts nobody.
        if !matches!(request, Request::Status(_)) {
            self.tree.look();
        }
        if let Ok(outcome) = &called {
            self.quit |= matches!((request, outcome), (Request::Quit(_), CallOutcome::Ok(_)));
        }
        called.map(|outcome| (outcome, took))
    }

    /// Sends a request without waiting for its reply, and returns the reply's id: for a subject that is `concurrent`.
    ///
    /// # Errors
    /// As [`Subject::call`].
    pub fn begin(&mut self, request: &Request, deadline: Duration) -> Result<u64, Finding> {
        self.speak(|client, process| client.begin(request, deadline, process))
    }

    /// Waits for the reply to any request that was begun; `None` when none has come until then.
    ///
    /// # Errors
    /// As [`Subject::call`]; a reply to nothing that is outstanding, or one past its deadline, is a finding.
    pub fn answer(
        &mut self,
        until: Option<Instant>,
    ) -> Result<Option<(u64, CallOutcome)>, Finding> {
        self.speak(|client, process| client.answer(until, process))
    }

    /// Whether a reply has come that nobody has read yet.
    pub(crate) fn has_answered(&self) -> bool {
        self.client.answers().have_come()
    }

    /// Whether it has read everything that it was asked.
    pub(crate) fn has_taken_all(&self) -> bool {
        self.client.answers().has_taken_all()
    }

    fn speak<T>(
        &mut self,
        speak: impl FnOnce(&mut Client, &OwnedFd) -> Result<T, Broken>,
    ) -> Result<T, Finding> {
        let spoken = self.speak_unseen(speak);
        self.tree.look();
        spoken
    }

    /// Speaks without looking who is below the subject.
    fn speak_unseen<T>(
        &mut self,
        speak: impl FnOnce(&mut Client, &OwnedFd) -> Result<T, Broken>,
    ) -> Result<T, Finding> {
        if let Some(finding) = &self.broken {
            return Err(finding.clone());
        }
        let result = speak(&mut self.client, &self.process);
        let finding = match result {
            Ok(value) => return Ok(value),
            Err(Broken::Found(finding)) => finding,
            Err(Broken::Closed { verb }) => self.closed(verb),
        };
        self.broken = Some(finding.clone());
        self.findings.push(finding.clone());
        Err(finding)
    }

    /// Kills the subject, as its death by `SIGKILL` or its hanging asks for. [`Subject::finish`] then reaps the tree.
    pub fn kill(&mut self) {
        self.killed |= self.exit().is_none();
        // Fails only for a process that is gone already.
        let _ = self.child.kill();
    }

    /// How it ended, if it has; its status stays to be taken by [`Subject::finish`].
    #[must_use]
    pub fn exit(&self) -> Option<ExitReport> {
        pidfd::exit(self.process.as_fd())
    }

    /// Waits for the end, at most `deadline`: after `quit` was answered the subject should exit with 0; else its socket is closed and it
    /// should exit with another status. One that broke the protocol is killed at once. Then whatever is left of its tree is killed and reaped.
    #[must_use]
    pub fn finish(mut self, deadline: Duration) -> Ended {
        if let Err(finding) = self.client.unasked()
            && self.broken.is_none()
        {
            self.findings.push(finding);
        }
        let before = self.exit();
        if self.broken.is_some() {
            self.kill();
        }
        if !self.quit {
            self.client.close();
        }
        if !self.killed && !self.wait(deadline) {
            self.findings.push(Finding::Lingers {
                quit: self.quit,
                deadline,
            });
            self.kill();
        }
        if !self.killed {
            self.judge_exit(before.is_some());
        }
        if !self.killed || had_time_to_end(before) {
            let processes = self.tree.left(CHILDREN_GRACE);
            if !processes.is_empty() {
                self.findings.push(Finding::LeftChildren { processes });
            }
        }
        let exit = self.end();
        let [stdout, stderr] = self.capture.take().map(Capture::finish).unwrap_or_default();
        let limit = self.limits.stream_bytes;
        self.findings.extend(flood(Stream::Stdout, &stdout, limit));
        self.findings.extend(flood(Stream::Stderr, &stderr, limit));
        Ended {
            exit,
            killed: self.killed,
            stdout,
            stderr,
            findings: std::mem::take(&mut self.findings),
        }
    }

    /// What it means that the socket closed during `verb`.
    fn closed(&mut self, verb: &'static str) -> Finding {
        self.wait(CLOSING_GRACE);
        match self.exit() {
            Some(exit) => ended_early(verb, exit),
            None => Finding::SocketClosed { verb },
        }
    }

    fn judge_exit(&mut self, before_close: bool) {
        let known = self.findings.iter().any(|finding| {
            matches!(
                finding,
                Finding::ExitedEarly { .. } | Finding::Signalled { .. }
            )
        });
        let Some(exit) = self.exit().filter(|_| !known) else {
            return;
        };
        let finding = match exit {
            ExitReport::Exited(0) if self.quit => return,
            ExitReport::Exited(status) if self.quit => Finding::ExitStatusAfterQuit { status },
            ExitReport::Exited(_) if before_close => ended_early("no call", exit),
            ExitReport::Exited(0) => Finding::ExitStatusWithoutQuit,
            ExitReport::Exited(_) => return,
            ExitReport::Signalled { .. } | ExitReport::Unkillable => ended_early("its end", exit),
        };
        self.findings.push(finding);
    }

    /// Waits for the process to end, without taking its status.
    fn wait(&self, deadline: Duration) -> bool {
        let start = Instant::now();
        loop {
            if self.exit().is_some() {
                return true;
            }
            let Some(left) = deadline.checked_sub(start.elapsed()) else {
                return false;
            };
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
            // Interrupted or not, the status tells.
            let _ = poll(
                &mut [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)],
                timeout.unwrap_or(PollTimeout::MAX),
            );
        }
    }

    /// Kills what is left and takes the status. The subject is reaped last: until then its pid, which names the session of its
    /// tree, is nobody else's.
    fn end(&mut self) -> ExitReport {
        self.kill_quietly();
        let gone = self.wait(KILL_DEADLINE);
        self.tree.end(KILL_DEADLINE);
        let exit = self.exit().unwrap_or(ExitReport::Unkillable);
        if gone {
            // The status was read above; this frees the pid.
            let _ = self.child.wait();
        }
        tree::unregister(self.child.id());
        self.reaped = true;
        exit
    }

    fn kill_quietly(&mut self) {
        self.tree.look();
        let _ = self.child.kill();
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if !self.reaped {
            self.end();
        }
        if let Some(capture) = self.capture.take() {
            capture.finish();
        }
    }
}

/// Whether it ended by itself or by SIGTERM, which leaves time to end what it started; SIGKILL leaves none.
fn had_time_to_end(exit: Option<ExitReport>) -> bool {
    match exit {
        Some(ExitReport::Exited(_)) => true,
        Some(ExitReport::Signalled { signal, .. }) => signal == Signal::SIGTERM as i32,
        Some(ExitReport::Unkillable) | None => false,
    }
}

fn ended_early(verb: &'static str, exit: ExitReport) -> Finding {
    match exit {
        ExitReport::Exited(status) => Finding::ExitedEarly { verb, status },
        ExitReport::Signalled { signal, core } => Finding::Signalled {
            verb,
            signal,
            name: signal_name(signal),
            core,
        },
        ExitReport::Unkillable => Finding::Lingers {
            quit: false,
            deadline: KILL_DEADLINE,
        },
    }
}

fn signal_name(signal: i32) -> String {
    Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}
