//! What every operation begins with, and its place in the queue for the turn.

use super::{Engine, monitor::Monitor, turn::Moves};
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
    /// What it moves, while nothing widens that.
    moves: Moves,
    /// The ticket, while it has the turn.
    turn: Option<u64>,
}

impl<'e> Operation<'e> {
    fn begin(monitor: &'e Arc<Monitor>, stop: &Stop, moves: Moves) -> Result<Self, Error> {
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
            moves,
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
        let ticket = self.monitor.lock().turns.join(self.moves);
        let entered = self
            .monitor
            .wait_until(&self.stop, |state| state.turns.go(ticket).then_some(()));
        match entered {
            Ok(()) => self.turn = Some(ticket),
            Err(_) => self.monitor.change(|state| state.turns.leave(ticket)),
        }
        entered
    }

    /// Has the turn for itself alone from here on, until it leaves: it moves blocks that others might move, too. Whether anybody was waited
    /// for: what was seen before may no longer be so.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(super) fn widen(&self) -> Result<bool, Error> {
        let Some(ticket) = self.turn else {
            return Err(Error::Internal("a turn was widened without it".into()));
        };
        let mut waited = false;
        self.monitor.lock().turns.widen(ticket);
        self.monitor.wait_until(&self.stop, |state| {
            let is_alone = state.turns.is_alone(ticket);
            waited |= !is_alone;
            is_alone.then_some(())
        })?;
        Ok(waited)
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
    pub(super) fn begin(&self, stop: &Stop, moves: Moves) -> Result<Operation<'_>, Error> {
        let operation = self.begin_release(stop, moves)?;
        self.context.bind()?;
        Ok(operation)
    }

    /// As [`Self::begin`], to move only what `moves` makes of the model's number.
    pub(super) fn begin_with(
        &self,
        stop: &Stop,
        name: &str,
        moves: impl Fn(u64) -> Moves,
    ) -> Result<Operation<'_>, Error> {
        let number = |engine: &Self| engine.state().find(name).map(|model| model.number).ok();
        self.monitor.0.refuse_child()?;
        let expected = number(self);
        // One that is not there may be by the time that those before have had their turn.
        let operation = self.begin(stop, expected.map_or(Moves::Any, moves))?;
        if number(self) != expected {
            operation.widen()?;
        }
        Ok(operation)
    }

    /// As [`Self::begin`], for operations that only let go: they work on a lost device, too.
    pub(super) fn begin_release(&self, stop: &Stop, moves: Moves) -> Result<Operation<'_>, Error> {
        let operation = Operation::begin(&self.monitor.0, stop, moves)?;
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

    fn begin<'e>(monitor: &'e Arc<Monitor>, stop: &Stop) -> Result<Operation<'e>, Error> {
        Operation::begin(monitor, stop, Moves::Any)
    }

    #[test]
    fn an_operation_inside_an_operation_is_refused_and_one_after_it_is_not() {
        let Owned(monitor) = &Owned::default();
        let mut first = begin(monitor, &Stop::never()).unwrap();
        assert!(begin(monitor, &Stop::never()).is_err());
        first.leave();
        assert!(begin(monitor, &Stop::never()).is_err());
        drop(first);
        assert!(begin(monitor, &Stop::never()).is_ok());
    }

    #[test]
    fn an_operation_that_panicked_gives_its_turn_back() {
        let Owned(monitor) = &Owned::default();
        std::thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let _operation = begin(monitor, &Stop::never());
                panic!("inside");
            });
            assert!(panicked.join().is_err());
        });
        assert!(begin(monitor, &Stop::never()).is_ok());
    }

    #[test]
    fn a_cancelled_wait_for_the_turn_ends_and_holds_nobody_up() {
        let Owned(monitor) = &Owned::default();
        let first = begin(monitor, &Stop::never()).unwrap();
        let cancellation = Cancellation::new();
        std::thread::scope(|scope| {
            let stop = Stop::new(&cancellation, "the wait");
            let cancelled = scope.spawn(move || begin(monitor, &stop).err());
            let next = scope.spawn(|| begin(monitor, &Stop::never()).is_ok());
            cancellation.cancel();
            let error = cancelled.join().unwrap().unwrap();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            drop(first);
            assert!(next.join().unwrap());
        });
        let stop = Stop::new(&cancellation, "the wait");
        assert!(begin(monitor, &stop).is_err(), "at once");
    }
}
