//! Trials that run one case many times, each time under another plan that they find by themselves.

use crate::{
    bench::Judged,
    crash_points, pairs,
    replay::{self, Override},
    suite::{Judgement, judge, verdict_of},
};
use spillproof_harness::{
    case::Case,
    device::DeviceKind,
    faults::Plan,
    run::Bench,
    sweep::{MAX_REDS, Recording, Red},
    verdict::Verdict,
};
use std::env;

/// How much of a sweep or search is run: `full`, or as much as a gate has time for.
const DEPTH_VARIABLE: &str = "SPILLPROOF_SWEEP";

/// How much is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What a gate has time for.
    Gate,
    /// Everything.
    Full,
}

impl Extent {
    /// What the environment asks for.
    ///
    /// # Errors
    /// It is neither.
    pub fn from_environment() -> Result<Self, String> {
        match env::var_os(DEPTH_VARIABLE) {
            None => Ok(Self::Gate),
            Some(word) => Self::of(&word.to_string_lossy()),
        }
    }

    fn of(word: &str) -> Result<Self, String> {
        match word {
            "full" => Ok(Self::Full),
            "gate" | "" => Ok(Self::Gate),
            _ => Err(format!(
                "{DEPTH_VARIABLE}={word:?}: say full or gate, or leave it unset"
            )),
        }
    }
}

/// What plans are drawn by: a whole number, or hexadecimal behind `0x`.
const SEED_VARIABLE: &str = "SPILLPROOF_SEED";

/// What plans are drawn by where nothing is said.
const DEFAULT_SEED: u64 = 0x5eed;

/// The seed that the environment asks for.
///
/// # Errors
/// It is no number.
pub fn seed_from_environment() -> Result<u64, String> {
    let Ok(text) = env::var(SEED_VARIABLE) else {
        return Ok(DEFAULT_SEED);
    };
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| {
        format!("{SEED_VARIABLE}={text:?} is no seed; write a number such as 7 or 0x5eed")
    })
}

/// A trial over many plans.
#[derive(Clone, Debug)]
pub struct Search {
    /// What every run does.
    pub case: Case,
    /// Which plans there are.
    pub plans: Plans,
}

/// Where the plans of a search come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plans {
    /// A signal at every call.
    CrashPoints,
    /// Two faults, the second in the recovery from the first; drawn by this number.
    Pairs {
        /// Which of the draws.
        stream: u64,
    },
}

/// All of them, for this extent.
#[must_use]
pub fn searches(extent: Extent) -> Vec<Search> {
    let mut searches = crash_points::searches();
    searches.extend(pairs::searches(extent));
    searches
}

/// A search at work.
#[derive(Debug)]
pub struct Searching<'a> {
    search: &'a Search,
    bench: &'a Bench,
    judged: &'a Judged,
    /// How much is searched.
    pub extent: Extent,
    /// By what plans are drawn.
    pub seed: u64,
    reds: Vec<String>,
    /// Runs in which a rule fired.
    pub injected: u64,
}

impl Search {
    /// `family::name[device]`: the stand-in is what these are run on.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}[{}]", self.case.id(), DeviceKind::Emulated)
    }

    /// Runs all of it; what was visited.
    ///
    /// # Errors
    /// What was red, each with the line that shows it again.
    pub fn run(
        &self,
        bench: &Bench,
        judged: &Judged,
        extent: Extent,
        seed: u64,
    ) -> Result<String, String> {
        let mut searching = Searching {
            search: self,
            bench,
            judged,
            extent,
            seed,
            reds: Vec::new(),
            injected: 0,
        };
        let told = match self.plans {
            Plans::CrashPoints => crash_points::visit(&mut searching),
            Plans::Pairs { stream } => pairs::search(&mut searching, stream),
        };
        match told {
            Ok(told) if searching.reds.is_empty() => Ok(told),
            Ok(told) => Err(format!("{told}\n{}", searching.reds.join("\n"))),
            Err(error) => Err(format!("{error}\n{}", searching.reds.join("\n"))),
        }
    }
}

impl Searching<'_> {
    /// The case.
    #[must_use]
    pub fn case(&self) -> &Case {
        &self.search.case
    }

    /// Whether enough was red.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.reds.len() >= MAX_REDS
    }

    /// Which calls there are under this plan, and what it came to.
    #[must_use]
    pub fn record(&self, plan: &Plan) -> (Recording, Judgement) {
        let mut case = self.case().under(plan);
        if let Some(faults) = &mut case.faults {
            faults.records = true;
        }
        let judgement = self.judge(&case);
        (Recording::of(&judgement.run), judgement)
    }

    /// Runs the case under a plan; whether all of its rules fired. What is red is kept.
    pub fn inject(&mut self, plan: Plan) -> bool {
        let judgement = self.judge(&self.case().under(&plan));
        let fired = judgement.run.rules.iter().all(|rule| rule.fired > 0);
        self.injected += u64::from(fired);
        // What did not happen is the caller's to judge.
        let is_idle = !fired && matches!(judgement.verdict, Verdict::Inconclusive(_));
        if !judgement.verdict.is_green() && !is_idle {
            self.keep(plan, judgement);
        }
        fired
    }

    /// Keeps a run as red.
    pub fn keep(&mut self, plan: Plan, judgement: Judgement) {
        let asked = Override {
            plan: Some(plan.clone()),
            steps: None,
        };
        let again = replay::show_again(&self.search.name(), self.judged, &asked);
        let Judgement { run, verdict } = judgement;
        self.reds.push(Red { plan, run, verdict }.text(&again));
    }

    fn judge(&self, case: &Case) -> Judgement {
        let Judgement { run, verdict } = judge(case, &DeviceKind::Emulated, self.bench);
        let verdict = verdict_of(self.judged, verdict);
        Judgement { run, verdict }
    }
}

#[cfg(test)]
mod tests {
    //! How much is searched.
    use super::*;

    #[test]
    fn a_misspelt_extent_is_no_gate() {
        assert_eq!(Extent::of("full"), Ok(Extent::Full));
        assert_eq!(Extent::of(""), Ok(Extent::Gate));
        let error = Extent::of("ful").unwrap_err();
        assert_eq!(
            error,
            "SPILLPROOF_SWEEP=\"ful\": say full or gate, or leave it unset"
        );
    }
}
