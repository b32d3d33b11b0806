//! Benchmarks: what offloading costs in time and memory, for any subject, beside what the machine itself does at most.
//!
//! Times go from a request to its reply, as the harness sees them; digests are off meanwhile. Each row is measured several times, in
//! runs in which every row has its turn, so that a machine that drifts drifts for all. Once for each row, after the clock was
//! stopped, what came back is compared byte by byte. Every run has a process and a directory of its own, and leaves nothing.

mod ceiling;
mod failure;
mod journal;
mod machine;
mod models;
mod page_cache;
mod plan;
pub mod record;
mod requests;
mod served;
mod summary;
mod table;
mod tensor;

pub use failure::{Clock, Failure};
pub use journal::{Journal, JournalError};
pub use plan::{Contender, Loads, Measures, Pattern, Row, Size, Sizes, Table, rows};
pub use summary::{Summary, SummaryMemory, summaries};
pub use table::markdown;

use crate::{
    ballast::Ballast,
    device::{CudaGpu, DeviceKind, DeviceUnderTest, EmulatedGpu, EmulatorOptions},
    error::HarnessError,
    gpu::CuFile,
    sandbox::Sandbox,
};
use nix::sys::statvfs::statvfs;
use plan::in_run;
use record::{Record, Run, SCHEMA, Session, Skip};
use served::Served;
use spillproof_board::{BoardConfig, BoardDevice};
use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

/// Device memory beside models: contexts, and what a driver keeps for itself.
const OTHER_DEVICE_BYTES: u64 = 64 << 20;

/// The same on a real GPU.
const OTHER_CUDA_BYTES: u64 = 2 << 30;

/// Disk space beside models.
const OTHER_DISK_BYTES: u64 = 64 << 20;

/// Lines of standard error that are told of a subject that failed.
const TOLD_LINES: usize = 12;

/// Everything that runs have in common.
#[derive(Clone, Debug)]
pub struct Benchmark {
    /// The device.
    pub device: DeviceKind,
    /// The library that serves as libcuda on the emulated one.
    pub emulator: PathBuf,
    /// The program that holds device memory.
    pub ballast: PathBuf,
    /// The program that measures ceilings.
    pub ceiling: PathBuf,
    /// Where directories of runs are made.
    pub work_dir: PathBuf,
    /// Who is measured.
    pub contenders: Vec<Contender>,
    /// Environment for every subject.
    pub settings: Vec<(String, String)>,
    /// How large everything is.
    pub sizes: Sizes,
    /// Which loads of a tensor are measured.
    pub loads: Loads,
    /// Bytes of each try by which the way of a ceiling is chosen.
    pub sample_bytes: u64,
}

/// What became of a benchmark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Rows that went wrong, and how.
    pub failures: BTreeMap<String, String>,
    /// Rows that lack runs because time was over, and how many.
    pub missing: BTreeMap<String, u32>,
}

impl Benchmark {
    /// What is said of this start in the journal.
    ///
    /// # Errors
    /// The machine cannot be asked.
    pub fn session(
        &self,
        command_line: Vec<String>,
        settings: BTreeMap<String, String>,
    ) -> Result<Session, HarnessError> {
        fs::create_dir_all(&self.work_dir).map_err(HarnessError::path("create", &self.work_dir))?;
        Ok(Session {
            schema: SCHEMA.into(),
            started: machine::now(),
            command_line,
            machine: machine::machine(&self.device, &self.work_dir)?,
            settings,
        })
    }

    /// Measures every row `runs` times, as far as the journal does not have it and time allows. `tell` gets a line for each run.
    ///
    /// # Errors
    /// The harness failed, which is no subject's fault.
    pub fn run(
        &self,
        rows: &[Row],
        runs: u32,
        clock: Clock,
        journal: &mut Journal,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Ran, HarnessError> {
        let gpu = match self.device {
            DeviceKind::Emulated => None,
            DeviceKind::Cuda { ordinal } => Some(CudaGpu::open(ordinal)?),
        };
        let mut ran = Ran::default();
        for number in 1..=runs {
            for row in in_run(rows, number) {
                let is_done = journal.runs_of(&row.name).any(|run| run.run == number);
                if is_done || journal.is_skipped(&row.name) || ran.failures.contains_key(&row.name)
                {
                    continue;
                }
                if !has_time(&row, clock, journal) {
                    *ran.missing.entry(row.name).or_default() += 1;
                    continue;
                }
                let label = format!("{} {number}/{runs}", row.name);
                let start = clock.elapsed();
                match self.measure(&row, clock, journal, gpu.as_ref()) {
                    Ok((run, lacks)) => {
                        let run = Run {
                            row: row.name.clone(),
                            run: number,
                            at_seconds: start.as_secs_f64(),
                            wall_seconds: (clock.elapsed() - start).as_secs_f64(),
                            ..run
                        };
                        tell(&format!("{label}  {}", table::line(&run)));
                        for (step, reason) in &run.left_out {
                            tell(&format!("SKIP  {label} {step}: {reason}"));
                        }
                        journal.write(Record::Run(run))?;
                        for (what, reason) in lacks {
                            let row = format!("{}/{what}", row.name);
                            tell(&format!("SKIP  {row}: {reason}"));
                            if !journal.is_skipped(&row) {
                                journal.write(Record::Skip(Skip { row, reason }))?;
                            }
                        }
                    }
                    Err((Failure::OutOfTime, _)) => {
                        tell(&format!("{label}  the time limit came in the middle of it"));
                        *ran.missing.entry(row.name).or_default() += 1;
                    }
                    Err((Failure::Harness(error), _)) => return Err(error),
                    Err((failure, said)) => {
                        let skip = Skip {
                            row: row.name.clone(),
                            reason: failure.to_string(),
                        };
                        if failure.is_lack() {
                            tell(&format!("SKIP  {}: {failure}", row.name));
                            journal.write(Record::Skip(skip))?;
                        } else {
                            tell(&format!("FAIL  {}: {failure}{said}", row.name));
                            journal.write(Record::Failure(skip))?;
                            ran.failures.insert(row.name, failure.to_string());
                        }
                    }
                }
            }
        }
        Ok(ran)
    }

    fn measure(
        &self,
        row: &Row,
        clock: Clock,
        journal: &Journal,
        gpu: Option<&CudaGpu>,
    ) -> Result<(Run, BTreeMap<String, String>), (Failure, String)> {
        let plain = |failure: Failure| (failure, String::new());
        if let Some(reason) = self
            .short_of_disk(row)
            .map_err(|error| plain(error.into()))?
        {
            return Err(plain(Failure::Unable(reason)));
        }
        match row.contender {
            None => self.ceiling(row, clock, journal, gpu).map_err(plain),
            Some(index) => {
                let verifies = !journal.runs_of(&row.name).any(|run| run.is_verified);
                let run = self.subject(row, &self.contenders[index], clock, verifies, gpu)?;
                Ok((run, BTreeMap::new()))
            }
        }
    }

    fn ceiling(
        &self,
        row: &Row,
        clock: Clock,
        journal: &Journal,
        gpu: Option<&CudaGpu>,
    ) -> Result<(Run, BTreeMap<String, String>), Failure> {
        let sandbox = Sandbox::create(&self.work_dir, "bench-ceiling")?;
        let device = self.device(row, &sandbox, gpu)?;
        let directory = sandbox.offload_dir();
        let wish = ceiling::Wish {
            program: &self.ceiling,
            environment: device.environment(),
            directory: &directory,
            bytes: row.bytes,
            is_of_swaps: row.measures == Measures::MixedCeiling,
            sample_bytes: self.sample_bytes,
            earlier: journal.runs_of(&row.name).collect(),
        };
        ceiling::run(&wish, clock)
    }

    fn subject(
        &self,
        row: &Row,
        contender: &Contender,
        clock: Clock,
        verifies: bool,
        gpu: Option<&CudaGpu>,
    ) -> Result<Run, (Failure, String)> {
        let plain = |failure: Failure| (failure, String::new());
        if let Some(reason) = &contender.unavailable {
            return Err(plain(Failure::Unable(reason.clone())));
        }
        let mut settings = self.settings.clone();
        if let Measures::Requests(threshold) = row.measures {
            settings.push(("MMAP_MEM_THRESHOLD_GB".into(), threshold.into()));
        }
        let started = Served::start(contender, &settings, &self.work_dir, clock, |sandbox| {
            self.device(row, sandbox, gpu)
        });
        let mut served = started.map_err(plain)?;
        let result = self.with_subject(row, &mut served, verifies);
        let (finding, said) = served.finish(result.is_ok());
        let said: Vec<&str> = said.lines().collect();
        let told = said[said.len().saturating_sub(TOLD_LINES)..].iter();
        let told: String = told.map(|line| format!("\n      {line}")).collect();
        match (result, finding) {
            (Ok(run), None) => Ok(run),
            (Ok(_), Some(finding)) => Err((Failure::Misbehaved(finding), told)),
            (Err(failure), _) => Err((failure, told)),
        }
    }

    fn with_subject(
        &self,
        row: &Row,
        served: &mut Served<'_>,
        verifies: bool,
    ) -> Result<Run, Failure> {
        served.open()?;
        let run = match row.measures {
            Measures::Ceiling | Measures::MixedCeiling => Run::default(),
            Measures::Tensor => tensor::run(served, row.bytes, self.loads, verifies)?,
            Measures::Requests(_) => {
                // An emulated device has its size; a real one is made small.
                let _ballast = match self.device {
                    DeviceKind::Emulated => None,
                    DeviceKind::Cuda { .. } => {
                        let environment = served.device.environment();
                        let mut ballast = Ballast::start(&self.ballast, 0, &environment)?;
                        ballast.leave(self.sizes.vram_bytes)?;
                        Some(ballast)
                    }
                };
                requests::repeated(served, &self.sizes, verifies)?
            }
            Measures::Swap => requests::swap(served, row.bytes, verifies)?,
        };
        served.quit()?;
        Ok(run)
    }

    /// The device of a run; a real one once nobody else is on it.
    fn device(
        &self,
        row: &Row,
        sandbox: &Sandbox,
        gpu: Option<&CudaGpu>,
    ) -> Result<DeviceUnderTest, HarnessError> {
        let needed_bytes = match row.measures {
            Measures::Requests(_) => self.sizes.vram_bytes,
            Measures::Swap => 2 * row.bytes,
            Measures::MixedCeiling => 0,
            Measures::Ceiling | Measures::Tensor => row.bytes,
        };
        if let Some(gpu) = gpu {
            gpu.wait_until_clean(needed_bytes + OTHER_CUDA_BYTES)?;
            return Ok(DeviceUnderTest::Cuda(gpu.clone()));
        }
        let room = match row.measures {
            Measures::Requests(_) => 0,
            _ => OTHER_DEVICE_BYTES,
        };
        let config = BoardConfig {
            devices: vec![BoardDevice {
                capacity_bytes: needed_bytes + room,
                name: "emulated GPU 0".into(),
            }],
        };
        let options = EmulatorOptions {
            cufile: Some(CuFile::COMPAT.to_string()),
            ..EmulatorOptions::default()
        };
        let libraries = sandbox.root().join("libraries");
        let gpu = EmulatedGpu::create(&config, &self.emulator, &libraries, options)?;
        Ok(DeviceUnderTest::Emulated(gpu))
    }

    /// Why the disk has no room for the row, where it has none.
    fn short_of_disk(&self, row: &Row) -> Result<Option<String>, HarnessError> {
        let wanted = match row.measures {
            Measures::Requests("0") => 0,
            Measures::Requests(_) => self.sizes.models as u64 * row.bytes,
            Measures::Swap | Measures::MixedCeiling => 2 * row.bytes,
            Measures::Ceiling | Measures::Tensor => row.bytes,
        } + OTHER_DISK_BYTES;
        fs::create_dir_all(&self.work_dir).map_err(HarnessError::path("create", &self.work_dir))?;
        let space = statvfs(&self.work_dir).map_err(HarnessError::system("statvfs"))?;
        let free = space.blocks_available() as u64 * space.fragment_size() as u64;
        Ok((free < wanted).then(|| {
            format!(
                "{free} bytes are free at {}, it needs {wanted}; make room or set SPILLPROOF_DIR",
                self.work_dir.display()
            )
        }))
    }
}

/// Whether a run of the row fits into what is left, by how long the longest of it took, or of its table and size where it has none.
fn has_time(row: &Row, clock: Clock, journal: &Journal) -> bool {
    let table = |name: &str| name.rsplit_once('/').map(|(table, _)| table.to_owned());
    let longest =
        |runs: &mut dyn Iterator<Item = &Run>| runs.map(|run| run.wall_seconds).reduce(f64::max);
    let own = longest(&mut journal.runs_of(&row.name));
    let of_table = || {
        let same = journal
            .runs()
            .filter(|run| table(&run.row) == table(&row.name));
        longest(&mut same.filter(|run| !run.row.ends_with("/ceiling")))
    };
    let needed = own.or_else(of_table).unwrap_or(0.0);
    clock
        .left()
        .is_none_or(|left| left > Duration::ZERO && left.as_secs_f64() >= needed)
}
