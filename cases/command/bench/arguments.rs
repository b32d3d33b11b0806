//! The command line of `spillproof bench`.

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use spillproof_harness::{
    bench::{Loads, Pattern, Size, Sizes, Table},
    device::DeviceKind,
};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

const AFTER: &str = "\
Rows are named TABLE/SIZE/WHO: tensor/4GiB/engine, requests/512/torch-cpu, swap/ceiling, counts/store. --only and --skip take words of such names,
one after the other: tensor/4GiB, torch-gds. Who is measured: the engine, staged and by cuFile (engine-cufile); PyTorch by CPU copy,
save and mapped load (torch-cpu) and by GdsFile and map (torch-gds); and the machine itself (ceiling).

Exit status:
  0   every chosen row has its runs, or is told with the reason why this machine cannot measure it
  1   wrong bytes, or a subject that failed
  2   wrong usage, or a file to go on with that does not fit
  3   runs are missing: the time limit came
  4   nothing was measured, or a GPU was required and there is none
  75  the machine failed: retry elsewhere";

/// Names of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TableName {
    /// One tensor to a file and back, beside raw disk and bus
    Tensor,
    /// Repeated requests over models that do not fit together
    Requests,
    /// One model goes to disk while another comes from it
    Swap,
    /// Calls and bytes of fixed workloads on the emulated device: no times
    Counts,
}

impl TableName {
    /// Of those that are about time.
    pub(super) fn timed(self) -> Option<Table> {
        match self {
            Self::Tensor => Some(Table::Tensor),
            Self::Requests => Some(Table::Requests),
            Self::Swap => Some(Table::Swap),
            Self::Counts => None,
        }
    }
}

/// Names of loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LoadName {
    /// From a file that is nowhere but on the disk
    Cold,
    /// From a file in the page cache
    Warm,
    /// Neither: storing is all
    None,
}

/// Arguments of the mode.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Arguments {
    /// emulated or cuda:N; by default the first GPU
    #[arg(long, env = "SPILLPROOF_DEVICE")]
    pub(super) device: Option<String>,
    /// Tables to measure; by default those of times on a GPU, and counts on the emulated device
    #[arg(long, env = "SPILLPROOF_TABLES", value_delimiter = ',')]
    tables: Vec<TableName>,
    /// Sizes of the tensor
    #[arg(
        long,
        env = "SPILLPROOF_BYTES",
        value_delimiter = ',',
        default_value = "4GiB"
    )]
    bytes: Vec<ByteSize>,
    /// Loads of the tensor that are measured: each needs its file read once more, which takes long at large sizes
    #[arg(
        long,
        env = "SPILLPROOF_LOADS",
        value_delimiter = ',',
        default_value = "cold,warm"
    )]
    loads: Vec<LoadName>,
    /// Models of the requests
    #[arg(long, env = "SPILLPROOF_MODELS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    models: u16,
    /// Size of each model, of requests and of the swap
    #[arg(long, env = "SPILLPROOF_MODEL_BYTES", default_value = "8GiB")]
    model_bytes: ByteSize,
    /// Requests in a run
    #[arg(long, env = "SPILLPROOF_REQUESTS", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1000))]
    requests: u16,
    /// Device memory for the requests; by default half a model less than all of them take
    #[arg(long, env = "SPILLPROOF_VRAM_BYTES")]
    vram_bytes: Option<ByteSize>,
    /// Runs of each row
    #[arg(long, env = "SPILLPROOF_RUNS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) runs: u32,
    /// Only rows with these words in their names
    #[arg(
        long,
        env = "SPILLPROOF_ONLY",
        value_name = "WORDS",
        value_delimiter = ','
    )]
    only: Vec<Pattern>,
    /// No rows with these words in their names
    #[arg(
        long,
        env = "SPILLPROOF_SKIP",
        value_name = "WORDS",
        value_delimiter = ','
    )]
    skip: Vec<Pattern>,
    /// Environment of every subject, OFFLOAD_DURABLE=1 for example; may be repeated
    #[arg(long, env = "SPILLPROOF_ENV", value_name = "NAME=VALUE", value_delimiter = ',', value_parser = setting)]
    pub(super) env: Vec<(String, String)>,
    /// Bytes of each try by which threads and sizes of the raw transfers are chosen
    #[arg(long, env = "SPILLPROOF_SAMPLE_BYTES", default_value = "1GiB")]
    pub(super) sample_bytes: ByteSize,
    /// Seconds after which nothing new is begun and what is going on is given up
    #[arg(long, env = "SPILLPROOF_TIME_LIMIT", value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// Where each run is written as a line of JSON once it is over
    #[arg(
        long,
        env = "SPILLPROOF_LINES",
        value_name = "FILE",
        conflicts_with = "resume"
    )]
    pub(super) lines: Option<PathBuf>,
    /// Goes on with what an earlier command wrote: measures what is missing there, and adds it
    #[arg(long, env = "SPILLPROOF_RESUME", value_name = "FILE")]
    pub(super) resume: Option<PathBuf>,
    /// Where everything is written as one JSON document at the end
    #[arg(long, env = "SPILLPROOF_JSON", value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Where files are made; must not be a tmpfs
    #[arg(long, env = "SPILLPROOF_DIR", value_name = "DIRECTORY")]
    pub(super) directory: Option<PathBuf>,
    /// The Python that has PyTorch
    #[arg(long, env = "SPILLPROOF_PYTHON", default_value = "python3")]
    pub(super) python: PathBuf,
    /// `require`: nothing is measured where there is no GPU
    #[arg(long, env = "SPILLPROOF_GPU")]
    pub(super) gpu: Option<String>,
}

impl Arguments {
    /// Which tables, each once.
    pub(super) fn tables(&self, device: &DeviceKind) -> Vec<TableName> {
        use TableName::{Counts, Requests, Swap, Tensor};
        let asked: &[TableName] = match (self.tables.as_slice(), device) {
            ([], DeviceKind::Emulated) => &[Counts],
            ([], DeviceKind::Cuda { .. }) => &[Tensor, Requests, Swap],
            (asked, _) => asked,
        };
        let all = [Tensor, Requests, Swap, Counts];
        all.into_iter()
            .filter(|table| asked.contains(table))
            .collect()
    }

    /// Which loads are measured.
    pub(super) fn loads(&self) -> Loads {
        Loads {
            cold: self.loads.contains(&LoadName::Cold),
            warm: self.loads.contains(&LoadName::Warm),
        }
    }

    pub(super) fn time_limit(&self) -> Option<Duration> {
        self.time_limit.map(Duration::from_secs)
    }

    /// Whether a row of this name is to be measured.
    pub(super) fn chooses(&self, name: &str) -> bool {
        let matches = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.only.is_empty() || matches(&self.only)) && !matches(&self.skip)
    }

    /// # Errors
    /// A size that cannot be moved directly, or of nothing.
    pub(super) fn sizes(&self) -> Result<Sizes, String> {
        let whole = |flag: &str, size: ByteSize| {
            let bytes = size.as_u64();
            match bytes > 0 && bytes.is_multiple_of(4096) {
                true => Ok(bytes),
                false => Err(format!(
                    "--{flag} {bytes} is no multiple of 4096 bytes; choose one, as 4GiB"
                )),
            }
        };
        let model_bytes = whole("model-bytes", self.model_bytes)?;
        let models = usize::from(self.models);
        let vram_bytes = match self.vram_bytes {
            Some(size) => whole("vram-bytes", size)?,
            None => model_bytes * models as u64 - model_bytes / 2,
        };
        whole("sample-bytes", self.sample_bytes)?;
        let tensors = self.bytes.iter().map(|size| whole("bytes", *size));
        Ok(Sizes {
            tensor_bytes: tensors.collect::<Result<_, _>>()?,
            model_bytes,
            models,
            requests: usize::from(self.requests),
            vram_bytes,
        })
    }

    /// What runs must have in common to be compared, by the flags' names.
    pub(super) fn settings(&self) -> BTreeMap<String, String> {
        let env = self.env.iter();
        let env: Vec<String> = env.map(|(name, value)| format!("{name}={value}")).collect();
        let vram = self.vram_bytes.map(|size| Size(size.as_u64()).to_string());
        [
            ("env", env.join(",")),
            ("model-bytes", Size(self.model_bytes.as_u64()).to_string()),
            ("models", self.models.to_string()),
            ("requests", self.requests.to_string()),
            ("vram-bytes", vram.unwrap_or_default()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}
