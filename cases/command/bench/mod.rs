//! `spillproof bench`: what offloading costs in time and memory, beside the ceilings of the machine and beside PyTorch.

mod arguments;
mod contenders;
mod output;

pub(crate) use arguments::Arguments;

use arguments::TableName;
use output::Report;
use spillproof::{
    bench::{Judged, bench, program},
    counts::{self, Counted},
};
use spillproof_harness::{
    bench::{Benchmark, Clock, Journal, JournalError, Row, Table, rows, summaries},
    device::{DeviceKind, discover},
    error::HarnessError,
    run::Bench,
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What was measured is wrong.
const FAILED_STATUS: u8 = 1;
/// The command line asks for what cannot be.
const USAGE_STATUS: u8 = 2;
/// Runs are missing.
const INCONCLUSIVE_STATUS: u8 = 3;
/// There is no number.
const NOTHING_STATUS: u8 = 4;
/// Nobody's fault that is measured.
const INFRASTRUCTURE_STATUS: u8 = 75;

/// Why there is no benchmark.
enum Refusal {
    Usage(String),
    Nothing(String),
    Infrastructure(String),
}

impl From<HarnessError> for Refusal {
    fn from(error: HarnessError) -> Self {
        Self::Infrastructure(error.to_string())
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Harness(error) => error.into(),
            JournalError::Line { .. } | JournalError::Unlike { .. } => {
                Self::Usage(error.to_string())
            }
        }
    }
}

impl Arguments {
    /// Measures; the status of the whole command.
    pub(crate) fn run(self) -> ExitCode {
        let (status, text) = match self.measure() {
            Ok(status) => return ExitCode::from(status),
            Err(Refusal::Usage(text)) => (USAGE_STATUS, text),
            Err(Refusal::Nothing(text)) => (NOTHING_STATUS, text),
            Err(Refusal::Infrastructure(text)) => (INFRASTRUCTURE_STATUS, text),
        };
        eprintln!("Error: {text}");
        ExitCode::from(status)
    }

    fn measure(self) -> Result<u8, Refusal> {
        let clock = Clock::start(self.time_limit());
        let device = self.device()?;
        let judged = Judged::from_environment();
        let found = bench(&judged).map_err(Refusal::Infrastructure)?;
        let tables = self.tables(&device);
        let counted = self.count(&tables, &found);
        let timed: Vec<Table> = tables.into_iter().filter_map(TableName::timed).collect();
        let contenders = contenders::contenders(&judged, &found, &device, &self);
        let benchmark = Benchmark {
            device,
            emulator: found.emulator.clone(),
            ballast: found.ballast.clone(),
            ceiling: program("ceiling").map_err(Refusal::Infrastructure)?,
            work_dir: self.directory.clone().unwrap_or(found.work_dir.clone()),
            contenders,
            settings: self.env.clone(),
            sizes: self.sizes().map_err(Refusal::Usage)?,
            loads: self.loads(),
            sample_bytes: self.sample_bytes.as_u64(),
        };
        let mut rows = rows(&timed, &benchmark.sizes, &benchmark.contenders);
        rows.retain(|row| self.chooses(&row.name));
        if rows.is_empty() && counted.is_empty() {
            let text = "no row is chosen; look at --tables, --only and --skip".to_owned();
            return Err(Refusal::Nothing(text));
        }
        let mut report = Report {
            counted,
            ..Report::default()
        };
        if !rows.is_empty() {
            self.time(&benchmark, &found, &rows, clock, &mut report)?;
        }
        print!("{}", report.text());
        if let Some(path) = &self.json {
            report
                .write(path)
                .map_err(HarnessError::path("write", path))?;
        }
        Ok(report.status())
    }

    /// Counts the chosen workloads, each with its result or what is wrong with it.
    fn count(&self, tables: &[TableName], found: &Bench) -> Vec<Result<Counted, String>> {
        if !tables.contains(&TableName::Counts) {
            return Vec::new();
        }
        let mut found = found.clone();
        let settings = self.env.iter();
        let settings = settings.map(|(name, value)| (name.into(), value.into()));
        found.subject.env.extend(settings);
        let workloads = counts::workloads().into_iter();
        let chosen = workloads.filter(|case| self.chooses(&format!("counts/{}", case.name)));
        chosen.map(|case| counts::count(&case, &found)).collect()
    }

    /// Measures the rows, as far as time allows.
    fn time(
        &self,
        benchmark: &Benchmark,
        found: &Bench,
        rows: &[Row],
        clock: Clock,
        report: &mut Report,
    ) -> Result<(), Refusal> {
        let command_line: Vec<String> = std::env::args().collect();
        let session = benchmark.session(command_line, self.settings())?;
        let mut journal = match &self.resume {
            Some(path) => Journal::resume(path, session)?,
            None => {
                let path = self.lines_path(&found.work_dir, &session.started);
                eprintln!("spillproof: results go to {}", path.display());
                Journal::create(&path, session)?
            }
        };
        let mut tell = |line: &str| eprintln!("{line}");
        report.ran = benchmark.run(rows, self.runs, clock, &mut journal, &mut tell)?;
        let contenders = benchmark.contenders.iter();
        let names = contenders.map(|contender| contender.name.as_str());
        let references: Vec<&str> = names
            .filter(|name| name.starts_with(contenders::TORCH))
            .collect();
        report.summaries = summaries(journal.runs(), &references);
        report.records = journal.records().to_vec();
        Ok(())
    }

    /// The device that is asked for, or the first GPU, or the emulated one.
    fn device(&self) -> Result<DeviceKind, Refusal> {
        let devices = discover();
        let kind = match &self.device {
            Some(name) => {
                let found = devices.iter().find(|found| found.kind.to_string() == *name);
                match found {
                    Some(found) => match &found.unavailable {
                        Some(reason) => return Err(Refusal::Infrastructure(reason.clone())),
                        None => found.kind,
                    },
                    None => {
                        let known: Vec<String> =
                            devices.iter().map(|found| found.kind.to_string()).collect();
                        let text = format!(
                            "there is no device {name}; choose among {}",
                            known.join(", ")
                        );
                        return Err(Refusal::Usage(text));
                    }
                }
            }
            None => devices
                .iter()
                .find(|found| found.is_usable_gpu())
                .map_or(DeviceKind::Emulated, |found| found.kind),
        };
        if kind == DeviceKind::Emulated && self.gpu.as_deref() == Some("require") {
            let text = "SPILLPROOF_GPU=require, and no GPU was found or chosen".to_owned();
            return Err(Refusal::Nothing(text));
        }
        Ok(kind)
    }

    /// Where the records go.
    fn lines_path(&self, work_dir: &Path, started: &str) -> PathBuf {
        self.lines.clone().unwrap_or_else(|| {
            let name = format!("bench-{}.jsonl", started.replace(':', "-"));
            work_dir.with_file_name("benchmarks").join(name)
        })
    }
}
