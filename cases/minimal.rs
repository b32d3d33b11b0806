//! A red run made smaller: fewer rules and fewer steps by which the same invariant still fails.

use crate::{
    bench::Judged,
    replay::{self, Override},
    suite::judge,
};
use spillproof_harness::{
    case::{Case, Faults},
    device::DeviceKind,
    faults::Plan,
    invariants::{self, InvariantId, Violation},
    minimise::{Attempt, minimise},
    run::Bench,
    verdict::Verdict,
};
use std::{
    env,
    time::{Duration, Instant},
};

/// Says that red runs are to be made smaller: `1`, or the invariant that is to fail still.
pub const MINIMISE_VARIABLE: &str = "SPILLPROOF_MINIMISE";

/// What one run may cost of everybody's time.
const BOUND: Duration = Duration::from_secs(60);

/// What must fail still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The invariant that is named first.
    First,
    /// This one.
    Only(InvariantId),
}

/// What the environment asks for.
///
/// # Errors
/// It names no invariant.
pub fn from_environment() -> Result<Option<Wanted>, String> {
    match env::var(MINIMISE_VARIABLE) {
        Ok(word) => wanted(&word),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error @ env::VarError::NotUnicode(_)) => Err(format!("{MINIMISE_VARIABLE}: {error}")),
    }
}

fn wanted(word: &str) -> Result<Option<Wanted>, String> {
    if word == "1" {
        return Ok(Some(Wanted::First));
    }
    let mut all = invariants::ALL.iter().map(|(id, _)| *id);
    let named = all.find(|id| id.name() == word);
    let named = named.ok_or_else(|| {
        let all: Vec<&str> = invariants::ALL.iter().map(|(id, _)| id.name()).collect();
        format!(
            "{MINIMISE_VARIABLE}={word:?}: say 1 or the invariant that is to fail still, one of {}",
            all.join(", ")
        )
    })?;
    Ok(Some(Wanted::Only(named)))
}

/// A red run, as far as making it smaller needs to know it.
#[derive(Clone, Copy, Debug)]
pub struct RedRun<'a> {
    /// The name of its trial.
    pub name: &'a str,
    /// What was run.
    pub case: &'a Case,
    /// Which of the case's own steps that was, from 1.
    pub steps: &'a [usize],
    /// On what.
    pub device: &'a DeviceKind,
    /// What was wrong.
    pub violations: &'a [Violation],
}

/// Runs less and less of it, and tells in lines what was left; nothing where there is no plan.
#[must_use]
pub fn told(red: RedRun<'_>, wanted: Wanted, judged: &Judged, bench: &Bench) -> Option<String> {
    let faults = red.case.faults.as_ref()?;
    let plan = &faults.plan;
    let failed = |id: InvariantId| red.violations.iter().any(|wrong| wrong.invariant == id);
    let id = match wanted {
        Wanted::First => red.violations.first()?.invariant,
        Wanted::Only(id) if failed(id) => id,
        Wanted::Only(id) => return Some(format!("  minimal:   {id} did not fail\n")),
    };
    let until = Instant::now() + BOUND;
    let case = |rules: &[usize], steps: &[usize]| Case {
        faults: Some(Faults {
            plan: picked_rules(plan, rules),
            ..faults.clone().left_with(steps.iter().copied())
        }),
        steps: steps
            .iter()
            .map(|index| red.case.steps[*index].clone())
            .collect(),
        ..red.case.clone()
    };
    let found = minimise(plan.rules.len(), red.case.steps.len(), |rules, steps| {
        if Instant::now() >= until {
            return Attempt::NoTime;
        }
        match judge(&case(rules, steps), red.device, bench).verdict {
            Verdict::Fail(violations) if violations.iter().any(|wrong| wrong.invariant == id) => {
                Attempt::Fails
            }
            Verdict::Fail(_)
            | Verdict::Pass
            | Verdict::Inconclusive(_)
            | Verdict::Skipped(_)
            | Verdict::Infrastructure(_) => Attempt::Differs,
        }
    });
    let smaller = case(&found.rules, &found.steps);
    let asked = Override {
        plan: smaller.plan().cloned(),
        steps: Some(found.steps.iter().map(|index| red.steps[*index]).collect()),
    };
    let labels: Vec<String> = smaller
        .steps
        .iter()
        .map(|step| step.action.label())
        .collect();
    let time = if found.is_cut_short {
        format!(", cut short after {BOUND:?}")
    } else {
        String::new()
    };
    Some(format!(
        "  minimal:   {id} fails still with {} of {} rules and {} of {} steps ({}); {} runs{time}\n             {}\n",
        found.rules.len(),
        plan.rules.len(),
        found.steps.len(),
        red.case.steps.len(),
        labels.join("; "),
        found.tries,
        replay::show_again(red.name, judged, &asked)
    ))
}

fn picked_rules(plan: &Plan, rules: &[usize]) -> Plan {
    Plan {
        rules: rules
            .iter()
            .map(|index| plan.rules[*index].clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    //! What the environment may ask for.
    use super::*;

    #[test]
    fn an_invariant_is_named_or_left_to_the_run() {
        assert_eq!(wanted("1"), Ok(Some(Wanted::First)));
        assert_eq!(wanted("vram"), Ok(Some(Wanted::Only(InvariantId::Vram))));
        for word in ["", "yes", "VRAM"] {
            let error = wanted(word).unwrap_err();
            assert!(error.contains("vram, rss"), "{error}");
        }
    }
}
