//! Host memory that only the kernel touches: by address, without a reference to it. Its owner's other threads may change it at
//! any time, and nobody knows whether it is there; where it is not, the kernel answers `EFAULT`.
#![allow(unsafe_code)]

use std::arch::asm;
use std::marker::PhantomData;

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;

/// Memory to copy from.
#[derive(Debug, Clone, Copy)]
pub struct HostSource<'a> {
    address: usize,
    bytes: usize,
    borrow: PhantomData<&'a [u8]>,
}

/// Memory to copy to.
#[derive(Debug)]
pub struct HostTarget<'a> {
    address: usize,
    bytes: usize,
    borrow: PhantomData<&'a mut [u8]>,
}

impl HostSource<'static> {
    /// Memory that this program may know nothing of.
    ///
    /// # Errors
    /// `EINVAL` for more bytes than an address space has.
    pub fn at(address: u64, bytes: u64) -> Result<Self, Errno> {
        let (address, bytes) = range(address, bytes)?;
        Ok(HostSource {
            address,
            bytes,
            borrow: PhantomData,
        })
    }
}

impl HostTarget<'static> {
    /// Memory that this program may know nothing of.
    ///
    /// # Safety
    /// What is there must be a client's that asked for it to be overwritten, or nobody's.
    ///
    /// # Errors
    /// `EINVAL` for more bytes than an address space has.
    pub unsafe fn at(address: u64, bytes: u64) -> Result<Self, Errno> {
        let (address, bytes) = range(address, bytes)?;
        Ok(HostTarget {
            address,
            bytes,
            borrow: PhantomData,
        })
    }
}

impl<'a> From<&'a [u8]> for HostSource<'a> {
    fn from(bytes: &'a [u8]) -> HostSource<'a> {
        HostSource {
            address: bytes.as_ptr().expose_provenance(),
            bytes: bytes.len(),
            borrow: PhantomData,
        }
    }
}

impl<'a> From<&'a mut [u8]> for HostTarget<'a> {
    fn from(bytes: &'a mut [u8]) -> HostTarget<'a> {
        HostTarget {
            address: bytes.as_mut_ptr().expose_provenance(),
            bytes: bytes.len(),
            borrow: PhantomData,
        }
    }
}

impl HostSource<'_> {
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// The part from `start` up to `end`.
    pub(crate) fn part(&self, start: usize, end: usize) -> Self {
        let (start, bytes) = part(self.bytes, start, end);
        HostSource {
            address: self.address + start,
            bytes,
            borrow: PhantomData,
        }
    }
}

impl HostTarget<'_> {
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// The part from `start` up to `end`, which the whole is out of use for.
    pub(crate) fn part(&mut self, start: usize, end: usize) -> HostTarget<'_> {
        let (start, bytes) = part(self.bytes, start, end);
        HostTarget {
            address: self.address + start,
            bytes,
            borrow: PhantomData,
        }
    }
}

fn part(bytes: usize, start: usize, end: usize) -> (usize, usize) {
    let end = end.min(bytes);
    let start = start.min(end);
    (start, end - start)
}

fn range(address: u64, bytes: u64) -> Result<(usize, usize), Errno> {
    let fits = |number: u64| usize::try_from(number).map_err(|_| Errno::INVAL);
    let (address, bytes) = (fits(address)?, fits(bytes)?);
    if isize::try_from(bytes).is_err() || address.checked_add(bytes).is_none() {
        return Err(Errno::INVAL);
    }
    Ok((address, bytes))
}

/// Numbers of the kernel's `unistd.h`.
#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const READ: usize = 0;
    pub(super) const WRITE: usize = 1;
    pub(super) const PREAD: usize = 17;
    pub(super) const PWRITE: usize = 18;
}

/// Numbers of the kernel's `unistd.h`.
#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const READ: usize = 63;
    pub(super) const WRITE: usize = 64;
    pub(super) const PREAD: usize = 67;
    pub(super) const PWRITE: usize = 68;
}

pub(crate) fn pread(file: BorrowedFd<'_>, to: HostTarget<'_>, at: u64) -> Result<usize, Errno> {
    // SAFETY: the kernel stores to the target alone, which whoever made it gave up to be overwritten.
    unsafe { call(number::PREAD, file, to.address, to.bytes, at) }
}

pub(crate) fn pwrite(file: BorrowedFd<'_>, from: HostSource<'_>, at: u64) -> Result<usize, Errno> {
    // SAFETY: the kernel loads from the source, whatever is there.
    unsafe { call(number::PWRITE, file, from.address, from.bytes, at) }
}

pub(crate) fn read(file: BorrowedFd<'_>, to: HostTarget<'_>) -> Result<usize, Errno> {
    // SAFETY: as in `pread`.
    unsafe { call(number::READ, file, to.address, to.bytes, 0) }
}

pub(crate) fn write(file: BorrowedFd<'_>, from: HostSource<'_>) -> Result<usize, Errno> {
    // SAFETY: as in `pwrite`.
    unsafe { call(number::WRITE, file, from.address, from.bytes, 0) }
}

/// rustix's own calls take slices.
///
/// # Safety
/// The call must be one of those above, and the memory fit for what it does.
unsafe fn call(
    number: usize,
    file: BorrowedFd<'_>,
    address: usize,
    bytes: usize,
    offset: u64,
) -> Result<usize, Errno> {
    let file = file.as_raw_fd() as usize;
    let result: isize;
    // SAFETY: a system call of four arguments. The registers that it destroys are named; what it stores is memory, which the
    // compiler expects of every `asm!` that does not deny it.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") file, in("rsi") address, in("rdx") bytes,
            in("r10") offset, lateout("rcx") _, lateout("r11") _, options(nostack));
        #[cfg(target_arch = "aarch64")]
        asm!("svc 0", in("x8") number, inlateout("x0") file as isize => result, in("x1") address, in("x2") bytes,
            in("x3") offset, options(nostack));
    }
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result as i32))
}

#[cfg(test)]
mod tests {
    //! What the kernel copies, and what it finds nothing at.
    use super::*;
    use rustix::fd::AsFd;
    use rustix::fs::{MemfdFlags, memfd_create};

    #[test]
    fn what_is_written_by_address_is_read_by_address() {
        let file = memfd_create(c"host", MemfdFlags::CLOEXEC).unwrap();
        let bytes: Vec<u8> = (0..=255).collect();
        let source = HostSource::from(&bytes[..]);
        let again = HostSource::at(source.address as u64, 256).unwrap();
        assert_eq!(pwrite(file.as_fd(), again.part(16, 500), 5000), Ok(240));
        let mut out = [0; 8];
        let mut target = HostTarget::from(&mut out[..]);
        assert_eq!(pread(file.as_fd(), target.part(2, 4), 5000), Ok(2));
        assert_eq!(out, [0, 0, 16, 17, 0, 0, 0, 0]);
        assert_eq!(source.part(9, 3).len(), 0);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let file = memfd_create(c"host", MemfdFlags::CLOEXEC).unwrap();
        let nowhere = HostSource::at(64, 16).unwrap();
        assert_eq!(pwrite(file.as_fd(), nowhere, 0), Err(Errno::FAULT));
        pwrite(file.as_fd(), HostSource::from(&[1u8; 16][..]), 0).unwrap();
        // SAFETY: the first page is nobody's.
        let nowhere = unsafe { HostTarget::at(64, 16) }.unwrap();
        assert_eq!(pread(file.as_fd(), nowhere, 0), Err(Errno::FAULT));
        for (address, bytes) in [(u64::MAX, 1), (0, u64::MAX), (1, i64::MAX as u64 + 1)] {
            assert_eq!(HostSource::at(address, bytes).err(), Some(Errno::INVAL));
        }
    }
}
