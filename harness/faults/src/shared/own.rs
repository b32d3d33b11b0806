//! The number of the calling process, remembered: to ask the kernel takes longer than all the rest of a row.
//!
//! It is kept in a page that the kernel empties in every child with a copy of the memory, however the child was made. A child that
//! *shares* the memory would find its parent's number there; whoever makes one says so before. After `vfork` the thread that called it
//! stands still until its child is gone, so the thread asks until the answer is the number that is kept: then it is the parent again.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::process::getpid;

/// More than one, where the kernel's pages are larger than that.
const PAGE_BYTES: usize = 4096;

thread_local! {
    /// Whether this thread may be running in a child made by `vfork`. Without a destructor and of constant value: a plain word.
    static HAS_LENT: Cell<bool> = const { Cell::new(false) };
}

/// The process that the value is used in.
#[derive(Debug)]
pub(super) struct Own {
    /// 0 while nobody has asked. None where the kernel empties no pages.
    page: Option<NonNull<AtomicU32>>,
    /// A child shares the memory and runs beside its parent.
    is_shared: AtomicBool,
    /// Threads that have lent the memory, and one more where it is shared: while there are none, nobody looks further. After a `fork` or
    /// the end of a thread it may be too many, never too few.
    doubts: AtomicU32,
}

// SAFETY: the page lives as long as the value, belongs to no thread, and is only reached through an atomic.
unsafe impl Send for Own {}
// SAFETY: as above.
unsafe impl Sync for Own {}

impl Own {
    pub(super) fn new() -> Own {
        Own {
            page: page(),
            is_shared: AtomicBool::new(false),
            doubts: AtomicU32::new(0),
        }
    }

    /// Its number.
    #[inline(always)]
    pub(super) fn pid(&self) -> u32 {
        if let Some(kept) = self.kept() {
            let pid = kept.load(Ordering::Relaxed);
            if pid != 0 && (self.doubts.load(Ordering::Relaxed) == 0 || !self.is_doubtful()) {
                return pid;
            }
        }
        self.ask()
    }

    /// Whether no child shares the memory.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.doubts.load(Ordering::Relaxed) == 0
    }

    /// The calling thread is about to call `vfork`.
    pub(super) fn lend(&self) {
        // The child must find a number that is not its own.
        self.pid();
        if !HAS_LENT.replace(true) {
            self.doubts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The process is about to make a child that shares its memory, and goes on beside it.
    pub(super) fn share(&self) {
        self.is_shared.store(true, Ordering::Relaxed);
        self.doubts.fetch_add(1, Ordering::Relaxed);
    }

    #[cold]
    fn is_doubtful(&self) -> bool {
        HAS_LENT.get() || self.is_shared.load(Ordering::Relaxed)
    }

    #[cold]
    fn ask(&self) -> u32 {
        let pid = getpid().as_raw_pid() as u32;
        if let Some(kept) = self.kept()
            && matches!(kept.load(Ordering::Relaxed), kept if kept == 0 || kept == pid)
        {
            kept.store(pid, Ordering::Relaxed);
            if HAS_LENT.replace(false) {
                self.doubts.fetch_sub(1, Ordering::Relaxed);
            }
        }
        pid
    }

    #[inline]
    fn kept(&self) -> Option<&AtomicU32> {
        // SAFETY: the page is aligned, readable, writable, and lives as long as `self`.
        self.page.map(|page| unsafe { page.as_ref() })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(page) = self.page {
            // SAFETY: the range is the one that `page` mapped; references into it borrow `self` and are gone.
            let _ = unsafe { munmap(page.as_ptr().cast(), PAGE_BYTES) };
        }
    }
}

/// A page that is empty, and will be in each child.
fn page() -> Option<NonNull<AtomicU32>> {
    // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours, and emptying it harms nobody.
    unsafe {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let start = mmap_anonymous(null_mut(), PAGE_BYTES, protection, MapFlags::PRIVATE).ok()?;
        if madvise(start, PAGE_BYTES, Advice::LinuxWipeOnFork).is_err() {
            let _ = munmap(start, PAGE_BYTES);
            return None;
        }
        NonNull::new(start.cast())
    }
}

#[cfg(test)]
mod tests {
    //! Who is told which number.
    use super::*;

    fn asked() -> u32 {
        getpid().as_raw_pid() as u32
    }

    #[test]
    fn a_number_that_is_kept_is_not_asked_for() {
        let own = Own::new();
        assert_eq!(own.pid(), asked());
        own.kept().unwrap().store(7, Ordering::Relaxed);
        assert_eq!(own.pid(), 7);
    }

    #[test]
    fn in_a_child_that_shares_the_memory_it_is_asked_for_and_its_parents_stays() {
        let own = Own::new();
        // As the child finds it: its parent's number, and a thread that has lent the memory.
        own.lend();
        own.kept().unwrap().store(7, Ordering::Relaxed);
        assert_eq!((own.pid(), own.pid()), (asked(), asked()));
        assert_eq!(own.kept().unwrap().load(Ordering::Relaxed), 7);
        // As its parent finds it, when the child is gone.
        own.kept().unwrap().store(asked(), Ordering::Relaxed);
        own.pid();
        assert!(!HAS_LENT.get());
    }

    #[test]
    fn beside_a_child_that_shares_the_memory_it_is_always_asked_for() {
        let own = Own::new();
        own.pid();
        own.share();
        own.kept().unwrap().store(7, Ordering::Relaxed);
        assert_eq!((own.pid(), own.pid()), (asked(), asked()));
    }

    #[test]
    fn where_no_page_is_emptied_it_is_always_asked_for() {
        let own = Own {
            page: None,
            is_shared: AtomicBool::new(false),
            doubts: AtomicU32::new(0),
        };
        own.lend();
        assert_eq!(own.pid(), asked());
        HAS_LENT.set(false);
    }
}
