//! What every operation begins with, and its place in the queue for the turn.

use super::{Engine, monitor::Monitor};
use crate::{
    Error,
    cancellation::{Stop, Wake},
};
use std::{
    sync::{Arc, Weak},
    thread::ThreadId,
};

/// An operation of one thread, from its begin to its end. It has the turn at first, may leave it while a caller's code
/// runs or somebody else has to go on, and must enter it again before it moves anything.
pub(super) struct Operation<'e> {
    monitor: &'e Monitor,
    thread: ThreadId,
    stop: Stop,
    /// The ticket, while it has the turn.
    turn: Option<u64>,
}

impl<'e> Operation<'e> {
    fn begin(monitor: &'e Arc<Monitor>, stop: &Stop) -> Result<Self, Error> {
        monitor.refuse_child()?;
        let thread = std::thread::current().id();
        let is_inside = {
            let mut state = monitor.lock();
            let is_inside = state.inside.contains(&thread);
            if !is_inside {
                state.inside.push(thread);
            }
            is_inside
        };
        if is_inside {
            return Err(Error::InvalidArgument(
                "an operation was called from inside a visitor; return from the visitor first"
                    .into(),
            ));
        }
        let place: Weak<Monitor> = Arc::downgrade(monitor);
        stop.watch(place as Weak<dyn Wake>);
        let mut operation = Self {
            monitor,
            thread,
            stop: stop.clone(),
            turn: None,
        };
        operation.enter()?;
        Ok(operation)
    }

    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// From here on nothing cancels it: it has to undo or to end what it did.
    pub(super) fn persist(&mut self) {
        self.stop = Stop::never();
    }

    /// Waits for the turn, where it does not have it.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::OtherProcess`] in a child that was forked inside a visitor.
    pub(super) fn enter(&mut self) -> Result<(), Error> {
        self.monitor.refuse_child()?;
        if self.turn.is_some() {
            return self.stop.check();
        }
        let ticket = self.monitor.lock().turns.join();
        let entered = self.monitor.wait_until(&self.stop, |state| {
            state.turns.is_first(ticket).then_some(())
        });
        match entered {
            Ok(()) => self.turn = Some(ticket),
            Err(_) => self.monitor.change(|state| state.turns.leave(ticket)),
        }
        entered
    }

    /// Lets the next one in.
    pub(super) fn leave(&mut self) {
        if let Some(ticket) = self.turn.take() {
            self.monitor.change(|state| state.turns.leave(ticket));
        }
    }

    /// Who it is among the operations that run: a thread has one at a time.
    pub(super) fn thread(&self) -> ThreadId {
        self.thread
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        let (turn, thread) = (self.turn.take(), self.thread);
        self.monitor.change(|state| {
            state.inside.retain(|each| *each != thread);
            if let Some(ticket) = turn {
                state.turns.leave(ticket);
            }
        });
    }
}

impl Engine {
    /// Waits for the turn. What could not be given back earlier is tried again first; that it fails again is seen in
    /// the status and no reason to fail what is asked now.
    pub(super) fn begin(&self, stop: &Stop) -> Result<Operation<'_>, Error> {
        let operation = self.begin_release(stop)?;
        self.context.bind()?;
        Ok(operation)
    }

    /// As [`Self::begin`], for operations that only let go: they work on a lost device, too.
    pub(super) fn begin_release(&self, stop: &Stop) -> Result<Operation<'_>, Error> {
        let operation = Operation::begin(&self.monitor.0, stop)?;
        // What fails again is counted in the status (F9).
        let _ = self.context.reclaim();
        // What fails again is counted in the status (E36).
        let _ = self.directory.retry_unlinks();
        self.state().forget_unheld();
        Ok(operation)
    }
}

#[cfg(test)]
mod tests {
    //! Turns: one at a time, given back, never waited for by their own holder, given up when cancelled.
    use super::{super::monitor::Owned, *};
    use crate::{Cancellation, ErrorKind};

    #[test]
    fn an_operation_inside_an_operation_is_refused_and_one_after_it_is_not() {
        let Owned(monitor) = &Owned::default();
        let mut first = Operation::begin(monitor, &Stop::never()).unwrap();
        assert!(Operation::begin(monitor, &Stop::never()).is_err());
        first.leave();
        assert!(Operation::begin(monitor, &Stop::never()).is_err());
        drop(first);
        assert!(Operation::begin(monitor, &Stop::never()).is_ok());
    }

    #[test]
    fn an_operation_that_panicked_gives_its_turn_back() {
        let Owned(monitor) = &Owned::default();
        std::thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let _operation = Operation::begin(monitor, &Stop::never());
                panic!("inside");
            });
            assert!(panicked.join().is_err());
        });
        assert!(Operation::begin(monitor, &Stop::never()).is_ok());
    }

    #[test]
    fn a_cancelled_wait_for_the_turn_ends_and_holds_nobody_up() {
        let Owned(monitor) = &Owned::default();
        let first = Operation::begin(monitor, &Stop::never()).unwrap();
        let cancellation = Cancellation::new();
        std::thread::scope(|scope| {
            let stop = Stop::new(&cancellation, "the wait");
            let cancelled = scope.spawn(move || Operation::begin(monitor, &stop).err());
            let next = scope.spawn(|| Operation::begin(monitor, &Stop::never()).is_ok());
            cancellation.cancel();
            let error = cancelled.join().unwrap().unwrap();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            drop(first);
            assert!(next.join().unwrap());
        });
        let stop = Stop::new(&cancellation, "the wait");
        assert!(Operation::begin(monitor, &stop).is_err(), "at once");
    }
}
