//! A thread that is inside the interposer's own work passes through: what that work calls is nobody's call.

use std::cell::Cell;

thread_local! {
    // Without a destructor and of constant value, so it is a plain word of the thread.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread works for the interposer until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy(());

impl Busy {
    /// `None` where the thread is busy already: a signal handler, or a function that resolving a symbol calls.
    pub(crate) fn enter() -> Option<Busy> {
        BUSY.with(|busy| (!busy.replace(true)).then_some(Busy(())))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.with(|busy| busy.set(false));
    }
}
