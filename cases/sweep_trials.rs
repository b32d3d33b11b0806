//! Trials of the sweep: which there are, from the goldens of its workloads; and how one is run and put into words.
//!
//! The gate makes each call that a golden names fail with the two most telling errors of its site, the full sweep with every one. What the
//! goldens say is true of our engine only. Another one is swept at the same sites, and the trial of each workload sweeps those that
//! only that engine reaches.

use crate::{
    bench::Judged,
    replay::{self, Override},
    search::Extent,
    suite::{Planned, judge, verdict_of},
    sweep::{JOURNEY, RECORDED, is_swept},
};
use spillproof_harness::{
    case::{Case, Faults},
    device::DeviceKind,
    faults::{Plan, SiteId},
    observation::Run,
    run::Bench,
    sweep::{
        Calls, Coverage, Depth, Draw, Fault, MAX_REDS, Random, Recording, Red, Swept, Target,
        calls_in, shorts, sweep,
    },
    verdict::Verdict,
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Errors of each site in the gate.
const GATE_ERRORS: usize = 2;

/// Times that a plan is drawn anew because its calls came in another order.
const MAX_DRAWS: u64 = 8;

/// Random trials, and the injected runs of each.
fn random(extent: Extent) -> (u64, u64) {
    match extent {
        Extent::Gate => (2, 10),
        Extent::Full => (16, 25),
    }
}

/// What one trial does.
#[derive(Clone, Debug)]
pub struct SweepTrial {
    /// The workload; of random trials the first that plans are drawn for.
    workloads: Vec<Case>,
    what: What,
    /// Why it cannot run here.
    pub skip: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Target {
        target: Target,
        depth: Depth,
        /// Calls that the golden names.
        calls: u64,
    },
    Random {
        stream: u64,
    },
}

impl SweepTrial {
    /// The site whose calls fail; random plans have many.
    #[must_use]
    pub fn site(&self) -> Option<SiteId> {
        match self.what {
            What::Target { target, .. } => Some(target.site),
            What::Random { .. } => None,
        }
    }

    /// `sweep::offload_pwrite_ENOSPC[emulated]`.
    #[must_use]
    pub fn name(&self) -> String {
        let device = DeviceKind::Emulated;
        match self.what {
            What::Target { target, .. } => {
                let workload = word(&self.workloads[0]);
                format!("sweep::{workload}_{target}[{device}]")
            }
            What::Random { stream } => format!("sweep::random_{stream}[{device}]"),
        }
    }
}

/// `offload`, of the case `offload_recorded`.
fn word(workload: &Case) -> &str {
    workload
        .name
        .strip_suffix(RECORDED)
        .unwrap_or(&workload.name)
}

/// What a trial came to that is not red.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Calls failed; how many, in words.
    Injected(String),
    /// Nothing was shown: the engine makes no such call in this workload.
    NotCalled,
}

/// What is said of a trial over a site that an engine does not reach.
pub const NOT_CALLED: &str = "0 calls: not called by this engine";

/// What all sweeps of a process share.
#[derive(Debug)]
pub struct Sweeps {
    extent: Extent,
    seed: u64,
    coverage: Mutex<Coverage>,
    recordings: Mutex<BTreeMap<String, Arc<Recording>>>,
}

impl Sweeps {
    /// As much as this, drawn by this seed.
    #[must_use]
    pub fn new(extent: Extent, seed: u64) -> Self {
        Self {
            extent,
            seed,
            coverage: Mutex::default(),
            recordings: Mutex::default(),
        }
    }

    fn coverage(&self) -> MutexGuard<'_, Coverage> {
        self.coverage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trials over the workloads among these cases, whose goldens are in that directory. A workload without a golden has
    /// none yet; its own trial is red.
    #[must_use]
    pub fn trials(&self, planned: &[Planned], goldens: &Path) -> Vec<SweepTrial> {
        let emulated =
            |one: &&Planned| one.case.family == "sweep" && one.device == DeviceKind::Emulated;
        let mut trials = Vec::new();
        let mut journeys = Vec::new();
        for one in planned.iter().filter(emulated) {
            if one.case.name.starts_with(JOURNEY) {
                if one.skip.is_none() {
                    journeys.push(one.case.clone());
                }
                continue;
            }
            let golden = goldens.join(format!("{}.snap", one.case.name));
            let golden = fs::read_to_string(golden).unwrap_or_default();
            trials.extend(self.trials_over(&one.case, calls_in(&golden), &one.skip));
        }
        if !journeys.is_empty() {
            let streams = 0..random(self.extent).0;
            trials.extend(streams.map(|stream| SweepTrial {
                workloads: journeys.clone(),
                what: What::Random { stream },
                skip: None,
            }));
        }
        trials
    }

    /// The trials over a workload that makes these calls.
    fn trials_over(
        &self,
        workload: &Case,
        calls: BTreeMap<SiteId, Calls>,
        skip: &Option<String>,
    ) -> Vec<SweepTrial> {
        let mut trials = Vec::new();
        let swept = |(site, _): &(SiteId, Calls)| is_swept(&workload.name, *site);
        for (site, calls) in calls.into_iter().filter(swept) {
            self.coverage().see(word(workload), site, calls.count);
            trials.extend(self.targets(site, calls).map(|(target, depth)| SweepTrial {
                workloads: vec![workload.clone()],
                what: What::Target {
                    target,
                    depth,
                    calls: calls.count,
                },
                skip: skip.clone(),
            }));
        }
        trials
    }

    /// What is made to fail at a site that is called so often.
    fn targets(&self, site: SiteId, calls: Calls) -> impl Iterator<Item = (Target, Depth)> + use<> {
        let extent = self.extent;
        let targets = Target::of(site).into_iter().enumerate();
        targets.filter_map(move |(index, target)| {
            let depth = match (extent, target.fault, index) {
                // None of them is larger than a block.
                (_, Fault::Short, _) if shorts(site, calls.largest_bytes, None).is_empty() => {
                    return None;
                }
                (Extent::Full, _, _) => Depth::Everything,
                (Extent::Gate, Fault::Short, _) | (Extent::Gate, Fault::Error(_), 0) => {
                    Depth::OnceAndOnward
                }
                (Extent::Gate, Fault::Error(_), index) if index < GATE_ERRORS => {
                    Depth::Thrice { calls: calls.count }
                }
                (Extent::Gate, Fault::Error(_), _) => return None,
            };
            Some((target, depth))
        })
    }

    /// The trials over the calls that a workload was seen to make, whoever made them.
    #[must_use]
    pub fn trials_after(&self, run: &Run) -> Vec<SweepTrial> {
        let recording = Arc::new(Recording::of(run));
        let trials = self.trials_over(&run.case, recording.calls(), &None);
        let recordings = self.recordings.lock();
        let mut recordings = recordings.unwrap_or_else(PoisonError::into_inner);
        recordings.insert(run.case.name.clone(), recording);
        trials
    }

    /// Runs a trial.
    ///
    /// # Errors
    /// What was red, or why nothing was shown, in words.
    pub fn run(&self, trial: &SweepTrial, judged: &Judged, bench: &Bench) -> Result<Told, String> {
        match trial.what {
            What::Target {
                target,
                depth,
                calls,
            } => self.run_target(&trial.workloads[0], target, depth, calls, judged, bench),
            What::Random { stream } => self
                .run_random(&trial.workloads, stream, judged, bench)
                .map(Told::Injected),
        }
    }

    /// The runs of a trial over one site that are not green.
    ///
    /// # Errors
    /// Why nothing was swept, in words.
    pub fn reds(
        &self,
        trial: &SweepTrial,
        judged: &Judged,
        bench: &Bench,
    ) -> Result<Vec<Red>, String> {
        let What::Target { target, depth, .. } = trial.what else {
            return Err(format!("{} is about no one site", trial.name()));
        };
        let swept = self.sweep_target(&trial.workloads[0], target, depth, judged, bench)?;
        let swept = swept.ok_or_else(|| format!("{}: {NOT_CALLED}", trial.name()))?;
        // What a run has shown is not made less by a later one that shows nothing.
        let is_wrong = |red: &Red| matches!(red.verdict, Verdict::Fail(_));
        match swept.unfinished {
            Some(reason) if !swept.reds.iter().any(is_wrong) => Err(reason),
            _ => Ok(swept.reds),
        }
    }

    fn run_target(
        &self,
        workload: &Case,
        target: Target,
        depth: Depth,
        calls: u64,
        judged: &Judged,
        bench: &Bench,
    ) -> Result<Told, String> {
        let Some(swept) = self.sweep_target(workload, target, depth, judged, bench)? else {
            self.coverage().not_called(word(workload), target.site);
            return Ok(Told::NotCalled);
        };
        for nth in &swept.hit {
            self.coverage().hit(word(workload), target.site, *nth);
        }
        let mut wrong = reds_in_words(&swept.reds, workload, judged);
        wrong.extend(swept.unfinished.clone());
        if *judged == Judged::Engine && wrong.is_empty() {
            wrong.extend(other_count(&swept.hit, depth, target, calls));
        }
        match wrong.is_empty() {
            true => Ok(Told::Injected(format!(
                "{} injected of {} runs",
                swept.injected, swept.runs
            ))),
            false => Err(wrong.join("\n")),
        }
    }

    /// Nothing where the engine makes no such call: only of ours the golden is true.
    fn sweep_target(
        &self,
        workload: &Case,
        target: Target,
        depth: Depth,
        judged: &Judged,
        bench: &Bench,
    ) -> Result<Option<Swept>, String> {
        let is_ours = *judged == Judged::Engine;
        let needs_recording = !is_ours || target.fault == Fault::Short;
        let recording = match needs_recording {
            true => self.recording(workload, judged, bench)?,
            false => Arc::default(),
        };
        let mut depth = depth;
        if !is_ours {
            let Some(calls) = recording.calls().get(&target.site).copied() else {
                return Ok(None);
            };
            let cannot_be_cut = shorts(target.site, calls.largest_bytes, None).is_empty();
            if target.fault == Fault::Short && cannot_be_cut {
                return Ok(None);
            }
            self.coverage()
                .see(word(workload), target.site, calls.count);
            if let Depth::Thrice { calls: of_ours } = &mut depth {
                *of_ours = calls.count;
            }
        }
        let mut run = |case: &Case| self.judge(case, judged, bench);
        Ok(Some(sweep(workload, target, depth, &recording, &mut run)))
    }

    /// Plans drawn from the calls of a whole journey with several I/O threads.
    fn run_random(
        &self,
        journeys: &[Case],
        stream: u64,
        judged: &Judged,
        bench: &Bench,
    ) -> Result<String, String> {
        let journey = &journeys[stream as usize % journeys.len()];
        let recording = self.recording(journey, judged, bench)?;
        let mut draw = Draw {
            recording: &recording,
            random: Random::new(self.seed, stream),
        };
        let wanted = random(self.extent).1;
        let (mut injected, mut runs, mut reds) = (0, 0, Vec::new());
        while injected < wanted && runs < wanted * MAX_DRAWS && reds.len() < MAX_REDS {
            let Some(plan) = draw.plan() else { break };
            let (run, verdict) = self.judge(&journey.under(&plan), judged, bench);
            runs += 1;
            let all_fired = run.rules.iter().all(|rule| rule.fired > 0);
            injected += u64::from(all_fired);
            let came_in_another_order = matches!(verdict, Verdict::Inconclusive(_)) && !all_fired;
            if !verdict.is_green() && !came_in_another_order {
                reds.push(Red { plan, run, verdict });
            }
        }
        let seed = format!("seed {:#x}, stream {stream}", self.seed);
        let mut wrong = reds_in_words(&reds, journey, judged);
        if wrong.is_empty() && injected < wanted {
            wrong.push(format!(
                "{injected} of {wanted} plans happened in {runs} runs: calls come in another order each time"
            ));
        }
        match wrong.is_empty() {
            true => Ok(format!("{injected} injected of {runs} runs, {seed}")),
            false => Err(format!("{seed}\n{}", wrong.join("\n"))),
        }
    }

    /// Sweeps the sites that only this engine reaches: no golden names them.
    ///
    /// # Errors
    /// What was red, in words.
    pub fn run_unnamed(
        &self,
        workload: &Case,
        run: &Run,
        goldens: &Path,
        judged: &Judged,
        bench: &Bench,
    ) -> Result<(), String> {
        let golden = goldens.join(format!("{}.snap", workload.name));
        let named = calls_in(&fs::read_to_string(golden).unwrap_or_default());
        let mut wrong = Vec::new();
        for (site, calls) in Recording::of(run).calls() {
            if named.contains_key(&site) || !is_swept(&workload.name, site) {
                continue;
            }
            self.coverage().see(word(workload), site, calls.count);
            for (target, depth) in self.targets(site, calls) {
                let swept = self.run_target(workload, target, depth, calls.count, judged, bench);
                wrong.extend(swept.err());
                if wrong.len() >= MAX_REDS {
                    return Err(wrong.join("\n"));
                }
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join("\n")),
        }
    }

    fn judge(&self, case: &Case, judged: &Judged, bench: &Bench) -> (Run, Verdict) {
        self.coverage().begin();
        let judgement = judge(case, &DeviceKind::Emulated, bench);
        let is_injected = judgement.run.rules.iter().any(|rule| rule.fired > 0);
        self.coverage().end(is_injected);
        (judgement.run, verdict_of(judged, judgement.verdict))
    }

    /// The calls of a workload, recorded once.
    fn recording(
        &self,
        workload: &Case,
        judged: &Judged,
        bench: &Bench,
    ) -> Result<Arc<Recording>, String> {
        // Who comes second waits for the first.
        let recordings = self.recordings.lock();
        let mut recordings = recordings.unwrap_or_else(PoisonError::into_inner);
        if let Some(recording) = recordings.get(&workload.name) {
            return Ok(Arc::clone(recording));
        }
        let recorded = Case {
            faults: workload.faults.clone().map(|faults| Faults {
                records: true,
                ..faults
            }),
            ..workload.clone()
        };
        let judgement = judge(&recorded, &DeviceKind::Emulated, bench);
        let verdict = verdict_of(judged, judgement.verdict);
        if !verdict.is_green() {
            let again = again(workload, None, judged);
            return Err(format!(
                "the workload is not green without faults: {}\n  again:     {again}",
                verdict.word()
            ));
        }
        let recording = Arc::new(Recording::of(&judgement.run));
        recordings.insert(workload.name.clone(), Arc::clone(&recording));
        Ok(recording)
    }

    /// The closing lines; nothing where nothing was swept.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        self.coverage().text()
    }
}

fn again(workload: &Case, plan: Option<&Plan>, judged: &Judged) -> String {
    let trial = format!("{}[{}]", workload.id(), DeviceKind::Emulated);
    let asked = Override {
        plan: plan.cloned(),
        steps: None,
    };
    replay::show_again(&trial, judged, &asked)
}

fn reds_in_words(reds: &[Red], workload: &Case, judged: &Judged) -> Vec<String> {
    let text = |red: &Red| red.text(&again(workload, Some(&red.plan), judged));
    reds.iter().map(text).collect()
}

/// Another number of calls was met than the golden names.
fn other_count(hit: &[u64], depth: Depth, target: Target, calls: u64) -> Option<String> {
    let met = hit.len() as u64;
    let expected = match (depth, target.fault) {
        (Depth::Thrice { .. }, _) => return None,
        // Calls about one byte cannot be cut.
        (_, Fault::Short) => (met == 0).then_some(calls),
        (_, Fault::Error(_)) => (met != calls).then_some(calls),
    };
    let mut text = String::new();
    let _ = write!(
        text,
        "{met} calls were made to fail, the golden names {}; run the suite with INSTA_UPDATE=always and read what was written",
        expected?
    );
    Some(text)
}
