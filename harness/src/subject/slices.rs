//! A subject that runs for slices of time between looks: for where the kernel permits no tracing. What it does within a slice is seen
//! only afterwards.

use crate::settle::settle;
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use std::{
    os::fd::{AsFd, OwnedFd},
    thread,
    time::Duration,
};

/// How long the subject runs between two looks.
const SLICE: Duration = Duration::from_micros(60);

/// How long its threads may take to stand still: one may be in an uninterruptible disk access.
pub(super) const STOP_BOUND: Duration = Duration::from_millis(200);

/// A process that stands still; dropped, it goes on.
pub(super) struct Slices<'a> {
    pid: Pid,
    process: &'a OwnedFd,
}

impl<'a> Slices<'a> {
    /// Stops the process. Nobody reaps it while this lives.
    pub(super) fn stop(pid: Pid, process: &'a OwnedFd) -> Self {
        let slices = Self { pid, process };
        slices.stand_still();
        slices
    }

    /// Lets it run for a slice; false when it has ended.
    pub(super) fn run_one(&self) -> bool {
        if kill(self.pid, Signal::SIGCONT).is_err() {
            return false;
        }
        thread::sleep(SLICE);
        self.stand_still()
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(
            waitid(Id::PIDFd(self.process.as_fd()), flags),
            Ok(WaitStatus::StillAlive)
        )
    }

    fn stand_still(&self) -> bool {
        // Fails only for a process that is gone already.
        if kill(self.pid, Signal::SIGSTOP).is_err() {
            return false;
        }
        settle(STOP_BOUND, || self.stands_still().then_some(()));
        !self.has_ended()
    }

    /// All threads are stopped, or the process has ended.
    fn stands_still(&self) -> bool {
        let flags = WaitPidFlag::WSTOPPED
            | WaitPidFlag::WEXITED
            | WaitPidFlag::WNOHANG
            | WaitPidFlag::WNOWAIT;
        !matches!(
            waitid(Id::PIDFd(self.process.as_fd()), flags),
            Ok(WaitStatus::StillAlive)
        )
    }
}

impl Drop for Slices<'_> {
    fn drop(&mut self) {
        // Fails only for a process that is gone already.
        let _ = kill(self.pid, Signal::SIGCONT);
    }
}

#[cfg(test)]
mod tests {
    //! What a process does that runs in slices, and after the last.
    use super::{
        super::{pidfd::pidfd, trace::tests::Writers},
        *,
    };
    use std::time::Instant;

    const BOUND: Duration = Duration::from_secs(20);

    #[test]
    fn a_process_does_nothing_between_slices_and_goes_on_after_the_last() {
        let writers = Writers::start();
        let process = pidfd(writers.pid().as_raw().cast_unsigned()).unwrap();
        let slices = Slices::stop(writers.pid(), &process);
        let more = writers.more_than(writers.total());
        let started = Instant::now();
        while !more() && started.elapsed() < BOUND {
            assert!(slices.run_one());
        }
        let total = writers.total();
        assert!(more());
        assert!(slices.stands_still());
        assert_eq!(writers.total(), total);
        drop(slices);
        assert!(writers.write_more_than(total));
    }
}
