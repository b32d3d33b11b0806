//! Preloaded into a subject: wraps the fault sites, so that the harness can count their calls, make them fail as a plan says, and know what
//! exists and which call made it.
//!
//! # What it does
//! - **Every spelling of the fault table is exported here** (`trampoline`) and found before the real one by programs that bind it. Programs
//!   that ask for it, by `dlsym` or by `cuGetProcAddress`, get the wrapper in place of the real function's address (`lookup`).
//! - **A call** (`dispatch`) is counted where it touches the scope or has no file, decided about by the rules in the shared memory, made,
//!   and entered in the ledger. The caller finds result and `errno` as the real function leaves them, or as such a function fails.
//! - **The process joins the harness at start** (`attach`) by the path in `SPILLPROOF_FAULTS`, and ends with a status of its own (97) where it cannot,
//!   or where another copy of this library is in it. Forked children go on in the same memory; programs that they become join anew, and one that
//!   does not is known by it (`leaving`).
//!
//! # What it keeps to
//! Its own system calls are raw, so it sees none of them. A signal handler that comes in between is the program's: its calls count, and only
//! those that take the long way while the thread decides about a rule or keeps the ledger under one pass (`guard`). It does not allocate,
//! takes no lock, and leaves `dlopen` and `cuGetExportTable` alone.
//!
//! # What it does not see
//! - System calls made without libc: static programs, io_uring, rustix's default backend; and those that libc makes inside itself, such as
//!   the `open` in `fopen`. What `fclose` and `closedir` close is seen (`inner`), what they flush is not.
//! - Who gives names to files from outside the subject. What was known of a name is believed for 68 ms at most (`names`).
//! - Calls from constructors of libraries that the loader runs before this one's.
//! - A symbolic link that leads into the scope from outside it, by name; what is opened by it is known by its descriptor.
//! - What a program loses when it becomes another by `exec`: the ledger keeps the rows, which are told by their age (`LedgerView::held_by`).
//! - A weak reference to a function that no library has: it is bound to the wrapper, which answers that there is none.
//!
//! # Fault model
//! Arguments are lawful: wrappers read the strings and arrays that the table names, so a call with a bad pointer that the kernel would
//! refuse with EFAULT ends the process here. Null is taken everywhere.

mod attach;
mod brief;
mod call;
mod caller;
mod descriptor;
mod dispatch;
mod effect;
mod elf;
mod errno;
mod guard;
mod inner;
mod leaving;
mod linking;
mod lookup;
mod mapping;
mod maps;
mod names;
mod outcome;
mod path;
mod raw;
mod real;
mod sharing;
mod short;
mod system_call;
mod target;
mod text;
mod trampoline;
