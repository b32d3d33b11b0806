//! Requests of actions, and calls whose results are read as the protocol says.

use super::session::{Session, Stop};
use crate::{
    case::{Action, Amount},
    error::HarnessError,
    observation::{Outcome, total},
    subject::{CallOutcome, Finding},
};
use serde::de::DeserializeOwned;
use spillproof_protocol::{
    Done, FreeMemoryArgs, HandleArgs, HelloReply, HoldArgs, HoldReply, LoadArgs, LoadReply,
    ModelArgs, ModifyArgs, NoArgs, OpenReply, ReadBackReply, ReadHeldReply, Request, RequestArgs,
    RequestedBytes, StatusReply,
};

impl Session<'_> {
    /// The request of an action; none for what is done to the device beside the subject.
    pub(super) fn request_for(
        &self,
        action: &Action,
        status: &StatusReply,
    ) -> Result<Option<Request>, Stop> {
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
                digests,
            } => Request::Request(RequestArgs {
                model,
                workspace_bytes,
                digests,
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
                let loaded = total(scope.map(|found| found.device_bytes));
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
            Action::Hold { model, tensor, .. } => Request::Hold(HoldArgs { model, tensor }),
            Action::ReadHeld { view } => Request::ReadHeld(self.handle(&view)?),
            Action::Release { view } => Request::Release(self.handle(&view)?),
            Action::Ballast { .. }
            | Action::ReleaseBallast
            | Action::World(_)
            | Action::Attack(_)
            | Action::Together(_)
            | Action::Wait(_)
            | Action::Cancel { .. } => return Ok(None),
        }))
    }

    fn handle(&self, view: &str) -> Result<HandleArgs, HarnessError> {
        let held = self.views.get(view);
        let held = held.ok_or_else(|| HarnessError::Case(format!("no view {view:?} is held")))?;
        Ok(HandleArgs {
            handle: held.handle,
        })
    }

    pub(super) fn status(&mut self) -> Result<StatusReply, Stop> {
        match self.ask(&Request::Status(NoArgs {})) {
            Ok(status) => Ok(status),
            Err(outcome) => {
                self.run.asides.push(("status", outcome));
                Err(Stop::Recorded)
            }
        }
    }

    /// Calls a verb and reads its result; what is not of the documented form is a finding.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Outcome> {
        let called = self.subject.call(request, self.run.case.limits.call);
        read(request, called)
    }

    pub(super) fn call(&mut self, request: &Request) -> Outcome {
        let called = self.subject.call(request, self.run.case.limits.call);
        self.outcome(request, called)
    }

    /// What came back from a request, read as its verb says.
    pub(super) fn outcome(
        &mut self,
        request: &Request,
        called: Result<CallOutcome, Finding>,
    ) -> Outcome {
        let outcome = match request {
            Request::FreeMemory(_) => read(request, called).map(Outcome::Freed),
            Request::Request(_) => read(request, called).map(Outcome::Served),
            Request::ReadBack(_) => {
                read(request, called).map(|reply: ReadBackReply| Outcome::ReadBack(reply.digests))
            }
            Request::Load(_) => read(request, called).map(|_: LoadReply| Outcome::Done),
            Request::Open(_) => read(request, called).map(|reply: OpenReply| {
                self.run.staging_bytes =
                    reply.staging_bytes.min(self.run.case.limits.staging_bytes);
                Outcome::Done
            }),
            Request::Hello(_) => read(request, called).map(|_: HelloReply| Outcome::Done),
            Request::Status(_) => read(request, called).map(|_: StatusReply| Outcome::Done),
            Request::Hold(_) => {
                read(request, called).map(|reply: HoldReply| Outcome::Held(reply.handle))
            }
            Request::ReadHeld(_) => {
                read(request, called).map(|reply: ReadHeldReply| Outcome::Viewed(reply.digest))
            }
            Request::Modify(_)
            | Request::Drop(_)
            | Request::Release(_)
            | Request::Cancel(_)
            | Request::Quit(_) => read(request, called).map(|_: Done| Outcome::Done),
        };
        outcome.unwrap_or_else(|failure| failure)
    }
}

/// The result of a call; what is not of the documented form is a finding.
pub(super) fn read<T: DeserializeOwned>(
    request: &Request,
    called: Result<CallOutcome, Finding>,
) -> Result<T, Outcome> {
    match called {
        Ok(CallOutcome::Ok(value)) => {
            serde_json::from_value(value).map_err(|error| malformed(request, &error))
        }
        Ok(CallOutcome::Error(error)) => Err(Outcome::Failed(error)),
        Err(finding) => Err(Outcome::Misbehaved(finding)),
    }
}

fn malformed(request: &Request, error: &serde_json::Error) -> Outcome {
    Outcome::Misbehaved(Finding::MalformedReply {
        verb: request.verb(),
        reason: error.to_string(),
        line: String::new(),
    })
}
