//! Two faults at a time: the second one comes while the first is recovered from (F66 to F69). Some by name; over the rest of them
//! a search that a seed draws: a call fails, the calls that then follow are recorded, and one of these fails as well.
//!
//! Not searched: pairs of which the first does not change what is called; the sweep of single faults has both of them.

use crate::{
    models::plain,
    search::{Extent, Plans, Search, Searching},
    steps::{
        CaseWords as _, case, drop_model, free, free_from, load, modify, read_back, request,
        request_with,
    },
    world_steps::dies_during,
};
use spillproof_harness::{
    case::{Amount, Case, CuFile, Destinations, Faults, Gpu, MIB, Pace, Step},
    crash::{Deadly, Moment},
    faults::{Action, FaultError, Plan, Rule, When},
    sweep::{Mode, Point, Random, Recording, shorts},
};
use spillproof_protocol::Capability;

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    let pressed = PRESSED.iter().map(|(name, plan)| pressed(name, plan));
    let freed = FREED.iter().map(|(name, plan)| freed(name, plan));
    let reloaded = RELOADED.iter().map(|(name, plan)| reloaded(name, plan));
    let mut cases: Vec<Case> = pressed.chain(freed).chain(reloaded).collect();
    cases.extend(CUFILE.iter().map(|(name, plan)| by_cufile(name, plan)));
    cases.push(killed_while_cleaning_up());
    cases
}

/// F66: what has to leave for a model that finds no room finds no room either.
const PRESSED: &[(&str, &str)] = &[
    (
        "device_oom_and_a_full_disk",
        "cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:when=1;pwrite,write:error=ENOSPC",
    ),
    (
        "device_oom_and_a_disk_that_fills_up",
        "cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:when=2;pwrite,write:short=4096:when=1;pwrite,write:error=ENOSPC:when=2+",
    ),
];

/// What was allocated before a copy failed is given back, which fails too. Nothing else is given back in a request that finds room.
const RELOADED: &[(&str, &str)] = &[(
    "a_failed_copy_and_a_failed_free",
    "cuMemcpyHtoDAsync,cuMemcpyHtoD:error=CUDA_ERROR_INVALID_VALUE:when=1;cuMemFree:error=CUDA_ERROR_INVALID_CONTEXT:when=1",
)];

/// F68: the partial file that has to go stays.
const FREED: &[(&str, &str)] = &[
    (
        "a_full_disk_and_a_file_that_stays",
        "pwrite,write:error=ENOSPC:when=1;unlink,unlinkat:error=EIO:when=1",
    ),
    (
        "a_torn_write_and_a_file_that_stays_for_long",
        "pwrite,write:short=4096:when=1;pwrite,write:error=EIO:when=2;unlink,unlinkat:error=EBUSY:when=1..2",
    ),
];

/// F67: where cuFile fails staging takes over, and fails too.
const CUFILE: &[(&str, &str)] = &[
    (
        "cufile_fails_and_the_staged_write_does",
        "cuFileWrite:error=CU_FILE_INTERNAL_ERROR:when=1;pwrite,write:error=EIO:when=1",
    ),
    (
        "cufile_fails_and_the_staged_read_does",
        "cuFileRead:error=CU_FILE_IO_ERROR:when=1;pread,read:error=EIO:when=1",
    ),
];

fn free_all() -> Step {
    free(Amount::float(1e30), Destinations::Any)
}

/// Two models of which the device holds one, and of the other some tensors before it finds no room, also where a real device keeps
/// some memory to itself; through one thread, so that calls come in one order.
fn pair(name: &str) -> Case {
    let models = vec![plain("a", 1, &[2 * MIB; 4]), plain("b", 2, &[2 * MIB; 4])];
    case("pairs", name, 14, models)
        .set("OFFLOAD_IO_THREADS", "1")
        .set("OFFLOAD_STAGING_MB", "4")
        .needs(Capability::Modify)
}

/// A model is asked for while the other one has to be written first.
fn pressed(name: &str, plan: &str) -> Case {
    let mut case = pair(name)
        .steps([
            load("a"),
            free_all(),
            load("b"),
            request("a"),
            read_back("b"),
            request("b"),
            modify("b", "t0", 7),
            free_all(),
            request("a"),
            drop_model("b"),
            request("a"),
        ])
        .failing(plan);
    // With both known and one of them away.
    if let Some(faults) = &mut case.faults {
        faults.steps = 3..4;
    }
    case
}

/// A model comes back to a device that has room for it.
fn reloaded(name: &str, plan: &str) -> Case {
    let mut case = pair(name)
        .steps([
            load("a"),
            free_all(),
            request("a"),
            request("a"),
            modify("a", "t1", 7),
            free_all(),
            request("a"),
        ])
        .failing(plan);
    if let Some(faults) = &mut case.faults {
        faults.steps = 2..3;
    }
    case
}

fn freed(name: &str, plan: &str) -> Case {
    pair(name)
        .steps([
            load("a"),
            free_all(),
            read_back("a"),
            free_all(),
            request("a"),
            modify("a", "t1", 7),
            free_all(),
            request("a"),
            drop_model("a"),
            // What could not be removed has gone by now.
            load("a"),
            free_all(),
            drop_model("a"),
        ])
        .failing(plan)
}

fn by_cufile(name: &str, plan: &str) -> Case {
    let mut case = pair(name)
        .set("OFFLOAD_CUFILE", "on")
        .needs(Capability::CuFile)
        .steps([
            load("a"),
            free_all(),
            request("a"),
            free_all(),
            request("a"),
        ])
        .failing(plan);
    if let Gpu::Present { cufile, .. } = &mut case.gpu {
        *cufile = CuFile::DIRECT;
    }
    case
}

/// F69: an offload fails, and the process is killed while the partial file goes. The start that removes what a killed one left
/// is killed at every call in `crash_points::recovery_kill`.
fn killed_while_cleaning_up() -> Case {
    let mut case = pair("killed_while_a_partial_file_is_removed")
        .steps([load("a")])
        .steps(dies_during(Deadly::Kill, free_all(), Moment::Planned))
        .steps([load("a"), free_all(), request("a")])
        .failing("pwrite,write:error=ENOSPC:when=1;unlink,unlinkat:signal=KILL:when=1");
    if let Some(faults) = &mut case.faults {
        faults.steps = 1..2;
    }
    case
}

/// Pairs of a trial and trials, by extent.
fn extent(extent: Extent) -> (u64, u64) {
    match extent {
        Extent::Gate => (4, 4),
        Extent::Full => (25, 20),
    }
}

/// What the second fault comes within, of calls after the first.
const WINDOW: usize = 40;

/// First faults that are tried for each pair, where what follows differs each time.
const MAX_DRAWS: u64 = 8;

/// Trials that draw their plans.
pub(crate) fn searches(searched: Extent) -> Vec<Search> {
    let (_, trials) = extent(searched);
    let search = |stream| Search {
        case: drawn(stream),
        plans: Plans::Pairs { stream },
    };
    (1..=trials).map(search).collect()
}

/// Tiny: each pair has two runs of its own.
fn drawn(stream: u64) -> Case {
    let sizes = [MIB + 70_001, 64 << 10, 1001];
    let models = vec![plain("a", 1, &sizes), plain("b", 2, &sizes)];
    let request = |model: &str| request_with(model, 64 << 10);
    // By turns through either way.
    let (cufile, setting) = match stream % 2 {
        0 => (CuFile::DIRECT, "on"),
        _ => (CuFile::Absent, "off"),
    };
    let mut case = case("pairs", format!("drawn_{stream}"), 0, models)
        .set("OFFLOAD_IO_THREADS", "1")
        .set("OFFLOAD_STAGING_MB", "2")
        .set("OFFLOAD_CUFILE", setting)
        .steps([
            load("a"),
            free_from("a", Amount::whole(64 << 10)),
            load("b"),
            request("a"),
            request("b"),
            free_all(),
            read_back("a"),
            request("a"),
            drop_model("b"),
            request("a"),
        ]);
    case.gpu = Gpu::with_vram(2560 << 10);
    if let Gpu::Present { cufile: found, .. } = &mut case.gpu {
        *found = cufile;
    }
    case.pace = Pace::Brisk;
    case.faults = Some(Faults::throughout(Plan::default()));
    case
}

/// Draws pairs until enough of them happened.
pub(crate) fn search(searching: &mut Searching<'_>, stream: u64) -> Result<String, String> {
    let (wanted, _) = extent(searching.extent);
    let mut random = Random::new(searching.seed, stream);
    let (calls, judgement) = searching.record(&Plan::default());
    if !judgement.verdict.is_green() {
        searching.keep(Plan::default(), judgement);
        return Err("red without any fault".into());
    }
    let (mut pairs, mut draws) = (0, 0);
    while pairs < wanted && !searching.is_over() {
        draws += 1;
        if draws > wanted * MAX_DRAWS {
            return Err(format!(
                "{pairs} of {wanted} pairs happened in {draws} draws"
            ));
        }
        let Some(first) = fault(&calls.points, &mut random) else {
            return Err("no call was recorded".into());
        };
        let plan = Plan {
            rules: vec![first.clone()],
        };
        let (followed, judgement) = searching.record(&plan);
        if !judgement.run.rules.iter().all(|rule| rule.fired > 0) {
            continue;
        }
        if !judgement.verdict.is_green() {
            searching.keep(plan, judgement);
            continue;
        }
        let Some(second) = fault(window(&followed, &first), &mut random) else {
            continue;
        };
        let rules = vec![first, second];
        pairs += u64::from(searching.inject(Plan { rules }));
    }
    Ok(format!(
        "{pairs} pairs of {draws} drawn, seed {:#x}",
        searching.seed
    ))
}

/// The calls after the one that failed first, as far as its recovery may reach.
fn window<'a>(calls: &'a Recording, first: &Rule) -> &'a [Point] {
    let is_it = |point: &Point| first.sites.contains(&point.site) && point.nth == first.when.first;
    let failed = calls.points.iter().position(is_it);
    let after = failed.map_or(&[][..], |failed| &calls.points[failed + 1..]);
    &after[..after.len().min(WINDOW)]
}

/// A call, and one way in which it can fail.
fn fault(calls: &[Point], random: &mut Random) -> Option<Rule> {
    let can_fail = |point: &&Point| !point.site.site().errors.is_empty();
    let calls: Vec<&Point> = calls.iter().filter(can_fail).collect();
    let point = *random.choose(&calls)?;
    let cuts = shorts(point.site, point.size, point.offset);
    if !cuts.is_empty() && random.below(4) == 0 {
        let bytes = *random.choose(&cuts)?;
        return Some(Rule {
            when: When::only(point.nth),
            ..Rule::new(point.site, Action::Short { bytes })
        });
    }
    let errors = point.site.site().errors.iter();
    let errors: Vec<FaultError> = errors
        .copied()
        .filter(|error| !is_the_end(*error))
        .collect();
    let error = *random.choose(&errors)?;
    Some(Mode::Once.rule(point.site, error, point.nth))
}

/// Errors after which nothing can be asked of the device any more: there is no recovery for a second fault to come in.
fn is_the_end(error: FaultError) -> bool {
    const ENDS: [&str; 8] = [
        "CUDA_ERROR_DEINITIALIZED",
        "CUDA_ERROR_NOT_INITIALIZED",
        "CUDA_ERROR_CONTEXT_IS_DESTROYED",
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        "CUDA_ERROR_NVLINK_UNCORRECTABLE",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "CUDA_ERROR_LAUNCH_FAILED",
    ];
    ENDS.contains(&error.name())
}

#[cfg(test)]
mod tests {
    //! What is drawn.
    use super::*;
    use spillproof_harness::faults::SiteId;

    fn points(sites: &[&str]) -> Vec<Point> {
        let mut counts = std::collections::BTreeMap::new();
        let point = |name: &&str| {
            let site = SiteId::find(name).unwrap();
            let nth = counts.entry(site).or_insert(0);
            *nth += 1;
            Point {
                site,
                nth: *nth,
                size: 0,
                offset: None,
                path: String::new(),
                caller: String::new(),
            }
        };
        sites.iter().map(point).collect()
    }

    #[test]
    fn the_second_fault_comes_after_the_first() {
        let points = points(&["fstat", "close", "fstat", "fsync", "close"]);
        let recording = Recording { points };
        let first = Mode::Once.rule(
            SiteId::find("fstat").unwrap(),
            FaultError::named("ENOMEM").unwrap(),
            2,
        );
        let after: Vec<_> = window(&recording, &first)
            .iter()
            .map(|point| (point.site.site().name, point.nth))
            .collect();
        assert_eq!(after, [("fsync", 1), ("close", 2)]);
        let never = Rule {
            when: When::only(3),
            ..first
        };
        assert!(window(&recording, &never).is_empty());
    }

    #[test]
    fn a_seed_draws_the_same_again_and_a_stream_another() {
        let points = points(&["fstat", "close", "fsync", "pwrite", "mmap", "openat"].repeat(9));
        let drawn = |seed, stream| {
            let mut random = Random::new(seed, stream);
            let rules = (0..8).map(|_| fault(&points, &mut random).unwrap());
            Plan {
                rules: rules.collect(),
            }
            .to_string()
        };
        assert_eq!(drawn(1, 1), drawn(1, 1));
        assert_ne!(drawn(1, 1), drawn(1, 2));
        assert_ne!(drawn(1, 1), drawn(2, 1));
    }
}
