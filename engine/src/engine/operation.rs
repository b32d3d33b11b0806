//! One operation at a time, and what every operation begins with.

use super::Engine;
use crate::Error;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread::ThreadId,
};

/// The turnstile of operations.
pub(super) struct Operations {
    /// The process whose threads the engine has.
    process: u32,
    turn: Mutex<()>,
    /// Who is in it, so that a caller's code inside an operation gets an error where it would wait for itself.
    holder: Mutex<Option<ThreadId>>,
}

/// The turn of one operation; ends when dropped.
pub(super) struct Operation<'a> {
    operations: &'a Operations,
    /// Dropped after `drop` has cleared the holder.
    _turn: MutexGuard<'a, ()>,
}

impl Default for Operations {
    fn default() -> Self {
        Self {
            process: std::process::id(),
            turn: Mutex::default(),
            holder: Mutex::default(),
        }
    }
}

impl Operations {
    fn begin(&self) -> Result<Operation<'_>, Error> {
        // Before any lock: whoever held one when a child was forked does not run in the child.
        if std::process::id() != self.process {
            return Err(Error::OtherProcess {
                opened_by: self.process,
            });
        }
        let this = std::thread::current().id();
        if *self.holder() == Some(this) {
            return Err(Error::InvalidArgument(
                "an operation was called from inside a visitor; return from the visitor first"
                    .into(),
            ));
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        *self.holder() = Some(this);
        Ok(Operation {
            operations: self,
            _turn: turn,
        })
    }

    fn holder(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        *self.operations.holder() = None;
    }
}

impl Engine {
    /// Waits for the turn. What could not be given back earlier is tried again first; that it fails again is seen in
    /// the status and no reason to fail what is asked now.
    pub(super) fn begin(&self) -> Result<Operation<'_>, Error> {
        let operation = self.begin_release()?;
        self.context.bind()?;
        Ok(operation)
    }

    /// As [`Self::begin`], for operations that only let go: they work on a lost device, too.
    pub(super) fn begin_release(&self) -> Result<Operation<'_>, Error> {
        let operation = self.operations.begin()?;
        // What fails again is counted in the status (F9).
        let _ = self.context.reclaim();
        // What fails again is counted in the status (E36).
        let _ = self.directory.retry_unlinks();
        let mut state = self.state();
        state.files.retain(|file| file.strong_count() > 0);
        drop(state);
        Ok(operation)
    }
}

#[cfg(test)]
mod tests {
    //! Turns: one at a time, given back, and never waited for by their own holder.
    use super::*;

    #[test]
    fn an_operation_inside_an_operation_is_refused_and_one_after_it_is_not() {
        let operations = Operations::default();
        let first = operations.begin().unwrap();
        assert!(operations.begin().is_err());
        drop(first);
        assert!(operations.begin().is_ok());
    }

    #[test]
    fn an_operation_that_panicked_gives_its_turn_back() {
        let operations = Operations::default();
        std::thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let _operation = operations.begin();
                panic!("inside");
            });
            assert!(panicked.join().is_err());
        });
        assert!(operations.begin().is_ok());
    }
}
