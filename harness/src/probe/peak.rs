//! The peak of a process's memory during one step, bounded from both sides.

use super::{
    ProbeError,
    bounds::{PageUnits, PeakBounds, PeakVerdict, judge},
    faults::FaultCounter,
    memory::ProcessMemory,
    process::{memory, uss},
};
use nix::unistd::{SysconfVar, sysconf};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const SAMPLE_EVERY: Duration = Duration::from_millis(1);
const USS_EVERY: Duration = Duration::from_millis(20);

/// What one step did to a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeakReading {
    /// Right after the high-water mark was reset.
    pub start: ProcessMemory,
    /// At the end.
    pub end: ProcessMemory,
    /// The most that anonymous, shared and file pages have been together, bytes; since the start when `reset`.
    pub high_water_bytes: u64,
    /// Largest sample of anonymous + shared memory: the lower bound of its peak, bytes.
    pub sampled_anon_shared_peak_bytes: u64,
    /// Upper bound of the peak of anonymous + shared memory, bytes; see [`PeakReading::anon_shared_bounds`].
    pub anon_shared_upper_bytes: u64,
    /// Largest sample of file pages, bytes.
    pub sampled_file_peak_bytes: u64,
    /// The unique set size, where it is measured.
    pub uss: Option<UssReading>,
    /// Samples taken.
    pub samples: u64,
    /// Whether the mark could be reset; without it, only samples and faults bound the peak.
    pub reset: bool,
}

/// The unique set size during a step, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UssReading {
    /// At the start.
    pub start_bytes: u64,
    /// At the end.
    pub end_bytes: u64,
    /// Largest sample; taken at both ends, and every 20 ms while pages come or go.
    pub peak_bytes: u64,
}

/// Whether the unique set size is measured: the kernel walks over every page for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uss {
    /// At both ends, and between.
    Measured,
    /// Not at all.
    Skipped,
}

impl PeakReading {
    /// Bounds of the peak of anonymous + shared memory, bytes: `(lower, upper)`.
    ///
    /// Lower is the largest sample. Upper rests on page faults and on the high-water mark; what
    /// was copied whole into private memory within the step is always in it.
    #[must_use]
    pub fn anon_shared_bounds(&self) -> (u64, u64) {
        (
            self.sampled_anon_shared_peak_bytes,
            self.anon_shared_upper_bytes,
        )
    }

    /// Whether the peak of anonymous + shared memory stayed within a limit.
    #[must_use]
    pub fn exceeds(&self, limit_bytes: u64) -> PeakVerdict {
        let (lower, upper) = self.anon_shared_bounds();
        judge(lower, upper, limit_bytes)
    }
}

/// Watches a process's memory from `start` to `finish`.
#[derive(Debug)]
pub struct PeakWatch {
    stop: Sender<()>,
    sampler: JoinHandle<Result<PeakReading, ProbeError>>,
}

impl PeakWatch {
    /// Resets the high-water mark and starts sampling, about each millisecond, in a thread of its own.
    ///
    /// # Errors
    /// [`ProbeError::Gone`] when the process has ended.
    pub fn start(pid: u32, uss: Uss) -> Result<Self, ProbeError> {
        let mut sampler = Sampler::start(pid, uss)?;
        let (stop, stopped) = mpsc::channel();
        let sampler = thread::Builder::new()
            .name(format!("peak-{pid}"))
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(SAMPLE_EVERY) {
                    sampler.sample()?;
                }
                sampler.finish()
            })
            .map_err(|source| ProbeError::Unreadable {
                what: "memory samples: no thread".into(),
                source,
            })?;
        Ok(Self { stop, sampler })
    }

    /// Takes the last sample.
    ///
    /// # Errors
    /// [`ProbeError::Gone`] when the process ended meanwhile: a peak that was not watched to its end is none.
    pub fn finish(self) -> Result<PeakReading, ProbeError> {
        drop(self.stop);
        match self.sampler.join() {
            Ok(reading) => reading,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

struct Sampler {
    pid: u32,
    status: File,
    text: Vec<u8>,
    counter: FaultCounter,
    /// Read before the last sample of memory: no fault falls between two spans.
    faults: u64,
    bounds: PeakBounds,
    start: ProcessMemory,
    uss: Option<UssSampler>,
    /// At the last sample.
    footing: Footing,
    samples: u64,
    reset: bool,
}

struct UssSampler {
    reading: UssReading,
    read: Instant,
    /// What there was before it was last read.
    footing: Footing,
}

/// Page faults and resident memory: where both stay, no page has become the process's own or left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Footing {
    faults: u64,
    anon_shared_bytes: u64,
    file_bytes: u64,
}

impl Footing {
    fn of(faults: u64, memory: ProcessMemory) -> Self {
        Self {
            faults,
            anon_shared_bytes: memory.anon_shared_bytes(),
            file_bytes: memory.file_bytes,
        }
    }
}

impl Sampler {
    fn start(pid: u32, uss: Uss) -> Result<Self, ProbeError> {
        let status = File::open(format!("/proc/{pid}/status"))
            .map_err(|error| ProbeError::of(pid, "status", error))?;
        let counter =
            FaultCounter::open(pid).map_err(|error| ProbeError::of(pid, "stat", error))?;
        let read_faults = || {
            counter
                .read()
                .map_err(|error| ProbeError::of(pid, "stat", error))
        };
        let footing = Footing::of(read_faults()?, memory(pid)?);
        let uss = match uss {
            Uss::Measured => Some(UssSampler::start(pid, footing)?),
            Uss::Skipped => None,
        };
        let reset = reset_high_water(pid);
        let faults = read_faults()?;
        let start = memory(pid)?;
        Ok(Self {
            pid,
            status,
            text: vec![0; 4096],
            counter,
            faults,
            bounds: PeakBounds::start(start, page_units()),
            start,
            uss,
            footing,
            samples: 1,
            reset,
        })
    }

    fn sample(&mut self) -> Result<(), ProbeError> {
        self.span()?;
        match &mut self.uss {
            Some(uss) if uss.read.elapsed() >= USS_EVERY => uss.read(self.pid, self.footing),
            Some(_) | None => Ok(()),
        }
    }

    fn span(&mut self) -> Result<(), ProbeError> {
        let before = self.read_faults()?;
        let memory = self.read_memory()?;
        let after = self.read_faults()?;
        self.bounds
            .span(memory, after.saturating_sub(self.faults), self.reset);
        self.faults = before;
        self.footing = Footing::of(before, memory);
        self.samples += 1;
        Ok(())
    }

    fn read_faults(&self) -> Result<u64, ProbeError> {
        self.counter
            .read()
            .map_err(|error| ProbeError::of(self.pid, "stat", error))
    }

    fn read_memory(&mut self) -> Result<ProcessMemory, ProbeError> {
        let length = loop {
            let length = self
                .status
                .read_at(&mut self.text, 0)
                .map_err(|error| ProbeError::of(self.pid, "status", error))?;
            if length < self.text.len() {
                break length;
            }
            self.text.resize(self.text.len() * 2, 0);
        };
        ProcessMemory::parse(&self.text[..length]).ok_or(ProbeError::Gone { pid: self.pid })
    }

    fn finish(mut self) -> Result<PeakReading, ProbeError> {
        self.span()?;
        let end = self.read_memory()?;
        if let Some(uss) = &mut self.uss {
            uss.read(self.pid, self.footing)?;
        }
        Ok(PeakReading {
            start: self.start,
            end,
            high_water_bytes: self.bounds.high_water_bytes,
            sampled_anon_shared_peak_bytes: self.bounds.lower_bytes,
            anon_shared_upper_bytes: self.bounds.upper_bytes,
            sampled_file_peak_bytes: self.bounds.file_peak_bytes,
            uss: self.uss.map(|uss| uss.reading),
            samples: self.samples,
            reset: self.reset,
        })
    }
}

impl UssSampler {
    fn start(pid: u32, footing: Footing) -> Result<Self, ProbeError> {
        let bytes = uss(pid)?;
        Ok(Self {
            reading: UssReading {
                start_bytes: bytes,
                end_bytes: bytes,
                peak_bytes: bytes,
            },
            read: Instant::now(),
            footing,
        })
    }

    /// Where the last sample stands on what it was read on, it is what it was.
    fn read(&mut self, pid: u32, footing: Footing) -> Result<(), ProbeError> {
        if self.footing == footing {
            return Ok(());
        }
        self.footing = footing;
        self.reading.end_bytes = uss(pid)?;
        self.reading.peak_bytes = self.reading.peak_bytes.max(self.reading.end_bytes);
        self.read = Instant::now();
        Ok(())
    }
}

/// Writes 5 to `clear_refs` [man 5 proc]: the mark falls to what is resident now. False when refused.
fn reset_high_water(pid: u32) -> bool {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok()
}

fn page_units() -> PageUnits {
    let of = |variable| sysconf(variable).ok().flatten().map(i64::cast_unsigned);
    PageUnits {
        page_bytes: of(SysconfVar::PAGE_SIZE).unwrap_or(4096),
        cpus: of(SysconfVar::_NPROCESSORS_CONF).unwrap_or(1),
    }
}
