//! The workspaces of requests: device memory that cannot leave, and what becomes of those who need it.
//!
//! An operation that gets no memory after everything else has left lets the turn go and waits for another request that
//! holds a workspace to end. Somebody always goes on: only requests that do not wait themselves are waited for, so the
//! last of those that would wait gets the error instead.
//!
//! Nobody is overtaken for ever: while somebody waits for memory, a request that has no workspace yet gets none, but queues
//! behind him. So those that hold one become fewer until he is served, or meets out of memory with nobody to wait for.
//! Requests that hold one queue behind nobody; others take only blocks, which can leave again.

use super::{Engine, monitor::Monitor, operation::Operation};
use crate::{Error, cuda::DeviceBuffer};
use std::thread::ThreadId;

/// Who holds a workspace.
#[derive(Debug, Default)]
pub(super) struct Workspaces {
    /// The threads of the requests, and whether they wait for memory.
    pub(super) held: Vec<(ThreadId, bool)>,
    /// How many were given back so far.
    ended: u64,
    /// Threads that wait for memory, or for those before them, till they are served; first come, first served.
    pub(super) line: Vec<ThreadId>,
}

impl Workspaces {
    /// Whether a request other than this thread's holds one and goes on.
    fn may_end_soon(&self, except: ThreadId) -> bool {
        self.held
            .iter()
            .any(|(thread, waits)| *thread != except && !waits)
    }

    /// Whether this thread may wait for more than `ended` workspaces to be given back, and marks it so. One that was given
    /// back since makes the wait short.
    fn may_wait(&mut self, thread: ThreadId, ended: u64) -> bool {
        if self.ended != ended {
            return true;
        }
        let may_end_soon = self.may_end_soon(thread);
        self.set_waiting(thread, may_end_soon);
        may_end_soon
    }

    fn give_back(&mut self, thread: ThreadId) {
        self.held.retain(|held| held.0 != thread);
        self.ended += 1;
        // All of them try again, also those who have not woken up yet.
        for held in &mut self.held {
            held.1 = false;
        }
    }

    /// Whether this thread may get a workspace now: nobody waits before it.
    fn may_reserve(&self, thread: ThreadId) -> bool {
        self.line.first().is_none_or(|first| *first == thread)
    }

    /// Joins the end of the line, where it is not in it.
    fn join_line(&mut self, thread: ThreadId) {
        if !self.line.contains(&thread) {
            self.line.push(thread);
        }
    }

    fn leave_line(&mut self, thread: ThreadId) {
        self.line.retain(|each| *each != thread);
    }

    fn set_waiting(&mut self, thread: ThreadId, waits: bool) {
        for held in self.held.iter_mut().filter(|held| held.0 == thread) {
            held.1 = waits;
        }
    }
}

/// A request's workspace; given back when dropped.
pub(super) struct Workspace<'e> {
    monitor: &'e Monitor,
    thread: ThreadId,
    buffer: Option<DeviceBuffer>,
}

impl Workspace<'_> {
    pub(super) fn address(&self) -> u64 {
        self.buffer.as_ref().map_or(0, DeviceBuffer::address)
    }

    /// Gives it back and tells when the driver refuses.
    pub(super) fn release(mut self) -> Result<(), Error> {
        self.buffer.take().map_or(Ok(()), DeviceBuffer::release)
    }
}

impl Drop for Workspace<'_> {
    fn drop(&mut self) {
        // Before anybody is told that it is free.
        drop(self.buffer.take());
        self.monitor.change(|state| {
            state.workspaces.give_back(self.thread);
        });
    }
}

/// A place in the line of those who wait for memory, once it is joined; left when dropped.
struct Place<'e> {
    monitor: &'e Monitor,
    thread: ThreadId,
    is_joined: bool,
}

impl Place<'_> {
    fn join(&mut self) {
        self.is_joined = true;
        let thread = self.thread;
        self.monitor.lock().workspaces.join_line(thread);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.is_joined {
            let thread = self.thread;
            self.monitor
                .change(|state| state.workspaces.leave_line(thread));
        }
    }
}

impl Engine {
    /// The buffer as the workspace of this operation.
    pub(super) fn workspace(
        &self,
        operation: &Operation<'_>,
        buffer: DeviceBuffer,
    ) -> Workspace<'_> {
        let (monitor, thread) = (&*self.monitor.0, operation.thread());
        monitor.lock().workspaces.held.push((thread, false));
        Workspace {
            monitor,
            thread,
            buffer: Some(buffer),
        }
    }

    /// Does `attempt`, with the turn, until it succeeds or no other request's workspace is in its way. An attempt that
    /// fails holds nothing of the device, and begins anew.
    ///
    /// # Errors
    /// That of the last attempt; [`Error::Cancelled`].
    pub(super) fn with_memory<T>(
        &self,
        operation: &mut Operation<'_>,
        attempt: impl FnMut(&mut Operation<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.attempt_in_line(operation, false, attempt)
    }

    /// As [`Self::with_memory`], for a workspace: behind all who wait for memory already.
    pub(super) fn with_memory_in_line<T>(
        &self,
        operation: &mut Operation<'_>,
        attempt: impl FnMut(&mut Operation<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.attempt_in_line(operation, true, attempt)
    }

    fn attempt_in_line<T>(
        &self,
        operation: &mut Operation<'_>,
        is_for_workspace: bool,
        mut attempt: impl FnMut(&mut Operation<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (monitor, thread) = (&*self.monitor.0, operation.thread());
        let mut place = Place {
            monitor,
            thread,
            is_joined: false,
        };
        loop {
            operation.enter()?;
            if is_for_workspace && !self.state().workspaces.may_reserve(thread) {
                place.join();
                operation.leave();
                monitor.wait_until(operation.stop(), |state| {
                    state.workspaces.may_reserve(thread).then_some(())
                })?;
                continue;
            }
            let ended = self.state().workspaces.ended;
            match attempt(operation) {
                // What is larger than the device never fits.
                Err(Error::DeviceOom {
                    wanted,
                    free,
                    total,
                }) if total == 0 || wanted <= total => {
                    place.join();
                    if !self.wait_for_a_workspace(operation, ended)? {
                        return Err(Error::DeviceOom {
                            wanted,
                            free,
                            total,
                        });
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Lets the turn go and waits until more than `ended` workspaces were given back. False at once when nobody who
    /// holds one goes on.
    fn wait_for_a_workspace(
        &self,
        operation: &mut Operation<'_>,
        ended: u64,
    ) -> Result<bool, Error> {
        let (monitor, thread) = (&self.monitor.0, operation.thread());
        let is_worth_it = self.state().workspaces.may_wait(thread, ended);
        if !is_worth_it {
            return Ok(false);
        }
        operation.leave();
        let waited = monitor.wait_until(operation.stop(), |state| {
            (state.workspaces.ended != ended).then_some(())
        });
        monitor.change(|state| state.workspaces.set_waiting(thread, false));
        waited.map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    //! Who is waited for, and that somebody always goes on.
    use super::*;

    #[derive(Clone, Copy, PartialEq)]
    enum Walk {
        Idle,
        Holds,
        /// Since so many workspaces had ended; whether it holds one itself.
        Waits(u64, bool),
        /// For a workspace, until nobody waits before it.
        Queues,
    }

    /// One thing that one of three requests does; `false` when it cannot do it now.
    fn act(workspaces: &mut Workspaces, walk: &mut Walk, thread: ThreadId, what: u32) -> bool {
        let is_awake = match *walk {
            Walk::Idle | Walk::Holds => true,
            Walk::Waits(ended, _) => workspaces.ended != ended,
            Walk::Queues => workspaces.may_reserve(thread),
        };
        if !is_awake {
            return false;
        }
        let holds = matches!(walk, Walk::Holds | Walk::Waits(_, true));
        workspaces.set_waiting(thread, false);
        match what {
            // It asks for a workspace and gets it.
            0 if !holds && workspaces.may_reserve(thread) => {
                workspaces.held.push((thread, false));
                workspaces.leave_line(thread);
                *walk = Walk::Holds;
            }
            0 if !holds => {
                workspaces.join_line(thread);
                *walk = Walk::Queues;
            }
            // It meets out of memory.
            1 => {
                let ended = workspaces.ended;
                workspaces.join_line(thread);
                if workspaces.may_wait(thread, ended) {
                    *walk = Walk::Waits(ended, holds);
                } else {
                    // That ends the request.
                    workspaces.leave_line(thread);
                    if holds {
                        workspaces.give_back(thread);
                    }
                    *walk = Walk::Idle;
                }
            }
            // It ends.
            2 if holds => {
                workspaces.leave_line(thread);
                workspaces.give_back(thread);
                *walk = Walk::Idle;
            }
            // It is served what it waited for.
            3 if matches!(walk, Walk::Waits(_, _)) => {
                workspaces.leave_line(thread);
                *walk = if holds { Walk::Holds } else { Walk::Idle };
            }
            _ => return false,
        }
        true
    }

    #[test]
    fn in_every_order_of_events_somebody_goes_on_whom_those_who_wait_wait_for() {
        let threads = [(); 3].map(|()| std::thread::spawn(|| std::thread::current().id()));
        let threads = threads.map(|thread| thread.join().unwrap());
        let (mut seen, mut queued) = (0, 0);
        for order in 0..12_u32.pow(6) {
            let (mut workspaces, mut walks) = (Workspaces::default(), [Walk::Idle; 3]);
            let mut rest = order;
            for _ in 0..6 {
                let (who, what) = ((rest % 3) as usize, rest / 3 % 4);
                rest /= 12;
                if !act(&mut workspaces, &mut walks[who], threads[who], what) {
                    break;
                }
                let ended = workspaces.ended;
                let is_stuck =
                    |walk: &Walk| matches!(walk, Walk::Waits(since, _) if *since == ended);
                let holder_goes_on = |walk: &Walk| match walk {
                    Walk::Idle | Walk::Queues => false,
                    Walk::Holds => true,
                    Walk::Waits(since, holds) => *holds && *since != ended,
                };
                if walks.iter().any(is_stuck) {
                    seen += 1;
                    assert!(walks.iter().any(holder_goes_on), "order {order}");
                }
                let is_queuing = |who: usize| {
                    walks[who] == Walk::Queues && !workspaces.may_reserve(threads[who])
                };
                if (0..3).any(is_queuing) {
                    queued += 1;
                    // The first of the line waits for a workspace to end, or goes on himself.
                    let first = threads.iter().position(|each| *each == workspaces.line[0]);
                    let first = &walks[first.unwrap()];
                    assert!(*first != Walk::Idle && *first != Walk::Holds, "{order}");
                    assert!(!is_stuck(first) || walks.iter().any(holder_goes_on));
                }
            }
        }
        assert!(seen > 0 && queued > 0);
    }

    #[test]
    fn whoever_asks_for_a_workspace_queues_behind_those_who_wait() {
        let here = std::thread::current().id();
        let there = std::thread::spawn(|| std::thread::current().id())
            .join()
            .unwrap();
        let mut workspaces = Workspaces::default();
        assert!(workspaces.may_reserve(here));
        workspaces.join_line(there);
        assert!(workspaces.may_reserve(there) && !workspaces.may_reserve(here));
        workspaces.join_line(here);
        workspaces.join_line(there);
        assert_eq!(workspaces.line, [there, here]);
        workspaces.leave_line(there);
        assert!(workspaces.may_reserve(here) && !workspaces.may_reserve(there));
    }

    #[test]
    fn only_another_request_that_goes_on_is_waited_for() {
        let here = std::thread::current().id();
        let there = std::thread::spawn(|| std::thread::current().id())
            .join()
            .unwrap();
        let mut workspaces = Workspaces::default();
        assert!(!workspaces.may_end_soon(here));
        workspaces.held.push((here, false));
        assert!(!workspaces.may_end_soon(here));
        assert!(workspaces.may_end_soon(there));
        workspaces.set_waiting(here, true);
        assert!(!workspaces.may_end_soon(there));
        workspaces.give_back(there);
        assert!(workspaces.may_end_soon(there), "it tries again");
    }
}
