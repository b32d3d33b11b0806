//! The museum: every specimen must be caught, by exactly the invariants in the table; the healthy ones by none.
//!
//! A specimen that trips an invariant which is not in its row, or misses one that is, is a failure: so
//! removing any invariant, or loosening it until it misses its specimen, turns this test red.

mod museum_sweep;

use libtest_mimic::{Arguments, Failed, Trial};
use spillproof::{
    bench::{Judged, bench, golden_directory},
    catalogue,
    replay::{self, Override},
    search::Extent,
    suite::{Planned, judge},
    sweep_trials::Sweeps,
};
use spillproof_harness::{
    case::Case,
    device::{DeviceKind, DeviceReading},
    invariants::{
        self,
        InvariantId::{
            self, Data, Device, Fd, Files, Maps, Policy, Progress, Rss, Threads, Truth, Typed, Vram,
        },
    },
    report,
    verdict::Verdict,
};
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, time::Duration};

/// A specimen, the case that shows it, and every invariant that it trips there.
struct Exhibit {
    specimen: &'static str,
    case: &'static str,
    trips: &'static [InvariantId],
}

const fn exhibit(
    specimen: &'static str,
    case: &'static str,
    trips: &'static [InvariantId],
) -> Exhibit {
    Exhibit {
        specimen,
        case,
        trips,
    }
}

const EXHIBITS: &[Exhibit] = &[
    exhibit("S1", "oom::forced_1e30", &[Progress, Policy]),
    exhibit("S2", "oom::forced_1e30", &[Progress, Policy]),
    exhibit("S3", "oom::forced_1e30", &[Vram, Policy]),
    exhibit("S4", "oom::forced_1e30_file_only", &[Rss]),
    exhibit("S5", "disk::no_maps", &[Rss]),
    exhibit("S6", "oom::forced_1e30", &[Fd]),
    exhibit("S7", "oom::forced_1e30", &[Fd]),
    exhibit("S8", "oom::forced_1e30", &[Files]),
    exhibit("S9", "mapped::view_outlives_drop", &[Truth]),
    exhibit("S10", "data::views_through_mapped", &[Data]),
    exhibit("S11", "data::empty_through_mapped", &[Truth]),
    exhibit("S12", "data::tied_stay_tied_when_modified", &[Data, Policy]),
    exhibit("S13", "limits::file_size_from_the_start", &[Files, Policy]),
    exhibit("S14", "repeat::threshold_fraction", &[Rss, Policy]),
    exhibit("S15", "oom::forced_1e30", &[Data]),
    exhibit("S16", "gds::short_transfers", &[Truth]),
    exhibit("S17", "oom::at_the_last_tensor_of_a_reload", &[Vram]),
    exhibit("S18", "oom::workspace_too_large", &[Progress, Typed]),
    exhibit("S19", "oom::workspace_too_large", &[Truth]),
    exhibit("S19", "disk::device_oom_for_good", &[Data]),
    exhibit("S20", "repeat::threshold_512", &[Policy]),
    exhibit("M1", "oom::forced_1e30", &[Maps]),
    exhibit("M2", "oom::forced_1e30", &[Threads]),
    exhibit("M3", "oom::forced_1e30", &[Device]),
    exhibit("M4", "oom::forced_1e30", &[Typed]),
    exhibit("M5", "oom::forced_1e30", &[Vram]),
    exhibit("M6", "oom::forced_1e30", &[Files]),
    exhibit("M7", "oom::forced_1e30", &[Vram]),
    exhibit("M8", "oom::refused_nan", &[Truth, Policy]),
    exhibit("M9", "repeat::modified_data_is_written_again", &[Data]),
    exhibit("M12", "repeat::threshold_512", &[Policy]),
    exhibit("M13", "oom::forced_1e30", &[Policy]),
    exhibit("M11", "repeat::threshold_512", &[Rss]),
    exhibit("M14", "mapped::unlinked_idle", &[Progress, Truth]),
    exhibit("M15", "mapped::cut_middle_idle", &[Files, Typed]),
    exhibit("M16", "mapped::flipped_middle_idle", &[Truth]),
    exhibit("M17", "gds::handles_refused_with_24_mib", &[Rss]),
    exhibit("M18", "gds::handles_refused_5027", &[Truth]),
    exhibit("M19", "gds::direct", &[Vram, Fd]),
    exhibit("M20", "gds::open_hangs", &[Progress, Typed]),
    exhibit("M21", "crash::killed_idle", &[Files, Truth]),
    exhibit("M22", "crash::two_processes_on_one_directory", &[Files]),
    exhibit("M23", "crash::terminated_idle", &[Files]),
    exhibit("M24", "mapped::view_outlives_a_rewrite", &[Data]),
    exhibit("M25", "gds::compat", &[Truth]),
    exhibit("M26", "gds::handles_refused_5027", &[Truth]),
    exhibit(
        "M27",
        "concurrency::loads_and_drops_of_one_name",
        &[Progress, Typed],
    ),
    exhibit("M28", "concurrency::views_while_models_go", &[Data]),
    exhibit("M29", "concurrency::request_cancelled", &[Vram]),
    exhibit("M31", "disk::a_file_that_stays", &[Files]),
    exhibit("M10", "oom::partial_two_tensors_exactly", &[Policy]),
];

/// Specimens that only calls which fail show, a trial of the sweep that catches each, and every invariant that they trip in it.
/// That the sweep finds them without being told where takes longer (`museum_sweep.rs`).
const SWEPT: &[Exhibit] = &[
    exhibit("S5", "sweep::offload_mmap_ENOMEM[emulated]", &[Policy]),
    exhibit(
        "S16",
        "sweep::offload_cufile_cuFileWrite_short[emulated]",
        &[Progress, Truth],
    ),
    exhibit(
        "S19",
        "sweep::reload_cuMemAlloc_CUDA_ERROR_OUT_OF_MEMORY[emulated]",
        &[Data],
    ),
];

/// What no invariant can tell from bad luck: that nothing is shown must be said, and is no pass.
const DOUBTED: &[(&str, &str)] = &[("M30", "concurrency::request_cancelled")];

/// Specimens that leave something, the case that shows it, and the start of the line that names it, as on a real driver, whose
/// device tells of nothing.
const NAMED: &[(&str, &str, &str)] = &[
    (
        "S3",
        "oom::forced_1e30",
        "step 9 (free all 1e30): nothing is loaded, yet survivor: cuMemAlloc #",
    ),
    (
        "S17",
        "oom::at_the_last_tensor_of_a_reload",
        "survivor: cuMemAlloc #",
    ),
    ("M5", "oom::forced_1e30", "survivor: cuStreamCreate #"),
    ("M7", "oom::forced_1e30", "survivor: cuMemAllocHost #"),
    ("M19", "gds::direct", "survivor: cuFileHandleRegister #"),
    (
        "M29",
        "concurrency::request_cancelled",
        "survivor: cuMemAlloc #",
    ),
    ("S6", "oom::forced_1e30", "survivor: fcntl #"),
    ("S7", "oom::forced_1e30", "survivor: open #"),
    ("M1", "oom::forced_1e30", "survivor: mmap #"),
];

/// Some cases of several callers at a time that no specimen is shown by: the healthy museum passes them too.
const TOGETHER: &[&str] = &[
    "concurrency::shared_model",
    "concurrency::separate_models",
    "concurrency::workspaces_that_do_not_fit_together",
    "concurrency::written_by_one_freed_by_all",
    "concurrency::load_cancelled",
    "concurrency::free_cancelled",
    "mapped::unlinked_while_read",
    "mapped::cut_middle_while_read",
    "mapped::flipped_middle_while_read",
    "mapped::directory_removed_while_read",
    "mapped::cut_middle_while_reloaded",
];

/// Cases of faults that the healthy museum meets: it reads its files through maps, and sets no lengths.
const FAULTED: &[&str] = &[
    "disk::enospc_at_the_first_write",
    "disk::enospc_at_a_middle_write",
    "disk::edquot",
    "disk::efbig",
    "disk::eio_on_write",
    "disk::eio_on_every_write",
    "disk::short_write_then_enospc",
    "disk::short_writes",
    "disk::interrupted_writes",
    "disk::slow_writes",
    "disk::no_permission",
    "disk::no_descriptor",
    "disk::read_only_filesystem",
    "disk::no_space_to_reserve",
    "disk::no_reservations",
    "disk::no_maps",
    "disk::a_file_that_stays",
    "disk::device_oom_once",
    "disk::device_oom_for_good",
    "disk::a_copy_to_the_host_fails",
    "disk::a_copy_to_the_device_fails",
    "disk::a_copy_for_a_change_fails",
    "pairs::device_oom_and_a_full_disk",
    "pairs::a_full_disk_and_a_file_that_stays",
];

/// Long enough for every healthy call of small cases, short enough to wait for a hang.
const HANG_BOUND: Duration = Duration::from_secs(6);

fn main() {
    let args = Arguments::from_args();
    let extent = Extent::from_environment().unwrap_or_else(|error| {
        eprintln!("Error: {error}");
        std::process::exit(2);
    });
    let mut trials = vec![
        Trial::test("every_specimen_is_exhibited", every_specimen_is_exhibited),
        Trial::test(
            "every_invariant_is_tripped_by_a_specimen",
            every_invariant_is_tripped,
        ),
    ];
    trials.push(Trial::test(
        "every_specimen_is_found_by_the_sweep_or_said_why_not",
        every_specimen_is_found_or_said_why_not,
    ));
    trials.push(Trial::test(
        "a_ballast_that_dies_is_nobodys_fault",
        ballast_that_dies,
    ));
    for exhibit in EXHIBITS {
        let name = format!(
            "{}_is_caught_by_{}",
            exhibit.specimen,
            exhibit.case.replace("::", "_")
        );
        trials.push(Trial::test(name, || caught(exhibit)));
    }
    for exhibit in SWEPT {
        let words = exhibit
            .case
            .trim_end_matches("[emulated]")
            .replace("::", "_");
        trials.push(Trial::test(
            format!("{}_is_caught_by_{words}", exhibit.specimen),
            || swept(exhibit.specimen, exhibit.case, exhibit.trips),
        ));
        trials.push(Trial::test(format!("healthy_passes_{words}"), || {
            swept("healthy", exhibit.case, &[])
        }));
    }
    for (specimen, case, line) in NAMED {
        let name = format!("{specimen}_is_named_in_{}", case.replace("::", "_"));
        trials.push(Trial::test(name, || named(specimen, case, line)));
    }
    for (specimen, case) in DOUBTED {
        let name = format!("{specimen}_is_doubted_by_{}", case.replace("::", "_"));
        trials.push(Trial::test(name, || doubted(specimen, case)));
    }
    let shown = EXHIBITS.iter().map(|exhibit| exhibit.case);
    let shown = shown.chain(TOGETHER.iter().chain(FAULTED).copied());
    for case in shown.collect::<BTreeSet<&str>>() {
        let name = format!("healthy_passes_{}", case.replace("::", "_"));
        trials.push(Trial::test(name, move || tripped_by("healthy", case, &[])));
    }
    let swept = museum_sweep::trials(extent);
    let closing_line = museum_sweep::closing_line(&swept, &args);
    trials.extend(swept);
    let conclusion = libtest_mimic::run(&args, trials);
    if let Some(line) = closing_line {
        println!("{line}");
    }
    conclusion.exit();
}

fn caught(exhibit: &Exhibit) -> Result<(), Failed> {
    tripped_by(exhibit.specimen, exhibit.case, exhibit.trips)
}

/// Runs a case against a specimen and compares the invariants tripped with the row.
fn tripped_by(specimen: &str, case: &str, expected: &[InvariantId]) -> Result<(), Failed> {
    let mut case = find(case)?;
    if expected.contains(&Progress) {
        case.limits.call = HANG_BOUND;
    }
    // What never comes back is waited for in full.
    case.limits.settle = Duration::from_secs(2);
    let judged = Judged::Specimen(specimen.into());
    let again = show_again(&case, &judged);
    let judgement = judge(&case, &DeviceKind::Emulated, &bench(&judged)?);
    let violations = match &judgement.verdict {
        Verdict::Pass => Vec::new(),
        Verdict::Fail(violations) => violations.clone(),
        Verdict::Inconclusive(_) | Verdict::Skipped(_) | Verdict::Infrastructure(_) => {
            return Err(report::details(&judgement.run, &judgement.verdict, &again).into());
        }
    };
    let tripped: BTreeSet<InvariantId> = violations
        .iter()
        .map(|violation| violation.invariant)
        .collect();
    let expected: BTreeSet<InvariantId> = expected.iter().copied().collect();
    if tripped == expected {
        return Ok(());
    }
    let details = report::details(&judgement.run, &judgement.verdict, &again);
    Err(format!("{specimen} trips {tripped:?}, the table says {expected:?}\n{details}").into())
}

/// Runs a trial of the sweep against a specimen and compares the invariants that its runs trip with the row.
fn swept(specimen: &str, trial: &str, expected: &[InvariantId]) -> Result<(), Failed> {
    let workloads = catalogue().map_err(|error| Failed::from(error.to_string()))?;
    let workloads = workloads.into_iter().filter(|case| case.family == "sweep");
    let planned: Vec<Planned> = workloads
        .map(|case| Planned {
            case,
            device: DeviceKind::Emulated,
            skip: None,
        })
        .collect();
    let sweeps = Sweeps::new(Extent::Gate, 0);
    let trials = sweeps.trials(&planned, &golden_directory("sweep"));
    let found = trials.iter().find(|one| one.name() == trial);
    let found = found.ok_or_else(|| format!("the gate has no trial {trial}"))?;
    let judged = Judged::Specimen(specimen.into());
    let reds = sweeps.reds(found, &judged, &bench(&judged)?)?;
    let mut tripped = BTreeSet::new();
    for red in &reds {
        match &red.verdict {
            Verdict::Fail(violations) => tripped.extend(violations.iter().map(|one| one.invariant)),
            Verdict::Pass
            | Verdict::Inconclusive(_)
            | Verdict::Skipped(_)
            | Verdict::Infrastructure(_) => return Err(red.text(trial).into()),
        }
    }
    if tripped == expected.iter().copied().collect() {
        return Ok(());
    }
    let reds: Vec<String> = reds.iter().map(|red| red.text(trial)).collect();
    let reds = reds.join("\n");
    Err(format!("{specimen} trips {tripped:?}, the table says {expected:?}\n{reds}").into())
}

fn named(specimen: &str, case: &str, line: &str) -> Result<(), Failed> {
    let mut case = find(case)?;
    case.limits.settle = Duration::from_secs(2);
    let judged = Judged::Specimen(specimen.into());
    let mut run = judge(&case, &DeviceKind::Emulated, &bench(&judged)?).run;
    let steps = run.steps.iter_mut();
    let steps = steps.flat_map(|step| [&mut step.before, &mut step.after]);
    for reading in steps.chain(&mut run.baseline).chain(&mut run.settled) {
        reading.device = DeviceReading::Absent;
    }
    let found = invariants::check(&run, invariants::ALL);
    if found.iter().any(|one| one.message.starts_with(line)) {
        return Ok(());
    }
    Err(format!("nothing starts with {line:?}: {found:#?}").into())
}

fn doubted(specimen: &str, case: &str) -> Result<(), Failed> {
    let case = find(case)?;
    let judged = Judged::Specimen(specimen.into());
    let again = show_again(&case, &judged);
    let judgement = judge(&case, &DeviceKind::Emulated, &bench(&judged)?);
    match judgement.verdict {
        Verdict::Inconclusive(_) => Ok(()),
        verdict @ (Verdict::Pass
        | Verdict::Fail(_)
        | Verdict::Skipped(_)
        | Verdict::Infrastructure(_)) => {
            let details = report::details(&judgement.run, &verdict, &again);
            Err(format!("{specimen} is not doubted: {}\n{details}", verdict.word()).into())
        }
    }
}

/// Where the ballast gave its memory back unasked, what the subject did says nothing.
fn ballast_that_dies() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("ballast");
    fs::write(
        &program,
        "#!/bin/sh\nwhile read -r line; do case $line in leave*) echo ok 0; exit;; *) echo ok 0;; esac; done\n",
    )?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
    let mut bench = bench(&Judged::Specimen("healthy".into()))?;
    bench.ballast = program;
    let case = find("oom::ballast")?;
    let judgement = judge(&case, &DeviceKind::Emulated, &bench);
    match &judgement.verdict {
        Verdict::Infrastructure(reason) if reason.contains("ended while a case relied on it") => {
            Ok(())
        }
        Verdict::Infrastructure(_)
        | Verdict::Pass
        | Verdict::Fail(_)
        | Verdict::Inconclusive(_)
        | Verdict::Skipped(_) => {
            Err(report::details(&judgement.run, &judgement.verdict, "").into())
        }
    }
}

fn show_again(case: &Case, judged: &Judged) -> String {
    let trial = format!("{}[{}]", case.id(), DeviceKind::Emulated);
    let plan = case.plan().cloned();
    replay::show_again(&trial, judged, &Override { plan, steps: None })
}

fn find(id: &str) -> Result<Case, Failed> {
    let cases = catalogue().map_err(|error| Failed::from(error.to_string()))?;
    cases
        .into_iter()
        .find(|case| case.id() == id)
        .ok_or_else(|| format!("there is no case {id}").into())
}

fn every_specimen_is_exhibited() -> Result<(), Failed> {
    let exhibited = EXHIBITS.iter().map(|exhibit| exhibit.specimen);
    let doubted = DOUBTED.iter().map(|(specimen, _)| *specimen);
    let exhibited: BTreeSet<&str> = exhibited.chain(doubted).collect();
    let specimens: BTreeSet<&str> = spillproof_subjects::museum::Defect::ALL
        .iter()
        .map(|defect| defect.id())
        .collect();
    if exhibited == specimens {
        return Ok(());
    }
    let unseen: Vec<_> = specimens.difference(&exhibited).collect();
    let unknown: Vec<_> = exhibited.difference(&specimens).collect();
    Err(format!("not exhibited: {unseen:?}; not a specimen: {unknown:?}").into())
}

fn every_specimen_is_found_or_said_why_not() -> Result<(), Failed> {
    let exhibits = EXHIBITS.iter().map(|row| (row.specimen, row.case));
    museum_sweep::every_specimen_is_found_or_said_why_not(exhibits.chain(DOUBTED.iter().copied()))
}

fn every_invariant_is_tripped() -> Result<(), Failed> {
    let tripped: BTreeSet<InvariantId> = EXHIBITS
        .iter()
        .flat_map(|exhibit| exhibit.trips)
        .copied()
        .collect();
    let missing = invariants::ALL
        .iter()
        .map(|(invariant, _)| *invariant)
        .filter(|invariant| !tripped.contains(invariant));
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("no specimen trips {missing:?}").into())
    }
}
