//! What workloads cost in calls and bytes, on the emulated device: a benchmark for machines without a GPU, where seconds mean nothing.
//!
//! One I/O thread makes the same calls each time, so that `golden/bench/` can say what a change costs.

use crate::{
    models::plain,
    steps::{CaseWords as _, case, free, load, request_unseen},
    suite::judge,
};
use spillproof_harness::{
    case::{Amount, Case, CuFile, Destinations, Faults, Gpu, MIB, Model, Step},
    device::DeviceKind,
    faults::Plan,
    observation::{Phase, Run},
    run::Bench,
    verdict::Verdict,
};
use spillproof_protocol::Capability;
use std::{collections::BTreeMap, fmt::Write as _, ops::Range};

/// What moves in most workloads, bytes: several times the staging.
const BYTES: u64 = 32 * MIB;

/// Calls of a site, and what they are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// Bytes that they are about together: asked for to be moved, allocated, reserved.
    pub bytes: u64,
}

/// What a workload cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub workload: String,
    /// File bytes that the subject says it wrote.
    pub written_bytes: u64,
    /// File bytes that the subject says it read.
    pub read_bytes: u64,
    /// Calls that the interposer saw on offload files and on the driver, by site.
    pub calls: BTreeMap<&'static str, Calls>,
}

/// The workloads; what is counted of each are the steps in which its calls are recorded.
#[must_use]
pub fn workloads() -> Vec<Case> {
    let all = || free(Amount::float(1e30), Destinations::Files);
    let one = || vec![plain("a", 1, &[BYTES])];
    let two = || vec![plain("a", 1, &[BYTES]), plain("b", 2, &[BYTES])];
    let stored = || [load("a"), all()];
    let reloaded = || [load("a"), all(), request_unseen("a")];
    vec![
        workload("store", BYTES, one(), 1..2, stored()),
        workload("load", BYTES, one(), 2..3, reloaded()),
        workload("store_cufile", BYTES, one(), 1..2, stored()).by_cufile(),
        workload("load_cufile", BYTES, one(), 2..3, reloaded()).by_cufile(),
        workload(
            "request_again",
            BYTES,
            one(),
            1..2,
            [load("a"), request_unseen("a")],
        ),
        workload(
            "free_unmodified",
            BYTES,
            one(),
            3..4,
            reloaded().into_iter().chain([all()]),
        ),
        // A quarter more than one of them takes: each request makes the other one leave.
        workload(
            "requests",
            BYTES / 4 * 5,
            two(),
            2..6,
            ["a", "b"]
                .map(load)
                .into_iter()
                .chain(["a", "b", "a", "b"].map(request_unseen)),
        ),
        workload(
            "swap",
            2 * BYTES,
            two(),
            3..5,
            [load("b"), all(), load("a"), all(), request_unseen("b")],
        ),
        // Many small tensors cost calls, not bytes.
        workload(
            "small_tensors",
            BYTES,
            vec![plain("a", 1, &[20_000; 200])],
            1..3,
            reloaded(),
        ),
    ]
}

fn workload(
    name: &str,
    vram_bytes: u64,
    models: Vec<Model>,
    counted: Range<usize>,
    steps: impl IntoIterator<Item = Step>,
) -> Case {
    let mut case = case("bench", name, 0, models)
        .set("OFFLOAD_IO_THREADS", "1")
        .steps(steps);
    case.gpu = Gpu::with_vram(vram_bytes + 4 * MIB);
    case.faults = Some(Faults {
        plan: Plan::default(),
        steps: counted,
        records: true,
    });
    case
}

trait ByCuFile {
    /// Through cuFile in its compatibility mode, which every machine can have.
    fn by_cufile(self) -> Self;
}

impl ByCuFile for Case {
    fn by_cufile(self) -> Self {
        let mut case = self.set("OFFLOAD_CUFILE", "on").needs(Capability::CuFile);
        if let Gpu::Present { cufile, .. } = &mut case.gpu {
            *cufile = CuFile::COMPAT;
        }
        case
    }
}

/// Runs a workload, judges it as any case, and counts.
///
/// # Errors
/// It is not green, or not all of its calls are known.
pub fn count(workload: &Case, bench: &Bench) -> Result<Counted, String> {
    let judgement = judge(workload, &DeviceKind::Emulated, bench);
    match &judgement.verdict {
        Verdict::Pass => Ok(of(&judgement.run)),
        verdict => Err(format!("{}: {verdict:?}", workload.id())),
    }
}

fn of(run: &Run) -> Counted {
    let mut calls: BTreeMap<&'static str, Calls> = BTreeMap::new();
    for call in &run.calls {
        let calls = calls.entry(call.site.site().name).or_default();
        calls.count += 1;
        calls.bytes += call.size;
    }
    let counted = run.case.faults.as_ref().map(|faults| faults.steps.clone());
    let own = run.steps.iter().filter(|step| step.phase == Phase::Case);
    let (mut written_bytes, mut read_bytes) = (0, 0);
    for (index, step) in own.enumerate() {
        let is_counted = counted.as_ref().is_some_and(|range| range.contains(&index));
        if let (true, Some(before), Some(after)) =
            (is_counted, &step.status_before, &step.status_after)
        {
            written_bytes += after.written_bytes - before.written_bytes;
            read_bytes += after.read_bytes - before.read_bytes;
        }
    }
    Counted {
        workload: run.case.name.clone(),
        written_bytes,
        read_bytes,
        calls,
    }
}

/// All of them as a table in Markdown.
#[must_use]
pub fn markdown(counted: &[Counted]) -> String {
    let mut text = String::from(
        "## counts, emulated, one I/O thread\n\n| workload | what | calls | bytes |\n|---|---|---:|---:|\n",
    );
    for one in counted {
        let _ = writeln!(
            text,
            "| {} | written | | {} |",
            one.workload, one.written_bytes
        );
        let _ = writeln!(text, "| {} | read | | {} |", one.workload, one.read_bytes);
        for (site, calls) in &one.calls {
            let _ = writeln!(
                text,
                "| {} | {site} | {} | {} |",
                one.workload, calls.count, calls.bytes
            );
        }
    }
    text
}
