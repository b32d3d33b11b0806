//! Out of memory: requests to free memory, of every size, and device memory that runs out by itself.
//! The parent project's endless loop (origin.md) is `forced_1e30`.

use crate::{
    models::plain,
    steps::{
        CaseWords as _, ballast_leaves, case, fails, free, free_1e30, gib, load, read_back,
        release_ballast, request, request_with,
    },
};
use spillproof_harness::case::{Amount, Case, Destinations, MIB, Model};
use spillproof_protocol::{Capability, ErrorKind, Tier};

/// Six tensors of 4 MiB.
fn six(name: &str, seed: u64) -> Model {
    plain(name, seed, &[4 * MIB; 6])
}

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    [forced(), partial(), refused(), exhausted()].concat()
}

/// Everything must leave, whatever RAM is free, and the next request succeeds.
fn forced() -> Vec<Case> {
    let forced = |name: &str, amount: Amount, to: Destinations| {
        // Model b fits only when all of a has left.
        case("oom", name, 32, vec![six("a", 1), six("b", 2)]).steps([
            load("a"),
            request("a"),
            free(amount, to),
            read_back("a"),
            load("b"),
            request("b"),
            free(amount, Destinations::Any),
            request("a"),
        ])
    };
    let mapped = || Destinations::All(Tier::Mapped);
    let big = vec![plain("big", 3, &[64 * MIB; 8])];
    vec![
        forced("forced_1e30", Amount::float(1e30), mapped()),
        forced(
            "forced_1e30_file_only",
            Amount::float(1e30),
            Destinations::All(Tier::File),
        )
        .file_only(),
        forced(
            "forced_1e30_plenty_of_ram",
            Amount::float(1e30),
            Destinations::All(Tier::Ram),
        )
        .set("MMAP_MEM_THRESHOLD_GB", "0.001")
        .in_ram(48 * MIB),
        // available 40 MiB, threshold 28 MiB: three tensors of 4 MiB leave it at or above, the fourth would not.
        forced(
            "forced_1e30_little_ram",
            Amount::float(1e30),
            Destinations::Split {
                ram_bytes: 12 * MIB,
                rest: Tier::Mapped,
            },
        )
        .set("OFFLOAD_RAM_LIMIT_GB", gib(40.0))
        .set("MMAP_MEM_THRESHOLD_GB", gib(28.0))
        .needs(Capability::RamLimit)
        .in_ram(12 * MIB),
        forced("forced_infinite", Amount::float(f64::INFINITY), mapped()),
        forced("forced_largest_integer", Amount::whole(u64::MAX), mapped()),
        forced("forced_unsaid", Amount::Unsaid, mapped()),
        forced("forced_exactly_loaded", Amount::Loaded, mapped()),
        forced("forced_single_thread", Amount::float(1e30), mapped())
            .set("OFFLOAD_IO_THREADS", "1"),
        Case {
            limits: spillproof_harness::case::Limits::default(),
            ..case("oom", "forced_1e30_512_mib", 640, big)
                .set("OFFLOAD_STAGING_MB", "48")
                .set("OFFLOAD_IO_THREADS", "3")
                .steps([
                    load("big"),
                    free_1e30(),
                    request("big"),
                    free_1e30(),
                    read_back("big"),
                ])
        },
    ]
}

/// Partial requests: at least what was asked, and not one tensor more.
fn partial() -> Vec<Case> {
    let partial = |name: &str, amount: Amount| {
        case("oom", name, 32, vec![six("a", 1)]).steps([
            load("a"),
            request("a"),
            free(amount, Destinations::All(Tier::Mapped)),
            read_back("a"),
            request("a"),
            free(amount, Destinations::All(Tier::Mapped)),
            free_1e30(),
        ])
    };
    vec![
        partial("partial_one_byte", Amount::whole(1)),
        partial("partial_two_tensors_exactly", Amount::whole(8 * MIB)),
        partial("partial_one_byte_more", Amount::whole(8 * MIB + 1)),
        partial("partial_just_below_loaded", Amount::LoadedButOne),
        partial("partial_zero", Amount::whole(0)),
    ]
}

/// Amounts that mean nothing: an error, and nothing moves.
fn refused() -> Vec<Case> {
    let refused = |name: &str, amount: f64| {
        case("oom", name, 32, vec![six("a", 1)]).steps([
            load("a"),
            fails(
                free(Amount::float(amount), Destinations::Any),
                ErrorKind::InvalidArgument,
            ),
            request("a"),
            free_1e30(),
        ])
    };
    vec![
        refused("refused_nan", f64::NAN),
        refused("refused_negative", -1.0),
        refused("refused_negative_infinity", f64::NEG_INFINITY),
    ]
}

/// Device memory that runs out: by a model, by a workspace, by another process.
fn exhausted() -> Vec<Case> {
    let twelve = || plain("a", 1, &[4 * MIB; 12]);
    let last_is_large = || plain("a", 1, &[2 * MIB, 2 * MIB, 2 * MIB, 16 * MIB]);
    vec![
        case("oom", "larger_than_vram", 32, vec![twelve()]).steps([
            load("a"),
            request("a"),
            request("a"),
            free_1e30(),
            read_back("a"),
            request("a"),
        ]),
        case("oom", "larger_than_vram_in_ram", 32, vec![twelve()])
            .set("MMAP_MEM_THRESHOLD_GB", "0")
            .in_ram(48 * MIB)
            .steps([load("a"), request("a"), request("a")]),
        case("oom", "workspace_too_large", 32, vec![six("a", 1)]).steps([
            load("a"),
            fails(request_with("a", 40 * MIB), ErrorKind::DeviceOom),
            request("a"),
        ]),
        case("oom", "ballast", 32, vec![six("a", 1)]).steps([
            load("a"),
            request("a"),
            free_1e30(),
            ballast_leaves(10 * MIB),
            request("a"),
            release_ballast(),
            request("a"),
        ]),
        case("oom", "ballast_while_loaded", 32, vec![six("a", 1)]).steps([
            load("a"),
            ballast_leaves(MIB),
            request_with("a", 4 * MIB),
            free_1e30(),
            request("a"),
            release_ballast(),
            request("a"),
        ]),
        case(
            "oom",
            "at_the_last_tensor_of_a_reload",
            32,
            vec![last_is_large()],
        )
        .steps([
            load("a"),
            request("a"),
            free_1e30(),
            ballast_leaves(8 * MIB),
            fails(request("a"), ErrorKind::DeviceOom),
            fails(request("a"), ErrorKind::DeviceOom),
            read_back("a"),
            release_ballast(),
            request("a"),
        ]),
    ]
}
