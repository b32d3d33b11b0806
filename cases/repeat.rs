//! Repeated requests in one process: memory stays flat, and only what changed is written again.

use crate::{
    models::{ModelBuilder, plain},
    steps::{CaseWords as _, case, free, load, modify, read_back, request, request_unseen},
};
use spillproof_harness::case::{Amount, Case, Destinations, Limits, MIB, Model, Step};
use spillproof_protocol::{Capability, Dtype, Fill, Tier};
use std::time::Duration;

/// Requests in a row.
const REQUESTS: usize = 50;

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    [small(), vec![nine_gib()]].concat()
}

/// The parent project's setting on a model larger than 8 GiB, ten times over. No emulated device is that large.
fn nine_gib() -> Case {
    let model = fused("m", 1, 36, 32);
    let to_files = || free(Amount::float(1e30), Destinations::All(Tier::Mapped));
    // SHA-256 of nine GiB, where a subject uses that, takes ten times as long as bringing them back: the first and the last round
    // have digests.
    let unseen = (0..8).flat_map(|_| [request_unseen("m"), to_files()]);
    Case {
        limits: Limits {
            call: Duration::from_secs(300),
            ..Limits::default()
        },
        ..case("repeat", "threshold_512_nine_gib", 12 << 10, vec![model])
            .set("OFFLOAD_STAGING_MB", "48")
            .set("OFFLOAD_IO_THREADS", "3")
            .steps([load("m"), to_files(), request("m"), to_files()])
            .steps(unseen)
            .steps([request("m"), to_files(), read_back("m")])
    }
}

/// A model of so many storages of 256 MiB, each with so many tensors side by side. What touches moves as one, so large moves stay
/// large; but the digest of one tensor is one thread's work, and small tensors are digested beside each other.
fn fused(name: &str, seed: u64, storages: u64, tensors: u64) -> Model {
    let storage_bytes = 256 * MIB;
    let bytes = storage_bytes / tensors;
    let mut model = ModelBuilder::new(name, seed);
    for storage in 0..storages {
        let of = format!("s{storage}");
        model = model.storage(&of, storage_bytes, Fill::Seed(seed * 1000 + storage));
        for part in 0..tensors {
            let tensor = format!("t{storage}.{part}");
            model = model.view(&tensor, &of, Dtype::U8, &[bytes], None, part * bytes);
        }
    }
    model.build()
}

fn small() -> Vec<Case> {
    // 12 MiB each on 20 MiB: every request lets something of the other model go.
    let models = || vec![plain("a", 1, &[2 * MIB; 6]), plain("b", 2, &[3 * MIB; 4])];
    let alternating = || -> Vec<Step> {
        let requests = (0..REQUESTS).map(|index| request(if index % 2 == 0 { "a" } else { "b" }));
        [load("a"), load("b")].into_iter().chain(requests).collect()
    };
    vec![
        case("repeat", "threshold_0", 20, models())
            .set("MMAP_MEM_THRESHOLD_GB", "0")
            .in_ram(24 * MIB)
            .steps(alternating()),
        // 0.4 GiB to plan with is less than 0.5: files, unless the fraction is lost.
        case("repeat", "threshold_fraction", 20, models())
            .set("MMAP_MEM_THRESHOLD_GB", "0.5")
            .set("OFFLOAD_RAM_LIMIT_GB", "0.4")
            .needs(Capability::RamLimit)
            .steps(alternating())
            .steps([free(Amount::float(1e30), Destinations::All(Tier::Mapped))]),
        case("repeat", "threshold_512", 20, models()).steps(alternating()),
        case("repeat", "threshold_512_file_only", 20, models())
            .file_only()
            .steps(alternating()),
        case("repeat", "modified_data_is_written_again", 20, models())
            .needs(Capability::Modify)
            .steps([
                load("a"),
                load("b"),
                request("a"),
                request("b"),
                modify("a", "t3", 77),
                request("a"),
                request("b"),
                free(Amount::Unsaid, Destinations::All(Tier::Mapped)),
                request("a"),
                modify("b", "t0", 78),
                modify("b", "t0", 79),
                request("b"),
                request("a"),
            ]),
    ]
}
