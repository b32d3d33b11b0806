//! The fault suite: every case of the catalogue on every device found.

use insta::internals::SettingsBindDropGuard;
use libtest_mimic::{Arguments, Failed, Trial};
use spillproof::{
    bench::{Judged, bench, golden_directory},
    catalogue,
    minimal::{self, RedRun},
    replay::{self, Override},
    reruns::{self, RERUNS},
    search::{Extent, Search, searches, seed_from_environment},
    suite::{Judgement, Planned, judge, plan, verdict_of},
    summary::Summary,
    sweep,
    sweep_trials::{NOT_CALLED, SweepTrial, Sweeps, Told},
};
use spillproof_harness::{
    case::Case,
    device::{DeviceKind, Discovered, discover},
    golden,
    observation::Run,
    report,
    run::{Bench, abilities, bears_the_interposer},
    verdict::Verdict,
    world::out_of_direct_reach,
};
use spillproof_protocol::Capability;
use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = args.test_threads.or_else(waiting_too);
    let cases = or_usage_error(catalogue());
    let asked = or_usage_error(Override::from_environment());
    let minimise = or_usage_error(minimal::from_environment());
    let devices = discover();
    let suite = Suite::new(&args, &devices, asked, minimise);
    let directory = suite.bench.as_ref().ok().map(|bench| &bench.work_dir);
    let indirect = directory.and_then(|at| out_of_direct_reach(at));
    let abilities = suite.abilities();
    let planned = plan(cases, &devices, abilities.as_deref(), indirect.as_deref());
    let summary = Summary::of(&planned, &devices, suite.no_ledger.clone());
    let suite = Arc::new(suite);
    let swept = suite.swept(&planned);
    let trials = planned.into_iter().map(|planned| trial(planned, &suite));
    let own = suite.required_gpu().into_iter().chain(suite.reruns());
    // A line that shows one again names it, whatever a gate has time for.
    let extent = match suite.asked.is_nothing() {
        true => suite.extent,
        false => Extent::Full,
    };
    let searches = searches(extent).into_iter();
    let searches = searches.map(|search| searched(search, &suite));
    let swept = swept.into_iter().map(|one| sweep_trial(one, &suite));
    let trials = own.chain(trials).chain(searches).chain(swept).collect();
    let conclusion = libtest_mimic::run(&args, trials);
    if !args.list {
        let verdicts = suite
            .verdicts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = suite.sweeps.text() {
            println!("{text}");
        }
        println!("{}", summary.text(&verdicts));
    }
    conclusion.exit();
}

/// What the environment asks for and cannot be had ends the program before anything runs.
fn or_usage_error<T, E: std::fmt::Display>(asked: Result<T, E>) -> T {
    asked.unwrap_or_else(|error| {
        eprintln!("Error: {error}");
        std::process::exit(2);
    })
}

/// What all trials share.
struct Suite {
    judged: Judged,
    bench: Result<Bench, String>,
    /// Why the interposer is in no subject but where calls are to fail.
    no_ledger: Option<String>,
    verbose: bool,
    has_gpu: bool,
    /// What takes the place of what the cases say.
    asked: Override,
    minimise: Option<minimal::Wanted>,
    extent: Extent,
    seed: u64,
    sweeps: Sweeps,
    verdicts: Mutex<Vec<(String, &'static str)>>,
}

/// A program of another C library does not start with the interposer: its cases without faults do without the ledger.
fn with_ledger(
    judged: &Judged,
    bench: Result<Bench, String>,
) -> (Result<Bench, String>, Option<String>) {
    let refusal = match (judged, &bench) {
        (Judged::Other(_), Ok(bench)) if abilities(bench).is_ok() => {
            bears_the_interposer(bench).err()
        }
        (Judged::Engine | Judged::Specimen(_) | Judged::Other(_), _) => None,
    };
    let keeps_ledger = refusal.is_none();
    let bench = bench.map(|bench| Bench {
        keeps_ledger,
        ..bench
    });
    (bench, refusal)
}

/// Half of a case's time is waiting, for disks and for the ends of processes: more cases than cores keep the cores at work.
fn waiting_too() -> Option<usize> {
    let cores = std::thread::available_parallelism().ok()?;
    Some(cores.get() + 2)
}

impl Suite {
    fn new(
        args: &Arguments,
        devices: &[Discovered],
        asked: Override,
        minimise: Option<minimal::Wanted>,
    ) -> Self {
        let judged = Judged::from_environment();
        let (bench, no_ledger) = with_ledger(&judged, bench(&judged));
        let extent = or_usage_error(Extent::from_environment());
        let seed = or_usage_error(seed_from_environment());
        Self {
            judged,
            bench,
            no_ledger,
            verbose: args.nocapture,
            has_gpu: devices.iter().any(Discovered::is_usable_gpu),
            asked,
            minimise,
            extent,
            seed,
            sweeps: Sweeps::new(extent, seed),
            verdicts: Mutex::default(),
        }
    }

    /// What another program than our engine can do: it is asked when trials are listed, so that what it cannot do is
    /// ignored with the reason. One that does not answer gets every case, and shows there why not.
    fn abilities(&self) -> Option<Vec<Capability>> {
        match (&self.judged, &self.bench) {
            (Judged::Engine, _) | (_, Err(_)) => None,
            (Judged::Specimen(_) | Judged::Other(_), Ok(bench)) => abilities(bench).ok(),
        }
    }

    /// With `SPILLPROOF_GPU=require`, a machine without a GPU is red.
    fn required_gpu(&self) -> Option<Trial> {
        let required = match std::env::var("SPILLPROOF_GPU").as_deref() {
            Ok("require") => true,
            Ok("") | Err(_) => false,
            Ok(other) => {
                eprintln!("Error: SPILLPROOF_GPU={other:?}: say `require`, or leave it unset");
                std::process::exit(2);
            }
        };
        let found = self.has_gpu;
        required.then(|| {
            Trial::test("gpu::required", move || {
                let missing = "SPILLPROOF_GPU=require, but no usable GPU was found; unset it or run where one is";
                if found { Ok(()) } else { Err(missing.into()) }
            })
        })
    }

    /// Of the suite itself, where nothing else is asked for.
    fn reruns(&self) -> Vec<Trial> {
        if self.judged != Judged::Engine || !self.asked.is_nothing() {
            return Vec::new();
        }
        let trial = |(name, run): &reruns::Rerun| {
            let run = *run;
            Trial::test(*name, move || {
                run().map_err(|error| Failed::from(format!("Error: {error}")))
            })
        };
        RERUNS.iter().map(trial).collect()
    }

    fn run(&self, planned: &Planned) -> Result<(), Failed> {
        let name = planned.name();
        let case = self.asked.apply(planned.case.clone());
        let case = &case.map_err(|error| Failed::from(format!("Error: {error}")))?;
        let bench = self
            .bench
            .as_ref()
            .map_err(|error| Failed::from(format!("Error: {error}")))?;
        let Judgement { run, verdict } = judge(case, &planned.device, bench);
        let (run, verdict) = (&run, &verdict_of(&self.judged, verdict));
        let unnamed = match verdict.is_green() {
            true => self.unnamed(case, run, bench),
            false => Ok(()),
        };
        let word = unnamed.as_ref().map_or("FAIL", |()| verdict.word());
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.push((name.clone(), word));
        drop(verdicts);
        let line = report::line(run, &name, verdict);
        if self.verbose {
            println!("{line}\n{}", report::request_table(run));
        }
        if !verdict.is_green() {
            let asked = Override {
                plan: case.plan().cloned(),
                steps: self.asked.steps.clone(),
            };
            let again = replay::show_again(&name, &self.judged, &asked);
            let mut text = format!("Error: {line}\n{}", report::details(run, verdict, &again));
            if let (Some(wanted), Verdict::Fail(violations)) = (self.minimise, verdict) {
                let all = (1..=case.steps.len()).collect();
                let red = RedRun {
                    name: &name,
                    case,
                    steps: self.asked.steps.as_ref().unwrap_or(&all),
                    device: &planned.device,
                    violations,
                };
                text += &minimal::told(red, wanted, &self.judged, bench).unwrap_or_default();
            }
            eprintln!("{text}");
            return Err(text.into());
        }
        unnamed.map_err(|text| Failed::from(format!("Error: FAIL  {name}\n{text}")))?;
        // A golden is of the case as it is.
        if let (Judged::Engine, Verdict::Pass, None, true) = (
            &self.judged,
            verdict,
            self.real_weights(planned),
            self.asked.is_nothing(),
        ) {
            let found = golden::render(run);
            match planned.device {
                DeviceKind::Emulated => {
                    let _settings = golden_settings(planned.case.family);
                    insta::assert_snapshot!(planned.case.name.clone(), found);
                }
                DeviceKind::Cuda { .. } => same_as_golden(&planned.case, &found)?,
            }
        }
        Ok(())
    }

    /// Sweeps what of a workload no golden names, of an engine that is not ours.
    fn unnamed(&self, case: &Case, run: &Run, bench: &Bench) -> Result<(), String> {
        let is_workload = case.name.ends_with(sweep::RECORDED) && self.asked.is_nothing();
        if self.judged == Judged::Engine || !is_workload {
            return Ok(());
        }
        let goldens = golden_directory(case.family);
        self.sweeps
            .run_unnamed(case, run, &goldens, &self.judged, bench)
    }

    fn search(&self, search: &Search) -> Result<(), Failed> {
        if !self.asked.is_nothing() {
            // One run of it.
            return self.run(&Planned {
                case: search.case.clone(),
                device: DeviceKind::Emulated,
                skip: None,
            });
        }
        let told = search.run(self.bench()?, &self.judged, self.extent, self.seed);
        self.conclude(search.name(), told)
    }

    /// Where nothing else is asked for.
    fn swept(&self, planned: &[Planned]) -> Vec<SweepTrial> {
        match self.asked.is_nothing() {
            true => self.sweeps.trials(planned, &golden_directory("sweep")),
            false => Vec::new(),
        }
    }

    fn sweep(&self, trial: &SweepTrial) -> Result<(), Failed> {
        match self.sweeps.run(trial, &self.judged, self.bench()?) {
            Ok(Told::Injected(told)) => self.conclude(trial.name(), Ok(told)),
            Ok(Told::NotCalled) => {
                let name = trial.name();
                println!("NONE  {name}  {NOT_CALLED}");
                let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                verdicts.push((name, "NONE"));
                Ok(())
            }
            Err(error) => self.conclude(trial.name(), Err(error)),
        }
    }

    fn bench(&self) -> Result<&Bench, Failed> {
        let bench = self.bench.as_ref();
        bench.map_err(|error| Failed::from(format!("Error: {error}")))
    }

    /// Of a trial of many runs.
    fn conclude(&self, name: String, told: Result<String, String>) -> Result<(), Failed> {
        let word = if told.is_ok() { "PASS" } else { "FAIL" };
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.push((name.clone(), word));
        drop(verdicts);
        match told {
            Ok(told) => {
                println!("{word}  {name}  {told}");
                Ok(())
            }
            Err(error) => {
                let text = format!("Error: {word}  {name}  {error}");
                eprintln!("{text}");
                Err(text.into())
            }
        }
    }

    /// Cases over a user's file have no golden: the file is not ours.
    fn real_weights<'a>(&self, planned: &'a Planned) -> Option<&'a PathBuf> {
        planned
            .case
            .models
            .iter()
            .find_map(|model| Some(&model.file.as_ref()?.path))
    }
}

fn sweep_trial(trial: SweepTrial, suite: &Arc<Suite>) -> Trial {
    let ignored = trial.skip.is_some();
    let suite = Arc::clone(suite);
    let name = trial.name();
    let run = move || match &trial.skip {
        Some(reason) => Err(format!("this cannot run here: {reason}").into()),
        None => suite.sweep(&trial),
    };
    Trial::test(name, run).with_ignored_flag(ignored)
}

fn trial(planned: Planned, suite: &Arc<Suite>) -> Trial {
    let ignored = planned.skip.is_some();
    let suite = Arc::clone(suite);
    let name = planned.name();
    let run = move || match &planned.skip {
        Some(reason) => Err(format!("this cannot run here: {reason}").into()),
        None => suite.run(&planned),
    };
    Trial::test(name, run).with_ignored_flag(ignored)
}

fn searched(search: Search, suite: &Arc<Suite>) -> Trial {
    let suite = Arc::clone(suite);
    Trial::test(search.name(), move || suite.search(&search))
}

/// Snapshots lie in `golden/<family>/<case>.snap`, wherever the tests were built.
/// A real device is compared with what the emulated one wrote; coarsely in those lines where its own cuFile, or how much of its
/// memory is free, decides what goes.
fn same_as_golden(case: &Case, found: &str) -> Result<(), Failed> {
    let path = golden_directory(case.family).join(format!("{}.snap", case.name));
    let text = fs::read_to_string(&path)
        .map_err(|error| Failed::from(format!("Error: cannot read {}: {error}", path.display())))?;
    // Below insta's header.
    let golden = text
        .splitn(3, "---\n")
        .nth(2)
        .unwrap_or_default()
        .trim_end();
    let found = found.trim_end();
    if golden::is_of(golden, found) {
        return Ok(());
    }
    let text = format!("Error: other than {}:\n{found}\n", path.display());
    eprintln!("{text}");
    Err(text.into())
}

fn golden_settings(family: &str) -> SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(golden_directory(family));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind_to_scope()
}
