//! Runs one case: a subject process, its steps, and a reading of everything around each of them.

use crate::{
    ballast::Ballast,
    case::{Action, Amount, Case, Destinations, Expect, Gpu, MIB, Model},
    device::{CudaGpu, DeviceKind, DeviceUnderTest, EmulatedGpu, EmulatorOptions},
    error::HarnessError,
    invariants,
    observation::{Aftermath, Outcome, Phase, Reading, Run, StepRecord},
    probe::{self, FilesReading, PeakWatch, ProbeError},
    sandbox::Sandbox,
    settle::settle,
    shadow::Shadow,
    subject::{CallOutcome, Ended, Finding, Limits, Subject, SubjectCommand},
};
use serde::de::DeserializeOwned;
use spillproof_board::{BoardConfig, BoardDevice};
use spillproof_protocol::{
    Capability, Dtype, Fill, FreeMemoryArgs, HelloArgs, HelloReply, LoadArgs, Manifest, ModelArgs,
    ModifyArgs, NoArgs, OpenArgs, OpenReply, PROTOCOL_VERSION, Request, RequestArgs,
    RequestedBytes, StatusReply, Storage, Tensor,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

/// The model that brings a subject to its working size before the baseline is read.
const WARM_UP: &str = "warm-up";

/// What every run needs: programs and places.
#[derive(Clone, Debug)]
pub struct Bench {
    /// How to start the subject.
    pub subject: SubjectCommand,
    /// The program that holds device memory beside it.
    pub ballast: PathBuf,
    /// The library that serves as libcuda on emulated devices.
    pub emulator: PathBuf,
    /// Where sandboxes are made.
    pub work_dir: PathBuf,
}

/// Runs a case on a device of this kind.
///
/// What the subject does wrong is in the run; what the harness could not do is in its `infrastructure`.
#[must_use]
pub fn run_case(case: &Case, kind: &DeviceKind, bench: &Bench) -> Run {
    let mut run = Run {
        case: case.clone(),
        staging_bytes: 0,
        open: Outcome::NotRun,
        open_wall: Duration::ZERO,
        baseline: None,
        steps: Vec::new(),
        settled: None,
        ended: None,
        aftermath: None,
        offload_dir: PathBuf::new(),
        doubts: Vec::new(),
        asides: Vec::new(),
        skipped: None,
        infrastructure: None,
    };
    if let Err(error) = run_in_sandbox(&mut run, kind, bench) {
        run.infrastructure = Some(error.to_string());
    }
    run
}

fn run_in_sandbox(run: &mut Run, kind: &DeviceKind, bench: &Bench) -> Result<(), HarnessError> {
    let sandbox = Sandbox::create(&bench.work_dir, &run.case.id())?;
    run.offload_dir = sandbox.offload_dir();
    if sandbox.is_tmpfs() {
        let reason = format!(
            "{} is on a tmpfs, offload files belong on a disk; set SPILLPROOF_DIR",
            bench.work_dir.display()
        );
        return Err(HarnessError::Case(reason));
    }
    let device = prepare(kind, &run.case.gpu, bench, &sandbox)?;
    let mut command = bench.subject.clone();
    let settings = run
        .case
        .settings
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    command.env.extend(settings);
    let subject = Subject::spawn(&command, &sandbox, device.environment(), Limits::default())?;
    let mut session = Session {
        run,
        subject,
        device: &device,
        sandbox: &sandbox,
        bench,
        ordinal: ordinal(kind),
        ballast: None,
        shadows: BTreeMap::new(),
        justified_bytes: 0,
    };
    let result = session.drive(kind);
    let Session { run, subject, .. } = session;
    let deadline = run.case.limits.call;
    let ended: Ended = subject.finish(deadline);
    run.aftermath = Some(Aftermath {
        offload_files: probe::files(&sandbox.offload_dir())?,
        device: device.reading(&[])?,
    });
    run.ended = Some(ended);
    result
}

/// The device that the case asks for.
fn prepare(
    kind: &DeviceKind,
    gpu: &Gpu,
    bench: &Bench,
    sandbox: &Sandbox,
) -> Result<DeviceUnderTest, HarnessError> {
    let libraries = sandbox.root().join("libraries");
    match (kind, gpu) {
        (_, Gpu::Absent) => DeviceUnderTest::absent(&libraries),
        (
            DeviceKind::Emulated,
            Gpu::Present {
                devices,
                vram_bytes,
                cuinit_result,
                withheld,
            },
        ) => {
            let device = |index| BoardDevice {
                capacity_bytes: *vram_bytes,
                name: format!("emulated GPU {index}"),
            };
            let config = BoardConfig {
                devices: (0..*devices).map(device).collect(),
            };
            let options = EmulatorOptions {
                cuinit_result: (*cuinit_result != 0).then_some(*cuinit_result),
                withheld: withheld.iter().map(ToString::to_string).collect(),
            };
            let gpu = EmulatedGpu::create(&config, &bench.emulator, &libraries, options)?;
            Ok(DeviceUnderTest::Emulated(gpu))
        }
        (DeviceKind::Cuda { ordinal }, Gpu::Present { .. }) => {
            Ok(DeviceUnderTest::Cuda(CudaGpu::open(*ordinal)?))
        }
    }
}

/// A subject at work.
struct Session<'a> {
    run: &'a mut Run,
    subject: Subject,
    device: &'a DeviceUnderTest,
    sandbox: &'a Sandbox,
    bench: &'a Bench,
    ordinal: u32,
    ballast: Option<Ballast>,
    shadows: BTreeMap<String, Shadow>,
    justified_bytes: u64,
}

/// Why driving stops early: the rest of the run could not be trusted.
enum Stop {
    /// The subject misbehaved, or refused what it must not; it is recorded.
    Recorded,
    /// The harness failed.
    Harness(HarnessError),
}

impl From<HarnessError> for Stop {
    fn from(error: HarnessError) -> Self {
        Self::Harness(error)
    }
}

impl From<ProbeError> for Stop {
    fn from(error: ProbeError) -> Self {
        Self::Harness(error.into())
    }
}

impl Session<'_> {
    fn drive(&mut self, kind: &DeviceKind) -> Result<(), HarnessError> {
        match self.drive_until_stopped(kind) {
            Ok(()) | Err(Stop::Recorded) => Ok(()),
            Err(Stop::Harness(error)) => Err(error),
        }
    }

    fn drive_until_stopped(&mut self, kind: &DeviceKind) -> Result<(), Stop> {
        if !self.say_hello()? {
            return Ok(());
        }
        let before_open = self.reading()?;
        let device = self.run.case.device_name.clone();
        let device = device.unwrap_or_else(|| format!("cuda:{}", ordinal(kind)));
        let opened_at = Instant::now();
        let opened = self.call(&Request::Open(OpenArgs { device }));
        self.run.open_wall = opened_at.elapsed();
        match opened {
            Outcome::Done | Outcome::Freed(_) | Outcome::Served(_) | Outcome::ReadBack(_) => {
                self.run.open = Outcome::Done
            }
            Outcome::Failed(_) | Outcome::Misbehaved(_) | Outcome::NotRun => {
                self.run.open = opened;
                if let Outcome::Failed(_) = self.run.open {
                    // A refused open must leave nothing behind: what was before it is the baseline.
                    self.run.baseline = Some(before_open);
                    self.settle()?;
                    self.quit();
                }
                return Ok(());
            }
        }
        self.warm_up()?;
        let baseline = self.reading()?;
        self.justified_bytes = 0;
        self.run.baseline = Some(baseline);
        for step in self.run.case.steps.clone() {
            self.step(Phase::Case, step.action, step.expect)?;
        }
        self.second_round()?;
        self.clean_up()?;
        self.settle()?;
        self.quit();
        Ok(())
    }

    /// Whether the subject speaks the protocol and can do what the case needs.
    fn say_hello(&mut self) -> Result<bool, Stop> {
        let hello = Request::Hello(HelloArgs {
            protocol: PROTOCOL_VERSION,
        });
        let hello: HelloReply = match self.ask(&hello) {
            Ok(hello) => hello,
            Err(outcome) => {
                self.run.asides.push(("hello", outcome));
                return Ok(false);
            }
        };
        let lacks = |needed: &&Capability| !hello.capabilities.contains(needed);
        if let Some(missing) = self.run.case.requires.iter().find(lacks) {
            self.run.skipped = Some(format!("the subject lacks the capability {missing}"));
            self.quit();
            return Ok(false);
        }
        Ok(true)
    }

    /// One whole journey of a small model, so that what is set up once is set up before the baseline.
    fn warm_up(&mut self) -> Result<(), Stop> {
        let model = WARM_UP.to_owned();
        let free = Action::Free {
            bytes: Amount::float(1e30),
            model: None,
            to: Destinations::Any,
        };
        let request = Action::Request {
            model: model.clone(),
            workspace_bytes: MIB,
        };
        let actions = [
            Action::Load {
                model: model.clone(),
            },
            request.clone(),
            free,
            Action::ReadBack {
                model: model.clone(),
            },
            request,
            Action::Drop { model },
        ];
        for action in actions {
            self.step(Phase::WarmUp, action, Expect::Ok)?;
            let succeeded = self
                .run
                .steps
                .last()
                .is_some_and(|step| step.outcome.is_success());
            if !succeeded {
                return Err(Stop::Recorded);
            }
        }
        Ok(())
    }

    /// With every disturbance gone, everything must be served in the same process.
    fn second_round(&mut self) -> Result<(), Stop> {
        self.ballast = None;
        for model in self.loaded() {
            let action = Action::Request {
                model,
                workspace_bytes: MIB,
            };
            self.step(Phase::SecondRound, action, Expect::Ok)?;
        }
        Ok(())
    }

    fn clean_up(&mut self) -> Result<(), Stop> {
        for model in self.loaded() {
            self.step(Phase::CleanUp, Action::Drop { model }, Expect::Ok)?;
        }
        Ok(())
    }

    fn loaded(&self) -> Vec<String> {
        self.shadows.keys().cloned().collect()
    }

    fn settle(&mut self) -> Result<(), Stop> {
        let mut failure = None;
        let bound = self.run.case.limits.settle;
        let _ = settle(bound, || match self.reading() {
            Ok(reading) => {
                self.run.settled = Some(reading);
                invariants::is_back_at_baseline(self.run).then_some(())
            }
            Err(stop) => {
                failure = Some(stop);
                Some(())
            }
        });
        failure.map_or(Ok(()), Err)
    }

    fn quit(&mut self) {
        if let outcome @ (Outcome::Failed(_) | Outcome::Misbehaved(_)) =
            self.call(&Request::Quit(NoArgs {}))
        {
            self.run.asides.push(("quit", outcome));
        }
    }

    fn step(&mut self, phase: Phase, action: Action, expect: Expect) -> Result<(), Stop> {
        let before = match self.run.steps.last() {
            Some(previous) => previous.after.clone(),
            None => self.reading()?,
        };
        let status_before = self.status()?;
        let request = self.request_for(&action, &status_before)?;
        let expected = self.expected(&action);
        let watch = PeakWatch::start(self.subject.pid());
        let started = Instant::now();
        let outcome = match &request {
            Some(request) => self.call(request),
            None => self.disturb(&action)?,
        };
        let wall = started.elapsed();
        let peak = watch.and_then(PeakWatch::finish);
        let number = self.run.steps.len() + 1;
        let peak = match peak {
            Ok(peak) => Some(peak),
            Err(ProbeError::Gone { .. }) if matches!(outcome, Outcome::Misbehaved(_)) => None,
            Err(error) => {
                self.run
                    .doubts
                    .push(format!("step {number}: no memory peak: {error}"));
                None
            }
        };
        self.account(&action, &outcome)?;
        let misbehaved = matches!(outcome, Outcome::Misbehaved(_));
        let (after, status_after) = if misbehaved {
            (self.device_only_reading()?, None)
        } else {
            let status = self.status()?;
            (self.reading()?, Some(status))
        };
        self.run.steps.push(StepRecord {
            number,
            phase,
            action,
            expect,
            outcome,
            wall,
            before,
            after,
            status_before: Some(status_before),
            status_after,
            peak,
            expected,
            justified_bytes: self.justified_bytes,
        });
        if misbehaved {
            Err(Stop::Recorded)
        } else {
            Ok(())
        }
    }

    /// The request of an action; none for what is done to the device beside the subject.
    fn request_for(&self, action: &Action, status: &StatusReply) -> Result<Option<Request>, Stop> {
        Ok(Some(match action.clone() {
            Action::Load { model } => {
                let found = self.model(&model)?;
                let (manifest, safetensors) = match found.file {
                    Some(file) => (None, Some(file.path)),
                    None => (Some(found.manifest), None),
                };
                Request::Load(LoadArgs {
                    model,
                    manifest,
                    safetensors,
                })
            }
            Action::Request {
                model,
                workspace_bytes,
            } => Request::Request(RequestArgs {
                model,
                workspace_bytes,
                digests: true,
            }),
            Action::Modify {
                model,
                tensor,
                fill,
            } => Request::Modify(ModifyArgs {
                model,
                tensor,
                fill,
            }),
            Action::Free { bytes, model, .. } => {
                let scope = status
                    .models
                    .iter()
                    .filter(|found| model.as_ref().is_none_or(|name| *name == found.name));
                let loaded: u64 = scope.map(|found| found.device_bytes).sum();
                let bytes = match bytes {
                    Amount::Unsaid => None,
                    Amount::Of(bytes) => Some(bytes),
                    Amount::Loaded => Some(RequestedBytes::Whole(loaded)),
                    Amount::LoadedButOne => Some(RequestedBytes::Whole(loaded.saturating_sub(1))),
                };
                Request::FreeMemory(FreeMemoryArgs { bytes, model })
            }
            Action::ReadBack { model } => Request::ReadBack(ModelArgs { model }),
            Action::Drop { model } => Request::Drop(ModelArgs { model }),
            Action::Ballast { .. } | Action::ReleaseBallast => return Ok(None),
        }))
    }

    /// What happens beside the subject.
    fn disturb(&mut self, action: &Action) -> Result<Outcome, Stop> {
        match action {
            Action::Ballast { leave_bytes } => {
                if self.ballast.is_none() {
                    let ballast = Ballast::start(
                        &self.bench.ballast,
                        self.ordinal,
                        &self.device.environment(),
                    )?;
                    self.ballast = Some(ballast);
                }
                if let Some(ballast) = &mut self.ballast {
                    let free = ballast.leave(*leave_bytes)?;
                    if free > *leave_bytes {
                        let doubt = format!(
                            "the ballast left {free} bytes of device memory free, {leave_bytes} were wanted"
                        );
                        self.run.doubts.push(doubt);
                    }
                }
            }
            Action::ReleaseBallast => {
                if let Some(ballast) = &mut self.ballast {
                    ballast.release()?;
                }
            }
            Action::Load { .. }
            | Action::Request { .. }
            | Action::Modify { .. }
            | Action::Free { .. }
            | Action::ReadBack { .. }
            | Action::Drop { .. } => {}
        }
        Ok(Outcome::Done)
    }

    /// Keeps the harness's own idea of the models up to date.
    fn account(&mut self, action: &Action, outcome: &Outcome) -> Result<(), Stop> {
        let broken = |error: crate::shadow::ShadowError| HarnessError::Case(error.to_string());
        match action {
            // A load may have written before it failed.
            Action::Load { model } => {
                let shadow = Shadow::new(&self.model(model)?);
                self.justified_bytes += shadow.file_bytes().map_err(broken)?;
                if outcome.is_success() {
                    self.shadows.insert(model.clone(), shadow);
                }
            }
            Action::Modify {
                model,
                tensor,
                fill,
            } if outcome.is_success() => {
                let shadow = self.shadows.get_mut(model);
                let shadow = shadow
                    .ok_or_else(|| HarnessError::Case(format!("model {model:?} is not loaded")))?;
                self.justified_bytes += shadow.modify(tensor, fill).map_err(broken)?;
            }
            Action::Drop { model } if outcome.is_success() => {
                self.shadows.remove(model);
            }
            Action::Modify { .. }
            | Action::Drop { .. }
            | Action::Request { .. }
            | Action::Free { .. }
            | Action::ReadBack { .. }
            | Action::Ballast { .. }
            | Action::ReleaseBallast => {}
        }
        Ok(())
    }

    fn expected(&mut self, action: &Action) -> BTreeMap<String, spillproof_protocol::Digest> {
        let (Action::Request { model, .. } | Action::ReadBack { model }) = action else {
            return BTreeMap::new();
        };
        let digests = self.shadows.get(model).map(Shadow::digests);
        match digests {
            Some(Ok(digests)) => digests,
            Some(Err(error)) => {
                self.run
                    .doubts
                    .push(format!("model {model}: no expected digests: {error}"));
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        }
    }

    fn model(&self, name: &str) -> Result<Model, HarnessError> {
        if name == WARM_UP {
            return Ok(warm_up_model());
        }
        self.run
            .case
            .model(name)
            .cloned()
            .ok_or_else(|| HarnessError::Case(format!("there is no model {name:?}")))
    }

    fn status(&mut self) -> Result<StatusReply, Stop> {
        match self.ask(&Request::Status(NoArgs {})) {
            Ok(status) => Ok(status),
            Err(outcome) => {
                self.run.asides.push(("status", outcome));
                Err(Stop::Recorded)
            }
        }
    }

    fn reading(&self) -> Result<Reading, Stop> {
        let pid = self.subject.pid();
        let mut reading = self.device_only_reading()?;
        reading.process = Some(probe::process(pid)?);
        reading.written_bytes = probe::written_bytes(pid)?;
        Ok(reading)
    }

    fn device_only_reading(&self) -> Result<Reading, Stop> {
        Ok(Reading {
            process: None,
            written_bytes: 0,
            device: self.device.reading(&[self.subject.pid()])?,
            offload_files: probe::files(&self.sandbox.offload_dir())?,
            other_files: self.other_files()?,
        })
    }

    /// Everything that the subject may see of its directory but the offload files.
    fn other_files(&self) -> Result<FilesReading, ProbeError> {
        let mut all = FilesReading::default();
        let directories = [
            self.sandbox.work_dir(),
            self.sandbox.home_dir(),
            self.sandbox.tmp_dir(),
        ];
        for directory in directories {
            let name = directory.file_name().map(PathBuf::from).unwrap_or_default();
            let entries = probe::files(&directory)?.entries.into_iter();
            all.entries
                .extend(entries.map(|(path, entry)| (name.join(path), entry)));
        }
        Ok(all)
    }

    /// Calls a verb and reads its result; what is not of the documented form is a finding.
    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Outcome> {
        match self.subject.call(request, self.run.case.limits.call) {
            Ok(CallOutcome::Ok(value)) => {
                serde_json::from_value(value).map_err(|error| malformed(request, &error))
            }
            Ok(CallOutcome::Error(error)) => Err(Outcome::Failed(error)),
            Err(finding) => Err(Outcome::Misbehaved(finding)),
        }
    }

    fn call(&mut self, request: &Request) -> Outcome {
        let outcome = match request {
            Request::FreeMemory(_) => self.ask(request).map(Outcome::Freed),
            Request::Request(_) => self.ask(request).map(Outcome::Served),
            Request::ReadBack(_) => self
                .ask(request)
                .map(|reply: spillproof_protocol::ReadBackReply| Outcome::ReadBack(reply.digests)),
            Request::Load(_) => self
                .ask(request)
                .map(|_: spillproof_protocol::LoadReply| Outcome::Done),
            Request::Open(_) => self.ask(request).map(|reply: OpenReply| {
                self.run.staging_bytes =
                    reply.staging_bytes.min(self.run.case.limits.staging_bytes);
                Outcome::Done
            }),
            Request::Hello(_) => self.ask(request).map(|_: HelloReply| Outcome::Done),
            Request::Status(_) => self.ask(request).map(|_: StatusReply| Outcome::Done),
            Request::Modify(_) | Request::Drop(_) | Request::Quit(_) => self
                .ask(request)
                .map(|_: spillproof_protocol::Done| Outcome::Done),
        };
        outcome.unwrap_or_else(|failure| failure)
    }
}

/// The device's number among those that the subject sees.
fn ordinal(kind: &DeviceKind) -> u32 {
    match kind {
        DeviceKind::Emulated => 0,
        DeviceKind::Cuda { ordinal } => *ordinal,
    }
}

fn malformed(request: &Request, error: &serde_json::Error) -> Outcome {
    Outcome::Misbehaved(Finding::MalformedReply {
        verb: request.verb(),
        reason: error.to_string(),
        line: String::new(),
    })
}

fn warm_up_model() -> Model {
    let mut manifest = Manifest {
        storages: Vec::new(),
        tensors: Vec::new(),
    };
    for (index, bytes) in [MIB, 3 * MIB, 1000].into_iter().enumerate() {
        let name = format!("w{index}");
        manifest.storages.push(Storage {
            name: name.clone(),
            bytes,
            fill: Fill::Seed(index as u64),
        });
        manifest.tensors.push(Tensor {
            name: name.clone(),
            dtype: Dtype::U8,
            shape: vec![bytes],
            strides: None,
            storage: name,
            byte_offset: 0,
        });
    }
    Model {
        name: WARM_UP.into(),
        manifest,
        file: None,
    }
}
