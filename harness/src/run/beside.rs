//! A second process of the same program beside the subject, on the same directory and device.

use super::{
    calls::read,
    session::{Session, Stop},
};
use crate::{
    case::Action,
    device::DeviceUnderTest,
    error::HarnessError,
    observation::Outcome,
    probe,
    shadow::Shadow,
    subject::{CallOutcome, Finding, Subject},
    world::Event,
};
use spillproof_protocol::{
    Digest, DigestAlgorithm, HelloArgs, HelloReply, NoArgs, OpenArgs, PROTOCOL_VERSION,
    ReadBackReply, Request, StatusReply,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

const END_BOUND: Duration = Duration::from_secs(20);

/// More than a context takes on any GPU, and its warm-up with it.
const CONTEXT_BYTES: u64 = 2 << 30;

/// The process beside, and what is its own.
pub(super) struct Neighbour {
    subject: Subject,
    /// What its digests are made with.
    algorithm: DigestAlgorithm,
    pub(super) shadows: BTreeMap<String, Shadow>,
    /// What appeared in the offload directory while it alone was at work, at the top.
    entries: BTreeSet<PathBuf>,
}

impl Session<'_> {
    /// Lets the neighbour do something; the first time it is started.
    pub(super) fn beside(&mut self, action: &Action) -> Result<Outcome, Stop> {
        if let Action::World(Event::Kill(kill)) = action {
            let mut neighbour = self.neighbour.take().ok_or_else(|| {
                HarnessError::Case("there is no process beside that could be killed".into())
            })?;
            let killed = neighbour.subject.kill_idle(END_BOUND, kill.signal);
            drop(neighbour.subject.finish(END_BOUND));
            return Ok(Outcome::Killed(killed));
        }
        let before = self.top_entries()?;
        let mut neighbour = match self.neighbour.take() {
            Some(neighbour) => neighbour,
            None => match self.start_neighbour()? {
                Ok(neighbour) => neighbour,
                Err(outcome) => return Ok(outcome),
            },
        };
        let outcome = self.ask_neighbour(&mut neighbour, action)?;
        let appeared = self.top_entries()?;
        let new = appeared.difference(&before);
        neighbour.entries.extend(new.clone().cloned());
        self.run.beside.extend(new.cloned());
        if outcome.is_success() {
            match action {
                Action::Load { model } => {
                    let shadow = Shadow::new(&self.model(model)?);
                    neighbour.shadows.insert(model.clone(), shadow);
                }
                Action::Drop { model } => {
                    neighbour.shadows.remove(model);
                }
                _ => {}
            }
        }
        self.neighbour = Some(neighbour);
        Ok(outcome)
    }

    fn start_neighbour(&mut self) -> Result<Result<Neighbour, Outcome>, Stop> {
        let limits = super::subject_limits(&self.run.case);
        self.make_room_for_a_context()?;
        let environment = self.device.environment();
        let mut subject = Subject::spawn(&self.command, self.sandbox, environment, limits)?;
        let hello = Request::Hello(HelloArgs {
            protocol: PROTOCOL_VERSION,
        });
        let open = Request::Open(OpenArgs {
            device: "cuda:0".into(),
        });
        let deadline = self.run.case.limits.call;
        let greeted: HelloReply = match read(&hello, subject.call(&hello, deadline)) {
            Ok(greeted) => greeted,
            Err(outcome) => return Ok(Err(outcome)),
        };
        let opened = outcome(subject.call(&open, deadline));
        if !opened.is_success() {
            return Ok(Err(opened));
        }
        // The case's bytes are free again, the neighbour's context beside them.
        if let (DeviceUnderTest::Cuda(_), Some(_)) = (self.device, &self.ballast) {
            self.restore_device()?;
        }
        Ok(Ok(Neighbour {
            subject,
            algorithm: greeted.digest_algorithm(),
            shadows: BTreeMap::new(),
            entries: BTreeSet::new(),
        }))
    }

    /// A context on a real GPU takes hundreds of MiB that no case counts; on an emulated one it takes nothing.
    pub(super) fn make_room_for_a_context(&mut self) -> Result<(), Stop> {
        if let (DeviceUnderTest::Cuda(_), Some(ballast)) = (self.device, &mut self.ballast) {
            ballast.make_room(CONTEXT_BYTES)?;
        }
        Ok(())
    }

    fn ask_neighbour(
        &mut self,
        neighbour: &mut Neighbour,
        action: &Action,
    ) -> Result<Outcome, Stop> {
        let deadline = self.run.case.limits.call;
        let status = neighbour
            .subject
            .call(&Request::Status(NoArgs {}), deadline);
        let status: StatusReply = match status {
            Ok(CallOutcome::Ok(value)) => serde_json::from_value(value)
                .map_err(|error| HarnessError::Case(format!("status beside: {error}")))?,
            other => return Ok(outcome(other)),
        };
        let Some(request) = self.request_for(action, &status)? else {
            return Ok(Outcome::Done);
        };
        let answer = neighbour.subject.call(&request, deadline);
        let outcome = match &request {
            Request::Request(_) => read(&request, answer).map(Outcome::Served),
            Request::ReadBack(_) => {
                read(&request, answer).map(|reply: ReadBackReply| Outcome::ReadBack(reply.digests))
            }
            _ => Ok(outcome(answer)),
        };
        Ok(outcome.unwrap_or_else(|failure| failure))
    }

    /// What every tensor of the neighbour's model must contain.
    pub(super) fn expected_beside(&mut self, action: &Action) -> BTreeMap<String, Digest> {
        let (Action::Request { model, .. } | Action::ReadBack { model }) = action else {
            return BTreeMap::new();
        };
        let Some(neighbour) = &self.neighbour else {
            return BTreeMap::new();
        };
        let shadow = neighbour.shadows.get(model);
        shadow
            .and_then(|shadow| self.run.expect(shadow, neighbour.algorithm).ok())
            .unwrap_or_default()
    }

    /// The neighbour ends as a subject should.
    pub(super) fn dismiss_neighbour(&mut self) -> Result<(), Stop> {
        let Some(mut neighbour) = self.neighbour.take() else {
            return Ok(());
        };
        let deadline = self.run.case.limits.call;
        let quit = outcome(neighbour.subject.call(&Request::Quit(NoArgs {}), deadline));
        if !quit.is_success() {
            self.run.asides.push(("quit beside", quit));
        }
        for finding in neighbour.subject.finish(deadline).findings {
            let finding = Outcome::Misbehaved(finding);
            self.run.asides.push(("the process beside", finding));
        }
        Ok(())
    }

    /// Ends a neighbour that still lives, whatever it says to that: it is not the subject that is judged.
    pub(super) fn end_neighbour(&mut self) {
        if let Some(mut neighbour) = self.neighbour.take() {
            let deadline = self.run.case.limits.call.min(END_BOUND);
            // An orderly end removes its files; its answer was judged where the run came so far.
            let _ = neighbour.subject.call(&Request::Quit(NoArgs {}), deadline);
            drop(neighbour.subject.finish(deadline));
        }
    }

    /// What the neighbour that lives has at the top of the offload directory.
    pub(super) fn neighbours(&self) -> BTreeSet<PathBuf> {
        let neighbour = self.neighbour.as_ref();
        neighbour.map(|one| one.entries.clone()).unwrap_or_default()
    }

    fn top_entries(&self) -> Result<BTreeSet<PathBuf>, Stop> {
        let entries = probe::files(&self.sandbox.offload_view())?.entries;
        let top = entries.into_keys();
        Ok(top.filter(|path| path.components().count() == 1).collect())
    }
}

fn outcome(answer: Result<CallOutcome, Finding>) -> Outcome {
    match answer {
        Ok(CallOutcome::Ok(_)) => Outcome::Done,
        Ok(CallOutcome::Error(error)) => Outcome::Failed(error),
        Err(finding) => Outcome::Misbehaved(finding),
    }
}
