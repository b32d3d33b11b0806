//! A subject that goes from system call to system call while somebody looks: nothing that shows outside happens between two of
//! them, so that no moment is missed, however busy the machine is.

use super::unnamed::{self, Unnamed};
use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, thread,
    time::{Duration, Instant},
};

/// Between two looks for a thread that has stopped.
const PAUSE: Duration = Duration::from_micros(20);

/// How long a thread may take to stop once more: it may be in an uninterruptible disk access.
const LETTING_GO_BOUND: Duration = Duration::from_secs(1);

/// Whether to go on after a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    /// The thread stands still: the look was for it.
    Stay,
    /// Nothing more is looked for.
    Over,
}

/// Who goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    All,
    /// All but the one that a look was for when it was to stay.
    Others,
}

/// What ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// A look said so; the thread that it was for stands still.
    Looked,
    /// It was over.
    Over,
    /// The process has ended.
    Ended,
}

/// The threads of a process, traced by the thread that made this; dropped, they go on untraced.
pub(super) struct Traced {
    process: Pid,
    /// Threads that stand still.
    halted: BTreeMap<Pid, Halt>,
    /// What has happened, and is not dealt with yet.
    pending: VecDeque<Event>,
}

/// Why a thread stands still.
enum Halt {
    /// A look was for it.
    Looked,
    /// It was told to, or a signal came for it.
    Told(Option<Signal>),
}

/// What happened to the threads.
enum Event {
    Nothing,
    Call(Pid),
    Interrupted(Pid, Option<Signal>),
    /// A thread ended, or the wait for one was interrupted.
    Passing,
    Ended,
}

impl Traced {
    /// Has every thread of the process stop, which [`Traced::halt`] waits for.
    ///
    /// # Errors
    /// The kernel does not permit it.
    pub(super) fn stop(process: Pid) -> Result<Self, Errno> {
        // Short pauses must be short: the default slack is longer than they are. A longer one only costs time.
        let _ = nix::sys::prctl::set_timerslack(1);
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
        ptrace::seize(process, options)?;
        let traced = Self {
            process,
            halted: BTreeMap::new(),
            pending: VecDeque::new(),
        };
        ptrace::interrupt(process)?;
        let mut known = BTreeSet::from([process]);
        loop {
            let threads = traced.threads().into_iter();
            let new: Vec<Pid> = threads.filter(|thread| known.insert(*thread)).collect();
            if new.is_empty() {
                return Ok(traced);
            }
            for thread in new {
                // Fails for one that has ended meanwhile, and for one that a traced thread has just started.
                if ptrace::seize(thread, options).is_ok() {
                    let _ = ptrace::interrupt(thread);
                }
            }
        }
    }

    /// Lets threads run, each to its next system call and to the end of that, and asks `look` at every such stop; until it
    /// says so, the process has ended, or `over` holds while nobody is stopped. `over` is told for how long there was no such stop, once
    /// there was one.
    pub(super) fn run(
        &mut self,
        whom: Whom,
        mut look: impl FnMut() -> Next,
        mut over: impl FnMut(Option<Duration>) -> bool,
    ) -> Ran {
        self.go_on(whom);
        let mut quiet_since: Option<Instant> = None;
        loop {
            match self.event() {
                Event::Nothing => {
                    if over(quiet_since.map(|since| since.elapsed())) {
                        return Ran::Over;
                    }
                    thread::sleep(PAUSE);
                }
                Event::Call(thread) => {
                    // What was due while nobody looked is no quiet.
                    quiet_since = Some(Instant::now());
                    match look() {
                        // Fails only for a thread that was killed meanwhile.
                        Next::GoOn => {
                            let _ = ptrace::syscall(thread, None);
                        }
                        Next::Stay => {
                            self.halted.insert(thread, Halt::Looked);
                            return Ran::Looked;
                        }
                        Next::Over => {
                            self.halted.insert(thread, Halt::Told(None));
                            return Ran::Over;
                        }
                    }
                }
                Event::Interrupted(thread, signal) => {
                    let _ = ptrace::syscall(thread, signal);
                }
                Event::Passing => {}
                Event::Ended => return Ran::Ended,
            }
        }
    }

    /// Halts every thread, and waits for that, at most `bound`: one may be in an uninterruptible disk access.
    pub(super) fn halt(&mut self, bound: Duration) {
        let started = Instant::now();
        let mut told = BTreeSet::new();
        loop {
            if self.has_ended() {
                return;
            }
            let mut missing = self.threads();
            missing.retain(|thread| !self.halted.contains_key(thread));
            if missing.is_empty() || started.elapsed() >= bound {
                return;
            }
            for thread in missing {
                if told.insert(thread) {
                    // Fails only for a thread that has ended.
                    let _ = ptrace::interrupt(thread);
                }
            }
            thread::sleep(PAUSE);
        }
    }

    /// Whether the process has ended; whoever has stopped meanwhile stands still.
    pub(super) fn has_ended(&mut self) -> bool {
        loop {
            match self.event() {
                Event::Nothing => return false,
                Event::Call(thread) => drop(self.halted.insert(thread, Halt::Told(None))),
                Event::Interrupted(thread, signal) => {
                    self.halted.insert(thread, Halt::Told(signal));
                }
                Event::Passing => {}
                Event::Ended => return true,
            }
        }
    }

    fn go_on(&mut self, whom: Whom) {
        let halted = std::mem::take(&mut self.halted);
        for (thread, halt) in halted {
            // Fails only for a thread that was killed meanwhile.
            match (whom, &halt) {
                (Whom::Others, Halt::Looked) => drop(self.halted.insert(thread, halt)),
                (Whom::All, Halt::Looked) => {
                    let _ = ptrace::syscall(thread, None);
                }
                (Whom::All | Whom::Others, Halt::Told(signal)) => {
                    let _ = ptrace::syscall(thread, *signal);
                }
            }
        }
    }

    /// What happened next. Whoever has stopped is served before anybody stops again: the kernel would show the same few first.
    fn event(&mut self) -> Event {
        if self.pending.is_empty() {
            loop {
                match self.taken() {
                    Event::Nothing => break,
                    event => self.pending.push_back(event),
                }
                if matches!(self.pending.back(), Some(Event::Ended)) {
                    break;
                }
            }
        }
        self.pending.pop_front().unwrap_or(Event::Nothing)
    }

    /// The next stop, taken; or the next end, which is left to be seen: that of the process is its supervisor's.
    fn taken(&mut self) -> Event {
        match stopped(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::StillAlive) => Event::Nothing,
            Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..)) => {
                if thread == self.process {
                    return Event::Ended;
                }
                self.halted.remove(&thread);
                // Its number must not be seen again.
                let _ = stopped(Id::Pid(thread), WaitPidFlag::WEXITED);
                Event::Passing
            }
            Ok(status) => {
                let Some(thread) = status.pid() else {
                    return Event::Passing;
                };
                // One that was killed since has no stop to be taken.
                match stopped(Id::Pid(thread), WaitPidFlag::empty()) {
                    Ok(WaitStatus::PtraceSyscall(thread)) => Event::Call(thread),
                    Ok(WaitStatus::StillAlive) | Err(_) => Event::Passing,
                    Ok(status) => Event::Interrupted(thread, on_its_way(status)),
                }
            }
            Err(Errno::EINTR) => Event::Passing,
            Err(Errno::EINVAL) => match unnamed::pass_on() {
                Unnamed::Ended(thread) if thread == self.process => Event::Ended,
                Unnamed::Ended(thread) => {
                    self.halted.remove(&thread);
                    let _ = stopped(Id::Pid(thread), WaitPidFlag::WEXITED);
                    Event::Passing
                }
                Unnamed::PassedOn => Event::Passing,
                Unnamed::Nothing => Event::Nothing,
            },
            Err(_) => Event::Ended,
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
    /// A thread that its tracer leaves in the middle of a stop takes the stop for a signal, so each is let go by name. One that
    /// does not stop in time is let go when its tracer ends.
    fn drop(&mut self) {
        self.halt(LETTING_GO_BOUND);
        let mut killed = Vec::new();
        for (thread, halt) in std::mem::take(&mut self.halted) {
            let signal = match halt {
                Halt::Looked => None,
                Halt::Told(signal) => signal,
            };
            if ptrace::detach(thread, signal).is_err() {
                killed.push(thread);
            }
        }
        // Nobody sees the end of a process before its tracer has seen that of every thread.
        let started = Instant::now();
        while !killed.is_empty() && !self.has_ended() && started.elapsed() < LETTING_GO_BOUND {
            let there = self.threads();
            killed.retain(|thread| there.contains(thread));
            thread::sleep(PAUSE);
        }
    }
}

/// The next stop of threads that this thread traces; with `WEXITED` also their end.
fn stopped(which: Id<'_>, more: WaitPidFlag) -> Result<WaitStatus, Errno> {
    let flags = WaitPidFlag::WSTOPPED
        | WaitPidFlag::WNOHANG
        | WaitPidFlag::__WALL
        | WaitPidFlag::__WNOTHREAD;
    waitid(which, flags | more)
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
#[path = "trace_tests.rs"]
pub(super) mod tests;
