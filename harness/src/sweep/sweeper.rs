//! The runs of one target, from the first call to the one that does not come.

use super::{Fault, Recording, Target};
use crate::{case::Case, faults::Plan, observation::Run, verdict::Verdict};
use std::{fmt::Write as _, ops::Range};

/// Reds after which a sweep of one target ends.
pub const MAX_REDS: usize = 3;

/// More calls of one site than any workload makes.
const MAX_CALLS: u64 = 1000;

/// How much of a target is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every call, in every mode.
    Everything,
    /// Every call, once and from there on; of short counts one.
    OnceAndOnward,
    /// The first, the middle and the last of so many calls, once.
    Thrice {
        /// Calls.
        calls: u64,
    },
}

/// A run that is not green.
#[derive(Debug)]
pub struct Red {
    /// What was made to fail.
    pub plan: Plan,
    /// What was seen.
    pub run: Run,
    /// What it is worth.
    pub verdict: Verdict,
}

/// What came of a target.
#[derive(Debug, Default)]
pub struct Swept {
    /// Runs.
    pub runs: u64,
    /// Runs in which calls failed.
    pub injected: u64,
    /// Calls of the target's site that were made to fail, by number.
    pub hit: Vec<u64>,
    /// Runs that are not green.
    pub reds: Vec<Red>,
    /// Why it was not swept to its end, other than for reds.
    pub unfinished: Option<String>,
}

/// Makes calls of the target fail, one run after the other, until a run meets none that could. `run` runs a case and judges it.
pub fn sweep(
    workload: &Case,
    target: Target,
    depth: Depth,
    recording: &Recording,
    run: &mut dyn FnMut(&Case) -> (Run, Verdict),
) -> Swept {
    let mut swept = Swept::default();
    for nth in numbers(depth) {
        let mut plans = target.plans(nth, depth, recording);
        if plans.is_empty() {
            // A call that cannot be cut. Behind the last one it is still to be shown that there is none.
            match recording.point(target.site, nth) {
                Some(_) => continue,
                None => plans = end_of(target, nth),
            }
        }
        for (index, plan) in plans.into_iter().enumerate() {
            let (run, verdict) = run(&workload.under(&plan));
            swept.runs += 1;
            let fired = run.rules.iter().any(|rule| rule.fired > 0);
            if fired {
                swept.injected += 1;
                if swept.hit.last() != Some(&nth) {
                    swept.hit.push(nth);
                }
            } else if index > 0 || matches!(depth, Depth::Thrice { .. }) {
                swept.unfinished = Some(format!(
                    "{plan}: nothing happened, where such a call came before: the workload makes its calls in another order, or the golden is out of date"
                ));
            }
            if verdict.is_green() && fired {
                continue;
            }
            if !fired && is_clean_but_idle(&run, &verdict) {
                return swept;
            }
            swept.reds.push(Red { plan, run, verdict });
            if !fired || swept.reds.len() == MAX_REDS {
                return swept;
            }
        }
    }
    if !matches!(depth, Depth::Thrice { .. }) {
        swept.unfinished = Some(format!("more than {MAX_CALLS} calls"));
    }
    swept
}

fn numbers(depth: Depth) -> Box<dyn Iterator<Item = u64>> {
    const ALL: Range<u64> = 1..MAX_CALLS + 1;
    match depth {
        Depth::Everything | Depth::OnceAndOnward => Box::new(ALL),
        Depth::Thrice { calls } => {
            let mut numbers = vec![1, calls.div_ceil(2), calls];
            numbers.dedup();
            Box::new(numbers.into_iter())
        }
    }
}

/// For a call behind the last one: the shortest cut happens to whatever comes.
fn end_of(target: Target, nth: u64) -> Vec<Plan> {
    match target.fault {
        Fault::Error(_) => Vec::new(),
        Fault::Short => {
            let site = target.site.site().name;
            let plan = format!("{site}:short=1:when={nth}").parse();
            plan.into_iter().collect()
        }
    }
}

/// Nothing is wrong with the run but that the fault never happened.
fn is_clean_but_idle(run: &Run, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Inconclusive(doubts) => {
            let idle = run.rules.iter().filter(|rule| rule.fired == 0).count();
            doubts.len() == idle
        }
        Verdict::Pass | Verdict::Fail(_) | Verdict::Skipped(_) | Verdict::Infrastructure(_) => {
            false
        }
    }
}

impl Red {
    /// What was made to fail, which calls did, and what is wrong.
    #[must_use]
    pub fn text(&self, show_again: &str) -> String {
        let mut text = format!("{} {}\n", self.verdict.word(), self.plan);
        let _ = writeln!(text, "  workload:  {}", self.run.case.id());
        for rule in &self.run.rules {
            let _ = writeln!(text, "  rule:      {rule}");
        }
        let steps = self.run.lives().flat_map(|life| &life.steps);
        for step in steps.filter(|step| !step.fired.is_empty()) {
            let fired: Vec<String> = step.fired.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "  receipts:  {}: {}", step.place(), fired.join(", "));
        }
        if !self.run.fired_at_end.is_empty() {
            let fired: Vec<String> = self
                .run
                .fired_at_end
                .iter()
                .map(ToString::to_string)
                .collect();
            let _ = writeln!(text, "  receipts:  quit: {}", fired.join(", "));
        }
        text.push_str(&crate::report::details(
            &self.run,
            &self.verdict,
            show_again,
        ));
        text
    }
}
