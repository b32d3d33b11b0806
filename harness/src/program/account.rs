//! What was seen of a program from outside.

use super::absence;
use crate::faults::{Plan, RuleAccount};
use spillproof_faults::{Presence, Receipt, Shared, SiteId, TraceView};
use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
};

/// What was counted, what fired, what could not be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The directories in which calls on files counted, resolved.
    pub scopes: Vec<PathBuf>,
    /// Whether faults could reach the program.
    pub reach: Reach,
    /// What became of each rule of the plan.
    pub rules: Vec<RuleAccount>,
    /// Proof of what fired, in order.
    pub receipts: Vec<Receipt>,
    /// Calls by site, of those that were made.
    pub calls: Vec<(SiteId, u64)>,
    /// The calls, where they were recorded.
    pub trace: TraceView,
    /// Processes that the program started and in which nothing was counted, as far as it can be told.
    pub missing: Vec<u32>,
    /// Processes beside the program that the interposer was in, and whose end was not seen.
    pub open: Vec<u32>,
}

/// Whether faults could reach the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// From its start to its end.
    Whole,
    /// The interposer never was in it.
    Never {
        /// Why, as far as the file tells.
        reason: String,
    },
    /// The interposer was in it at first and not when it ended.
    Lost,
}

impl Account {
    /// Rules that never fired.
    pub fn unfired(&self) -> impl Iterator<Item = &RuleAccount> {
        self.rules.iter().filter(|rule| rule.fired == 0)
    }
}

/// The account of a program that has ended as process `pid`.
pub(super) fn of(
    shared: &Shared,
    plan: &Plan,
    scopes: &[PathBuf],
    program: &Path,
    pid: u32,
    status: ExitStatus,
) -> Account {
    let processes = shared.processes();
    let own = processes.iter().find(|process| process.pid == pid);
    let reach = match own.map(|process| process.presence) {
        Some(Presence::Whole) => Reach::Whole,
        // Whoever is killed passes no end.
        Some(Presence::Open) if status.signal().is_some() => Reach::Whole,
        Some(Presence::Open) => Reach::Lost,
        Some(Presence::Missing) | None => Reach::Never {
            reason: absence::reason(program),
        },
    };
    let others = |presence| {
        let others = processes.iter().filter(|process| process.pid != pid);
        others
            .filter(|process| process.presence == presence)
            .map(|process| process.pid)
            .collect()
    };
    let rules = plan.rules.iter().zip(shared.rule_counts());
    let calls = SiteId::all().map(|site| (site, shared.calls(site)));
    Account {
        scopes: scopes.to_owned(),
        reach,
        rules: rules
            .map(|(rule, count)| RuleAccount {
                rule: rule.to_string(),
                counted: count.counted,
                fired: count.fired,
            })
            .collect(),
        receipts: shared.receipts(),
        calls: calls.filter(|(_, calls)| *calls > 0).collect(),
        trace: shared.trace(),
        missing: others(Presence::Missing),
        open: others(Presence::Open),
    }
}
