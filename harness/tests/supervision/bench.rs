//! A subject on the bench: started in a sandbox of its own, with the calls that tests make.

use spillproof_harness::{
    sandbox::Sandbox,
    subject::{CallOutcome, Ended, Finding, Limits, Subject, SubjectCommand},
};
use spillproof_protocol::{HelloArgs, ModelArgs, NoArgs, PROTOCOL_VERSION, Request};
use std::{env, time::Duration};

/// Far more than any answer takes, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a subject gets that is known to hang.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    pub(crate) subject: Subject,
}

pub(crate) fn command(behaviour: &str) -> SubjectCommand {
    SubjectCommand {
        program: env::current_exe().unwrap(),
        args: vec!["rogue".into(), behaviour.into()],
        env: Vec::new(),
    }
}

impl Bench {
    pub(crate) fn with_limits(behaviour: &str, limits: Limits) -> Self {
        let sandbox = Sandbox::create(&env::temp_dir(), behaviour).unwrap();
        let subject = Subject::spawn(&command(behaviour), &sandbox, Vec::new(), limits).unwrap();
        Self { sandbox, subject }
    }

    pub(crate) fn new(behaviour: &str) -> Self {
        Self::with_limits(behaviour, Limits::default())
    }

    /// Past `hello`.
    pub(crate) fn greeted(behaviour: &str) -> Self {
        let mut bench = Self::new(behaviour);
        assert!(matches!(bench.hello(PATIENCE), Ok(CallOutcome::Ok(_))));
        bench
    }

    pub(crate) fn hello(&mut self, deadline: Duration) -> Result<CallOutcome, Finding> {
        let args = HelloArgs {
            protocol: PROTOCOL_VERSION,
        };
        self.subject.call(&Request::Hello(args), deadline)
    }

    pub(crate) fn status(&mut self, deadline: Duration) -> Result<CallOutcome, Finding> {
        self.subject.call(&Request::Status(NoArgs {}), deadline)
    }

    pub(crate) fn quit(&mut self) -> Result<CallOutcome, Finding> {
        self.subject.call(&Request::Quit(NoArgs {}), PATIENCE)
    }

    /// Asks a `worker` for something; its answer's `value`.
    pub(crate) fn ask(&mut self, task: &str) -> serde_json::Value {
        let request = Request::Drop(ModelArgs { model: task.into() });
        match self.subject.call(&request, PATIENCE) {
            Ok(CallOutcome::Ok(ok)) => ok["value"].clone(),
            other => panic!("{task}: {other:?}"),
        }
    }

    pub(crate) fn finish(self) -> Ended {
        self.subject.finish(PATIENCE)
    }
}
