//! `pidfd_open`, which neither std nor nix offers for a process that std started, and how such a process ended: nix knows no
//! real-time signals.
#![allow(unsafe_code)]

use super::ExitReport;
use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// A close-on-exec descriptor that becomes readable when the process ends.
pub(super) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain system call with two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.cast_signed(), 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How the child behind this descriptor ended, if it has; its status stays to be taken.
pub(super) fn exit(process: BorrowedFd<'_>) -> Option<ExitReport> {
    let number = process.as_raw_fd().cast_unsigned();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: plain old data, for which all bits 0 are a value.
    let mut told: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes to `told` alone, which is there until the call returns.
    let waited = unsafe { libc::waitid(libc::P_PIDFD, number, &raw mut told, flags) };
    if waited != 0 {
        return None;
    }
    // SAFETY: with `WEXITED` alone the kernel tells of an ended child, or of none and leaves the zeros.
    let (pid, status) = unsafe { (told.si_pid(), told.si_status()) };
    let signalled = |core| ExitReport::Signalled {
        signal: status,
        core,
    };
    match told.si_code {
        _ if pid == 0 => None,
        libc::CLD_EXITED => Some(ExitReport::Exited(status)),
        libc::CLD_KILLED => Some(signalled(false)),
        libc::CLD_DUMPED => Some(signalled(true)),
        _ => None,
    }
}
