//! What is kept of a benchmark: one line of JSON for each session, each run, and each row that cannot be measured. `cases/command/BENCH.md`
//! documents the fields; they may be added to, and none changes its meaning.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The form of everything below.
pub const SCHEMA: &str = "spillproof-bench/1";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The command was started.
    Session(Session),
    /// A row was measured once.
    Run(Run),
    /// A row cannot be measured on this machine.
    Skip(Skip),
    /// A row was not measured because something went wrong.
    Failure(Skip),
}

/// One start of the command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it was started, UTC, as `2026-11-30T20:21:22Z`.
    pub started: String,
    /// The command line.
    pub command_line: Vec<String>,
    /// Where it ran.
    pub machine: Machine,
    /// What was asked for, by the flags' names.
    pub settings: BTreeMap<String, String>,
}

/// The machine, as far as it matters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// `emulated`, or `cuda:N`.
    pub device: String,
    /// The GPU's name; absent for the emulated one.
    pub gpu: Option<String>,
    /// The GPU's memory, bytes.
    pub gpu_bytes: Option<u64>,
    /// The driver's version.
    pub driver: Option<String>,
    /// The CUDA version that the driver supports, as `13.0`.
    pub cuda: Option<String>,
    /// The kernel's release.
    pub kernel: String,
    /// Processors that this process may use.
    pub cores: u64,
    /// Memory of the host, bytes, when the command was started.
    pub memory_bytes: u64,
    /// The filesystem below the directory, as `ext4 (/dev/vda)`.
    pub filesystem: String,
    /// What was free there, bytes.
    pub free_bytes: u64,
}

/// A row that was not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Skip {
    /// The row, as `tensor/4GiB/engine`.
    pub row: String,
    /// Why.
    pub reason: String,
}

/// A row that was measured once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The row, as `tensor/4GiB/engine`.
    pub row: String,
    /// Which run of it, from 1.
    pub run: u32,
    /// Seconds since its session was started.
    pub at_seconds: f64,
    /// How long all of it took, preparations included.
    pub wall_seconds: f64,
    /// Whether its bytes were compared with what they must be, after the clock was stopped.
    pub is_verified: bool,
    /// What was measured, in order.
    pub steps: Vec<Step>,
    /// Steps that could not be measured in this run, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, String>,
}

impl Run {
    /// A step by its name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }
}

/// One thing that was timed, from the request to its reply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `store`, `load_cold`, `load_warm`, `request_1`, `swap`, or what the ceiling is of.
    pub name: String,
    /// Bytes that it moves, in each direction.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// What it did to the subject's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// The ways that bytes are said to have taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// File bytes that are said to have been written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
    /// Threads of a ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,
    /// Bytes of one call of a ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_bytes: Option<u64>,
    /// How long `fdatasync` took after a ceiling, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_seconds: Option<f64>,
    /// Whether it was one of the tries by which the way of a ceiling was chosen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_trial: bool,
}

/// What a step did to a subject's memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident at the start.
    pub rss_start_bytes: u64,
    /// Resident at the end.
    pub rss_end_bytes: u64,
    /// The kernel's high-water mark over the step.
    pub rss_peak_bytes: u64,
    /// Whether the mark could not be reset before the step, so that it is that of the process's life.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_peak_since_start: bool,
    /// Private and shared memory, file pages left out, after `open`: the baseline. What a subject pins by then is among it, which is
    /// why what it declared for staging is added below.
    pub baseline_bytes: u64,
    /// Most pinned and staging host memory that the subject says it will hold.
    pub staging_bytes: u64,
    /// Private and shared memory at the start.
    pub anon_shared_start_bytes: u64,
    /// Private and shared memory at the end.
    pub anon_shared_end_bytes: u64,
    /// The most of it that was seen, sampled every millisecond.
    pub anon_shared_peak_bytes: u64,
    /// What the most of it cannot have passed; absent where huge pages are on, since one page fault then brings in more than a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anon_shared_bound_bytes: Option<u64>,
    /// Unique set size at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uss_start_bytes: Option<u64>,
    /// Unique set size at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uss_end_bytes: Option<u64>,
    /// Its largest sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uss_peak_bytes: Option<u64>,
}

impl Memory {
    /// How far the peak of resident memory lies above the start.
    #[must_use]
    pub fn peak_delta_bytes(&self) -> u64 {
        self.rss_peak_bytes.saturating_sub(self.rss_start_bytes)
    }

    /// How far the peak of private and shared memory lies above the baseline.
    #[must_use]
    pub fn over_baseline_bytes(&self) -> u64 {
        self.anon_shared_peak_bytes
            .saturating_sub(self.baseline_bytes)
    }

    /// The most that offloading costs in memory: the rise above the baseline and the whole declared staging, as if none of it had
    /// been in the baseline.
    #[must_use]
    pub fn cost_bytes(&self) -> u64 {
        self.over_baseline_bytes() + self.staging_bytes
    }
}
