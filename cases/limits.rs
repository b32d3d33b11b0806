//! Real limits of the kernel: small filesystems, file sizes, descriptors, address space, memory cgroups. Each is met with a typed
//! error that leaves device memory as it was and no partial file, and the next request is served once there is room.

use crate::{
    models::{ModelBuilder, plain},
    steps::{
        CaseWords as _, case, drop_model, fails, free, free_1e30, gib, load, read_back, request,
    },
    world_steps::{WorldWords as _, clear_volume, fill_volume, lift_limits, limit, may_fail},
};
use spillproof_harness::{
    case::{Amount, Case, Destinations, Expect, MIB, Model, Step},
    world::{LimitedResource, Volume},
};
use spillproof_protocol::{Dtype, ErrorKind, Tier};

/// A small volume: it holds 24 MiB and its own structures, and no second model of that size.
const VOLUME_BYTES: u64 = 32 * MIB;

/// Descriptors of headroom that are tried, from none to more than one store takes.
const DESCRIPTORS: std::ops::Range<u64> = 0..7;

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = small_volumes();
    cases.extend(in_memory());
    cases.extend(file_sizes());
    cases.extend(descriptors());
    cases.extend(address_space());
    cases.extend(groups());
    cases
}

fn six(name: &str, seed: u64) -> Model {
    plain(name, seed, &[4 * MIB; 6])
}

/// On each kind of small volume.
fn small_volumes() -> Vec<Case> {
    let on = |name: &str, models: Vec<Model>, steps: Vec<Step>| -> Vec<Case> {
        let bytes = VOLUME_BYTES;
        let disk = case("limits", format!("small_disk_{name}"), 64, models.clone())
            .on(Volume::SmallDisk { bytes })
            .steps(steps.clone());
        let memory = case("limits", format!("small_tmpfs_{name}"), 64, models)
            .on(Volume::SmallMemory { bytes })
            .set("OFFLOAD_TMPFS", "count")
            .in_ram(bytes)
            .steps(steps);
        vec![disk, memory]
    };
    let full = |step: Step| fails(step, ErrorKind::DiskFull);
    let mut cases = on(
        // 48 MiB of which the volume holds half: nothing is begun, and what fits is served.
        "holds_half",
        vec![plain("large", 1, &[8 * MIB; 6]), six("a", 2)],
        vec![
            load("large"),
            request("large"),
            full(free_1e30()),
            request("large"),
            free(Amount::whole(9 * MIB), Destinations::All(Tier::Mapped)),
            full(free_1e30()),
            read_back("large"),
            request("large"),
            drop_model("large"),
            load("a"),
            free_1e30(),
            read_back("a"),
            request("a"),
        ],
    );
    cases.extend(on(
        // One file of many pieces, written by several threads, that does not fit.
        "holds_half_of_one_tensor",
        vec![plain("one", 3, &[40 * MIB]), six("a", 4)],
        vec![
            load("one"),
            request("one"),
            full(free_1e30()),
            request("one"),
            drop_model("one"),
            load("a"),
            free_1e30(),
            request("a"),
        ],
    ));
    cases.extend(on(
        "fills_up_between_two_offloads",
        vec![six("a", 5), plain("b", 6, &[MIB; 4])],
        vec![
            load("b"),
            free_1e30(),
            load("a"),
            request("b"),
            fill_volume(6 * MIB),
            full(free_1e30()),
            request("a"),
            read_back("b"),
            request("b"),
            clear_volume(),
            free_1e30(),
            read_back("a"),
            read_back("b"),
            request("a"),
        ],
    ));
    cases.extend(on(
        "without_a_byte",
        vec![six("a", 7)],
        vec![
            load("a"),
            fill_volume(0),
            full(free_1e30()),
            request("a"),
            clear_volume(),
            free_1e30(),
            request("a"),
            fill_volume(0),
            // Its bytes are in the files already.
            free_1e30(),
            read_back("a"),
            request("a"),
        ],
    ));
    cases
}

/// An offload directory that takes RAM (E35).
fn in_memory() -> Vec<Case> {
    let steps = [load("a"), free_1e30(), read_back("a"), request("a")];
    vec![
        Case {
            open: Expect::Error(ErrorKind::Directory),
            ..case("limits", "tmpfs_refused", 32, Vec::new()).on(Volume::Memory)
        },
        case("limits", "tmpfs_counted_as_ram", 32, vec![six("a", 1)])
            .on(Volume::Memory)
            .set("OFFLOAD_TMPFS", "count")
            .in_ram(24 * MIB)
            .steps(steps),
        // RAM to plan with for half of the model: the files would take the other half of it, too.
        case(
            "limits",
            "tmpfs_larger_than_ram",
            32,
            vec![six("a", 1), plain("b", 2, &[2 * MIB; 2])],
        )
        .on(Volume::Memory)
        .set("OFFLOAD_TMPFS", "count")
        .set("OFFLOAD_RAM_LIMIT_GB", gib(12.0))
        .needs(spillproof_protocol::Capability::RamLimit)
        .in_ram(12 * MIB)
        .steps([
            load("a"),
            fails(free_1e30(), ErrorKind::HostMemory),
            request("a"),
            drop_model("a"),
            load("b"),
            free_1e30(),
            request("b"),
        ]),
        // Neither RAM nor the disk has room.
        case(
            "limits",
            "no_room_anywhere",
            64,
            vec![plain("large", 1, &[8 * MIB; 6])],
        )
        .on(Volume::SmallDisk {
            bytes: VOLUME_BYTES,
        })
        .set("OFFLOAD_RAM_LIMIT_GB", gib(24.0))
        .set("MMAP_MEM_THRESHOLD_GB", gib(20.0))
        .needs(spillproof_protocol::Capability::RamLimit)
        .in_ram(8 * MIB)
        .steps([
            load("large"),
            fails(free_1e30(), ErrorKind::DiskFull),
            request("large"),
            free(Amount::whole(8 * MIB), Destinations::Any),
            request("large"),
        ]),
    ]
}

/// `RLIMIT_FSIZE` below what is to be written: no SIGXFSZ, whether it is ignored or not (E24).
fn file_sizes() -> Vec<Case> {
    let models = || {
        vec![
            plain("large", 1, &[2 * MIB, 16 * MIB]),
            plain("a", 2, &[MIB; 4]),
        ]
    };
    let full = |step: Step| fails(step, ErrorKind::DiskFull);
    vec![
        case("limits", "file_size_from_the_start", 32, models())
            .files_below(6 * MIB)
            .steps([
                load("large"),
                full(free_1e30()),
                request("large"),
                drop_model("large"),
                load("a"),
                free_1e30(),
                read_back("a"),
                request("a"),
            ]),
        case("limits", "file_size_for_a_while", 32, models()).steps([
            load("large"),
            limit(LimitedResource::FileSize, 6 * MIB),
            full(free_1e30()),
            request("large"),
            limit(LimitedResource::FileSize, 0),
            full(free_1e30()),
            request("large"),
            lift_limits(),
            free_1e30(),
            read_back("large"),
            request("large"),
        ]),
    ]
}

/// `RLIMIT_NOFILE` down to nothing: an error, never a guess that something is unsupported (F36).
fn descriptors() -> Vec<Case> {
    let small = |name: &str| {
        let mut builder = ModelBuilder::new(name, 9);
        for tensor in 0..3 {
            builder = builder.tensor(&format!("t{tensor}"), Dtype::F16, &[1000]);
        }
        builder.build()
    };
    let names = ["m0", "m1", "m2", "m3", "m4", "m5"];
    vec![
        case("limits", "descriptors_at_a_store", 32, vec![six("a", 1)])
            .steps([
                load("a"),
                limit(LimitedResource::Descriptors, 0),
                fails(free_1e30(), ErrorKind::Io),
                lift_limits(),
            ])
            .steps(DESCRIPTORS.flat_map(|headroom| {
                [
                    limit(LimitedResource::Descriptors, headroom),
                    may_fail(free_1e30(), ErrorKind::Io),
                    lift_limits(),
                    // Whatever left before it failed is still there.
                    request("a"),
                    drop_model("a"),
                    load("a"),
                    request("a"),
                ]
            })),
        case("limits", "descriptors_at_a_reload", 32, vec![six("a", 1)])
            .file_only()
            .steps([
                load("a"),
                free(Amount::float(1e30), Destinations::All(Tier::File)),
            ])
            .steps(DESCRIPTORS.flat_map(|headroom| {
                [
                    limit(LimitedResource::Descriptors, headroom),
                    may_fail(request("a"), ErrorKind::Io),
                    lift_limits(),
                    request("a"),
                    free(Amount::float(1e30), Destinations::All(Tier::File)),
                ]
            })),
        case(
            "limits",
            "descriptors_of_many_models",
            32,
            names.map(small).to_vec(),
        )
        .steps(names.map(load))
        // Each model has a file of its own: the limit is reached in the middle.
        .steps([
            limit(LimitedResource::Descriptors, 4),
            may_fail(free_1e30(), ErrorKind::Io),
            lift_limits(),
        ])
        .steps(names.map(request))
        .steps([free_1e30()])
        .steps(names.map(request)),
    ]
}

/// `RLIMIT_AS`: what needs address space fails typed, and nothing aborts.
fn address_space() -> Vec<Case> {
    let refused = |step: Step| fails(step, ErrorKind::HostMemory);
    vec![
        case(
            "limits",
            "address_space_of_ram_copies",
            128,
            vec![plain("a", 1, &[16 * MIB; 4])],
        )
        .set("MMAP_MEM_THRESHOLD_GB", "0")
        .in_ram(64 * MIB)
        .steps([
            load("a"),
            limit(LimitedResource::AddressSpace, 24 * MIB),
            refused(free_1e30()),
            request("a"),
            refused(free_1e30()),
            lift_limits(),
            free(Amount::float(1e30), Destinations::All(Tier::Ram)),
            read_back("a"),
            request("a"),
        ]),
        // Files need none beyond staging that is there already; only maps do, and reading goes on without them.
        case(
            "limits",
            "address_space_of_maps",
            128,
            vec![plain("a", 1, &[16 * MIB; 4])],
        )
        .steps([
            load("a"),
            limit(LimitedResource::AddressSpace, 8 * MIB),
            may_fail(
                free(Amount::float(1e30), Destinations::Any),
                ErrorKind::HostMemory,
            ),
            request("a"),
            lift_limits(),
            free(Amount::float(1e30), Destinations::Any),
            read_back("a"),
            request("a"),
        ]),
    ]
}

/// A memory cgroup: its headroom decides what goes to RAM, and nobody is killed (E7, F65).
fn groups() -> Vec<Case> {
    vec![
        // The group leaves less than the threshold of 384 MiB at any time, the machine much more.
        case("limits", "group_sends_to_files", 32, vec![six("a", 1)])
            .in_group_of(256 * MIB)
            .set("MMAP_MEM_THRESHOLD_GB", gib(384.0))
            .steps([
                load("a"),
                request("a"),
                free_1e30(),
                read_back("a"),
                request("a"),
            ]),
        case(
            "limits",
            "group_with_room_keeps_in_ram",
            32,
            vec![six("a", 1)],
        )
        .in_group_of(512 * MIB)
        .set("MMAP_MEM_THRESHOLD_GB", gib(64.0))
        .in_ram(24 * MIB)
        .steps([
            load("a"),
            request("a"),
            free(Amount::float(1e30), Destinations::All(Tier::Ram)),
            read_back("a"),
            request("a"),
        ]),
        // More than the group holds: what is left over goes to files before the kernel would kill.
        case(
            "limits",
            "group_smaller_than_the_model",
            80,
            vec![plain("a", 1, &[8 * MIB; 8])],
        )
        .in_group_of(80 * MIB)
        .set("MMAP_MEM_THRESHOLD_GB", gib(24.0))
        .in_ram(64 * MIB)
        .steps([
            load("a"),
            free(Amount::float(1e30), Destinations::Any),
            read_back("a"),
            request("a"),
            free(Amount::float(1e30), Destinations::Any),
            request("a"),
        ]),
        case(
            "limits",
            "group_without_files_refuses",
            80,
            vec![plain("a", 1, &[8 * MIB; 8]), plain("b", 2, &[MIB])],
        )
        .in_group_of(64 * MIB)
        .set("MMAP_MEM_THRESHOLD_GB", "0")
        .in_ram(16 * MIB)
        .steps([
            load("a"),
            fails(free_1e30(), ErrorKind::HostMemory),
            request("a"),
            drop_model("a"),
            load("b"),
            free(Amount::float(1e30), Destinations::All(Tier::Ram)),
            request("b"),
        ]),
    ]
}
