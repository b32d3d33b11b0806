//! Stops and ends by real-time signals, which nix has no names for and answers with EINVAL.
#![allow(unsafe_code)]

use nix::unistd::Pid;
use std::{mem, ptr};

/// What such a signal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unnamed {
    /// The thread had stopped for it, and goes on with it to its next system call.
    PassedOn,
    /// The thread or process ended by it, which is left to be seen.
    Ended(Pid),
    /// There is none.
    Nothing,
}

/// Sees to the next stop or end of threads that this thread traces.
pub(super) fn pass_on() -> Unnamed {
    let flags = libc::WSTOPPED | libc::WEXITED | libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD;
    let Some(info) = wait(libc::P_ALL, 0, flags | libc::WNOWAIT) else {
        return Unnamed::Nothing;
    };
    // SAFETY: the kernel fills these two in for every child whose state changed.
    let (pid, signal) = unsafe { (info.si_pid(), info.si_status()) };
    match info.si_code {
        _ if pid == 0 => Unnamed::Nothing,
        libc::CLD_TRAPPED | libc::CLD_STOPPED => {
            let Some(id) = libc::id_t::try_from(pid).ok() else {
                return Unnamed::Nothing;
            };
            let flags = libc::WSTOPPED | libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD;
            let _ = wait(libc::P_PID, id, flags);
            let none = ptr::null_mut::<libc::c_void>();
            // SAFETY: it touches no memory of this process; for a thread that was killed meanwhile it fails.
            unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, none, libc::c_long::from(signal)) };
            Unnamed::PassedOn
        }
        _ => Unnamed::Ended(Pid::from_raw(pid)),
    }
}

fn wait(which: libc::idtype_t, id: libc::id_t, flags: libc::c_int) -> Option<libc::siginfo_t> {
    // SAFETY: all zeros is a value of the C struct.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: `info` is writable for the whole call.
    let found = unsafe { libc::waitid(which, id, &raw mut info, flags) };
    (found == 0).then_some(info)
}
