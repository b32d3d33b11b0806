//! `progress`, `typed` and `truth`: what came back, against what had to.
//!
//! Not checked here: whether an error's message helps. Steps under a fault plan are judged in `faulted.rs`.

use super::{excuse, faulted, transfers};
use crate::{
    case::{Action, Expect},
    observation::{Act, Outcome, Phase, Run},
    subject::Finding,
};
use std::collections::BTreeMap;

/// Steps that are work, as opposed to management of memory.
pub(super) fn is_work(act: &Act<'_>) -> bool {
    match act.action {
        Action::Load { .. } | Action::Request { .. } | Action::Modify { .. } => true,
        Action::Free { .. }
        | Action::ReadBack { .. }
        | Action::Drop { .. }
        | Action::Ballast { .. }
        | Action::ReleaseBallast
        | Action::World(_)
        | Action::Hold { .. }
        | Action::ReadHeld { .. }
        | Action::Release { .. }
        | Action::Attack(_)
        | Action::Together(_)
        | Action::Wait(_)
        | Action::Cancel { .. } => false,
    }
}

/// Acts whose outcome the case itself foresees.
fn planned(run: &Run) -> impl Iterator<Item = Act<'_>> {
    run.acts().filter(|_| run.case.faults.is_none())
}

/// Work succeeds once nothing stands in its way, and every call ends within its bound.
pub(super) fn progress(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    if run.case.faults.is_some() {
        wrong.extend(faulted::progress(run));
    }
    for act in planned(run) {
        match (act.expect, act.outcome) {
            (Expect::Ok, Outcome::Failed(error)) if is_work(&act) => {
                wrong.push(format!(
                    "{}: {}: {}",
                    act.place(),
                    error.kind,
                    error.message
                ));
            }
            (_, Outcome::Misbehaved(Finding::Hang { .. })) => {
                wrong.push(format!(
                    "{}: no answer within {:?}",
                    act.place(),
                    run.case.limits.call
                ));
            }
            (Expect::Ok, Outcome::Misbehaved(finding)) if act.step.phase == Phase::SecondRound => {
                wrong.push(format!("{}: {finding}", act.place()));
            }
            _ => {}
        }
    }
    if let Outcome::Misbehaved(Finding::Hang { .. }) = run.open {
        wrong.push(format!("open: no answer within {:?}", run.case.limits.call));
    }
    wrong
}

/// Failures are typed errors of the right kind: no panic, abort, signal, hang or garbage.
pub(super) fn typed(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let opened = std::iter::once(("open".to_owned(), &run.case.open, &run.open));
    let steps = planned(run).map(|act| (act.place(), act.expect, act.outcome));
    if run.case.faults.is_some() {
        wrong.extend(faulted::typed(run));
    }
    for (place, expect, outcome) in opened.chain(steps) {
        match (expect, outcome) {
            (_, Outcome::Misbehaved(finding)) => wrong.push(format!("{place}: {finding}")),
            (Expect::Error(expected) | Expect::OkOrError(expected), Outcome::Failed(error))
                if *expected != error.kind =>
            {
                wrong.push(format!(
                    "{place}: error {} ({}), expected {expected}",
                    error.kind, error.message
                ));
            }
            _ => {}
        }
    }
    for (verb, outcome) in &run.asides {
        match outcome {
            // It closes, and says what it could not give back.
            Outcome::Failed(error) if excuse::may_be_told_at_the_end(run, error.kind) => {}
            Outcome::Failed(error) => {
                wrong.push(format!("{verb}: error {}: {}", error.kind, error.message))
            }
            Outcome::Misbehaved(finding) => wrong.push(format!("{verb}: {finding}")),
            Outcome::Done
            | Outcome::Freed(_)
            | Outcome::Served(_)
            | Outcome::ReadBack(_)
            | Outcome::Held(_)
            | Outcome::Viewed(_)
            | Outcome::Killed(_)
            | Outcome::Together(_)
            | Outcome::NotRun => wrong.push(format!("{verb}: an answer that does not fit")),
        }
    }
    if let Some(ended) = &run.ended {
        let findings = ended.findings.iter();
        let told = run.asides.iter().any(|(verb, outcome)| {
            let told = |kind| excuse::may_be_told_at_the_end(run, kind);
            *verb == "quit" && matches!(outcome, Outcome::Failed(error) if told(error.kind))
        });
        let findings = findings.filter(|finding| !(told && ends_in_order(finding)));
        wrong.extend(findings.map(|finding| format!("at the end: {finding}")));
    }
    wrong
}

/// The end of a subject that answered `quit` with an error.
fn ends_in_order(finding: &Finding) -> bool {
    matches!(
        finding,
        Finding::ExitedEarly { status: 0, .. } | Finding::ExitStatusWithoutQuit
    )
}

/// An error surfaces exactly when the case gives a reason for one.
pub(super) fn truth(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let opened = std::iter::once(("open".to_owned(), false, &run.case.open, &run.open));
    let steps = planned(run).map(|act| (act.place(), is_work(&act), act.expect, act.outcome));
    if run.case.faults.is_some() {
        wrong.extend(faulted::truth(run));
    }
    for (place, work, expect, outcome) in opened.chain(steps) {
        match (expect, outcome) {
            (Expect::Error(expected), outcome) if outcome.is_success() => {
                wrong.push(format!(
                    "{place}: reported success, expected the error {expected}"
                ));
            }
            (Expect::Ok, Outcome::Failed(error)) if !work => {
                wrong.push(format!(
                    "{place}: error {} without a fault: {}",
                    error.kind, error.message
                ));
            }
            _ => {}
        }
    }
    wrong.extend(faulted::swallowed_at_the_end(run));
    wrong.extend(handles_given_twice(run));
    wrong.extend(transfers::claimed(run));
    wrong
}

/// A handle names one view, for the subject's whole life.
fn handles_given_twice(run: &Run) -> Vec<String> {
    let mut given = BTreeMap::new();
    let mut wrong = Vec::new();
    for act in run.acts() {
        if let Outcome::Held(handle) = act.outcome
            && let Some(first) = given.insert(*handle, act.place())
        {
            wrong.push(format!(
                "{}: the handle {handle} was given before, in {first}",
                act.place()
            ));
        }
    }
    wrong
}
