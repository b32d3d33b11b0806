//! Where a process ends, or becomes another program: so that the harness knows whether the interposer was in it to the end, and in those
//! that it started. The functions here are no sites: nothing is counted or made to fail.
//!
//! `execl` and its kind are not wrapped: a forked child is known before it becomes another program. Only one that shares its parent's
//! memory (`vfork`) is not, and what starts programs so calls `execve`.
#![allow(unsafe_code, non_snake_case)]

use std::arch::asm;
use std::ffi::c_int;
use std::mem::transmute;

use crate::attach::shared;
use crate::errno;
use crate::real::{EXECV, EXECVE, EXECVP, EXECVPE, EXIT, EXIT_C, Export, SPAWN, SPAWNP};

/// Run by the loader when the process ends by the end of `main` or by `exit`.
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = end;

extern "C" fn end() {
    if let Some(shared) = shared() {
        shared.leave();
    }
}

/// Defines the wrapper of a function that ends the process.
macro_rules! ending {
    ($name:ident, $export:ident) => {
        /// The wrapper.
        #[unsafe(no_mangle)]
        pub(crate) extern "C" fn $name(status: c_int) -> ! {
            end();
            if let Some(real) = $export.known() {
                // SAFETY: the address is that of the real function, which takes one number and does not return.
                let function: extern "C" fn(c_int) -> ! = unsafe { transmute(real) };
                function(status)
            }
            exit_group(status)
        }
    };
}

ending!(_exit, EXIT);
ending!(_Exit, EXIT_C);

/// Ends the process without libc.
pub(crate) fn exit_group(status: c_int) -> ! {
    // SAFETY: the system call does not return and touches no memory of ours.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("syscall", in("rax") libc::SYS_exit_group, in("rdi") status, options(noreturn));
        #[cfg(target_arch = "aarch64")]
        asm!("svc 0", in("x8") libc::SYS_exit_group, in("x0") status, options(noreturn));
    }
}

/// Defines the wrapper of a function that makes another program of the process. Not all of them have a third argument; what they have
/// not, they ignore.
macro_rules! becoming {
    ($name:ident, $export:ident) => {
        /// The wrapper.
        ///
        /// # Safety
        /// As the wrapped function.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name(
            path: usize,
            words: usize,
            environment: usize,
        ) -> c_int {
            if let Some(shared) = shared() {
                shared.expect_self();
            }
            // SAFETY: passed on from the caller.
            unsafe { pass($export, [path, words, environment, 0, 0, 0]) }
        }
    };
}

becoming!(execve, EXECVE);
becoming!(execv, EXECV);
becoming!(execvp, EXECVP);
becoming!(execvpe, EXECVPE);

/// Defines the wrapper of a function that starts a program.
macro_rules! starting {
    ($name:ident, $export:ident) => {
        /// The wrapper.
        ///
        /// # Safety
        /// As the wrapped function.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name(
            pid: *mut libc::pid_t,
            path: usize,
            actions: usize,
            attributes: usize,
            words: usize,
            environment: usize,
        ) -> c_int {
            let mut started: libc::pid_t = 0;
            let place = if pid.is_null() { &raw mut started } else { pid };
            // SAFETY: passed on from the caller; the number is written where the caller reads it, or here.
            unsafe {
                let arguments = [
                    place as usize,
                    path,
                    actions,
                    attributes,
                    words,
                    environment,
                ];
                let result = pass($export, arguments);
                if result == 0
                    && let Some(shared) = shared()
                {
                    shared.expect(*place as u32);
                }
                result
            }
        }
    };
}

starting!(posix_spawn, SPAWN);
starting!(posix_spawnp, SPAWNP);

/// # Safety
/// The arguments must be those of the function of that name.
unsafe fn pass(export: Export, arguments: [usize; 6]) -> c_int {
    let Some(real) = export.known() else {
        errno::set(libc::ENOSYS);
        return libc::ENOSYS;
    };
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the address is that of the real function, and callees ignore arguments that they have not.
    unsafe {
        let function: unsafe extern "C" fn(usize, usize, usize, usize, usize, usize) -> c_int =
            transmute(real);
        function(a, b, c, d, e, f)
    }
}
