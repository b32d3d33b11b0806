//! Faults in a subject: the memory that its interposer reads them from, and what came of them.

use super::Bench;
use crate::{
    case::Pace,
    crash::Deadly,
    error::HarnessError,
    faults::{Faults, Fired, RuleAccount},
    probe::{self, LedgerReading},
    sandbox::Sandbox,
};
use spillproof_faults::{Action, FAULTS_VARIABLE, Options, Plan, Receipt, Shared, TraceEntry};
use std::{
    ffi::OsString,
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

/// Rows for what a subject holds: far more than any case makes. Each look at the ledger goes over all of them.
const fn ledger_rows(pace: Pace) -> usize {
    match pace {
        Pace::Usual => 4096,
        Pace::Brisk => 512,
    }
}

/// Rows for the calls that are recorded: more than any case makes that asks for it.
const TRACE_ROWS: usize = 16 * 1024;

/// A plan in the memory of a case's subjects, or none and the ledger alone.
#[derive(Debug)]
pub(super) struct Injection {
    shared: Shared,
    file: OwnedFd,
    interposer: PathBuf,
    plan: Plan,
    records: bool,
}

impl Injection {
    /// # Errors
    /// The memory cannot be made, or the plan was put together wrongly.
    pub(super) fn create(
        faults: Option<&Faults>,
        pace: Pace,
        bench: &Bench,
        sandbox: &Sandbox,
    ) -> Result<Self, HarnessError> {
        let plan = faults.map_or_else(Plan::default, |faults| faults.plan.clone());
        let records = faults.is_some_and(|faults| faults.records);
        let options = Options {
            scopes: vec![sandbox.offload_dir()],
            ledger_rows: ledger_rows(pace),
            trace_rows: if records { TRACE_ROWS } else { 1 },
            is_recording: false,
        };
        let (shared, file) = Shared::create(&plan, &options)
            .map_err(|error| HarnessError::Case(error.to_string()))?;
        shared.disarm();
        Ok(Self {
            shared,
            file,
            interposer: bench.interposer.clone(),
            plan,
            records,
        })
    }

    /// What brings the interposer into a process.
    pub(super) fn environment(&self) -> [(OsString, OsString); 2] {
        let memory = format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd());
        [
            ("LD_PRELOAD".into(), self.interposer.clone().into()),
            (FAULTS_VARIABLE.into(), memory.into()),
        ]
    }

    /// From now on calls fail as planned.
    pub(super) fn begin(&self) {
        self.shared.record(self.records);
        self.shared.arm();
    }

    /// Nothing fails any more.
    pub(super) fn end(&self) {
        self.shared.disarm();
        self.shared.record(false);
    }

    /// The calls recorded, and why they may not be all of them.
    pub(super) fn calls(&self) -> (Vec<TraceEntry>, Option<String>) {
        let trace = self.shared.trace();
        let missing = trace.lost + trace.unreadable as u64;
        let doubt = (missing > 0).then(|| format!("{missing} calls could not be recorded"));
        (trace.entries, doubt)
    }

    /// Why the faults cannot reach the process.
    pub(super) fn out_of_reach(&self, pid: u32) -> Option<String> {
        let attached = self.shared.attachments().iter().any(|one| one.pid == pid);
        // What attached may have become another program since.
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let name = self.interposer.to_string_lossy();
        let is_in_it = maps.lines().any(|line| line.ends_with(&*name));
        (!attached || !is_in_it).then(|| {
            format!(
                "no fault reaches the subject: {} is not in it; it may be statically linked, or LD_PRELOAD was taken out of its environment",
                self.interposer.display()
            )
        })
    }

    /// What happened after the first `seen` receipts.
    pub(super) fn fired_since(&self, seen: usize) -> Vec<Fired> {
        let receipts = self.shared.receipts();
        let new = receipts.get(seen..).unwrap_or_default();
        let rules = &self.plan.rules;
        let fired = new.iter().map(|receipt| {
            let rule = rules.get(receipt.rule);
            Fired {
                site: receipt.site,
                nth: receipt.nth,
                error: rule.and_then(|rule| match rule.action {
                    Action::Error(error) => Some(error),
                    Action::Short { .. } | Action::Delay(_) | Action::Signal(_) => None,
                }),
                after: rule.is_some_and(|rule| rule.after),
                key: receipt.key,
                serial: receipt.serial,
                path: receipt.path.clone().into(),
            }
        });
        fired.collect()
    }

    /// Whether a rule has raised the signal.
    pub(super) fn has_raised(&self, signal: Deadly) -> bool {
        let raises = |receipt: &Receipt| {
            let rule = self.plan.rules.get(receipt.rule);
            rule.is_some_and(|rule| match rule.action {
                Action::Signal(raised) => raised.number() == signal.signal() as i32,
                Action::Error(_) | Action::Short { .. } | Action::Delay(_) => false,
            })
        };
        self.shared.receipts().iter().any(raises)
    }

    /// What the subject's processes hold.
    pub(super) fn ledger(&self) -> LedgerReading {
        probe::ledger(&self.shared)
    }

    pub(super) fn account(&self) -> Vec<RuleAccount> {
        let rules = self.plan.rules.iter();
        rules
            .zip(self.shared.rule_counts())
            .map(|(rule, count)| RuleAccount {
                rule: Plan {
                    rules: vec![rule.clone()],
                }
                .to_string(),
                counted: count.counted,
                fired: count.fired,
            })
            .collect()
    }
}
