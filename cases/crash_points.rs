//! A signal at every call that an offload, a reload, a drop and a recovery make of libc, the driver and cuFile: before it, after
//! it, and after a write that was cut short. Whoever starts next in the same directories finds nothing that is half there (F58,
//! F59, F60, F69).
//!
//! A counting run under rules that never fire says which calls there are. One I/O thread makes them in one order, so that every
//! number up to that count is a call, and the first number behind it is none.

use crate::{
    models::plain,
    search::{Extent, Plans, Search, Searching},
    steps::{CaseWords as _, case, drop_model, free, load, request_with},
    world_steps::{dies_at_start, dies_during, dies_idle, restart},
};
use spillproof_harness::{
    case::{Amount, Case, Destinations, Faults, Gpu, MIB, Model, Pace, Step},
    crash::{Deadly, Moment},
    faults::{Action, Library, Plan, Rule, Signal, SiteId, When},
    sweep::{Point, shorts},
};
use std::collections::BTreeSet;

/// More calls than any of these make.
const NEVER: u64 = 1_000_000;

/// Every workload with every signal.
pub(crate) fn searches() -> Vec<Search> {
    let workloads = [offload, rewrite, reload, dropped, recovery];
    let signals = [Deadly::Kill, Deadly::Terminate];
    let cases = workloads
        .into_iter()
        .flat_map(|workload| signals.map(workload))
        .chain(signals.map(offload_cufile))
        .chain(signals.map(recovery_cufile));
    let search = |case| Search {
        case,
        plans: Plans::CrashPoints,
    };
    cases.map(search).collect()
}

fn tiny(name: &str, seed: u64) -> Model {
    plain(name, seed, &[MIB + 70_001, 64 << 10, 1001])
}

fn free_all() -> Step {
    free(Amount::float(1e30), Destinations::Any)
}

fn request(model: &str) -> Step {
    request_with(model, 64 << 10)
}

/// What the next one does.
fn serves() -> [Step; 3] {
    [load("a"), free_all(), request("a")]
}

/// A case whose plan is in force in its step `deadly`.
fn crash(name: &str, signal: Deadly, deadly: usize, steps: impl IntoIterator<Item = Step>) -> Case {
    let name = format!("{name}_{signal}");
    let mut case = case("crash_points", name, 0, vec![tiny("a", 1)])
        .set("OFFLOAD_IO_THREADS", "1")
        .set("OFFLOAD_STAGING_MB", "2")
        .steps(steps);
    case.gpu = Gpu::with_vram(8 * MIB);
    case.pace = Pace::Brisk;
    case.faults = Some(Faults {
        plan: Plan::default(),
        steps: deadly..deadly + 1,
        records: false,
    });
    case
}

fn offload(signal: Deadly) -> Case {
    let steps = [load("a"), request("a")]
        .into_iter()
        .chain(dies_during(signal, free_all(), Moment::Planned))
        .chain(serves());
    crash("offload", signal, 2, steps)
}

fn offload_cufile(signal: Deadly) -> Case {
    by_cufile(format!("offload_cufile_{signal}"), offload(signal))
}

/// A start tries cuFile out: its file is an orphan, too.
fn recovery_cufile(signal: Deadly) -> Case {
    by_cufile(format!("recovery_cufile_{signal}"), recovery(signal))
}

fn by_cufile(name: String, case: Case) -> Case {
    let mut case = case.set("OFFLOAD_CUFILE", "on");
    case.name = name;
    if let Gpu::Present { cufile, .. } = &mut case.gpu {
        *cufile = spillproof_harness::case::CuFile::DIRECT;
    }
    case.needs(spillproof_protocol::Capability::CuFile)
}

/// One tensor has changed since it was written; the others need no writing.
fn rewrite(signal: Deadly) -> Case {
    let steps = [load("a"), free_all(), crate::steps::modify("a", "t0", 7)]
        .into_iter()
        .chain(dies_during(signal, free_all(), Moment::Planned))
        .chain(serves());
    crash("rewrite", signal, 3, steps).needs(spillproof_protocol::Capability::Modify)
}

fn reload(signal: Deadly) -> Case {
    let steps = [load("a"), free_all()]
        .into_iter()
        .chain(dies_during(signal, request("a"), Moment::Planned))
        .chain(serves());
    crash("reload", signal, 2, steps)
}

fn dropped(signal: Deadly) -> Case {
    let steps = [load("a"), free_all()]
        .into_iter()
        .chain(dies_during(signal, drop_model("a"), Moment::Planned))
        .chain(serves());
    crash("drop", signal, 2, steps)
}

/// A start where a killed one left files: what it leaves in turn goes with the start after that.
fn recovery(signal: Deadly) -> Case {
    let [dies, _] = dies_idle(Deadly::Kill);
    let steps = [
        load("a"),
        free_all(),
        dies,
        dies_at_start(signal, Moment::Planned),
        restart(),
    ];
    crash("recovery", signal, 3, steps.into_iter().chain(serves()))
}

/// Visits the points of one case; how many.
pub(crate) fn visit(searching: &mut Searching<'_>) -> Result<String, String> {
    let signal = signal_of(searching.case());
    let counted = Counted::of(searching)?;
    let mut told = Vec::new();
    for line in lines(signal, &counted) {
        let mut visited = 0;
        for nth in numbers(&line, searching.extent) {
            if searching.is_over() {
                break;
            }
            let plan = (line.plan)(nth);
            let shown = plan.to_string();
            if !searching.inject(plan) {
                return Err(format!(
                    "{shown} never happened, where {} calls were counted: the case makes its calls in another order each time",
                    line.calls
                ));
            }
            visited += 1;
        }
        if line.calls > 0 {
            told.push(format!("{} {visited} of {}", line.what, line.calls));
        }
        if searching.extent == Extent::Full && !searching.is_over() && line.calls > 0 {
            let plan = (line.plan)(line.calls + 1);
            let shown = plan.to_string();
            if searching.inject(plan) {
                return Err(format!(
                    "{shown} happened, where only {} calls were counted",
                    line.calls
                ));
            }
        }
    }
    if searching.injected == 0 && !searching.is_over() {
        return Err("no point was visited".into());
    }
    Ok(format!("points visited: {}", told.join(", ")))
}

fn signal_of(case: &Case) -> Signal {
    match case.name.ends_with("_terminate") {
        true => Signal::TERM,
        false => Signal::KILL,
    }
}

/// What a case calls while its plan is in force.
struct Counted {
    libc: Calls,
    cuda: Calls,
    cufile: Calls,
    /// Calls that write and can be cut: which of all that write, from 1, and to how many bytes.
    torn: Vec<(u64, u64)>,
}

/// Calls of one library.
#[derive(Default)]
struct Calls {
    sites: BTreeSet<SiteId>,
    count: u64,
}

const WRITES: [&str; 2] = ["pwrite", "write"];

impl Counted {
    fn of(searching: &mut Searching<'_>) -> Result<Self, String> {
        let all = |library: Library| {
            let of_library =
                move |id: &SiteId| id.site().library == library && id.site().is_plannable();
            Calls {
                sites: SiteId::all().filter(of_library).collect(),
                count: 0,
            }
        };
        let rule = |library| signal(&all(library), Signal::KILL, NEVER, false);
        let libraries = [Library::Libc, Library::Cuda, Library::CuFile];
        let plan = Plan {
            rules: libraries.map(rule).to_vec(),
        };
        let (recording, judgement) = searching.record(&plan);
        let counts: Vec<u64> = judgement
            .run
            .rules
            .iter()
            .map(|rule| rule.counted)
            .collect();
        if !judgement.is_only_idle() {
            searching.keep(plan, judgement);
            return Err("the counting run is red".into());
        }
        let calls = |library: Library, counted: u64| {
            let points = recording.points.iter();
            let of_library = points.filter(|point| point.site.site().library == library);
            let sites: Vec<SiteId> = of_library.map(|point| point.site).collect();
            if sites.len() as u64 != counted {
                return Err(format!(
                    "{counted} calls of {library:?} were counted, {} recorded",
                    sites.len()
                ));
            }
            Ok(Calls {
                count: counted,
                sites: sites.into_iter().collect(),
            })
        };
        let [libc, cuda, cufile] = counts[..] else {
            return Err(format!("{} rules of 3 were counted", counts.len()));
        };
        let writes = recording.points.iter();
        let writes = writes.filter(|point| WRITES.contains(&point.site.site().name));
        // Cut to half of it, in units that direct I/O transfers too.
        let cut = |(point, nth): (&Point, u64)| {
            let cuts = shorts(point.site, point.size, point.offset);
            Some((nth, *cuts.get(cuts.len() / 2)?))
        };
        Ok(Self {
            libc: calls(Library::Libc, libc)?,
            cuda: calls(Library::Cuda, cuda)?,
            cufile: calls(Library::CuFile, cufile)?,
            torn: writes.zip(1..).filter_map(cut).collect(),
        })
    }
}

/// Numbered calls, and the plan for each.
struct Line {
    what: &'static str,
    calls: u64,
    plan: Box<dyn Fn(u64) -> Plan>,
    /// Calls that a gate has time for.
    in_gate: u64,
}

fn lines(raised: Signal, counted: &Counted) -> Vec<Line> {
    let at = |what, calls: &Calls, after, in_gate| {
        let rule = signal(calls, raised, 1, after);
        Line {
            what,
            calls: calls.count,
            plan: Box::new(move |nth| Plan {
                rules: vec![Rule {
                    when: When::only(nth),
                    ..rule.clone()
                }],
            }),
            in_gate,
        }
    };
    let torn = counted.torn.clone();
    let writes = || WRITES.map(SiteId::named).to_vec();
    let torn_writes = Line {
        what: "torn writes",
        calls: torn.len() as u64,
        plan: Box::new(move |number| {
            // Behind the last one it is still to be shown that there is none.
            let (nth, bytes) = torn.get(number as usize - 1).copied().unwrap_or((NEVER, 1));
            let rule = |action, after| Rule {
                sites: writes(),
                after,
                when: When::only(nth),
                ..Rule::new(writes()[0], action)
            };
            let short = rule(Action::Short { bytes }, false);
            Plan {
                rules: vec![short, rule(Action::Signal(raised), true)],
            }
        }),
        in_gate: 1,
    };
    vec![
        at("before calls of libc", &counted.libc, false, 4),
        at("after them", &counted.libc, true, 2),
        at("before calls of the driver", &counted.cuda, false, 2),
        at("after those", &counted.cuda, true, 1),
        at("before calls of cuFile", &counted.cufile, false, 2),
        at("after these", &counted.cufile, true, 1),
        torn_writes,
    ]
}

/// From the first to the last, as many as there is time for.
fn numbers(line: &Line, extent: Extent) -> Vec<u64> {
    let (calls, wanted) = match extent {
        Extent::Full => (line.calls, line.calls),
        Extent::Gate => (line.calls, line.in_gate.min(line.calls)),
    };
    match wanted {
        0 => Vec::new(),
        // Neither the first nor the last.
        1 => vec![calls.div_ceil(2)],
        _ => (0..wanted)
            .map(|index| 1 + index * (calls - 1) / (wanted - 1))
            .collect(),
    }
}

fn signal(calls: &Calls, raised: Signal, nth: u64, after: bool) -> Rule {
    Rule {
        sites: calls.sites.iter().copied().collect(),
        action: Action::Signal(raised),
        after,
        when: When::only(nth),
        path: None,
        caller: None,
    }
}

#[cfg(test)]
mod tests {
    //! Which points are visited.
    use super::*;

    fn line(calls: u64, in_gate: u64) -> Line {
        Line {
            what: "",
            calls,
            plan: Box::new(|_| Plan::default()),
            in_gate,
        }
    }

    #[test]
    fn a_gate_visits_the_first_the_last_and_some_between() {
        let gate = |calls, in_gate| numbers(&line(calls, in_gate), Extent::Gate);
        assert_eq!(gate(31, 4), [1, 11, 21, 31]);
        assert_eq!(gate(2, 4), [1, 2]);
        assert_eq!(gate(9, 1), [5]);
        assert_eq!(gate(1, 3), [1]);
        assert!(gate(0, 3).is_empty());
    }

    #[test]
    fn everything_is_every_call() {
        assert_eq!(numbers(&line(5, 1), Extent::Full), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(&line(1, 1), Extent::Full), [1]);
        assert!(numbers(&line(0, 1), Extent::Full).is_empty());
    }
}
