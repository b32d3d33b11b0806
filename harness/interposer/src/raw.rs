//! Descriptors that are closed without libc: the standard library's own pass the wrapped `close`.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// An open file, closed when dropped.
#[derive(Debug)]
pub(crate) struct RawDescriptor(ManuallyDrop<OwnedFd>);

impl From<OwnedFd> for RawDescriptor {
    fn from(descriptor: OwnedFd) -> RawDescriptor {
        RawDescriptor(ManuallyDrop::new(descriptor))
    }
}

impl AsFd for RawDescriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for RawDescriptor {
    fn drop(&mut self) {
        // SAFETY: this value owned the descriptor alone, and `ManuallyDrop` keeps anything else from closing it.
        unsafe { rustix::io::close(self.0.as_raw_fd()) }
    }
}
