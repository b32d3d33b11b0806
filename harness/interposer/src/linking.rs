//! Functions that make symbolic links: what a name leads to may be another file than before. They are no sites: nothing is counted or made
//! to fail here.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::mem::transmute;

use crate::attach::shared;
use crate::errno;
use crate::real::{Export, SYMLINK, SYMLINKAT};

/// The wrapper.
///
/// # Safety
/// As the wrapped function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn symlink(
    target: *const c_char,
    name: *const c_char,
) -> c_int {
    // SAFETY: passed on from the caller.
    unsafe { pass(SYMLINK, [target as usize, name as usize, 0]) }
}

/// The wrapper.
///
/// # Safety
/// As the wrapped function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn symlinkat(
    target: *const c_char,
    directory: c_int,
    name: *const c_char,
) -> c_int {
    // SAFETY: as above.
    unsafe {
        pass(
            SYMLINKAT,
            [target as usize, directory as usize, name as usize],
        )
    }
}

/// # Safety
/// The arguments must be those of the function of that name.
unsafe fn pass(export: Export, arguments: [usize; 3]) -> c_int {
    let Some(real) = export.real() else {
        errno::set(libc::ENOSYS);
        return -1;
    };
    let shared = shared();
    // Before and behind the call, as in `effect`.
    if let Some(shared) = shared {
        shared.give_name();
    }
    let [a, b, c] = arguments;
    // SAFETY: the address is that of the real function, and callees ignore arguments that they have not.
    let result = unsafe {
        let function: unsafe extern "C-unwind" fn(usize, usize, usize) -> c_int = transmute(real);
        function(a, b, c)
    };
    if result == 0
        && let Some(shared) = shared
    {
        shared.give_name();
    }
    result
}
