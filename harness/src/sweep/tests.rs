//! Which runs a sweep makes, where it ends, and what it tells.
use super::*;
use crate::{
    case::{Case, Expect, Gpu, Limits, Pace},
    faults::{FaultError, Plan, RuleAccount, SiteId},
    observation::Run,
    verdict::Verdict,
    world::World,
};
use std::path::PathBuf;

fn workload() -> Case {
    Case {
        family: "f",
        name: "n".into(),
        models: Vec::new(),
        gpu: Gpu::Absent,
        device_name: None,
        settings: Vec::new(),
        open: Expect::Ok,
        steps: Vec::new(),
        limits: Limits::default(),
        requires: Vec::new(),
        world: World::default(),
        path: None,
        faults: None,
        pace: Pace::default(),
    }
}

fn target(site: &str, error: &str) -> Target {
    Target {
        site: SiteId::find(site).unwrap(),
        fault: Fault::Error(FaultError::named(error).unwrap()),
    }
}

/// Sweeps a workload that makes so many calls; the plans of its runs.
fn plans(target: Target, depth: Depth, calls: u64, verdict: &Verdict) -> (Vec<String>, Swept) {
    let mut plans = Vec::new();
    let swept = sweep(
        &workload(),
        target,
        depth,
        &Recording::default(),
        &mut |case| {
            let plan: Plan = case.plan().unwrap().clone();
            plans.push(plan.to_string());
            let mut run = Run::new(case, PathBuf::new());
            let fired = plan.rules[0].when.first <= calls;
            run.rules = vec![RuleAccount {
                rule: plan.to_string(),
                counted: calls,
                fired: u64::from(fired),
            }];
            let verdict = match fired {
                true => verdict.clone(),
                false => Verdict::Inconclusive(vec!["a fault never happened".into()]),
            };
            (run, verdict)
        },
    );
    (plans, swept)
}

#[test]
fn every_call_fails_in_every_mode_until_none_is_left() {
    let (plans, swept) = plans(
        target("ftruncate", "EIO"),
        Depth::Everything,
        2,
        &Verdict::Pass,
    );
    let expected = [
        "ftruncate:error=EIO:when=1",
        "ftruncate:error=EIO",
        "ftruncate:error=EIO:after:when=1",
        "ftruncate:error=EIO:after",
        "ftruncate:error=EIO:when=2",
        "ftruncate:error=EIO:when=2+",
        "ftruncate:error=EIO:after:when=2",
        "ftruncate:error=EIO:after:when=2+",
        "ftruncate:error=EIO:when=3",
    ];
    assert_eq!(plans, expected);
    assert_eq!((swept.runs, swept.injected, swept.hit), (9, 8, vec![1, 2]));
    assert!(swept.reds.is_empty() && swept.unfinished.is_none());
}

#[test]
fn what_asks_for_another_try_is_never_planned_for_good() {
    let (plans, _) = plans(
        target("ftruncate", "EINTR"),
        Depth::Everything,
        1,
        &Verdict::Pass,
    );
    assert_eq!(
        plans,
        [
            "ftruncate:error=EINTR:when=1",
            "ftruncate:error=EINTR:when=1..3",
            "ftruncate:error=EINTR:after:when=1",
            "ftruncate:error=EINTR:when=2"
        ]
    );
}

#[test]
fn what_would_leave_a_thing_that_nobody_has_never_fails_after() {
    let modes = |site: &str, error: &str| {
        Mode::of(
            SiteId::find(site).unwrap(),
            FaultError::named(error).unwrap(),
        )
    };
    assert_eq!(modes("openat", "EMFILE"), [Mode::Once, Mode::Onward]);
    assert_eq!(modes("close", "EIO"), [Mode::Once, Mode::Onward]);
    assert_eq!(modes("fstat", "ENOMEM").len(), 4);
}

#[test]
fn a_sweep_ends_with_its_third_red() {
    let red = Verdict::Fail(Vec::new());
    let (plans, swept) = plans(target("fstat", "ENOMEM"), Depth::OnceAndOnward, 9, &red);
    assert_eq!((plans.len(), swept.reds.len()), (MAX_REDS, MAX_REDS));
}

#[test]
fn a_call_that_does_not_come_where_one_came_before_is_told() {
    let depth = Depth::Thrice { calls: 5 };
    let (all, swept) = plans(target("fstat", "ENOMEM"), depth, 5, &Verdict::Pass);
    assert_eq!(
        all,
        [1, 3, 5].map(|nth| format!("fstat:error=ENOMEM:when={nth}"))
    );
    assert!(swept.unfinished.is_none());
    let (_, swept) = plans(target("fstat", "ENOMEM"), depth, 4, &Verdict::Pass);
    assert!(swept.unfinished.unwrap().contains("out of date"));
}

#[test]
fn calls_that_may_be_direct_are_cut_to_whole_blocks() {
    let cut = |size, offset| -> Vec<u64> { shorts(SiteId::find("pwrite").unwrap(), size, offset) };
    assert_eq!(cut(16384, Some(4096)), [12288, 8192, 4096]);
    assert_eq!(cut(16384, Some(1)), [16383, 8192, 4096]);
    assert!(cut(4096, Some(0)).is_empty());
    assert_eq!(cut(2, None), [1]);
    assert!(cut(1, None).is_empty());
    assert!(shorts(SiteId::find("fsync").unwrap(), 4096, None).is_empty());
}

#[test]
fn a_golden_says_which_calls_there_are() {
    let point = |site: &str, nth, size| Point {
        site: SiteId::find(site).unwrap(),
        nth,
        size,
        offset: None,
        path: String::new(),
        caller: String::new(),
    };
    let recording = Recording {
        points: vec![
            point("pwrite", 1, 4096),
            point("fstat", 1, 0),
            point("pwrite", 2, 100),
        ],
    };
    let golden = format!("---\nheader\n---\nload a: ok\n{}", recording.text());
    assert!(
        golden.ends_with("calls:\n  pwrite 2: 4096 100\n  fstat 1\n"),
        "{golden}"
    );
    assert_eq!(calls_in(&golden), recording.calls());
    assert!(calls_in("load a: ok\n").is_empty());
}

#[test]
fn a_seed_draws_the_same_plans_each_time_and_another_seed_others() {
    let point = |site: &str, nth| Point {
        site: SiteId::find(site).unwrap(),
        nth,
        size: 65536,
        offset: Some(0),
        path: String::new(),
        caller: String::new(),
    };
    let recording = Recording {
        points: vec![
            point("pwrite", 1),
            point("pwrite", 2),
            point("cuMemAlloc", 1),
            point("fstat", 1),
        ],
    };
    let drawn = |seed| -> Vec<String> {
        let mut draw = Draw {
            recording: &recording,
            random: Random::new(seed, 3),
        };
        (0..50).map(|_| draw.plan().unwrap().to_string()).collect()
    };
    assert_eq!(drawn(7), drawn(7));
    assert_ne!(drawn(7), drawn(8));
    for plan in drawn(7) {
        plan.parse::<Plan>().unwrap();
    }
}

#[test]
fn coverage_counts_each_call_once_and_lists_what_was_never_reached() {
    let mut coverage = Coverage::default();
    assert_eq!(coverage.text(), None);
    let site = SiteId::find("pwrite").unwrap();
    coverage.see("offload", site, 4);
    for _ in 0..3 {
        coverage.begin();
        coverage.hit("offload", site, 2);
        coverage.end(true);
    }
    coverage.end(false);
    let text = coverage.text().unwrap();
    assert!(text.contains("3 injected of 4 runs"), "{text}");
    assert!(text.contains("points seen: 1 / 4"), "{text}");
    assert!(text.contains("fsync"), "{text}");
    assert!(!text.contains("pwrite pwritev"), "{text}");
}
