//! Workloads whose every call fails once. Each is a case by itself, which records its calls; its golden says how many of which it
//! makes, and from that follows which trials there are (`sweep_trials.rs`).
//!
//! They are tiny, so that each call can have runs of its own, and still make more than one of each: a tensor larger than a slot
//! of staging, one of whole blocks, one that ends in the middle of one. One I/O thread makes calls in one order.

use crate::{
    models::{ModelBuilder, plain},
    steps::{
        CaseWords as _, attack, case, drop_model, fails, free, free_from, hold, load, modify,
        read_back, read_held, release, request_with,
    },
    suite::FILE_IO,
    world_steps::{beside, dies_idle},
};
use spillproof_harness::{
    attack::{Attack, Place, Spot},
    case::{Amount, Case, CuFile, Destinations, Faults, Gpu, MIB, Model, Pace, Step},
    faults::{Plan, SiteId},
};
use spillproof_protocol::{Capability, Dtype, ErrorKind, Fill};
use std::ops::Range;

/// What every workload's name ends with: the trial of that name runs it as it is and compares the calls with the golden.
pub const RECORDED: &str = "_recorded";

/// What the names of the cases begin with from which random plans are drawn: whole journeys with several I/O threads. Their calls come
/// in no fixed order, so their goldens name none.
pub const JOURNEY: &str = "journey";

/// A workload that moves more bytes than the others.
const REGISTERED: &str = "registered";

/// A workload that starts a process anew.
const OPEN: &str = "open";

/// A workload over data that is easy to get wrong, and through views that outlive it.
const SHAPED: &str = "shaped";

/// What is as another workload but for one setting.
const DURABLE: &str = "offload_durable";

/// A workload over files that are not any more what was written.
const HARMED: &str = "harmed";

/// A start like another one, but that somebody else lives in the directory.
const NEIGHBOURED: &str = "neighboured";

/// What is as another workload but for the way that cuFile takes.
const COMPATIBLE: &str = "compatible";

/// A workload past the page cache.
const DIRECT: &str = "direct";

/// A workload over a file that the page cache holds: pieces of a slot travel while others are filled.
const CACHED: &str = "cached";

/// Whether calls of the site are made to fail in a workload of this name: of those that resemble another one, or that take
/// longer, only what they are there for is swept.
#[must_use]
pub fn is_swept(workload: &str, site: SiteId) -> bool {
    let own: &[&str] = match workload {
        _ if workload.starts_with(REGISTERED) => &[
            "cuFileBufRegister",
            "cuFileBufDeregister",
            "cuFileWrite",
            "cuFileRead",
        ],
        // What a start does beside trying cuFile out is swept where it finds orphans.
        _ if workload.starts_with(OPEN) => &[
            "cuFileDriverOpen",
            "cuFileDriverGetProperties",
            "cuFileHandleRegister",
            "cuFileHandleDeregister",
            "cuFileRead",
            "cuFileWrite",
            "pread",
            "pwrite",
            "ftruncate",
            "fallocate",
            "cuCtxSynchronize",
            "cuMemAlloc",
            "cuMemFree",
            "cuMemcpyHtoDAsync",
            "cuMemcpyDtoHAsync",
            "cuStreamSynchronize",
        ],
        _ if workload.starts_with(SHAPED) => &["mmap", "munmap", "pread", "pwrite"],
        _ if workload.starts_with(DURABLE) => &["fdatasync", "pwrite"],
        _ if workload.starts_with(HARMED) => &["fstat", "madvise", "open", "openat", "pread"],
        _ if workload.starts_with(NEIGHBOURED) => &["flock"],
        _ if workload.starts_with(COMPATIBLE) => &["cuFileRead", "cuFileWrite"],
        _ if workload.starts_with(DIRECT) => &[
            "openat", "fstat", "pwrite", "pread", "mmap", "munmap", "close",
        ],
        _ if workload.starts_with(CACHED) => &[
            "cuEventRecord",
            "cuEventSynchronize",
            "cuMemcpyHtoDAsync",
            "cuStreamSynchronize",
            "pread",
        ],
        _ => return true,
    };
    own.contains(&site.site().name)
}

const WORKSPACE_BYTES: u64 = 64 << 10;

/// The family: each workload as it is, its calls recorded.
#[must_use]
pub fn cases() -> Vec<Case> {
    let ways = [Way::Staged, Way::CuFile];
    let by_both = [offload, reload, pressed];
    let mut cases: Vec<Case> = ways
        .into_iter()
        .flat_map(|way| by_both.map(|workload| workload(way)))
        .collect();
    cases.extend(ways.map(journey));
    cases.extend([load_only(), map_read(), orphans(), dropped()]);
    cases.extend([durable(), first_open(), registered(), closed(), shaped()]);
    cases.extend([harmed(), neighboured(), compatible(), direct(), cached()]);
    cases
}

/// The way between device and files.
#[derive(Clone, Copy)]
enum Way {
    Staged,
    CuFile,
}

fn tiny(name: &str, seed: u64) -> Model {
    plain(name, seed, &[MIB + 70_001, 64 << 10, 1001])
}

fn small(name: &str, seed: u64) -> Model {
    plain(name, seed, &[64 << 10, 40_001])
}

fn free_all() -> Step {
    free(Amount::float(1e30), Destinations::Files)
}

fn request(model: &str) -> Step {
    request_with(model, WORKSPACE_BYTES)
}

/// A workload whose faults are in force during these of its steps.
fn workload(
    name: &str,
    way: Way,
    vram_bytes: u64,
    models: Vec<Model>,
    faulty: Range<usize>,
    steps: impl IntoIterator<Item = Step>,
) -> Case {
    let (name, setting) = match way {
        Way::Staged => (name.to_owned(), "off"),
        Way::CuFile => (format!("{name}_cufile"), "on"),
    };
    let mut case = case("sweep", format!("{name}{RECORDED}"), 0, models)
        .set("OFFLOAD_IO_THREADS", "1")
        .set("OFFLOAD_STAGING_MB", "2")
        .set("OFFLOAD_CUFILE", setting)
        .steps(steps);
    case.gpu = Gpu::with_vram(vram_bytes);
    if let (Way::CuFile, Gpu::Present { cufile, .. }) = (way, &mut case.gpu) {
        *cufile = CuFile::DIRECT;
        case.requires.push(Capability::CuFile);
    }
    case.faults = Some(Faults {
        plan: Plan::default(),
        steps: faulty,
        records: true,
    });
    case.pace = Pace::Brisk;
    case
}

/// The same is asked once more when nothing fails any longer; then something that means nothing.
fn load_only() -> Case {
    let models = vec![tiny("a", 1), small("b", 2)];
    let no_number = free(Amount::float(f64::NAN), Destinations::Any);
    let steps = [
        load("a"),
        load("b"),
        request("b"),
        fails(no_number, ErrorKind::InvalidArgument),
        free_all(),
    ];
    workload("load", Way::Staged, 8 * MIB, models, 0..1, steps)
}

fn offload(way: Way) -> Case {
    let steps = [load("a"), free_all(), request("a"), free_all()];
    workload("offload", way, 8 * MIB, vec![tiny("a", 1)], 1..2, steps)
}

fn reload(way: Way) -> Case {
    let steps = [load("a"), free_all(), request("a"), free_all()];
    workload("reload", way, 8 * MIB, vec![tiny("a", 1)], 2..3, steps)
}

/// Two models of which the device holds one: each request makes the other one leave.
fn pressed(way: Way) -> Case {
    let models = vec![
        plain("a", 1, &[MIB + 4097, 64 << 10]),
        plain("b", 2, &[MIB, 160_001]),
    ];
    let steps = [
        load("a"),
        load("b"),
        request("a"),
        request("b"),
        request("a"),
    ];
    workload("pressed", way, 2304 << 10, models, 2..5, steps)
}

/// Everything that the other workloads do, with as many I/O threads as the engine has by itself.
fn journey(way: Way) -> Case {
    let models = vec![
        plain("a", 1, &[3 * MIB + 70_001, MIB, 64 << 10, 1001]),
        plain("b", 2, &[2 * MIB, 40_001]),
    ];
    let steps = [
        load("a"),
        free_all(),
        read_back("a"),
        load("b"),
        request("a"),
        request("b"),
        free_all(),
        request("a"),
        drop_model("a"),
        request("b"),
    ];
    let mut case = workload(JOURNEY, way, 6 * MIB, models, 0..usize::MAX, steps)
        .set("OFFLOAD_IO_THREADS", "4")
        .set("OFFLOAD_STAGING_MB", "8");
    case.name = case.name.trim_end_matches(RECORDED).to_owned();
    if let Some(faults) = &mut case.faults {
        faults.records = false;
    }
    case
}

fn map_read() -> Case {
    let steps = [
        load("a"),
        free_all(),
        read_back("a"),
        request("a"),
        free_all(),
        read_back("a"),
    ];
    workload(
        "map_read",
        Way::Staged,
        8 * MIB,
        vec![tiny("a", 1)],
        2..3,
        steps,
    )
}

/// A start where a killed one left files. What a fault keeps from being removed goes with the start after that.
fn orphans() -> Case {
    let serves = || [load("a"), free_all(), request("a"), free_all()];
    let dies = || dies_idle(spillproof_harness::crash::Deadly::Kill);
    let steps = [load("a"), free_all()]
        .into_iter()
        .chain(dies())
        .chain(serves())
        .chain(dies())
        .chain([load("a"), request("a")]);
    workload(
        "orphans",
        Way::Staged,
        8 * MIB,
        vec![small("a", 1)],
        3..4,
        steps,
    )
}

/// An end with tensors on the device, in a file and mapped.
fn closed() -> Case {
    let models = vec![tiny("a", 1), small("b", 2)];
    let steps = [
        load("a"),
        free_from("a", Amount::whole(64 << 10)),
        load("b"),
    ];
    workload(
        "close",
        Way::Staged,
        8 * MIB,
        models,
        Faults::CLOSING,
        steps,
    )
}

/// Tensors that share bytes, one that starts inside them, one without any; a fraction of a GiB as the threshold, and a view that
/// outlives a change of what it shows and then its model.
fn shaped() -> Case {
    let model = ModelBuilder::new("m", 5)
        .storage("shared", 200_000, Fill::Seed(51))
        .view("head", "shared", Dtype::U8, &[100_000], None, 0)
        .view("tied", "shared", Dtype::U8, &[100_000], None, 0)
        .view("inner", "shared", Dtype::U8, &[50_000], None, 30_001)
        .tensor("empty", Dtype::F32, &[0, 7])
        .tensor("own", Dtype::U8, &[40_001])
        .build();
    let steps = [
        load("m"),
        free_all(),
        hold("m", "inner", "v"),
        read_back("m"),
        modify("m", "head", 77),
        free_all(),
        read_back("m"),
        read_held("v"),
        drop_model("m"),
        read_held("v"),
        release("v"),
    ];
    workload(SHAPED, Way::Staged, 8 * MIB, vec![model], 4..8, steps)
        .set("MMAP_MEM_THRESHOLD_GB", "0.5")
        .set("OFFLOAD_RAM_LIMIT_GB", "0.4")
        .needs(Capability::Modify)
        .needs(Capability::Views)
        .needs(Capability::RamLimit)
}

/// What is written has to be on the disk before the device lets go of it.
fn durable() -> Case {
    let mut case = offload(Way::Staged).set("OFFLOAD_DURABLE", "1");
    case.name = format!("{DURABLE}{RECORDED}");
    case
}

/// There and back past the page cache, whose descriptor is another one than that of maps and locks.
fn direct() -> Case {
    let steps = [load("a"), free_all(), request("a"), free_all()];
    let models = vec![tiny("a", 1)];
    workload(DIRECT, Way::Staged, 8 * MIB, models, 1..3, steps).set(FILE_IO, "direct")
}

/// Whoever reads through the map has the pages brought in, from where they then go to the device.
fn cached() -> Case {
    let steps = [load("a"), free_all(), read_back("a"), request("a")];
    let models = vec![tiny("a", 1)];
    workload(CACHED, Way::Staged, 8 * MIB, models, 3..4, steps).set(FILE_IO, "direct")
}

/// A process's first look at cuFile, which is asked once: where it refuses itself, everything is staged. The one before it was asked to
/// end and left nothing.
fn first_open() -> Case {
    let [dies, restarts] = dies_idle(spillproof_harness::crash::Deadly::Terminate);
    let serves = [load("a"), free_all()];
    let steps = serves.clone().into_iter().chain([dies, restarts]);
    let steps = steps.chain(serves);
    let models = vec![small("a", 1)];
    workload(OPEN, Way::CuFile, 8 * MIB, models, 3..4, steps)
}

/// A block of more than one transfer, which is why its device memory is registered with cuFile; and another one, which goes within
/// the budget where cuFile is not asked any more.
fn registered() -> Case {
    let models = vec![plain("a", 1, &[16 * MIB + 4097]), plain("b", 2, &[5 * MIB])];
    let steps = [
        load("a"),
        free_all(),
        request("a"),
        drop_model("a"),
        load("b"),
        free_all(),
    ];
    let mut case = workload(REGISTERED, Way::CuFile, 32 * MIB, models, 1..3, steps);
    case.limits.slack_bytes = 3 * MIB;
    case
}

/// One tensor of three on the device, the rest in a file.
fn dropped() -> Case {
    let models = vec![tiny("a", 1), small("b", 2)];
    let steps = [
        load("a"),
        free_from("a", Amount::whole(64 << 10)),
        drop_model("a"),
        load("b"),
        free_all(),
        request("b"),
    ];
    workload("drop", Way::Staged, 8 * MIB, models, 2..3, steps)
}

/// Files that somebody has changed, cut and unlinked since they were mapped: a call that fails as well makes none of that pass for data.
fn harmed() -> Case {
    let place = |model: &str, spot| Place {
        model: model.into(),
        tensor: "t0".into(),
        spot,
    };
    let flip = Attack::Flip {
        at: place("flipped", Spot::Middle),
    };
    let cut = Attack::Cut {
        at: place("cut", Spot::First),
    };
    let names = ["flipped", "cut", "whole"];
    let models = names.into_iter().zip(1..);
    let models = models.map(|(name, seed)| plain(name, seed, &[40_001]));
    let corrupt = |step| fails(step, ErrorKind::Corrupt);
    let steps = names
        .map(load)
        .into_iter()
        .chain([free_all()])
        .chain([flip, cut, Attack::Unlink].map(attack))
        .chain([
            corrupt(read_back("flipped")),
            corrupt(request("flipped")),
            corrupt(read_back("cut")),
            corrupt(request("cut")),
            read_back("whole"),
            request("whole"),
        ])
        .chain(["flipped", "cut"].map(drop_model))
        .chain([load("flipped"), free_all(), request("whole")]);
    workload(HARMED, Way::Staged, 8 * MIB, models.collect(), 7..11, steps)
}

/// A start where one was killed and another one lives: only the dead one's files go, what a fault keeps of them with the start after that.
fn neighboured() -> Case {
    let models = vec![small("a", 1), small("b", 2)];
    let dies = || dies_idle(spillproof_harness::crash::Deadly::Kill);
    let steps = [beside(load("b")), beside(free_all()), load("a"), free_all()]
        .into_iter()
        .chain(dies())
        .chain([beside(read_back("b")), beside(request("b"))])
        .chain([load("a"), free_all()])
        .chain(dies())
        .chain([load("a"), request("a")]);
    workload(NEIGHBOURED, Way::Staged, 8 * MIB, models, 5..6, steps)
}

/// cuFile goes through buffers of its own, and fails there.
fn compatible() -> Case {
    let steps = [load("a"), free_all(), request("a")];
    let model = plain("a", 1, &[64 << 10]);
    let mut case = workload(COMPATIBLE, Way::CuFile, 8 * MIB, vec![model], 1..3, steps);
    if let Gpu::Present { cufile, .. } = &mut case.gpu {
        *cufile = CuFile::COMPAT;
    }
    case
}
