//! What a run of a case saw: every reading, before it is judged.

use crate::{
    case::{Action, Case, Expect},
    contents::Contents,
    device::DeviceReading,
    faults::{Fired, RuleAccount},
    invariants,
    probe::{FilesReading, LedgerReading, PeakReading, ProcessReading},
    shadow::{Shadow, ShadowError},
    subject::{Ended, Finding, Killed},
};
use spillproof_faults::TraceEntry;
use spillproof_protocol::{
    Digest, DigestAlgorithm, ErrorReply, FreeMemoryReply, RequestReply, StatusReply,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

/// Everything outside the subject, at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The process, unless it is gone.
    pub process: Option<ProcessReading>,
    /// File bytes that the process has written since it started.
    pub written_bytes: u64,
    /// The device.
    pub device: DeviceReading,
    /// What the subject holds by the ledger of its calls, where the interposer is in it.
    pub ledger: Option<LedgerReading>,
    /// The offload directory.
    pub offload_files: FilesReading,
    /// Everything else below the case's own directory.
    pub other_files: FilesReading,
}

/// A run of one case on one device.
#[derive(Debug)]
pub struct Run {
    /// The experiment.
    pub case: Case,
    /// What the subject declared that it may hold for staging, bytes; capped by the case's own limit.
    pub staging_bytes: u64,
    /// What `open` answered.
    pub open: Outcome,
    /// How long `open` took.
    pub open_wall: Duration,
    /// After `open` and the warm-up; before any step.
    pub baseline: Option<Reading>,
    /// The steps, in order; then the second round and the cleaning up.
    pub steps: Vec<StepRecord>,
    /// After every model was dropped and resources had time to settle.
    pub settled: Option<Reading>,
    /// How the process ended, and what the supervisor found.
    pub ended: Option<Ended>,
    /// The offload directory and the device after the process ended.
    pub aftermath: Option<Aftermath>,
    /// What the case's memory cgroup told after that.
    pub group: Option<String>,
    /// What became of the case's rules.
    pub rules: Vec<RuleAccount>,
    /// Calls recorded, where the case asks for that, in order.
    pub calls: Vec<TraceEntry>,
    /// Where offload files belong.
    pub offload_dir: PathBuf,
    /// The subject's working directory.
    pub work_dir: PathBuf,
    /// What digests that had to come back are those of.
    pub contents: BTreeMap<Digest, Contents>,
    /// Why parts of the run measured nothing.
    pub doubts: Vec<String>,
    /// Calls around the steps (`hello`, `status`, `quit`) that did not succeed, by verb.
    pub asides: Vec<(&'static str, Outcome)>,
    /// What was made to fail while it quit.
    pub fired_at_end: Vec<Fired>,
    /// The runs of subjects that were killed before this one was started in their place, in order.
    pub earlier: Vec<Run>,
    /// What processes beside ever made in the offload directory, at its top.
    pub beside: BTreeSet<PathBuf>,
    /// The part of that which belongs to a live process when the next subject starts.
    pub neighbours: BTreeSet<PathBuf>,
    /// Why the case does not apply to this subject.
    pub skipped: Option<String>,
    /// A device that was dirty or lost, a directory that could not be made: nobody's fault.
    pub infrastructure: Option<String>,
}

/// What a subject left when it was gone.
#[derive(Clone, Debug)]
pub struct Aftermath {
    /// The offload directory.
    pub offload_files: FilesReading,
    /// The device.
    pub device: DeviceReading,
}

/// Which part of a run a step belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the baseline.
    WarmUp,
    /// A step of the case.
    Case,
    /// The round after the case's own steps, with every disturbance gone.
    SecondRound,
    /// Dropping what is left.
    CleanUp,
}

/// One step as it happened.
#[derive(Clone, Debug)]
pub struct StepRecord {
    /// Its place, from 1.
    pub number: usize,
    /// The part of the run.
    pub phase: Phase,
    /// What was done.
    pub action: Action,
    /// What had to come back.
    pub expect: Expect,
    /// What came back.
    pub outcome: Outcome,
    /// Calls of the subject that went as a fault plan says since the step before.
    pub fired: Vec<Fired>,
    /// How long the call took.
    pub wall: Duration,
    /// Before the call.
    pub before: Reading,
    /// After it.
    pub after: Reading,
    /// What the subject said of itself before.
    pub status_before: Option<StatusReply>,
    /// What the subject said of itself after.
    pub status_after: Option<StatusReply>,
    /// Memory peaks during the call.
    pub peak: Option<PeakReading>,
    /// What every tensor of the step's model has to contain.
    pub expected: BTreeMap<String, Digest>,
    /// File bytes that loads and modifications up to here justify.
    pub justified_bytes: u64,
}

/// One step of a lane as it happened.
#[derive(Clone, Debug)]
pub struct LaneStep {
    /// The lane, from 0.
    pub lane: usize,
    /// Its place in the lane, from 1.
    pub number: usize,
    /// What was done.
    pub action: Action,
    /// What had to come back.
    pub expect: Expect,
    /// What came back.
    pub outcome: Outcome,
    /// How long the call took.
    pub wall: Duration,
    /// What every tensor of its model has to contain.
    pub expected: BTreeMap<String, Digest>,
    /// For what was done to other lanes at a moment that these bring: whether the moment came, and it was done, before they were through.
    pub landed: Option<bool>,
}

/// A step of the run or of one of its lanes.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// The step that it is, or is part of.
    pub step: &'a StepRecord,
    /// Its own part, in a lane.
    pub lane: Option<&'a LaneStep>,
    /// What was done.
    pub action: &'a Action,
    /// What had to come back.
    pub expect: &'a Expect,
    /// What came back.
    pub outcome: &'a Outcome,
    /// What every tensor of its model has to contain.
    pub expected: &'a BTreeMap<String, Digest>,
}

/// What came back from a call.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Success without a result that matters.
    Done,
    /// Memory was given back.
    Freed(FreeMemoryReply),
    /// A request was served.
    Served(RequestReply),
    /// The host's side was digested.
    ReadBack(BTreeMap<String, Digest>),
    /// A view is held, under this handle.
    Held(u64),
    /// What a held view shows was digested.
    Viewed(Digest),
    /// Everything that lanes asked was answered: what, in the order of the answers.
    Together(Vec<LaneStep>),
    /// A typed error.
    Failed(ErrorReply),
    /// The process was sent a signal, as the case asked for.
    Killed(Killed),
    /// The subject misbehaved.
    Misbehaved(Finding),
    /// The step was not reached.
    NotRun,
}

impl Run {
    /// Steps after the baseline.
    pub fn judged_steps(&self) -> impl Iterator<Item = &StepRecord> {
        self.steps.iter().filter(|step| step.phase != Phase::WarmUp)
    }

    /// The largest upper bound of a step's peak of anonymous and shared memory over the baseline, bytes.
    #[must_use]
    pub fn peak_over_baseline_bytes(&self) -> Option<i64> {
        let process = self.baseline.as_ref()?.process.as_ref()?;
        let peaks = self
            .judged_steps()
            .filter_map(|step| Some(step.peak.as_ref()?.anon_shared_bounds().1));
        Some(peaks.max()?.cast_signed() - invariants::anon_shared_bytes(process).cast_signed())
    }
}

impl Outcome {
    /// Whether the call succeeded.
    #[must_use]
    pub fn is_success(&self) -> bool {
        match self {
            Self::Done
            | Self::Freed(_)
            | Self::Served(_)
            | Self::ReadBack(_)
            | Self::Held(_)
            | Self::Viewed(_)
            | Self::Killed(_)
            | Self::Together(_) => true,
            Self::Failed(_) | Self::Misbehaved(_) | Self::NotRun => false,
        }
    }
}

impl Run {
    /// What every tensor of a model must digest to now, by this algorithm. What these digests are those of is kept.
    pub(crate) fn expect(
        &mut self,
        shadow: &Shadow,
        algorithm: DigestAlgorithm,
    ) -> Result<BTreeMap<String, Digest>, ShadowError> {
        let digests = shadow.digests(algorithm)?;
        for contents in shadow.contents() {
            if let Some(digest) = digests.get(contents.name()) {
                self.contents.entry(digest.clone()).or_insert(contents);
            }
        }
        Ok(digests)
    }

    /// Every step, and for lanes each of theirs.
    pub fn acts(&self) -> impl Iterator<Item = Act<'_>> {
        self.steps.iter().flat_map(StepRecord::acts)
    }
}

impl Act<'_> {
    /// What is done, by whichever process.
    #[must_use]
    pub fn done(&self) -> &Action {
        match self.lane {
            None => self.step.done(),
            Some(lane) => &lane.action,
        }
    }

    /// `step 3 (free all 1e30)`, with the lane where there is one.
    #[must_use]
    pub fn place(&self) -> String {
        let step = self.step.place();
        match self.lane {
            None => step,
            Some(lane) => {
                let (at, number) = (lane.lane, lane.number);
                format!("{step}, lane {at}, {number} ({})", self.action.label())
            }
        }
    }
}

impl StepRecord {
    /// The step itself, or what its lanes did.
    #[must_use]
    pub fn acts(&self) -> Vec<Act<'_>> {
        match &self.outcome {
            Outcome::Together(lanes) => {
                let act = |lane| Act {
                    step: self,
                    lane: Some(lane),
                    action: &lane.action,
                    expect: &lane.expect,
                    outcome: &lane.outcome,
                    expected: &lane.expected,
                };
                lanes.iter().map(act).collect()
            }
            Outcome::Done
            | Outcome::Freed(_)
            | Outcome::Served(_)
            | Outcome::ReadBack(_)
            | Outcome::Held(_)
            | Outcome::Viewed(_)
            | Outcome::Failed(_)
            | Outcome::Killed(_)
            | Outcome::Misbehaved(_)
            | Outcome::NotRun => vec![Act {
                step: self,
                lane: None,
                action: &self.action,
                expect: &self.expect,
                outcome: &self.outcome,
                expected: &self.expected,
            }],
        }
    }

    /// `step 3 (free all 1e30)`.
    #[must_use]
    pub fn place(&self) -> String {
        let phase = match self.phase {
            Phase::WarmUp => ", warming up",
            Phase::Case => "",
            Phase::SecondRound => ", second round",
            Phase::CleanUp => ", cleaning up",
        };
        format!("step {} ({}{phase})", self.number, self.action.label())
    }

    /// Device bytes of the step's scope, by the subject's own account, before and after.
    #[must_use]
    pub fn loaded_bytes(&self, scope: Option<&str>) -> Option<(u64, u64)> {
        let loaded = |status: &StatusReply| -> u64 {
            let models = status.models.iter();
            let models = models.filter(|model| scope.is_none_or(|name| name == model.name));
            total(models.map(|model| model.device_bytes))
        };
        Some((
            loaded(self.status_before.as_ref()?),
            loaded(self.status_after.as_ref()?),
        ))
    }
}

/// Adds numbers that a subject sent: they may be anything.
pub(crate) fn total(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}
