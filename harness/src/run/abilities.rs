//! What a subject says that it can do, asked before any case is planned.

use super::{Bench, injection::Injection, with_faults};
use crate::{
    case::{self, Pace},
    device::DeviceUnderTest,
    error::HarnessError,
    sandbox::Sandbox,
    subject::{CallOutcome, Limits, Subject},
};
use spillproof_protocol::{Capability, HelloArgs, HelloReply, NoArgs, PROTOCOL_VERSION, Request};

/// Starts the subject on a machine without CUDA, takes its `hello`, and lets it go.
///
/// # Errors
/// Why it did not say what it can do; every case on it will show that in full.
pub fn abilities(bench: &Bench) -> Result<Vec<Capability>, String> {
    capabilities(hello(bench, false))
}

/// Whether the subject starts with the interposer in its environment: the loader of another C library refuses it.
///
/// # Errors
/// Why it did not say what it can do.
pub fn bears_the_interposer(bench: &Bench) -> Result<(), String> {
    capabilities(hello(bench, true)).map(|_| ())
}

fn capabilities(
    hello: Result<Result<CallOutcome, String>, HarnessError>,
) -> Result<Vec<Capability>, String> {
    match hello {
        Ok(Ok(CallOutcome::Ok(value))) => serde_json::from_value(value)
            .map(|hello: HelloReply| hello.capabilities)
            .map_err(|error| error.to_string()),
        Ok(Ok(CallOutcome::Error(error))) => Err(format!("{}: {}", error.kind, error.message)),
        Ok(Err(finding)) => Err(finding),
        Err(error) => Err(error.to_string()),
    }
}

fn hello(bench: &Bench, is_interposed: bool) -> Result<Result<CallOutcome, String>, HarnessError> {
    let deadline = case::Limits::default().call;
    let sandbox = Sandbox::create(&bench.work_dir, "hello")?;
    let device = DeviceUnderTest::absent(&sandbox.root().join("libraries"))?;
    let injection = is_interposed.then(|| Injection::create(None, Pace::Brisk, bench, &sandbox));
    let injection = injection.transpose()?;
    let environment = with_faults(device.environment(), injection.as_ref());
    let mut subject = Subject::spawn(&bench.subject, &sandbox, environment, Limits::default())?;
    let hello = Request::Hello(HelloArgs {
        protocol: PROTOCOL_VERSION,
    });
    let answer = subject.call(&hello, deadline);
    // Whatever comes of it, the process is ended and reaped below.
    let _ = subject.call(&Request::Quit(NoArgs {}), deadline);
    // How it ended is for the cases to judge.
    let _ = subject.finish(deadline);
    Ok(answer.map_err(|finding| finding.to_string()))
}
