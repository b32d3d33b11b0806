//! What samples and the high-water mark together say about the peak of anonymous + shared memory.
//!
//! The mark `VmHWM` is exact, but covers anonymous, shared *and* file pages: the peak asked for, A, is
//! not among what the kernel records. Known per sample i are A_i, the file pages F_i, the mark H_i (the most that
//! A + F have been since the mark was reset) and the processor time c_i that the process used since sample i − 1.
//!
//! - **Lower bound**, certain: the largest A_i. The kernel showed it.
//! - **Upper bound**: the largest, over the spans between two samples, of the smaller of
//!   - *by the mark*: H_i − min(F_{i−1}, F_i). A + F never passed H_i, so A is at most that unless F dipped below both
//!     ends in between and came back. Such a dip costs processor time: in a span with more than
//!     20 ms of it nothing is subtracted, and H_i alone is certain.
//!   - *by the rate*: max(A_{i−1}, A_i) + 8 GiB/s · c_i. What came and went between two samples had to be faulted
//!     in and filled by the process's own processor time, which one core does at 1 to 5.3 GiB/s
//!     (measured with 4 KiB and 2 MiB pages; zeroing alone, without a copy, reaches 8.4).
//!
//!   The mark makes it exact while file pages stay as they are. The rate decides when they leave: when a 512 MiB map is dropped, the mark
//!   still shows it. The mark is then reset, so that it binds again. Between its last reading and the reset it is
//!   blind, and only the rate holds: microseconds, so some hundred KiB.
//!
//! Not seen: what children of the process hold, swapped pages, and pages that bypass these counters (device mappings).

use super::ProcessMemory;
use std::time::Duration;

/// Most bytes per second of its own processor time that a process can fill and release again.
pub const UPPER_BOUND_RATE_BYTES_PER_S: u64 = 8 << 30;

/// Processor time in which a process could drop file pages, fill as much private memory, release it and map the pages anew.
const DIP_CPU: Duration = Duration::from_millis(20);

/// Whether a peak stayed within a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeakVerdict {
    /// The upper bound does.
    Within,
    /// The lower bound does not.
    Exceeded,
    /// The limit lies between the bounds: file pages came and went, or sampling was starved.
    Undecided,
}

/// The two bounds, narrowed span by span.
#[derive(Clone, Debug)]
pub(super) struct PeakBounds {
    last: ProcessMemory,
    pub(super) lower_bytes: u64,
    pub(super) upper_bytes: u64,
    pub(super) file_peak_bytes: u64,
    pub(super) high_water_bytes: u64,
}

impl PeakBounds {
    /// The first sample, taken right after the mark was reset.
    pub(super) fn start(memory: ProcessMemory) -> Self {
        Self {
            last: memory,
            lower_bytes: memory.anon_shared_bytes(),
            upper_bytes: memory.anon_shared_bytes(),
            file_peak_bytes: memory.file_bytes,
            high_water_bytes: memory.high_water_bytes,
        }
    }

    /// The next sample, and the processor time that the process used since the one before.
    /// `mark_holds` is false when the mark was reset, or could not be, since the one before.
    pub(super) fn span(&mut self, memory: ProcessMemory, cpu: Duration, mark_holds: bool) {
        let (before, after) = (self.last.anon_shared_bytes(), memory.anon_shared_bytes());
        let floor = if cpu > DIP_CPU {
            0
        } else {
            self.last.file_bytes.min(memory.file_bytes)
        };
        // The mark does not count huge pages: what either end showed of them is added.
        let huge = self.last.hugetlb_bytes.max(memory.hugetlb_bytes);
        let by_mark = memory.high_water_bytes.saturating_sub(floor) + huge;
        let filled = cpu.as_nanos() * u128::from(UPPER_BOUND_RATE_BYTES_PER_S) / 1_000_000_000;
        let by_rate = before
            .max(after)
            .saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        let upper = if mark_holds {
            by_mark.min(by_rate)
        } else {
            by_rate
        };
        self.lower_bytes = self.lower_bytes.max(after);
        self.upper_bytes = self.upper_bytes.max(upper).max(self.lower_bytes);
        self.file_peak_bytes = self.file_peak_bytes.max(memory.file_bytes);
        self.high_water_bytes = self.high_water_bytes.max(memory.high_water_bytes);
        self.last = memory;
    }

    /// File pages that the mark still shows although they left.
    pub(super) fn stale_mark_bytes(&self) -> u64 {
        let below_mark = self
            .last
            .high_water_bytes
            .saturating_sub(self.last.resident_bytes());
        below_mark.min(self.file_peak_bytes.saturating_sub(self.last.file_bytes))
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
    //! Histories of a process, told sample by sample, in MiB.
    use super::*;
    use PeakVerdict::{Exceeded, Undecided, Within};

    const MIB: u64 = 1 << 20;

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

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn with_steady_file_pages_the_mark_shows_what_no_sample_saw() {
        // 64 MiB came and went between two samples.
        let mut bounds = PeakBounds::start(memory(10, 5, 15));
        bounds.span(memory(10, 5, 79), ms(12), true);
        assert_eq!(
            (bounds.lower_bytes, bounds.upper_bytes),
            (10 * MIB, 74 * MIB)
        );
        assert_eq!(bounds.judge(73 * MIB), Undecided);
        assert_eq!(bounds.judge(74 * MIB), Within);
        assert_eq!(bounds.judge(9 * MIB), Exceeded);
    }

    #[test]
    fn file_pages_that_come_are_not_taken_for_private_memory() {
        let mut bounds = PeakBounds::start(memory(10, 5, 15));
        for step in 1..=64 {
            let file = 5 + step * 8;
            bounds.span(memory(10, file, 10 + file), ms(1), true);
        }
        assert_eq!(bounds.judge(18 * MIB), Within);
        assert_eq!(bounds.file_peak_bytes, 517 * MIB);
    }

    #[test]
    fn file_pages_that_leave_are_not_taken_for_private_memory() {
        let mut bounds = PeakBounds::start(memory(10, 512, 522));
        bounds.span(memory(10, 3, 522), ms(1), true);
        assert_eq!(bounds.judge(19 * MIB), Within);
        assert!(bounds.stale_mark_bytes() > 500 * MIB);
        // The mark is reset, blind for 0.02 ms.
        bounds.span(memory(10, 3, 13), Duration::from_micros(20), false);
        assert_eq!(bounds.stale_mark_bytes(), 0);
        bounds.span(memory(10, 3, 13), ms(900), true);
        assert_eq!(bounds.judge(19 * MIB), Within);
    }

    #[test]
    fn a_copy_in_place_of_file_pages_that_left_is_not_within() {
        // 64 MiB of file pages left, 64 MiB were copied and released, the pages came back: the mark stays.
        let mut bounds = PeakBounds::start(memory(10, 69, 79));
        bounds.span(memory(10, 69, 79), ms(25), true);
        assert_eq!(bounds.judge(73 * MIB), Undecided);
        // Only the pages' leaving was seen.
        let mut bounds = PeakBounds::start(memory(10, 69, 79));
        bounds.span(memory(10, 5, 79), ms(12), true);
        assert_eq!(bounds.judge(73 * MIB), Undecided);
    }

    #[test]
    fn without_a_mark_the_rate_alone_bounds_the_peak() {
        let mut bounds = PeakBounds::start(memory(10, 5, 600));
        bounds.span(memory(10, 5, 600), ms(1), false);
        assert_eq!(bounds.judge(18 * MIB), Undecided);
        assert_eq!(bounds.judge(19 * MIB), Within);
    }

    #[test]
    fn huge_pages_count_although_the_mark_leaves_them_out() {
        let huge = ProcessMemory {
            hugetlb_bytes: 64 * MIB,
            ..memory(10, 5, 15)
        };
        let mut bounds = PeakBounds::start(memory(10, 5, 15));
        bounds.span(huge, ms(1), true);
        assert_eq!(bounds.judge(73 * MIB), Exceeded);
        assert_eq!(bounds.judge(74 * MIB), Within);
    }
}
