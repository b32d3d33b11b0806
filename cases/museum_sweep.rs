//! The museum under the sweep, which is told nothing: the same trials in the same order for every specimen, until one is red. What no
//! sweep shows is in a table of its own, with the reason and the exhibit that does.

use libtest_mimic::{Arguments, Failed, Trial};
use spillproof::{
    bench::{Judged, bench},
    catalogue,
    hunt::{Reach, hunt},
    search::Extent,
};
use spillproof_harness::{
    case::Case,
    invariants::InvariantId::{
        self, Data, Device, Fd, Files, Maps, Policy, Progress, Rss, Threads, Truth, Typed, Vram,
    },
};
use spillproof_subjects::museum::Defect;
use std::collections::BTreeSet;

/// Why some of it is ignored where nobody asks for it.
const LONG: &str = "takes minutes of the sweep, or waits for what never comes; run them with --include-ignored or SPILLPROOF_SWEEP=full";

/// A specimen that the sweep finds, and what its first red trial trips, perhaps among other things.
struct Find {
    specimen: &'static str,
    trips: &'static [InvariantId],
    /// How far the sweep has to go. What waits for something that never comes is with what goes far.
    reach: Reach,
}

const fn find(specimen: &'static str, trips: &'static [InvariantId]) -> Find {
    Find {
        specimen,
        trips,
        reach: Reach::Workloads,
    }
}

const fn find_late(specimen: &'static str, trips: &'static [InvariantId]) -> Find {
    Find {
        reach: Reach::Everything,
        ..find(specimen, trips)
    }
}

const FOUND: &[Find] = &[
    find("S1", &[Policy]),
    find("S2", &[Policy]),
    find("S3", &[Vram]),
    find("S4", &[Rss]),
    find_late("S5", &[Policy]),
    find("S6", &[Fd]),
    find("S7", &[Fd]),
    find("S8", &[Files]),
    find("S9", &[Data, Truth]),
    find("S10", &[Data]),
    find("S11", &[Truth]),
    find("S12", &[Data, Policy]),
    find_late("S13", &[Files]),
    find("S14", &[Policy]),
    find("S15", &[Data]),
    find_late("S16", &[Truth]),
    find("S17", &[Vram]),
    find_late("S18", &[Progress, Typed]),
    find_late("S19", &[Data]),
    find("S20", &[Policy]),
    find("M1", &[Maps]),
    find("M2", &[Threads]),
    find("M3", &[Device]),
    find("M4", &[Typed]),
    find("M5", &[Vram]),
    find("M6", &[Files]),
    find("M7", &[Vram]),
    find("M8", &[Truth, Policy]),
    find("M9", &[Data]),
    find("M10", &[Policy]),
    find("M12", &[Policy]),
    find("M13", &[Policy]),
    find("M14", &[Progress, Truth]),
    find("M15", &[Files, Typed]),
    find("M16", &[Truth]),
    find_late("M17", &[Rss]),
    find_late("M18", &[Truth]),
    find("M19", &[Vram, Fd]),
    find("M21", &[Files, Truth]),
    find("M22", &[Files]),
    find("M23", &[Files]),
    find("M24", &[Data]),
    find("M25", &[Truth]),
    find_late("M26", &[Truth]),
    find_late("M31", &[Files]),
];

/// A specimen that the sweep passes, the case that shows it, and why no sweep does.
struct NotShown {
    specimen: &'static str,
    case: &'static str,
    why: &'static str,
}

const NOT_SHOWN: &[NotShown] = &[
    NotShown {
        specimen: "M11",
        case: "repeat::threshold_512",
        why: "no workload makes as many requests as it takes until 128 KiB of each stand out from 8 MiB of slack",
    },
    NotShown {
        specimen: "M20",
        case: "gds::open_hangs",
        why: "a call that fails comes back, and here one is needed that does not",
    },
    NotShown {
        specimen: "M27",
        case: "concurrency::loads_and_drops_of_one_name",
        why: "somebody has to wait while another one fails, and a workload asks one thing at a time, so that its calls have an order",
    },
    NotShown {
        specimen: "M28",
        case: "concurrency::views_while_models_go",
        why: "two views have to be read at a time, and a workload asks one thing at a time, so that its calls have an order",
    },
    NotShown {
        specimen: "M29",
        case: "concurrency::request_cancelled",
        why: "a request has to be cancelled while it is served, and a workload asks one thing at a time, so that its calls have an order",
    },
    NotShown {
        specimen: "M30",
        case: "concurrency::request_cancelled",
        why: "a request has to be cancelled while it is served, and a workload asks one thing at a time, so that its calls have an order",
    },
];

/// The trials; those that take long are ignored but where everything is asked for.
pub(crate) fn trials(extent: Extent) -> Vec<Trial> {
    let found = FOUND.iter().map(|row| {
        let name = format!("{}_is_found_by_the_sweep", row.specimen);
        when_asked(row.reach, extent, Trial::test(name, || is_found(row)))
    });
    let healthy = [
        (
            "healthy_passes_the_workloads_of_the_sweep",
            Reach::Workloads,
        ),
        ("healthy_passes_the_sweep", Reach::Everything),
    ];
    let healthy = healthy.map(|(name, reach)| {
        let trial = Trial::test(name, move || passes("healthy", reach));
        when_asked(reach, extent, trial)
    });
    found.chain(healthy).collect()
}

/// What is said below the results of what was ignored.
pub(crate) fn closing_line(trials: &[Trial], args: &Arguments) -> Option<String> {
    let is_passed_over = |trial: &&Trial| args.is_ignored(trial) && !args.is_filtered_out(trial);
    let count = trials.iter().filter(is_passed_over).count();
    (count > 0 && !args.list).then(|| format!("SKIP  {count} under the sweep: {LONG}"))
}

fn when_asked(reach: Reach, extent: Extent, trial: Trial) -> Trial {
    trial.with_ignored_flag(reach == Reach::Everything && extent == Extent::Gate)
}

fn workloads() -> Result<Vec<Case>, Failed> {
    let cases = catalogue().map_err(|error| Failed::from(error.to_string()))?;
    let cases = cases.into_iter();
    Ok(cases.filter(|case| case.family == "sweep").collect())
}

fn is_found(row: &Find) -> Result<(), Failed> {
    let judged = Judged::Specimen(row.specimen.into());
    let hunted = hunt(&workloads()?, row.reach, &judged, &bench(&judged)?)?;
    let Some(found) = hunted.found else {
        let (specimen, trials) = (row.specimen, hunted.trials);
        return Err(format!("{specimen} passes {trials} trials of the sweep").into());
    };
    println!(
        "{}: {} of the sweep, {}: {:?}",
        row.specimen, hunted.trials, found.trial, found.tripped
    );
    let expected: BTreeSet<InvariantId> = row.trips.iter().copied().collect();
    if !expected.is_empty() && expected.is_subset(&found.tripped) {
        return Ok(());
    }
    let (specimen, tripped) = (row.specimen, &found.tripped);
    Err(format!(
        "{specimen} trips {tripped:?}, the table says {expected:?}\n{}",
        found.text
    )
    .into())
}

fn passes(engine: &str, reach: Reach) -> Result<(), Failed> {
    let judged = Judged::Specimen(engine.into());
    let hunted = hunt(&workloads()?, reach, &judged, &bench(&judged)?)?;
    println!("{engine}: {} trials of the sweep", hunted.trials);
    match hunted.found {
        None => Ok(()),
        Some(found) => Err(format!("{engine} is red in {}\n{}", found.trial, found.text).into()),
    }
}

/// Every specimen is in one of the tables, and what the sweep does not show has an exhibit among these, by specimen and case.
pub(crate) fn every_specimen_is_found_or_said_why_not<'a>(
    exhibits: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), Failed> {
    let found = FOUND.iter().map(|row| row.specimen);
    let mut rows: Vec<&str> = found
        .chain(NOT_SHOWN.iter().map(|row| row.specimen))
        .collect();
    rows.sort_unstable();
    let mut specimens: Vec<&str> = Defect::ALL.iter().map(|defect| defect.id()).collect();
    specimens.sort_unstable();
    if rows != specimens {
        return Err(
            format!("each once, in one table: {specimens:?}\nin the tables: {rows:?}").into(),
        );
    }
    let exhibits: BTreeSet<(&str, &str)> = exhibits.into_iter().collect();
    let unseen = NOT_SHOWN.iter().filter(|row| {
        let is_exhibited = exhibits.contains(&(row.specimen, row.case));
        !is_exhibited || row.why.len() < 20
    });
    let unseen: Vec<&str> = unseen.map(|row| row.specimen).collect();
    match unseen.is_empty() {
        true => Ok(()),
        false => Err(format!("without a reason, or no such exhibit: {unseen:?}").into()),
    }
}
