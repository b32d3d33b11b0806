//! Ending a subject by a signal at a moment seen from outside.
//!
//! While a verb is worked on the subject runs in short slices and stands still between them: whatever the machine's load, the
//! moment is looked for often enough, and the signal comes before the next slice. It also gets the lowest priority: whoever
//! looks comes first.
#![allow(unsafe_code)]

use super::{Broken, ExitReport, Finding, Subject};
use crate::{crash::Deadly, settle::settle};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use spillproof_protocol::Request;
use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long the subject runs between two looks.
const SLICE: Duration = Duration::from_micros(60);

/// What `nice 19` gives.
const LOWEST_PRIORITY: libc::c_int = 19;

/// How long its threads may take to stand still: one may be in an uninterruptible disk access.
const STOP_BOUND: Duration = Duration::from_millis(200);

/// How a subject that was sent a signal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    /// Whether the signal came while the verb was worked on.
    pub landed: bool,
    /// How the process ended; nothing when it lives on.
    pub exit: Option<ExitReport>,
    /// How long its end took from the signal on.
    pub wall: Duration,
}

impl Subject {
    /// Sends a request and, once `due` says so, the signal; then waits for the end, at most `deadline`. A request that is answered
    /// before is followed by the signal all the same. Nothing but [`Subject::finish`] can be done afterwards.
    ///
    /// # Errors
    /// What the subject did wrong before the signal.
    pub fn kill_during(
        &mut self,
        request: &Request,
        deadline: Duration,
        deadly: Deadly,
        due: impl FnMut() -> bool + Send,
    ) -> Result<Killed, Finding> {
        if let Some(finding) = &self.broken {
            return Err(finding.clone());
        }
        let answered = AtomicBool::new(false);
        let (client, process) = (&mut self.client, &self.process);
        let pid = Pid::from_raw(self.child.id().cast_signed());
        yield_priority(self.child.id());
        // It begins when the watch lets it.
        let _ = kill(pid, Signal::SIGSTOP);
        let (result, sent) = thread::scope(|scope| {
            let watch = scope.spawn(|| watch(pid, process, deadly, due, &answered));
            let result = client.call(request, deadline, process);
            answered.store(true, Ordering::Release);
            (result, watch.join().unwrap_or(None))
        });
        let landed = match (&result, deadly) {
            (Err(Broken::Found(finding)), _) if sent.is_none() => {
                let finding = finding.clone();
                self.broken = Some(finding.clone());
                self.findings.push(finding.clone());
                return Err(finding);
            }
            (Err(Broken::Found(_) | Broken::Closed { .. }), _) | (Ok(_), Deadly::Terminate) => {
                sent.is_some()
            }
            // It stood still with the answer sent.
            (Ok(_), Deadly::Kill) => false,
        };
        let killed = self.end_by(deadly, sent, deadline);
        Ok(Killed { landed, ..killed })
    }

    /// Stops the subject; it answers nothing until it goes on.
    pub(crate) fn stand_still(&self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // Fails only for a process that is gone already.
        if kill(pid, Signal::SIGSTOP).is_ok() {
            settle(STOP_BOUND, || stands_still(&self.process).then_some(()));
        }
    }

    /// Lets the subject go on, for a slice of time when it is to be stopped again.
    pub(crate) fn go_on(&self, slice_only: bool) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // Fails only for a process that is gone already.
        let _ = kill(pid, Signal::SIGCONT);
        let started = Instant::now();
        while slice_only && started.elapsed() < SLICE {
            thread::yield_now();
        }
    }

    /// Sends the signal while nothing is asked of the subject, and waits for its end.
    pub fn kill_idle(&mut self, deadline: Duration, deadly: Deadly) -> Killed {
        let killed = self.end_by(deadly, None, deadline);
        Killed {
            landed: true,
            ..killed
        }
    }

    fn end_by(&mut self, deadly: Deadly, sent: Option<Instant>, deadline: Duration) -> Killed {
        let sent = sent.unwrap_or_else(|| {
            let pid = Pid::from_raw(self.child.id().cast_signed());
            // Fails only for a process that is gone already, which its exit tells.
            let _ = kill(pid, deadly.signal());
            Instant::now()
        });
        self.tree.look();
        self.wait(deadline);
        let wall = sent.elapsed();
        // How it ended is the case's to judge.
        self.killed = true;
        Killed {
            landed: false,
            exit: self.exit(),
            wall,
        }
    }
}

/// Lets the process run slice by slice until the moment has come or the call has ended. When the signal was sent, if it was.
fn watch(
    pid: Pid,
    process: &OwnedFd,
    deadly: Deadly,
    mut due: impl FnMut() -> bool,
    answered: &AtomicBool,
) -> Option<Instant> {
    // The process is not reaped before this returns, so that its number is its own: signals fail only once it has ended.
    let send = |signal: Signal| kill(pid, signal).is_ok();
    let mut sent = None;
    while !answered.load(Ordering::Acquire) {
        if !send(Signal::SIGSTOP) {
            break;
        }
        settle(STOP_BOUND, || stands_still(process).then_some(()));
        if due() {
            sent = send(deadly.signal()).then(Instant::now);
            break;
        }
        send(Signal::SIGCONT);
        let slice = Instant::now();
        while slice.elapsed() < SLICE && !answered.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }
    send(Signal::SIGCONT);
    sent
}

/// Gives every thread the lowest priority. There is no way back without privileges, and none is needed: the process ends.
fn yield_priority(pid: u32) {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let numbers = threads.into_iter().flatten().flatten();
    for thread in numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        // SAFETY: plain system call on a number; a thread that ended meanwhile is an error that changes nothing.
        let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, LOWEST_PRIORITY) };
    }
}

/// All threads are stopped, or the process has ended.
fn stands_still(process: &OwnedFd) -> bool {
    let flags =
        WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(
        waitid(Id::PIDFd(process.as_fd()), flags),
        Ok(WaitStatus::StillAlive)
    )
}
