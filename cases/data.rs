//! Data that is easy to get wrong: every dtype, odd sizes, views, ties, nothing at all, NaN payloads;
//! each through RAM, mapped files and files only. Published checkpoints too.

use crate::{
    models::{ModelBuilder, PUBLISHED, plain},
    steps::{CaseWords as _, STAGING_MIB, case, free, free_1e30, load, modify, read_back, request},
};
use spillproof_harness::case::{Amount, Case, Destinations, MIB, Model};
use spillproof_protocol::{Capability, Dtype, Fill, Tier};

/// Device memory of the family's GPUs, MiB.
const VRAM_MIB: u64 = 64;

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    let models = awkward_models();
    let mut cases = Vec::new();
    for (name, model) in models {
        for tier in [Tier::Ram, Tier::Mapped, Tier::File] {
            cases.push(through(name, model.clone(), tier));
        }
    }
    cases.push(
        case(
            "data",
            "tied_stay_tied_when_modified",
            VRAM_MIB,
            vec![tied()],
        )
        .needs(Capability::Modify)
        .steps([
            load("m"),
            free_1e30(),
            modify("m", "head", 99),
            request("m"),
            free_1e30(),
            read_back("m"),
            request("m"),
        ]),
    );
    for published in PUBLISHED {
        let model = published.scaled("m", 11);
        cases.push(through(
            &format!("published_{}", published.name.replace(['.', '-'], "_")),
            model,
            Tier::Mapped,
        ));
    }
    cases
}

/// Everything that is easy to get wrong, as a model `m` each.
pub(crate) fn awkward_models() -> [(&'static str, Model); 6] {
    [
        ("dtypes", every_dtype()),
        ("odd_sizes", odd_sizes()),
        ("views", views()),
        ("tied", tied()),
        ("empty", empty()),
        ("nan_payloads", nan_payloads()),
    ]
}

/// Two whole journeys of a model through a tier.
fn through(name: &str, model: Model, tier: Tier) -> Case {
    let free_all = || free(Amount::float(1e30), Destinations::All(tier));
    let steps = [
        load("m"),
        request("m"),
        free_all(),
        read_back("m"),
        request("m"),
        free_all(),
        read_back("m"),
        request("m"),
    ];
    let base = case(
        "data",
        format!("{name}_through_{tier}"),
        VRAM_MIB,
        vec![model],
    )
    .steps(steps);
    match tier {
        Tier::Vram | Tier::Mapped => base,
        Tier::Ram => base
            .set("MMAP_MEM_THRESHOLD_GB", "0")
            .in_ram(VRAM_MIB * MIB),
        Tier::File => base.file_only(),
    }
}

fn every_dtype() -> Model {
    let mut builder = ModelBuilder::new("m", 21);
    for dtype in Dtype::ALL {
        builder = builder.tensor(dtype.name(), *dtype, &[3, 5, 7]).tensor(
            &format!("{}_scalar", dtype.name()),
            *dtype,
            &[],
        );
    }
    builder.build()
}

/// Around a page, around the staging budget, and around the halves of it that two I/O threads get.
fn odd_sizes() -> Model {
    let mut sizes = Vec::new();
    for border in [4096, STAGING_MIB / 2 * MIB, STAGING_MIB * MIB] {
        sizes.extend([border - 1, border, border + 1]);
    }
    sizes.extend([1, 2, 3, 511, 513, 65_537]);
    plain("m", 22, &sizes)
}

fn views() -> Model {
    ModelBuilder::new("m", 23)
        .storage("s", 96_000, Fill::Seed(231))
        .view("offset", "s", Dtype::F32, &[100], None, 4_004)
        .view(
            "transposed",
            "s",
            Dtype::F32,
            &[30, 20],
            Some(&[1, 30]),
            8_000,
        )
        .view("every_third", "s", Dtype::I16, &[50], Some(&[3]), 12_002)
        .view("broadcast", "s", Dtype::F64, &[4, 6], Some(&[0, 1]), 16_000)
        .view("overlapping", "s", Dtype::U8, &[3_000], None, 4_100)
        .view("last_byte", "s", Dtype::U8, &[1], None, 95_999)
        // A small window into a storage that is far larger than everything else here: the rest must not travel.
        .storage("huge", 16 * MIB, Fill::Seed(232))
        .view("window", "huge", Dtype::Bf16, &[64, 8], None, 9 * MIB + 2)
        .build()
}

fn tied() -> Model {
    ModelBuilder::new("m", 24)
        .storage("embedding", 3 * MIB, Fill::Seed(241))
        .view("embed", "embedding", Dtype::Bf16, &[1536, 1024], None, 0)
        .view("head", "embedding", Dtype::Bf16, &[1536, 1024], None, 0)
        .view(
            "head_transposed",
            "embedding",
            Dtype::Bf16,
            &[1024, 1536],
            Some(&[1, 1024]),
            0,
        )
        .tensor("other", Dtype::F32, &[1000])
        .build()
}

fn empty() -> Model {
    ModelBuilder::new("m", 25)
        .tensor("before", Dtype::F32, &[10])
        .tensor("no_rows", Dtype::F32, &[0, 7])
        .tensor("no_columns", Dtype::I4, &[7, 0])
        .storage("nothing", 0, Fill::Seed(1))
        .view(
            "strided_nothing",
            "nothing",
            Dtype::F64,
            &[0, 3],
            Some(&[5, 1]),
            0,
        )
        .tensor("after", Dtype::F32, &[10])
        .build()
}

/// Quiet and signalling NaNs with payloads, negative zeros, infinities and subnormals, as chosen bits.
fn nan_payloads() -> Model {
    let f32_bits = "0100807f0100c07fbeba807fefbeadff00000080000080ff0000807f01000000";
    let f64_bits = "010000000000f07f010000000000f8ffefbeaddefecaf17f0000000000000080";
    let f16_bits = "017c017eff7fffff0080007c00fc0100";
    ModelBuilder::new("m", 26)
        .storage("f32", 40_000, Fill::Repeat(f32_bits.into()))
        .view("f32", "f32", Dtype::F32, &[10_000], None, 0)
        .storage("f64", 40_000, Fill::Repeat(f64_bits.into()))
        .view("f64", "f64", Dtype::F64, &[5_000], None, 0)
        .storage("f16", 40_000, Fill::Repeat(f16_bits.into()))
        .view("f16", "f16", Dtype::F16, &[100, 100], None, 0)
        .view("bf16", "f16", Dtype::Bf16, &[100, 100], None, 20_000)
        .build()
}
