//! Medians over runs, and what they are beside the ceilings and the contenders to compare with.

use super::record::{Memory, Run, Step};
use serde::Serialize;
use std::collections::BTreeMap;

/// A step of a row over its runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The row, as `tensor/4GiB/engine`.
    pub row: String,
    /// The step's name.
    pub step: String,
    /// Runs that it has.
    pub runs: usize,
    /// Bytes that it moves, in each direction.
    pub bytes: u64,
    /// The median of its time.
    pub median_seconds: f64,
    /// The shortest.
    pub min_seconds: f64,
    /// The longest.
    pub max_seconds: f64,
    /// Bytes by the median time.
    pub bytes_per_second: f64,
    /// The ceiling that bounds it, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<String>,
    /// The ceiling's median time by this one: 1 is the ceiling itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_ceiling: Option<f64>,
    /// By contender how many times as long it takes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub times_as_fast_as: BTreeMap<String, f64>,
    /// What it did to memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<SummaryMemory>,
    /// The ways that bytes are said to have taken, and those of a ceiling.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<String>,
}

/// Memory over the runs of a step, bytes: medians, and of peaks the largest too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SummaryMemory {
    /// Median of what is resident at the start.
    pub rss_start_bytes: u64,
    /// Median of what is resident at the end.
    pub rss_end_bytes: u64,
    /// Median of the high-water mark.
    pub rss_peak_bytes: u64,
    /// Median of its distance to the start.
    pub peak_delta_bytes: u64,
    /// Median of how far private and shared memory rose above what it was after `open`.
    pub over_baseline_bytes: u64,
    /// The largest of that.
    pub max_over_baseline_bytes: u64,
    /// The largest of that with the declared staging added: the most that offloading costs.
    pub max_cost_bytes: u64,
    /// Medians of the unique set size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uss_start_bytes: Option<u64>,
    /// At the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uss_end_bytes: Option<u64>,
    /// Its peak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uss_peak_bytes: Option<u64>,
}

/// Summarises all rows, in the order in which they first come. `references` are the contenders to compare with.
#[must_use]
pub fn summaries<'r>(runs: impl Iterator<Item = &'r Run>, references: &[&str]) -> Vec<Summary> {
    let mut grouped: Vec<(&str, &str, Vec<&Step>)> = Vec::new();
    for run in runs {
        for step in run.steps.iter().filter(|step| !step.is_trial) {
            let group = grouped
                .iter_mut()
                .find(|(row, name, _)| *row == run.row && *name == step.name);
            match group {
                Some((_, _, steps)) => steps.push(step),
                None => grouped.push((&run.row, &step.name, vec![step])),
            }
        }
    }
    let mut all: Vec<Summary> = grouped
        .iter()
        .map(|(row, name, steps)| summary(row, name, steps))
        .collect();
    let known = all.clone();
    for one in &mut all {
        compare(one, &known, references);
    }
    all
}

fn summary(row: &str, name: &str, steps: &[&Step]) -> Summary {
    let seconds = sorted(steps.iter().map(|step| step.seconds));
    let bytes = steps.first().map_or(0, |step| step.bytes);
    let median_seconds = median(&seconds);
    let mut ways: Vec<String> = Vec::new();
    for step in steps {
        let ceiling = step
            .threads
            .zip(step.chunk_bytes)
            .map(|(threads, chunk)| format!("{threads} × {}", super::Size(chunk)));
        for way in step.paths.iter().cloned().chain(ceiling) {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
    }
    let memories: Vec<Memory> = steps.iter().filter_map(|step| step.memory).collect();
    Summary {
        row: row.into(),
        step: name.into(),
        runs: steps.len(),
        bytes,
        median_seconds,
        min_seconds: seconds.first().copied().unwrap_or(0.0),
        max_seconds: seconds.last().copied().unwrap_or(0.0),
        bytes_per_second: if median_seconds > 0.0 {
            bytes as f64 / median_seconds
        } else {
            0.0
        },
        ceiling: None,
        of_ceiling: None,
        times_as_fast_as: BTreeMap::new(),
        memory: (!memories.is_empty()).then(|| memory(&memories)),
        ways,
    }
}

fn memory(memories: &[Memory]) -> SummaryMemory {
    let of = |field: fn(&Memory) -> u64| {
        let mut values: Vec<u64> = memories.iter().map(field).collect();
        values.sort_unstable();
        middle(&values)
    };
    let perhaps = |field: fn(&Memory) -> Option<u64>| {
        let mut values: Vec<u64> = memories.iter().filter_map(field).collect();
        values.sort_unstable();
        (!values.is_empty()).then(|| middle(&values))
    };
    let over = memories.iter().map(Memory::over_baseline_bytes);
    SummaryMemory {
        rss_start_bytes: of(|memory| memory.rss_start_bytes),
        rss_end_bytes: of(|memory| memory.rss_end_bytes),
        rss_peak_bytes: of(|memory| memory.rss_peak_bytes),
        peak_delta_bytes: of(Memory::peak_delta_bytes),
        over_baseline_bytes: of(Memory::over_baseline_bytes),
        max_over_baseline_bytes: over.max().unwrap_or(0),
        max_cost_bytes: memories.iter().map(Memory::cost_bytes).max().unwrap_or(0),
        uss_start_bytes: perhaps(|memory| memory.uss_start_bytes),
        uss_end_bytes: perhaps(|memory| memory.uss_end_bytes),
        uss_peak_bytes: perhaps(|memory| memory.uss_peak_bytes),
    }
}

/// Of whole numbers; of an even number of them the lower one in the middle, which was really seen.
fn middle(sorted: &[u64]) -> u64 {
    match sorted.len() {
        0 => 0,
        length => sorted[(length - 1) / 2],
    }
}

fn sorted(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn median(sorted: &[f64]) -> f64 {
    let length = sorted.len();
    match length {
        0 => 0.0,
        _ if length % 2 == 1 => sorted[length / 2],
        _ => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

fn compare(one: &mut Summary, known: &[Summary], references: &[&str]) {
    let Some((group, contender)) = one.row.rsplit_once('/') else {
        return;
    };
    let group = group.to_owned();
    let same_group = |other: &&Summary| {
        other
            .row
            .rsplit_once('/')
            .is_some_and(|(of, _)| of == group)
    };
    if contender != "ceiling" {
        let bounds = known
            .iter()
            .filter(same_group)
            .filter(|other| other.row.ends_with("/ceiling"));
        let bounds: Vec<&Summary> = bounds.collect();
        let of = |name: &str| bounds.iter().copied().find(|bound| bound.step == name);
        let cached = || {
            let ways = bounds
                .iter()
                .copied()
                .filter(|bound| bound.step.starts_with("cached_"));
            ways.min_by(|one, other| one.median_seconds.total_cmp(&other.median_seconds))
        };
        let ceiling = match one.step.as_str() {
            "store" if one.row.starts_with("tensor/") => of("write"),
            "load_cold" => of("read"),
            // Whichever is slower: the page cache, or the bus behind it. Neither alone says that.
            "load_warm" => cached().zip(of("to_device")).map(|(cached, bus)| {
                if cached.median_seconds > bus.median_seconds {
                    cached
                } else {
                    bus
                }
            }),
            "swap" => of("mixed"),
            _ => None,
        };
        if let Some(ceiling) = ceiling.filter(|_| one.median_seconds > 0.0) {
            one.ceiling = Some(ceiling.step.clone());
            one.of_ceiling = Some(ceiling.median_seconds / one.median_seconds);
        }
    }
    let contender = contender.to_owned();
    for reference in references.iter().filter(|name| **name != contender) {
        let same = known
            .iter()
            .filter(same_group)
            .find(|other| other.step == one.step && other.row.ends_with(&format!("/{reference}")));
        if let Some(same) = same.filter(|_| one.median_seconds > 0.0) {
            one.times_as_fast_as.insert(
                (*reference).to_owned(),
                same.median_seconds / one.median_seconds,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    //! Medians and ratios from runs that are known.
    use super::*;

    fn run(row: &str, steps: &[(&str, f64)]) -> Run {
        let steps = steps.iter().map(|(name, seconds)| Step {
            name: (*name).into(),
            bytes: 1000,
            seconds: *seconds,
            ..Step::default()
        });
        Run {
            row: row.into(),
            steps: steps.collect(),
            ..Run::default()
        }
    }

    fn found<'s>(all: &'s [Summary], row: &str, step: &str) -> &'s Summary {
        all.iter()
            .find(|one| one.row == row && one.step == step)
            .unwrap()
    }

    #[test]
    fn medians_are_of_the_runs_and_not_of_the_tries() {
        let mut runs: Vec<Run> = [3.0, 1.0, 2.0, 10.0, 2.5]
            .map(|seconds| run("tensor/1GiB/engine", &[("store", seconds)]))
            .into();
        runs[0].steps.push(Step {
            is_trial: true,
            ..run("", &[("store", 0.1)]).steps[0].clone()
        });
        let all = summaries(runs.iter(), &[]);
        let store = found(&all, "tensor/1GiB/engine", "store");
        assert_eq!((store.runs, store.median_seconds), (5, 2.5));
        assert_eq!((store.min_seconds, store.max_seconds), (1.0, 10.0));
        assert_eq!(store.bytes_per_second, 400.0);
        let all = summaries(runs[..4].iter(), &[]);
        assert_eq!(all[0].median_seconds, 2.5);
    }

    #[test]
    fn each_step_is_compared_with_its_own_ceiling_of_its_own_size() {
        let ceiling = [
            ("write", 1.0),
            ("read", 2.0),
            ("cached_4", 0.3),
            ("cached_8", 0.1),
            ("to_device", 0.2),
        ];
        let runs = [
            run("tensor/1GiB/ceiling", &ceiling),
            run("tensor/2GiB/ceiling", &[("write", 8.0), ("to_device", 1.0)]),
            run("tensor/2GiB/engine", &[("load_warm", 2.0)]),
            run(
                "tensor/1GiB/engine",
                &[("store", 1.25), ("load_cold", 2.5), ("load_warm", 0.4)],
            ),
            run("tensor/1GiB/torch", &[("store", 5.0), ("load_warm", 1.0)]),
            run("swap/ceiling", &[("mixed", 9.0)]),
            run("swap/engine", &[("swap", 10.0), ("store", 1.0)]),
        ];
        let all = summaries(runs.iter(), &["torch"]);
        let of = |step| {
            let one = found(&all, "tensor/1GiB/engine", step);
            (one.ceiling.as_deref(), one.of_ceiling)
        };
        assert_eq!(of("store"), (Some("write"), Some(0.8)));
        assert_eq!(of("load_cold"), (Some("read"), Some(0.8)));
        // The bus is slower than the fastest way through the page cache.
        assert_eq!(of("load_warm"), (Some("to_device"), Some(0.5)));
        // Without the page cache's ceiling it is not known which is the slower one.
        let large = found(&all, "tensor/2GiB/engine", "load_warm");
        assert_eq!(large.of_ceiling, None);
        let store = found(&all, "tensor/1GiB/engine", "store");
        assert_eq!(store.times_as_fast_as["torch"], 4.0);
        let torch = found(&all, "tensor/1GiB/torch", "store");
        assert!(torch.times_as_fast_as.is_empty());
        assert_eq!(torch.of_ceiling, Some(0.2));
        let swap = found(&all, "swap/engine", "swap");
        assert_eq!(swap.of_ceiling, Some(0.9));
        assert_eq!(found(&all, "swap/engine", "store").of_ceiling, None);
    }

    #[test]
    fn memory_is_told_by_medians_and_its_rise_by_the_largest_too() {
        let with = |start, peak, anon| {
            let mut one = run("tensor/1GiB/engine", &[("store", 1.0)]);
            one.steps[0].memory = Some(Memory {
                rss_start_bytes: start,
                rss_peak_bytes: peak,
                baseline_bytes: 100,
                staging_bytes: 7,
                anon_shared_peak_bytes: anon,
                ..Memory::default()
            });
            one
        };
        let runs = [with(10, 30, 150), with(20, 25, 90), with(30, 60, 120)];
        let all = summaries(runs.iter(), &[]);
        let memory = all[0].memory.unwrap();
        assert_eq!((memory.rss_start_bytes, memory.rss_peak_bytes), (20, 30));
        assert_eq!(memory.peak_delta_bytes, 20);
        assert_eq!(
            (memory.over_baseline_bytes, memory.max_over_baseline_bytes),
            (20, 50)
        );
        assert_eq!(memory.max_cost_bytes, 57);
        assert_eq!(memory.uss_peak_bytes, None);
    }
}
