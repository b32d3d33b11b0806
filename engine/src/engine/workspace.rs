//! The workspaces of requests: device memory that cannot leave, and what becomes of those who need it.
//!
//! An operation that gets no memory after everything else has left lets the turn go and waits for another request that
//! holds a workspace to end. Somebody always goes on: only requests that do not wait themselves are waited for, so the
//! last of those that would wait gets the error instead.

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
        mut attempt: impl FnMut(&mut Operation<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            operation.enter()?;
            let ended = self.state().workspaces.ended;
            match attempt(operation) {
                // What is larger than the device never fits.
                Err(Error::DeviceOom {
                    wanted,
                    free,
                    total,
                }) if total == 0 || wanted <= total => {
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
    }

    /// One thing that one of three requests does; `false` when it cannot do it now.
    fn act(workspaces: &mut Workspaces, walk: &mut Walk, thread: ThreadId, what: u32) -> bool {
        match (what, *walk) {
            (0, Walk::Idle) => {
                workspaces.held.push((thread, false));
                *walk = Walk::Holds;
            }
            (1, Walk::Idle | Walk::Holds) => {
                let (holds, ended) = (*walk == Walk::Holds, workspaces.ended);
                if workspaces.may_wait(thread, ended) {
                    *walk = Walk::Waits(ended, holds);
                } else if holds {
                    // Out of memory ends the request.
                    workspaces.give_back(thread);
                    *walk = Walk::Idle;
                }
            }
            (2, Walk::Holds) => {
                workspaces.give_back(thread);
                *walk = Walk::Idle;
            }
            (3, Walk::Waits(ended, holds)) if workspaces.ended != ended => {
                workspaces.set_waiting(thread, false);
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
        let mut seen = 0;
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
                if walks.iter().any(is_stuck) {
                    seen += 1;
                    let goes_on = |walk: &Walk| match walk {
                        Walk::Idle => false,
                        Walk::Holds => true,
                        Walk::Waits(since, holds) => *holds && *since != ended,
                    };
                    assert!(walks.iter().any(goes_on), "order {order}");
                }
            }
        }
        assert!(seen > 0);
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
