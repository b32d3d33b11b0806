//! `errno` of the calling thread.
#![allow(unsafe_code)]

pub(crate) fn get() -> i32 {
    // SAFETY: libc's address of the calling thread's own variable.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set(number: i32) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = number };
}
