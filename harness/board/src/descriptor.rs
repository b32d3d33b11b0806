//! A descriptor that is closed without libc: the standard library's own goes through libc's `close`.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// An open file, closed when dropped.
#[derive(Debug)]
pub struct Descriptor(ManuallyDrop<OwnedFd>);

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Descriptor {
        Descriptor(ManuallyDrop::new(descriptor))
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: this value owned the descriptor alone, and `ManuallyDrop` keeps anything else from closing it.
        unsafe { rustix::io::close(self.0.as_raw_fd()) }
    }
}
