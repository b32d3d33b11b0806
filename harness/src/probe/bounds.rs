//! What samples, the high-water mark and page faults together say about the peak of anonymous + shared memory.
//!
//! The mark `VmHWM` is exact, but covers anonymous, shared *and* file pages: the peak asked for, A, is
//! not among what the kernel records. Known per sample i are A_i, the file pages F_i, the mark H_i (the most that
//! A + F have been since the mark was reset at the start) and the page faults f_i since sample i − 1.
//!
//! - **Lower bound**: the largest A_i. The kernel showed it.
//! - **Upper bound**: the largest, over the spans between two samples, of the smaller of
//!   - *by faults*: A_{i−1} + f_i pages. A private or shared page becomes resident by a fault, and subjects run with
//!     transparent huge pages off, so that each brings in one page.
//!   - *by the mark*: H_i, for A + F never passed it. File pages are not taken off: those that stayed cannot be told from
//!     those that left and came back, 64 KiB a fault, and where faults are too few for that, their own bound is the smaller one anyway.
//!
//! The kernel keeps the mark from counters that may lag by a batch of pages per processor; that lag is added.
//! Neither depends on how often a sample is taken: on a busy machine spans grow, faults do not. File pages hardly matter
//! to the first bound (a fault brings 16 of them), slots that are used again do not matter at all.
//!
//! Not seen: what children of the process hold, swapped pages, and pages that a device driver maps without a fault.

use super::ProcessMemory;

/// Whether a peak stayed within a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeakVerdict {
    /// The upper bound does.
    Within,
    /// The lower bound does not.
    Exceeded,
    /// The limit lies between the bounds.
    Undecided,
}

/// How the machine counts pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageUnits {
    pub(super) page_bytes: u64,
    pub(super) cpus: u64,
}

impl PageUnits {
    /// What the counters behind the mark may lag by: a batch per processor [linux lib/percpu_counter.c].
    fn lag_bytes(self) -> u64 {
        self.cpus * (2 * self.cpus).max(32) * self.page_bytes
    }
}

/// The two bounds, narrowed span by span.
#[derive(Clone, Debug)]
pub(super) struct PeakBounds {
    last: ProcessMemory,
    units: PageUnits,
    pub(super) lower_bytes: u64,
    pub(super) upper_bytes: u64,
    pub(super) file_peak_bytes: u64,
    pub(super) high_water_bytes: u64,
}

impl PeakBounds {
    /// The first sample, taken right after the mark was reset.
    pub(super) fn start(memory: ProcessMemory, units: PageUnits) -> Self {
        Self {
            last: memory,
            units,
            lower_bytes: memory.anon_shared_bytes(),
            upper_bytes: memory.anon_shared_bytes(),
            file_peak_bytes: memory.file_bytes,
            high_water_bytes: memory.high_water_bytes,
        }
    }

    /// The next sample, and the page faults since the one before. `mark_holds` is false when the mark could not be reset.
    pub(super) fn span(&mut self, memory: ProcessMemory, faults: u64, mark_holds: bool) {
        let (before, after) = (self.last.anon_shared_bytes(), memory.anon_shared_bytes());
        // A huge page comes with one fault and is not in the mark: what either end showed of them is added.
        let huge = self.last.hugetlb_bytes.max(memory.hugetlb_bytes);
        let by_faults = before.saturating_add(faults.saturating_mul(self.units.page_bytes)) + huge;
        let by_mark = memory.high_water_bytes + self.units.lag_bytes() + huge;
        let upper = if mark_holds {
            by_mark.min(by_faults)
        } else {
            by_faults
        };
        self.lower_bytes = self.lower_bytes.max(after);
        self.upper_bytes = self.upper_bytes.max(upper).max(self.lower_bytes);
        self.file_peak_bytes = self.file_peak_bytes.max(memory.file_bytes);
        self.high_water_bytes = self.high_water_bytes.max(memory.high_water_bytes);
        self.last = memory;
    }
}

pub(super) fn judge(lower_bytes: u64, upper_bytes: u64, limit_bytes: u64) -> PeakVerdict {
    if upper_bytes <= limit_bytes {
        PeakVerdict::Within
    } else if lower_bytes > limit_bytes {
        PeakVerdict::Exceeded
    } else {
        PeakVerdict::Undecided
    }
}

#[cfg(test)]
mod tests {
    //! Histories of a process, told sample by sample, in MiB; 256 faults bring in one MiB.
    use super::*;
    use PeakVerdict::{Exceeded, Undecided, Within};

    const MIB: u64 = 1 << 20;
    /// No lag: that is another test's.
    const UNITS: PageUnits = PageUnits {
        page_bytes: 4096,
        cpus: 0,
    };
    const FAULTS_PER_MIB: u64 = MIB / UNITS.page_bytes;

    impl PeakBounds {
        fn judge(&self, limit_bytes: u64) -> PeakVerdict {
            judge(self.lower_bytes, self.upper_bytes, limit_bytes)
        }
    }

    fn memory(anon: u64, file: u64, mark: u64) -> ProcessMemory {
        ProcessMemory {
            anon_bytes: anon * MIB,
            file_bytes: file * MIB,
            high_water_bytes: mark * MIB,
            ..ProcessMemory::default()
        }
    }

    #[test]
    fn what_no_sample_saw_shows_in_the_mark_and_in_faults() {
        // 64 MiB came and went between two samples.
        let mut bounds = PeakBounds::start(memory(10, 5, 15), UNITS);
        bounds.span(memory(10, 5, 79), 64 * FAULTS_PER_MIB, true);
        assert_eq!(bounds.lower_bytes, 10 * MIB);
        assert_eq!(bounds.judge(73 * MIB), Undecided);
        assert_eq!(bounds.judge(74 * MIB), Within);
        assert_eq!(bounds.judge(9 * MIB), Exceeded);
    }

    #[test]
    fn a_slot_that_is_faulted_in_again_and_again_is_bounded_by_the_mark() {
        let mut bounds = PeakBounds::start(memory(10, 0, 10), UNITS);
        bounds.span(memory(10, 0, 14), 400 * FAULTS_PER_MIB, true);
        assert_eq!(bounds.judge(14 * MIB), Within);
    }

    #[test]
    fn file_pages_that_come_and_leave_unseen_are_not_taken_for_private_memory() {
        // 512 MiB of file pages, 64 KiB a fault.
        let mut bounds = PeakBounds::start(memory(10, 5, 15), UNITS);
        bounds.span(memory(10, 5, 527), 512 * 16, true);
        assert_eq!(bounds.judge(42 * MIB), Within);
        bounds.span(memory(10, 517, 527), 16, true);
        bounds.span(memory(10, 3, 527), 0, true);
        assert_eq!(bounds.judge(42 * MIB), Within);
        assert_eq!(bounds.file_peak_bytes, 517 * MIB);
    }

    #[test]
    fn a_copy_in_place_of_file_pages_that_left_is_not_within() {
        // 64 MiB of file pages left, 64 MiB were copied and released, the pages came back: the mark stays.
        let mut bounds = PeakBounds::start(memory(10, 69, 79), UNITS);
        bounds.span(memory(10, 69, 79), 64 * FAULTS_PER_MIB + 64 * 16, true);
        assert_eq!(bounds.judge(73 * MIB), Undecided);
        // Only the pages' leaving was seen.
        let mut bounds = PeakBounds::start(memory(10, 69, 79), UNITS);
        bounds.span(memory(10, 5, 79), 64 * FAULTS_PER_MIB, true);
        assert_eq!(bounds.judge(73 * MIB), Undecided);
    }

    #[test]
    fn without_a_mark_faults_alone_bound_the_peak() {
        let mut bounds = PeakBounds::start(memory(10, 5, 600), UNITS);
        bounds.span(memory(10, 5, 600), 8 * FAULTS_PER_MIB, false);
        assert_eq!(bounds.judge(17 * MIB), Undecided);
        assert_eq!(bounds.judge(18 * MIB), Within);
    }

    #[test]
    fn huge_pages_count_although_the_mark_leaves_them_out() {
        let huge = ProcessMemory {
            hugetlb_bytes: 64 * MIB,
            ..memory(10, 5, 15)
        };
        let mut bounds = PeakBounds::start(memory(10, 5, 15), UNITS);
        bounds.span(huge, 32, true);
        assert_eq!(bounds.judge(73 * MIB), Exceeded);
        assert_eq!(bounds.judge(77 * MIB), Within);
    }

    #[test]
    fn the_mark_may_lag_by_a_batch_per_processor() {
        let units = PageUnits { cpus: 2, ..UNITS };
        let mut bounds = PeakBounds::start(memory(10, 0, 10), units);
        bounds.span(memory(10, 0, 12), 400 * FAULTS_PER_MIB, true);
        assert_eq!(bounds.judge(12 * MIB), Undecided);
        assert_eq!(bounds.judge(12 * MIB + 2 * 32 * 4096), Within);
    }
}
