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
            let thread = self.thread;
            state.workspaces.held.retain(|held| held.0 != thread);
            state.workspaces.ended += 1;
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
        let is_worth_it = monitor.change(|state| {
            let workspaces = &mut state.workspaces;
            if workspaces.ended != ended {
                return true;
            }
            let may_end_soon = workspaces.may_end_soon(thread);
            workspaces.set_waiting(thread, may_end_soon);
            may_end_soon
        });
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
    //! Who is waited for.
    use super::*;

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
        workspaces.set_waiting(here, false);
        assert!(workspaces.may_end_soon(there));
    }
}
