//! The table of faults and of what shows them (`CATALOGUE.md`): every fault is in it, everything that it names exists, and no
//! case about faults is left out.

use crate::search::{Extent, searches};
use spillproof_harness::sweep::calls_in;
use std::{collections::BTreeSet, fs, path::PathBuf};

const TABLE: &str = include_str!("CATALOGUE.md");

/// The heading of what shows no fault.
const OTHERS: &str = "## Cases in which nothing fails";

/// Families whose cases are about faults.
const FAMILIES: [&str; 9] = [
    "oom",
    "absence",
    "gds",
    "disk",
    "mapped",
    "limits",
    "crash",
    "pairs",
    "crash_points",
];

/// A row of either part.
struct Row {
    /// `F38`, or a reason.
    head: &'static str,
    names: BTreeSet<&'static str>,
    /// Why nothing shows it.
    why_not: Option<&'static str>,
}

impl Row {
    fn of(line: &'static str) -> Option<Self> {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let last = cells.last()?.trim_end_matches(" |");
        let why_not = last.strip_prefix("not: ");
        let names = match why_not {
            Some(_) => BTreeSet::new(),
            None => last
                .split(['`', ' '])
                .filter(|name| name.contains("::"))
                .collect(),
        };
        Some(Self {
            head: cells[0],
            names,
            why_not,
        })
    }
}

/// Rows of the faults, then those of the other cases.
fn rows() -> [Vec<Row>; 2] {
    let (faults, others) = TABLE.split_once(OTHERS).expect("both parts are there");
    [faults, others].map(|part| {
        // Below the heads of the columns.
        let lines = part.lines().skip_while(|line| !line.starts_with("| ---"));
        lines.skip(1).filter_map(Row::of).collect()
    })
}

fn names_in(rows: &[Row]) -> BTreeSet<&'static str> {
    rows.iter()
        .flat_map(|row| row.names.iter().copied())
        .collect()
}

/// Cases and searches, without their device.
fn listed() -> BTreeSet<String> {
    let cases = crate::catalogue().unwrap().into_iter();
    let searches = searches(Extent::Full).into_iter();
    let searches = searches.map(|search| search.case);
    cases.chain(searches).map(|case| case.id()).collect()
}

/// What trials of the sweep begin with: workload and site, by what the goldens say is reached.
fn swept() -> BTreeSet<String> {
    let goldens = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/sweep");
    let mut beginnings = BTreeSet::new();
    for entry in fs::read_dir(goldens).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let Some(workload) = name.strip_suffix(crate::sweep::RECORDED) else {
            continue;
        };
        let counts = calls_in(&fs::read_to_string(&path).unwrap());
        let sites = counts.keys().map(|site| site.site().name);
        beginnings.extend(sites.map(|site| format!("sweep::{workload}_{site}_")));
    }
    beginnings
}

#[test]
fn every_fault_is_there_once_and_shown_or_said_why_not() {
    let [faults, _] = rows();
    let heads: Vec<&str> = faults.iter().map(|row| row.head).collect();
    let expected: Vec<String> = (1..=69).map(|number| format!("F{number}")).collect();
    assert_eq!(heads, expected);
    for row in &faults {
        assert_ne!(row.names.is_empty(), row.why_not.is_none(), "{}", row.head);
        assert!(row.why_not.is_none_or(|why| why.len() > 20), "{}", row.head);
    }
}

#[test]
fn everything_that_is_named_exists() {
    let (listed, swept) = (listed(), swept());
    assert!(!swept.is_empty(), "the sweep has no goldens");
    let [faults, others] = rows();
    let named = names_in(&faults).into_iter().chain(names_in(&others));
    let unknown: Vec<&str> = named
        .filter(|name| !listed.contains(*name) && !swept.contains(*name))
        .collect();
    assert!(unknown.is_empty(), "no such case or trial: {unknown:?}");
}

#[test]
fn every_case_about_faults_is_named() {
    let [faults, others] = rows();
    let (shown, others) = (names_in(&faults), names_in(&others));
    let both: Vec<_> = shown.intersection(&others).collect();
    assert!(both.is_empty(), "shows a fault and none: {both:?}");
    let is_about_faults = |name: &&String| {
        let family = name.split("::").next().unwrap_or_default();
        // What a seed draws is any of them.
        FAMILIES.contains(&family) && !name.starts_with("pairs::drawn_")
    };
    let listed = listed();
    let unnamed: Vec<&String> = listed
        .iter()
        .filter(is_about_faults)
        .filter(|name| !shown.contains(name.as_str()) && !others.contains(name.as_str()))
        .collect();
    assert!(unnamed.is_empty(), "in no row: {unnamed:?}");
}
