//! A thread that is inside the interposer's own work passes through: what that work calls is nobody's call.

#![allow(unsafe_code)]

use std::cell::Cell;

thread_local! {
    // Without a destructor and of constant value, so it is a plain word of the thread.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread. A pointer keeps the value on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thread {
    word: *const Cell<bool>,
}

/// The calling thread works for the interposer until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy {
    thread: Thread,
}

impl Thread {
    /// Looked up once for each call: that costs as much as all the rest here.
    #[inline]
    pub(crate) fn own() -> Thread {
        BUSY.with(|busy| Thread { word: busy })
    }

    /// `None` where the thread is busy already: a signal handler, or a function that resolving a symbol calls.
    #[inline]
    pub(crate) fn enter(self) -> Option<Busy> {
        (!self.word().replace(true)).then_some(Busy { thread: self })
    }

    #[inline]
    fn word(&self) -> &Cell<bool> {
        // SAFETY: the word of the calling thread: the value never leaves it. The word has no destructor, so it lives as long as the
        // thread.
        unsafe { &*self.word }
    }
}

impl Drop for Busy {
    #[inline]
    fn drop(&mut self) {
        self.thread.word().set(false);
    }
}
