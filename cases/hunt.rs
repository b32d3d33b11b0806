//! The sweep against an engine with a defect, until it shows. Nothing is known of the defect: every engine is asked the same, in the
//! same order, and what is made to fail follows from the calls that it was seen to make.
//!
//! First each workload as it is; then, of the calls of each site in turn, the first trial, the second one, and so on, so that no site
//! waits for the whole of another.

use crate::{
    bench::Judged,
    search::Extent,
    suite::judge,
    sweep_trials::{SweepTrial, Sweeps},
};
use spillproof_harness::{
    case::Case, device::DeviceKind, faults::SiteId, invariants::InvariantId, run::Bench,
    verdict::Verdict,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

/// Long enough for every healthy call of a workload, short enough to wait for one that never ends.
const CALL_BOUND: Duration = Duration::from_secs(6);

/// Long enough for what a healthy engine gives back late; what never comes back is waited for in full.
const SETTLE_BOUND: Duration = Duration::from_secs(2);

/// The first trial in which something was wrong.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub trial: String,
    /// Every invariant that its runs tripped.
    pub tripped: BTreeSet<InvariantId>,
    /// What was wrong, in words.
    pub text: String,
}

/// How far a hunt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Each workload as it is.
    Workloads,
    /// And all that a gate makes fail.
    Everything,
}

/// What a hunt came to.
#[derive(Clone, Debug)]
pub struct Hunted {
    /// Trials run, the one that found something included.
    pub trials: usize,
    /// What was found, or nothing within reach.
    pub found: Option<Found>,
}

/// Sweeps an engine over these workloads until something is wrong.
///
/// # Errors
/// Something was not measured, which shows nothing of anybody; in words.
pub fn hunt(
    workloads: &[Case],
    reach: Reach,
    judged: &Judged,
    bench: &Bench,
) -> Result<Hunted, String> {
    let sweeps = Sweeps::new(Extent::Gate, 0);
    let mut hunted = Hunted {
        trials: 0,
        found: None,
    };
    let mut trials = Vec::new();
    for workload in workloads {
        let mut workload = workload.clone();
        workload.limits.call = CALL_BOUND;
        workload.limits.settle = SETTLE_BOUND;
        let judgement = judge(&workload, &DeviceKind::Emulated, bench);
        hunted.trials += 1;
        let name = format!("{}[{}]", workload.id(), DeviceKind::Emulated);
        if let Some(found) = look_at(name, [(&judgement.verdict, String::new())])? {
            hunted.found = Some(found);
            return Ok(hunted);
        }
        trials.extend(sweeps.trials_after(&judgement.run));
    }
    if reach == Reach::Workloads {
        return Ok(hunted);
    }
    for trial in by_turns(trials) {
        let reds = sweeps.reds(&trial, judged, bench)?;
        hunted.trials += 1;
        let name = trial.name();
        let reds = reds.iter().map(|red| (&red.verdict, red.text(&name)));
        if let Some(found) = look_at(name.clone(), reds)? {
            hunted.found = Some(found);
            break;
        }
    }
    Ok(hunted)
}

/// The first trial of each site, then the second one of each.
fn by_turns(trials: Vec<SweepTrial>) -> Vec<SweepTrial> {
    let mut of_site: BTreeMap<Option<SiteId>, usize> = BTreeMap::new();
    let mut placed: Vec<(usize, SweepTrial)> = trials
        .into_iter()
        .map(|trial| {
            let turn = of_site.entry(trial.site()).or_default();
            *turn += 1;
            (*turn, trial)
        })
        .collect();
    placed.sort_by_key(|(turn, _)| *turn);
    placed.into_iter().map(|(_, trial)| trial).collect()
}

/// What these runs of a trial show. A run that is neither green nor wrong is nobody's.
fn look_at<'a>(
    trial: String,
    runs: impl IntoIterator<Item = (&'a Verdict, String)>,
) -> Result<Option<Found>, String> {
    let mut found = Found {
        trial,
        tripped: BTreeSet::new(),
        text: String::new(),
    };
    for (verdict, text) in runs {
        match verdict {
            Verdict::Pass => {}
            Verdict::Fail(violations) => {
                found.text.push_str(&text);
                for violation in violations {
                    found.tripped.insert(violation.invariant);
                    let _ = writeln!(
                        found.text,
                        "  {}: {}",
                        violation.invariant, violation.message
                    );
                }
            }
            Verdict::Inconclusive(_) | Verdict::Skipped(_) | Verdict::Infrastructure(_) => {
                return Err(format!("{}: {verdict:?}\n{text}", found.trial));
            }
        }
    }
    Ok((!found.tripped.is_empty()).then_some(found))
}
