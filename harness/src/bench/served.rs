//! A subject that is measured: started, asked with a clock beside it, and ended.

use super::{
    failure::{Clock, Failure},
    plan::Contender,
    record::{Memory, Step},
};
use crate::{
    case::Model,
    device::DeviceUnderTest,
    error::HarnessError,
    probe::{self, FileKind, PeakReading, PeakWatch, Uss},
    sandbox::Sandbox,
    shadow::Shadow,
    subject::{CallOutcome, Ended, Finding, Limits, Subject},
};
use serde::de::DeserializeOwned;
use spillproof_protocol::{
    Digest, DigestAlgorithm, Done, FreeMemoryArgs, FreeMemoryReply, HelloArgs, HelloReply,
    LoadArgs, LoadReply, ModelArgs, NoArgs, OpenArgs, OpenReply, PROTOCOL_VERSION, Request,
    RequestArgs, RequestReply,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a subject may take to end.
const END_BOUND: Duration = Duration::from_secs(60);

/// A subject at work, its directories and its device.
pub(super) struct Served<'b> {
    contender: &'b Contender,
    pub(super) device: DeviceUnderTest,
    pub(super) clock: Clock,
    subject: Subject,
    pub(super) sandbox: Sandbox,
    /// Private and shared memory after `open`.
    baseline_bytes: u64,
    staging_bytes: u64,
    /// What its digests are made with.
    algorithm: DigestAlgorithm,
    /// What each model must contain.
    expected: BTreeMap<String, BTreeMap<String, Digest>>,
}

impl<'b> Served<'b> {
    /// Starts and opens it.
    pub(super) fn start(
        contender: &'b Contender,
        settings: &[(String, String)],
        work_dir: &Path,
        clock: Clock,
        prepare: impl FnOnce(&Sandbox) -> Result<DeviceUnderTest, HarnessError>,
    ) -> Result<Self, Failure> {
        let sandbox = Sandbox::create(work_dir, &format!("bench-{}", contender.name))?;
        if sandbox.is_tmpfs() {
            let reason = format!(
                "{} is on a tmpfs, offload files belong on a disk; set SPILLPROOF_DIR",
                work_dir.display()
            );
            return Err(HarnessError::Case(reason).into());
        }
        let device = prepare(&sandbox)?;
        let mut command = contender.command.clone();
        let all = contender.settings.iter().chain(settings);
        let all = all.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        command.env.extend(all);
        let limits = Limits {
            huge_pages: contender.huge_pages,
            ..Limits::default()
        };
        let subject = Subject::spawn(&command, &sandbox, device.environment(), limits)?;
        Ok(Self {
            contender,
            device,
            clock,
            subject,
            sandbox,
            baseline_bytes: 0,
            staging_bytes: 0,
            algorithm: DigestAlgorithm::default(),
            expected: BTreeMap::new(),
        })
    }

    /// Opens it and reads what it takes before there is a model.
    pub(super) fn open(&mut self) -> Result<(), Failure> {
        let hello = Request::Hello(HelloArgs {
            protocol: PROTOCOL_VERSION,
        });
        let hello: HelloReply = self.ask(&hello)?;
        if hello.protocol != PROTOCOL_VERSION {
            let text = format!("it speaks version {} of the protocol", hello.protocol);
            return Err(Failure::Unlike(text));
        }
        self.algorithm = hello.digest_algorithm();
        // A real GPU is shown alone, as its device 0.
        let open = Request::Open(OpenArgs {
            device: "cuda:0".into(),
        });
        let opened: OpenReply = self.ask(&open)?;
        self.staging_bytes = opened.staging_bytes;
        let memory = probe::process(self.subject.pid())?;
        self.baseline_bytes = memory.rss_anon_bytes + memory.rss_shmem_bytes;
        Ok(())
    }

    /// Asks, and reads the answer as the verb says.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Failure> {
        self.ask_timed(request).map(|(reply, _)| reply)
    }

    fn ask_timed<T: DeserializeOwned>(
        &mut self,
        request: &Request,
    ) -> Result<(T, Duration), Failure> {
        if self.clock.is_over() {
            return Err(Failure::OutOfTime);
        }
        let called = self.subject.call_timed(request, self.clock.call_bound());
        let (outcome, took) = match called {
            Ok((outcome, took)) => (Ok(outcome), took),
            Err(finding) => (Err(finding), Duration::ZERO),
        };
        Ok((self.read(request.verb(), outcome)?, took))
    }

    fn read<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        outcome: Result<CallOutcome, Finding>,
    ) -> Result<T, Failure> {
        match outcome {
            Ok(CallOutcome::Ok(value)) => serde_json::from_value(value)
                .map_err(|error| Failure::Unlike(format!("the reply to {verb}: {error}"))),
            Ok(CallOutcome::Error(error)) if verb == "free_memory" && self.contender.may_refuse => {
                Err(Failure::Unable(format!(
                    "{}: {}",
                    error.kind, error.message
                )))
            }
            Ok(CallOutcome::Error(error)) => Err(Failure::Refused { verb, error }),
            Err(_) if self.clock.is_over() => Err(Failure::OutOfTime),
            Err(finding) => Err(Failure::Misbehaved(finding)),
        }
    }

    /// Asks for a step with the clock running and the memory watched.
    fn timed<T: DeserializeOwned>(
        &mut self,
        name: &str,
        bytes: u64,
        uss: Uss,
        request: &Request,
    ) -> Result<(T, Step), Failure> {
        self.watched(name, bytes, uss, |served| served.ask_timed(request))
    }

    /// Does something that takes so long, with the memory watched.
    pub(super) fn watched<T>(
        &mut self,
        name: &str,
        bytes: u64,
        uss: Uss,
        act: impl FnOnce(&mut Self) -> Result<(T, Duration), Failure>,
    ) -> Result<(T, Step), Failure> {
        let watch = PeakWatch::start(self.subject.pid(), uss)?;
        // A subject that died in the step has no memory, and its death is what is told.
        let (done, took) = act(self)?;
        let reading = watch.finish()?;
        let step = Step {
            name: name.into(),
            bytes,
            seconds: took.as_secs_f64(),
            memory: Some(self.memory(&reading)),
            ..Step::default()
        };
        Ok((done, step))
    }

    fn memory(&self, reading: &PeakReading) -> Memory {
        let (lower, upper) = reading.anon_shared_bounds();
        Memory {
            rss_start_bytes: reading.start.resident_bytes(),
            rss_end_bytes: reading.end.resident_bytes(),
            rss_peak_bytes: reading.high_water_bytes,
            baseline_bytes: self.baseline_bytes,
            staging_bytes: self.staging_bytes,
            anon_shared_start_bytes: reading.start.anon_shared_bytes(),
            anon_shared_end_bytes: reading.end.anon_shared_bytes(),
            anon_shared_peak_bytes: lower,
            is_peak_since_start: !reading.reset,
            anon_shared_bound_bytes: (!self.contender.huge_pages).then_some(upper),
            uss_start_bytes: reading.uss.map(|uss| uss.start_bytes),
            uss_end_bytes: reading.uss.map(|uss| uss.end_bytes),
            uss_peak_bytes: reading.uss.map(|uss| uss.peak_bytes),
        }
    }

    /// Makes a model known.
    pub(super) fn load(&mut self, model: &Model, bytes: u64) -> Result<Step, Failure> {
        let request = Request::Load(LoadArgs {
            model: model.name.clone(),
            manifest: Some(model.manifest.clone()),
            safetensors: None,
        });
        let name = format!("load_{}", model.name);
        let (_, step) = self.timed::<LoadReply>(&name, bytes, Uss::Measured, &request)?;
        Ok(step)
    }

    /// One request over a model.
    pub(super) fn request(
        &mut self,
        name: &str,
        model: &str,
        bytes: u64,
        uss: Uss,
    ) -> Result<Step, Failure> {
        let request = self.request_for(model, false);
        let (_, step) = self.timed::<RequestReply>(name, bytes, uss, &request)?;
        Ok(step)
    }

    pub(super) fn request_for(&self, model: &str, digests: bool) -> Request {
        Request::Request(RequestArgs {
            model: model.into(),
            workspace_bytes: 0,
            digests,
        })
    }

    pub(super) fn free_for(&self, model: &str) -> Request {
        Request::FreeMemory(FreeMemoryArgs {
            bytes: None,
            model: Some(model.into()),
        })
    }

    /// Lets go of a model. Whatever the contender stands for, its bytes go that way.
    pub(super) fn free(&mut self, name: &str, model: &str, bytes: u64) -> Result<Step, Failure> {
        let request = self.free_for(model);
        let (reply, mut step) = self.timed(name, bytes, Uss::Skipped, &request)?;
        self.note_moves(&mut step, &reply)?;
        Ok(step)
    }

    /// Looks whether everything left, and the way that it is meant to.
    pub(super) fn note_moves(
        &self,
        step: &mut Step,
        reply: &FreeMemoryReply,
    ) -> Result<(), Failure> {
        if reply.freed_bytes < step.bytes {
            let text = format!("{}: {} bytes were freed", step.name, reply.freed_bytes);
            return Err(Failure::Unlike(text));
        }
        step.written_bytes = Some(reply.moves.iter().map(|moved| moved.written_bytes).sum());
        for moved in reply.moves.iter().filter(|moved| moved.written_bytes > 0) {
            if !self.contender.paths.is_empty() && !self.contender.paths.contains(&moved.path) {
                let wanted: Vec<_> = self
                    .contender
                    .paths
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                return Err(Failure::Unable(format!(
                    "bytes went the way {}, not {}",
                    moved.path,
                    wanted.join(" or ")
                )));
            }
            let path = moved.path.to_string();
            if !step.paths.contains(&path) {
                step.paths.push(path);
            }
        }
        Ok(())
    }

    /// Compares what the device holds of a model with what was generated.
    pub(super) fn verify(&mut self, model: &Model, after: &str) -> Result<(), Failure> {
        if !self.expected.contains_key(&model.name) {
            let digests = Shadow::new(model).digests(self.algorithm)?;
            self.expected.insert(model.name.clone(), digests);
        }
        let request = self.request_for(&model.name, true);
        let reply: RequestReply = self.ask(&request)?;
        let expected = &self.expected[&model.name];
        for (tensor, expected) in expected {
            let found = reply.digests.get(tensor);
            if found != Some(expected) {
                return Err(Failure::WrongBytes {
                    after: after.into(),
                    tensor: tensor.clone(),
                    found: found.map_or_else(|| "not there".into(), ToString::to_string),
                    expected: expected.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Two requests outstanding together; both answers, in this order, and the time until the later one.
    pub(super) fn ask_both<A: DeserializeOwned, B: DeserializeOwned>(
        &mut self,
        one: &Request,
        other: &Request,
    ) -> Result<((A, B), Duration), Failure> {
        let bound = self.clock.call_bound();
        let start = Instant::now();
        let begin = |subject: &mut Subject, request| {
            let begun = subject.begin(request, bound);
            begun.map_err(Failure::Misbehaved)
        };
        let ids = [
            begin(&mut self.subject, one)?,
            begin(&mut self.subject, other)?,
        ];
        let mut answers = BTreeMap::new();
        while answers.len() < ids.len() {
            match self.subject.answer(None) {
                Ok(Some((id, outcome))) => {
                    answers.insert(id, outcome);
                }
                Ok(None) => {}
                Err(_) if self.clock.is_over() => return Err(Failure::OutOfTime),
                Err(finding) => return Err(Failure::Misbehaved(finding)),
            }
        }
        let took = start.elapsed();
        let mut answer = |id| answers.remove(&id).unwrap_or(CallOutcome::Ok(().into()));
        let (first, second) = (answer(ids[0]), answer(ids[1]));
        let first = self.read(one.verb(), Ok(first))?;
        let second = self.read(other.verb(), Ok(second))?;
        Ok(((first, second), took))
    }

    /// Its offload files of one byte at least.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let directory = self.sandbox.offload_dir();
        let entries = probe::files(&directory)?.entries.into_iter();
        let files = entries.filter(|(_, entry)| entry.kind == FileKind::File && entry.bytes > 0);
        Ok(files.map(|(path, _)| directory.join(path)).collect())
    }

    /// Drops the models; no file may be left of them.
    pub(super) fn drop_models(&mut self, models: &[Model]) -> Result<(), Failure> {
        for model in models {
            let model = model.name.clone();
            let _: Done = self.ask(&Request::Drop(ModelArgs { model }))?;
        }
        match self.files()?.first() {
            Some(file) => Err(Failure::Unlike(format!(
                "{} is still there after everything was dropped",
                file.display()
            ))),
            None => Ok(()),
        }
    }

    /// Ends it. What it does wrong there is a failure as well.
    pub(super) fn quit(&mut self) -> Result<(), Failure> {
        let _: Done = self.ask(&Request::Quit(NoArgs {}))?;
        Ok(())
    }

    /// Waits for its end. What it did wrong, and the end of what it said on standard error.
    pub(super) fn finish(mut self, is_wanted: bool) -> (Option<Finding>, String) {
        if !is_wanted {
            self.subject.kill();
        }
        let Ended {
            findings, stderr, ..
        } = self.subject.finish(END_BOUND);
        let text = stderr.to_string();
        (findings.into_iter().next(), text)
    }
}
