//! A thread that is inside the interposer's own work passes through: what that work calls is nobody's call.

#![allow(unsafe_code)]

use std::cell::Cell;

thread_local! {
    // Without a destructor and of constant value, so it is a plain word of the thread.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread works for the interposer until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy {
    word: *const Cell<bool>,
}

impl Busy {
    /// `None` where the thread is busy already: a signal handler, or a function that resolving a symbol calls.
    #[inline]
    pub(crate) fn enter() -> Option<Busy> {
        BUSY.with(|busy| (!busy.replace(true)).then_some(Busy { word: busy }))
    }
}

impl Drop for Busy {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the word of the calling thread, which entered: a pointer keeps the value on it. It has no destructor, so it lives as long
        // as the thread. Looking it up again would cost as much as all the rest.
        unsafe { (*self.word).set(false) }
    }
}
