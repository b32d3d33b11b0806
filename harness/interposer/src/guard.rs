//! A thread that decides about a rule, or keeps the ledger for a call under one or for one of `inner`, is busy: what it calls meanwhile
//! passes where it would take the long way, so that no decision is begun inside another one. The short way does not ask: it decides nothing,
//! and a signal handler's calls are calls.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::{asm, global_asm};
use std::cell::Cell;

// A word of the thread at a place that the loader fixes once, as it can for what is there from the start: for libraries that may come later,
// compilers call a function for each look at such a word.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .tbss.spillproof_busy, \"awT\", @nobits",
    ".p2align 3",
    ".globl spillproof_busy",
    ".hidden spillproof_busy",
    ".type spillproof_busy, @object",
    ".size spillproof_busy, 8",
    "spillproof_busy:",
    ".zero 8",
    ".popsection",
);

#[cfg(not(target_arch = "x86_64"))]
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
    /// Looked up once for each call.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn own() -> Thread {
        let word: *const Cell<bool>;
        // SAFETY: the first word of the thread's block is its own address, and the loader has filled in how far the word is from there.
        unsafe {
            asm!(
                "mov {word}, qword ptr fs:[0]",
                "add {word}, qword ptr [rip + spillproof_busy@GOTTPOFF]",
                word = out(reg) word,
                options(pure, readonly, nostack),
            );
        }
        Thread { word }
    }

    /// Looked up once for each call.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    pub(crate) fn own() -> Thread {
        BUSY.with(|busy| Thread { word: busy })
    }

    /// `None` where the thread is busy already: a signal handler, or a function that resolving a symbol calls.
    #[inline]
    pub(crate) fn enter(self) -> Option<Busy> {
        (!self.word().replace(true)).then_some(Busy { thread: self })
    }

    /// Whether the thread works for the interposer already.
    #[inline]
    pub(crate) fn is_busy(self) -> bool {
        self.word().get()
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
