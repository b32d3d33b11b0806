//! GPUDirect Storage in each of its states: bytes are right every time, the way they took is told as it was, and what cuFile
//! does not serve goes the staged way within the same budget.

use crate::{
    data::awkward_models,
    models::plain,
    steps::{
        CaseWords as _, ballast_leaves, case, drop_model, fails, free, free_1e30, hold, load,
        modify, read_back, read_held, release, release_ballast, request,
    },
    world_steps::{WorldWords as _, dies_during},
};
use spillproof_harness::{
    case::{Amount, Case, CuFile, CuFileFault, Destinations, Gpu, Limits, MIB, Model, Step},
    crash::{Deadly, Moment},
    world::Volume,
};
use spillproof_protocol::{Capability, ErrorKind, Tier, TransferPath};
use std::time::Duration;

/// What cuFile may hold for itself in compatibility mode: up to four buffers of 16 MiB, seen with version 1.15.
const COMPAT_BYTES: u64 = 64 * MIB;

/// The largest tensor of the models that travel in most cases.
const LARGEST_BYTES: u64 = 5 * MIB + 1;

/// Longest time for one call where the opening of cuFile's driver does not return.
const HANG_BOUND: Duration = Duration::from_secs(20);

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = healthy();
    cases.extend(refusing());
    cases.extend(awkward());
    cases.extend(pressed());
    cases.extend(as_found());
    cases
}

/// Around pages and pieces of transfers.
fn mixed(name: &str, seed: u64) -> Model {
    plain(
        name,
        seed,
        &[2 * MIB, LARGEST_BYTES, 65_537, 4096, 4095, 1, 8192, MIB - 1],
    )
}

fn gds(name: &str, vram_mib: u64, models: Vec<Model>, cufile: CuFile) -> Case {
    let mut case = case("gds", name, vram_mib, models)
        .set("OFFLOAD_CUFILE", "on")
        .needs(Capability::CuFile);
    if let Gpu::Present { cufile: found, .. } = &mut case.gpu {
        *found = cufile;
    }
    if let CuFile::Present { compat: true, .. } = cufile {
        case.limits.slack_bytes += COMPAT_BYTES;
    }
    case
}

/// The case as a real machine can run it: the way is whichever its own cuFile takes.
#[must_use]
pub fn on_a_real_device(mut case: Case) -> Case {
    if let Gpu::Present {
        cufile: CuFile::AsFound,
        ..
    } = case.gpu
    {
        case.limits.slack_bytes += COMPAT_BYTES;
        case.path = None;
    }
    case
}

fn by(path: TransferPath, case: Case) -> Case {
    Case {
        path: Some(path),
        ..case
    }
}

fn broken(compat: bool, fault: CuFileFault) -> CuFile {
    CuFile::Present {
        compat,
        fault: Some(fault),
    }
}

/// To files and back, twice, and once more after a change.
fn journey(tier: Tier) -> Vec<Step> {
    let free_all = || free(Amount::float(1e30), Destinations::All(tier));
    vec![
        load("a"),
        request("a"),
        free_all(),
        read_back("a"),
        request("a"),
        modify("a", "t1", 77),
        free_all(),
        read_back("a"),
        request("a"),
        drop_model("a"),
    ]
}

fn through(name: &str, cufile: CuFile, path: TransferPath, setting: &str) -> Case {
    let case = gds(name, 48, vec![mixed("a", 1)], cufile)
        .set("OFFLOAD_CUFILE", setting)
        .needs(Capability::Modify);
    by(path, case)
}

/// Nothing is wrong with it.
fn healthy() -> Vec<Case> {
    use TransferPath::{CuFile as Direct, CuFileCompat as Compat, Staged};
    let (direct, compat) = (CuFile::DIRECT, CuFile::COMPAT);
    let mapped = |case: Case| case.steps(journey(Tier::Mapped));
    let closed = |case: Case| case.file_only().steps(journey(Tier::File));
    vec![
        mapped(through("direct", direct, Direct, "on")),
        closed(through("direct_file_only", direct, Direct, "on")),
        mapped(through("compat", compat, Compat, "on")),
        closed(through("compat_file_only", compat, Compat, "on")),
        mapped(through("auto_direct", direct, Direct, "auto")),
        // It costs what staging costs, and more memory.
        mapped(through("auto_compat", compat, Staged, "auto")),
        mapped(through("off", direct, Staged, "off")),
        mapped(through("absent", CuFile::Absent, Staged, "on")),
    ]
}

/// It refuses, hangs, does less than asked, or goes away.
fn refusing() -> Vec<Case> {
    use CuFileFault::{BuffersRefused, ClosesAfter, HandlesRefused, OpenHangs, OpenRefused, Short};
    use TransferPath::{CuFile as Direct, Staged};
    let refusing = |name: &str, compat: bool, fault: CuFileFault, path: TransferPath| {
        through(name, broken(compat, fault), path, "on").steps(journey(Tier::Mapped))
    };
    let mut cases = vec![
        refusing("open_refused_5001", false, OpenRefused(5001), Staged),
        refusing("open_refused_5033", false, OpenRefused(5033), Staged),
        refusing("handles_refused_5008", false, HandlesRefused(5008), Staged),
        refusing("handles_refused_5027", true, HandlesRefused(5027), Staged),
        refusing("handles_refused_5030", false, HandlesRefused(5030), Staged),
        refusing("short_transfers", false, Short(65_536), Direct),
        refusing("short_transfers_of_a_page", false, Short(4096), Direct),
    ];
    // Only for what goes in several calls, 16 MiB each, is memory worth registering, and in compatibility mode never.
    let refused = broken(false, BuffersRefused(5036));
    let large = vec![plain("a", 1, &[2 * MIB, 33 * MIB + 1, 4096])];
    cases.push(
        by(Direct, gds("buffers_refused_5036", 64, large, refused))
            .needs(Capability::Modify)
            .steps(journey(Tier::Mapped)),
    );
    // What it refuses is not gathered in host memory: 24 MiB would show over the 8 of staging.
    let refused = broken(false, HandlesRefused(5027));
    let six = vec![plain("a", 1, &[4 * MIB; 6])];
    cases.push(
        by(Staged, gds("handles_refused_with_24_mib", 32, six, refused))
            .file_only()
            .steps([
                load("a"),
                free(Amount::float(1e30), Destinations::All(Tier::File)),
                request("a"),
            ]),
    );
    let hanging = refusing("open_hangs", false, OpenHangs, Staged);
    cases.push(Case {
        limits: Limits {
            call: HANG_BOUND,
            ..hanging.limits.clone()
        },
        ..hanging
    });
    // Nobody can say which block is the first that it no longer serves.
    for (name, compat) in [("closed_early", false), ("closed_early_compat", true)] {
        let closed = refusing(name, compat, ClosesAfter(12), Direct);
        let limits = Limits {
            rewritten_bytes: LARGEST_BYTES,
            ..closed.limits.clone()
        };
        cases.push(Case {
            path: None,
            limits,
            ..closed
        });
    }
    cases
}

/// Data that is easy to get wrong, through each tier; directly where the device is emulated.
fn awkward() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, model) in awkward_models() {
        for (tier, word) in [(Tier::Mapped, "mapped"), (Tier::File, "file")] {
            let free_all = || free(Amount::float(1e30), Destinations::All(tier));
            let case = gds(
                &format!("{name}_through_{word}"),
                64,
                vec![model.clone()],
                CuFile::AsFound,
            );
            let case = by(TransferPath::CuFile, case).steps([
                load("m"),
                free_all(),
                read_back("m"),
                request("m"),
                free_all(),
                request("m"),
            ]);
            cases.push(match tier {
                Tier::File => case.file_only(),
                Tier::Vram | Tier::Ram | Tier::Mapped => case,
            });
        }
    }
    cases
}

/// Short of memory or disk, again and again, held, killed.
fn pressed() -> Vec<Case> {
    let direct = |name: &str, vram_mib: u64, models: Vec<Model>| {
        by(
            TransferPath::CuFile,
            gds(name, vram_mib, models, CuFile::AsFound),
        )
    };
    let closed = || free(Amount::float(1e30), Destinations::All(Tier::File));
    let six = |name: &str, seed: u64| plain(name, seed, &[4 * MIB; 6]);
    let alternating = (0..20).map(|index| request(if index % 2 == 0 { "a" } else { "b" }));
    let last_is_large = plain("a", 1, &[2 * MIB, 2 * MIB, 2 * MIB, 16 * MIB]);
    vec![
        // Nothing of what travels passes through the process's memory.
        direct(
            "forced_1e30_256_mib",
            320,
            vec![plain("big", 3, &[64 * MIB; 4])],
        )
        .file_only()
        .steps([load("big"), closed(), request("big")]),
        direct(
            "repeated_requests",
            20,
            vec![plain("a", 1, &[2 * MIB; 6]), plain("b", 2, &[3 * MIB; 4])],
        )
        .steps([load("a"), load("b")])
        .steps(alternating),
        direct("oom_in_the_middle_of_a_reload", 32, vec![last_is_large]).steps([
            load("a"),
            request("a"),
            free_1e30(),
            ballast_leaves(8 * MIB),
            fails(request("a"), ErrorKind::DeviceOom),
            read_back("a"),
            release_ballast(),
            request("a"),
        ]),
        direct("larger_than_vram", 32, vec![plain("a", 1, &[4 * MIB; 12])]).steps([
            load("a"),
            request("a"),
            request("a"),
            free_1e30(),
            read_back("a"),
        ]),
        direct(
            "disk_full",
            64,
            vec![plain("large", 1, &[8 * MIB; 6]), six("a", 2)],
        )
        .on(Volume::SmallDisk { bytes: 32 * MIB })
        .steps([
            load("large"),
            fails(free_1e30(), ErrorKind::DiskFull),
            request("large"),
            drop_model("large"),
            load("a"),
            free_1e30(),
            request("a"),
        ]),
        // cuFile takes no files there, in whichever mode it is.
        by(
            TransferPath::Staged,
            gds("directory_on_tmpfs", 32, vec![six("a", 1)], CuFile::AsFound),
        )
        .on(Volume::Memory)
        .set("OFFLOAD_TMPFS", "count")
        .in_ram(24 * MIB)
        .steps([load("a"), free_1e30(), read_back("a"), request("a")]),
        direct("view_held_across_drop", 32, vec![six("a", 1), six("b", 2)])
            .needs(Capability::Views)
            .steps([
                load("a"),
                free_1e30(),
                hold("a", "t2", "v"),
                drop_model("a"),
                load("b"),
                free_1e30(),
                read_held("v"),
                request("b"),
                read_held("v"),
                release("v"),
            ]),
        direct("killed_during_an_offload", 32, vec![six("a", 1)])
            .set("OFFLOAD_STAGING_MB", "4")
            .steps([1, 4, 8, 12].into_iter().flat_map(|mib| {
                let when = Moment::Freed { bytes: mib * MIB };
                [load("a")]
                    .into_iter()
                    .chain(dies_during(Deadly::Kill, free_1e30(), when))
            }))
            .steps([load("a"), free_1e30(), request("a")]),
    ]
}

/// Whatever the machine has: the way is its own, everything else must be right.
fn as_found() -> Vec<Case> {
    let found = |name: &str, setting: &str| {
        gds(name, 48, vec![mixed("a", 1)], CuFile::AsFound)
            .set("OFFLOAD_CUFILE", setting)
            .needs(Capability::Modify)
    };
    let big = || vec![plain("a", 1, &[16 * MIB; 6])];
    vec![
        found("as_found_on", "on").steps(journey(Tier::Mapped)),
        found("as_found_on_file_only", "on")
            .file_only()
            .steps(journey(Tier::File)),
        found("as_found_auto", "auto").steps(journey(Tier::Mapped)),
        found("as_found_off", "off").steps(journey(Tier::Mapped)),
        gds("as_found_larger_than_vram", 64, big(), CuFile::AsFound).steps([
            load("a"),
            request("a"),
            request("a"),
            free_1e30(),
            read_back("a"),
        ]),
    ]
}
