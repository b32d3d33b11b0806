//! Functions that close a descriptor inside libc, where no wrapper sees it. They are no sites: nothing is counted or made to fail here.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::transmute;

use crate::attach::shared;
use crate::effect;
use crate::errno;
use crate::guard::Thread;
use crate::real::{CLOSEDIR, Export, FCLOSE};

/// The wrapper.
///
/// # Safety
/// As the wrapped function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn fclose(stream: *mut libc::FILE) -> c_int {
    // SAFETY: passed on from the caller; asking for the descriptor leaves the stream as it is.
    unsafe { pass(FCLOSE, stream as usize, || libc::fileno(stream)) }
}

/// The wrapper.
///
/// # Safety
/// As the wrapped function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn closedir(folder: *mut libc::DIR) -> c_int {
    // SAFETY: as above.
    unsafe { pass(CLOSEDIR, folder as usize, || libc::dirfd(folder)) }
}

/// # Safety
/// `argument` must be what the function of that name takes.
unsafe fn pass(export: Export, argument: usize, descriptor: impl FnOnce() -> c_int) -> c_int {
    let Some(real) = export.real() else {
        errno::set(libc::ENOSYS);
        return -1;
    };
    if argument != 0
        && let Some(shared) = shared()
        && let Some(_busy) = Thread::own().enter()
    {
        let errno = errno::get();
        let number = descriptor();
        errno::set(errno);
        if number >= 0 {
            // Whatever such a function returns, the descriptor is gone.
            effect::end(shared, effect::close(shared, number));
        }
    }
    // SAFETY: the address is that of the real function, which takes one pointer.
    unsafe {
        let function: unsafe extern "C-unwind" fn(usize) -> c_int = transmute(real);
        function(argument)
    }
}
