//! A subject that goes from system call to system call while somebody looks: nothing that shows outside happens between two of
//! them, so that no moment is missed, however busy the machine is.

use crate::settle::settle;
use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};
use std::{fs, thread, time::Duration};

/// Between two looks for a thread that has stopped.
const PAUSE: Duration = Duration::from_micros(20);

/// How long a thread may take to stop once more: it may be in an uninterruptible disk access.
const LETTING_GO_BOUND: Duration = Duration::from_secs(1);

/// Whether to go on after a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    LetGo,
}

/// The threads of a process, traced by the thread that made this; dropped, they go on untraced.
pub(super) struct Traced {
    process: Pid,
}

impl Traced {
    /// Stops every thread of the process.
    ///
    /// # Errors
    /// The kernel does not permit it, or a thread has ended.
    pub(super) fn stop(process: Pid) -> Result<Self, Errno> {
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
        let traced = Self { process };
        for thread in traced.threads() {
            ptrace::seize(thread, options)?;
            ptrace::interrupt(thread)?;
        }
        Ok(traced)
    }

    /// Lets the threads run, each to its next system call and to the end of that, and asks `look` at every such stop; until it
    /// says so, the process has ended, or `over` holds while nobody is stopped.
    pub(super) fn run(self, mut look: impl FnMut() -> Next, over: impl Fn() -> bool) {
        loop {
            match stopped(Id::All) {
                Ok(WaitStatus::StillAlive) => {
                    if over() {
                        return;
                    }
                    thread::sleep(PAUSE);
                }
                Ok(WaitStatus::PtraceSyscall(thread)) => match look() {
                    // Fails only for a thread that was killed meanwhile.
                    Next::GoOn => drop(ptrace::syscall(thread, None)),
                    Next::LetGo => return,
                },
                Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..))
                    if thread != self.process =>
                {
                    // Its number must not be seen again.
                    let _ = waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
                }
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return,
                Ok(status) => {
                    if let Some(thread) = status.pid() {
                        let _ = ptrace::syscall(thread, on_its_way(status));
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn threads(&self) -> Vec<Pid> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process));
        let names = tasks.into_iter().flatten().flatten();
        names
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .map(Pid::from_raw)
            .collect()
    }
}

impl Drop for Traced {
    /// A thread that its tracer leaves in the middle of a stop takes the stop for a signal, so each is let go by name.
    fn drop(&mut self) {
        for thread in self.threads() {
            let _ = ptrace::interrupt(thread);
            settle(LETTING_GO_BOUND, || match stopped(Id::Pid(thread)) {
                Ok(WaitStatus::StillAlive) => None,
                Ok(status) => {
                    let _ = ptrace::detach(thread, on_its_way(status));
                    Some(())
                }
                Err(_) => Some(()),
            });
        }
    }
}

/// The next stop or end of threads that this thread traces. It is left to be seen: the end of the process is its supervisor's.
fn stopped(which: Id<'_>) -> Result<WaitStatus, Errno> {
    let flags = WaitPidFlag::WSTOPPED
        | WaitPidFlag::WEXITED
        | WaitPidFlag::WNOHANG
        | WaitPidFlag::WNOWAIT
        | WaitPidFlag::__WALL
        | WaitPidFlag::__WNOTHREAD;
    waitid(which, flags)
}

/// The signal that a thread was stopped for; any other stop is the tracer's own.
fn on_its_way(status: WaitStatus) -> Option<Signal> {
    match status {
        WaitStatus::PtraceEvent(_, signal, 0) => Some(signal),
        WaitStatus::Stopped(_, signal) => Some(signal),
        WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::Exited(..)
        | WaitStatus::Signaled(..)
        | WaitStatus::Continued(_)
        | WaitStatus::StillAlive => None,
    }
}

#[cfg(test)]
mod tests {
    //! What a process that is stopped at every system call shows, and that it ends as it would have.
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_does_nothing_unseen_between_two_looks() {
        let directory = tempfile::tempdir().unwrap();
        let files = || fs::read_dir(directory.path()).unwrap().count();
        let mut child = Command::new("sh")
            .args([
                "-c",
                "read line; for i in 1 2 3 4 5 6 7 8 9; do : > $i; done",
            ])
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let traced = Traced::stop(Pid::from_raw(child.id().cast_signed())).unwrap();
        drop(child.stdin.take());
        let mut counts = Vec::new();
        traced.run(
            || {
                counts.push(files());
                Next::GoOn
            },
            || false,
        );
        counts.dedup();
        assert_eq!(counts, (0..=9).collect::<Vec<_>>());
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_process_that_is_let_go_runs_on() {
        let mut child = Command::new("sh")
            .args(["-c", "read line; exit 7"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        thread::scope(|scope| {
            scope.spawn(|| {
                let traced = Traced::stop(pid).unwrap();
                traced.run(|| Next::LetGo, || false);
            });
        });
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }
}
