//! A map of a spill file, read by copies that the kernel makes: a page that is gone is an answer, not a signal.
//!
//! A file can become shorter at any moment, also between a check of its length and the use of its pages, and touching a
//! page beyond its end raises SIGBUS, which ends the process unless somebody handles it for everybody. So nothing here
//! ever touches a mapped page: `process_vm_readv` on our own process copies out of the map and answers EFAULT, or a
//! short count, where there is no page (F52). No slice of a map is given to anybody for the same reason: nobody could
//! contain what happens when it is read. Measured on one machine (Linux 6.18, 256 MiB in the page cache, windows of
//! 64 KiB to 4 MiB): 1.5 to 2.5 GB/s, as much as `pread` there, where `memcpy` out of the map makes 6 to 9.

use crate::error::Error;
use memmap2::{Mmap, UncheckedAdvice};
use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use std::{
    io::IoSliceMut,
    mem::ManuallyDrop,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Pages of a map that are resident at a time for a reader, bytes.
const WINDOW_BYTES: usize = 4 << 20;

/// A range of a spill file, mapped read-only and shared (E20).
#[derive(Debug)]
pub(crate) struct FileMap {
    map: ManuallyDrop<Mmap>,
    /// In the file.
    offset: u64,
    /// The kernel, or a filter of system calls, refuses such copies; then the descriptor serves, and nobody asks again.
    refused: AtomicBool,
}

impl FileMap {
    pub(super) fn new(map: Mmap, offset: u64) -> Self {
        retry_unmaps();
        Self {
            map: ManuallyDrop::new(map),
            offset,
            refused: AtomicBool::new(false),
        }
    }

    /// Copies from `at` of the map on into `out`, no more than a window resident at a time. What the map does not give
    /// is asked of `read`, which takes offsets in the file: it gets the bytes or learns why not.
    pub(super) fn read_at(
        &self,
        at: u64,
        out: &mut [u8],
        read: impl Fn(&mut [u8], u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let inside = usize::try_from(at)
            .ok()
            .filter(|at| {
                at.checked_add(out.len())
                    .is_some_and(|end| end <= self.map.len())
            })
            .ok_or_else(|| {
                Error::Internal(format!(
                    "{} bytes at {at} are outside a map of {}",
                    out.len(),
                    self.map.len()
                ))
            })?;
        let mut done = 0;
        for window in out.chunks_mut(WINDOW_BYTES) {
            let copied = self.copy(inside + done, window);
            self.let_go(inside + done, copied);
            if copied < window.len() {
                let missing = at + (done + copied) as u64;
                read(&mut window[copied..], self.offset + missing)?;
            }
            done += window.len();
        }
        Ok(())
    }

    /// Whether the page cache holds all of a range: then reading it costs no disk access. Not sure to be so any more a moment later.
    #[allow(unsafe_code)]
    pub(crate) fn is_resident(&self, at: u64, bytes: usize) -> bool {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let is_inside = start
            .checked_add(bytes)
            .is_some_and(|end| end <= self.map.len());
        if !is_inside {
            return false;
        }
        let range = Range {
            address: self.map.as_ptr() as usize + start,
            bytes,
        };
        let range = range.page_aligned();
        let mut pages = vec![0u8; range.bytes.div_ceil(page_bytes())];
        // SAFETY: the range is of this map, which is mapped, and there is a byte for each of its pages.
        let told = unsafe {
            let address = range.address as *mut libc::c_void;
            libc::mincore(address, range.bytes, pages.as_mut_ptr())
        };
        told == 0 && pages.iter().all(|page| page & 1 == 1)
    }

    /// Copies as many bytes as the kernel finds, from the first on; how many.
    fn copy(&self, at: usize, out: &mut [u8]) -> usize {
        let mut copied = 0;
        while copied < out.len() && !self.refused.load(Ordering::Relaxed) {
            let from = RemoteIoVec {
                base: self.map.as_ptr() as usize + at + copied,
                len: out.len() - copied,
            };
            let to = &mut [IoSliceMut::new(&mut out[copied..])];
            match process_vm_readv(Pid::this(), to, &[from]) {
                Ok(0) | Err(Errno::EFAULT) => break,
                Ok(bytes) => copied += bytes,
                Err(Errno::EINTR) => {}
                Err(_) => self.refused.store(true, Ordering::Relaxed),
            }
        }
        copied
    }

    #[allow(unsafe_code)]
    fn let_go(&self, at: usize, bytes: usize) {
        if bytes == 0 {
            return;
        }
        // SAFETY: the map is a shared, read-only one of a file, so pages that are dropped come back with the same
        // contents at the next access, this reader's or another's. That it fails would only cost memory.
        let _ = unsafe {
            self.map
                .unchecked_advise_range(UncheckedAdvice::DontNeed, at, bytes)
        };
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        retry_unmaps();
        unmap(Range::of(&self.map));
    }
}

/// Maps that the kernel did not take back: munmap(2) fails with ENOMEM where it would have to split a mapping of a process that
/// has as many as it may have. Address space and the blocks of the file would be lost with them.
static REFUSED: Mutex<Vec<Range>> = Mutex::new(Vec::new());

/// Addresses that are still mapped, and that nobody but this list knows of.
#[derive(Clone, Copy, Debug)]
struct Range {
    address: usize,
    bytes: usize,
}

/// Tries once more to undo maps that the kernel refused to undo.
pub(crate) fn retry_unmaps() {
    let refused = std::mem::take(&mut *REFUSED.lock().unwrap_or_else(PoisonError::into_inner));
    refused.into_iter().for_each(unmap);
}

/// Address space that the kernel still does not take back, bytes.
pub(super) fn refused_bytes() -> usize {
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    refused.iter().map(|range| range.bytes).sum()
}

impl Range {
    /// From the start of its first page, also where the file's offset is not a page's.
    fn of(map: &Mmap) -> Self {
        Self {
            address: map.as_ptr() as usize,
            bytes: map.len(),
        }
        .page_aligned()
    }

    /// With what lies before it in its first page.
    fn page_aligned(self) -> Self {
        let before = self.address % page_bytes();
        Self {
            address: self.address - before,
            bytes: before + self.bytes,
        }
    }
}

#[allow(unsafe_code)]
fn unmap(range: Range) {
    // SAFETY: the range is that of a map at its owner's end, which does not unmap it itself, or one that the kernel refused to
    // undo; nobody uses it any more, and nobody else unmaps it, so that it is mapped still.
    let undone = unsafe { libc::munmap(range.address as *mut libc::c_void, range.bytes) } == 0;
    if !undone {
        let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        refused.push(range);
    }
}

fn page_bytes() -> usize {
    // SAFETY: it reads a constant of the system.
    #[allow(unsafe_code)]
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}
