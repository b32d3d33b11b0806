//! The engine's state behind its one lock, and waiting for it to change.

use super::state::State;
use crate::{
    Error,
    cancellation::{Stop, Wake},
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The state, and the signal that it changed.
pub(super) struct Monitor {
    /// The process whose threads use it.
    process: u32,
    state: Mutex<State>,
    changed: Condvar,
}

impl Monitor {
    /// Refuses a forked child before any lock: whoever held one when the child was made does not run in it.
    ///
    /// # Errors
    /// [`Error::OtherProcess`].
    pub(super) fn refuse_child(&self) -> Result<(), Error> {
        if std::process::id() == self.process {
            return Ok(());
        }
        Err(Error::OtherProcess {
            opened_by: self.process,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Commits are single assignments, so a state is whole also after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and lets everybody who waits look at it. In a forked child nothing happens: the state is its
    /// parent's.
    pub(super) fn change(&self, act: impl FnOnce(&mut State)) {
        if self.refuse_child().is_err() {
            return;
        }
        act(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `ready` finds what it looks for, or `stop` says so.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::OtherProcess`], without waiting for the lock.
    pub(super) fn wait_until<T>(
        &self,
        stop: &Stop,
        mut ready: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, Error> {
        self.refuse_child()?;
        let mut state = self.lock();
        loop {
            stop.check()?;
            if let Some(found) = ready(&mut state) {
                return Ok(found);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wake for Monitor {
    fn wake(&self) {
        // Whoever has looked and not yet begun to wait holds the lock.
        drop(self.lock());
        self.changed.notify_all();
    }
}

/// The engine's hold on its monitor. What the state holds goes with it, whoever else wakes somebody just then.
pub(super) struct Owned(pub(super) Arc<Monitor>);

impl Default for Owned {
    fn default() -> Self {
        Self(Arc::new(Monitor {
            process: std::process::id(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }
}

impl Owned {
    /// Takes the state out; nothing of it is left in a forked child, which must not wait for the lock.
    pub(super) fn take_state(&self) -> Option<State> {
        self.0.refuse_child().ok()?;
        Some(std::mem::take(&mut *self.0.lock()))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        drop(self.take_state());
    }
}
