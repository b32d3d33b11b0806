//! Bytes go away and come back: through every tier, in part and whole, once and again.
use super::*;
use crate::{Extent, FileTier, TransferPath};

const MODEL: &[(&str, u64)] = &[
    ("small", 1),
    ("page", 4096),
    ("odd", 4097),
    ("slots", 3 * MIB + 5),
    ("empty", 0),
    ("slot", MIB),
];
const MODEL_BYTES: u64 = 1 + 4096 + 4097 + 3 * MIB + 5 + MIB;

#[test]
fn every_tier_gives_back_what_it_was_given() {
    for (threshold, file_tier, tier) in [
        (TO_RAM, FileTier::Mapped, Tier::Ram),
        (TO_FILES, FileTier::Mapped, Tier::Mapped),
        (TO_FILES, FileTier::Closed, Tier::File),
    ] {
        for io_threads in [1, 2] {
            let fixture = Fixture::with(16 * MIB, |builder| {
                let builder = builder.threshold(threshold).file_tier(file_tier);
                builder.io_threads(io_threads)
            });
            fixture.load("m", MODEL);
            for _ in 0..2 {
                let report = fixture.free_all();
                assert_eq!(report.extent, Extent::Full);
                assert_eq!(report.freed_bytes, MODEL_BYTES);
                assert_eq!(fixture.driver.used_bytes(), 0);
                let mut tiers = fixture.tiers("m");
                assert_eq!(tiers.remove(4), Tier::Ram, "nothing is nowhere but here");
                assert_eq!(tiers, [tier; 5]);
                fixture.assert_mapped("m", MODEL);
                assert_eq!(fixture.assert_served("m", MODEL), 0);
                assert_eq!(fixture.tiers("m"), [Tier::Vram; 6]);
            }
            fixture.finish();
        }
    }
}

#[test]
fn a_freed_model_has_no_ram_copy_or_map_after_it_is_reloaded() {
    for threshold in [TO_RAM, TO_FILES] {
        let fixture = Fixture::new(16 * MIB, threshold);
        fixture.load("m", MODEL);
        fixture.free_all();
        fixture.engine.make_resident("m").unwrap();
        let tiers = fixture.engine.status().tiers;
        assert_eq!((tiers.vram, tiers.ram, tiers.mapped), (MODEL_BYTES, 0, 0));
        assert!(!maps_a_spill_file());
        fixture.finish();
    }
}

/// The fixture holds the turn of the fake driver, so no other test's engine has maps now.
fn maps_a_spill_file() -> bool {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .contains("-g0.spill")
}

#[test]
fn what_is_in_its_file_already_is_not_written_again_and_what_was_modified_is() {
    let fixture = Fixture::new(16 * MIB, TO_FILES);
    let model = &[("a", 5000), ("b", MIB + 1)];
    fixture.load("m", model);
    let first = fixture.free_all();
    let written: Vec<u64> = first
        .moves
        .iter()
        .map(|moved| moved.written_bytes)
        .collect();
    assert_eq!(written, [MIB + 4096, 8192]);
    assert!(maps_a_spill_file());
    fixture.assert_served("m", model);
    let second = fixture.free_all();
    for moved in &second.moves {
        assert_eq!((moved.written_bytes, moved.to), (0, Tier::Mapped));
        assert_eq!(moved.path, TransferPath::None);
    }
    assert_eq!(fixture.engine.status().written_bytes, MIB + 4096 + 8192);
    overwrite(&fixture.engine, "m", "a", 9);
    let third = fixture.free_all();
    assert_eq!(third.moves.len(), 1);
    assert_eq!(third.moves[0].written_bytes, 8192);
    let view = fixture.engine.map("m", "a").unwrap();
    assert!(read(&view).iter().all(|byte| *byte == 9));
    drop(view);
    fixture.finish();
}

#[test]
fn a_modified_block_gives_its_place_in_the_file_back() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new(16 * MIB, TO_FILES);
    fixture.load("m", &[("a", MIB), ("b", MIB)]);
    fixture.free_all();
    let path = fixture.spill_files().remove(0);
    let allocated = || path.metadata().unwrap().blocks() * 512;
    assert!(allocated() >= 2 * MIB);
    overwrite(&fixture.engine, "m", "a", 1);
    assert!(allocated() < 2 * MIB);
    assert!(allocated() >= MIB);
    overwrite(&fixture.engine, "m", "b", 1);
    assert!(fixture.spill_files().is_empty(), "nothing valid is in it");
    fixture.finish();
}

#[test]
fn a_partial_request_frees_the_most_recently_visited_blocks_and_stops_when_reached() {
    let fixture = Fixture::new(16 * MIB, TO_FILES);
    let model = &[("a", 1000), ("b", 2000), ("c", 3000)];
    fixture.load("m", model);
    for (bytes, names, extent) in [
        (0, vec![], Extent::Nothing),
        (3000, vec!["c"], Extent::Partial),
        (1, vec!["b"], Extent::Partial),
        (1000, vec!["a"], Extent::Full),
        (1, vec![], Extent::Nothing),
    ] {
        let report = fixture
            .engine
            .free_memory(Some("m"), MemoryRequest::AtLeast(bytes))
            .unwrap();
        let moved: Vec<_> = report
            .moves
            .iter()
            .map(|each| each.tensors.join(","))
            .collect();
        assert_eq!(
            (moved, report.extent),
            (names.iter().map(ToString::to_string).collect(), extent)
        );
    }
    fixture.assert_served("m", model);
    fixture.finish();
}

#[test]
fn the_model_whose_request_is_the_longest_ago_leaves_first() {
    let fixture = Fixture::new(16 * MIB, TO_RAM);
    let model = &[("a", 1000)];
    fixture.load("one", model);
    fixture.load("two", model);
    fixture.assert_served("one", model);
    fixture
        .engine
        .free_memory(None, MemoryRequest::AtLeast(1))
        .unwrap();
    assert_eq!(fixture.tiers("one"), [Tier::Vram]);
    assert_eq!(fixture.tiers("two"), [Tier::Ram]);
    fixture.finish();
}

#[test]
fn tensors_that_share_bytes_share_them_again_after_a_journey() {
    let fixture = Fixture::new(16 * MIB, TO_FILES);
    let mut shared = manifest(&[("whole", 8192)]);
    let mut part = shared.tensors[0].clone();
    part.name = "part".into();
    part.shape = vec![100];
    part.byte_offset = 4000;
    shared.tensors.push(part);
    fixture
        .engine
        .load("m", ModelSource::Manifest(shared))
        .unwrap();
    let report = fixture.free_all();
    assert_eq!(report.moves.len(), 1);
    assert_eq!(report.moves[0].tensors, ["whole", "part"]);
    assert_eq!(report.moves[0].written_bytes, 8192);
    overwrite(&fixture.engine, "m", "part", 1);
    fixture
        .engine
        .request("m", 0, &mut |tensor| {
            let mut out = [0; 100];
            let offset = if tensor.name() == "whole" { 4000 } else { 0 };
            tensor.read_at(offset, &mut out)?;
            assert_eq!(out, [1; 100], "{}", tensor.name());
            Ok(())
        })
        .unwrap();
    fixture.finish();
}

#[test]
fn a_dropped_model_leaves_nothing_and_its_name_is_free() {
    let fixture = Fixture::new(16 * MIB, TO_FILES);
    fixture.load("m", MODEL);
    assert_eq!(
        fixture
            .engine
            .load("m", ModelSource::Manifest(manifest(MODEL)))
            .unwrap_err()
            .kind(),
        crate::ErrorKind::InvalidArgument
    );
    fixture.free_all();
    fixture.assert_served("m", MODEL);
    assert_eq!(fixture.spill_files().len(), 1);
    fixture.engine.drop_model("m").unwrap();
    assert_eq!(fixture.spill_files().len(), 0);
    assert_eq!(fixture.driver.used_bytes(), 0);
    assert!(fixture.engine.drop_model("m").is_err());
    fixture.load("m", MODEL);
    fixture.finish();
}

#[test]
fn an_engine_that_is_dropped_without_close_leaves_nothing() {
    let fixture = Fixture::new(16 * MIB, TO_FILES);
    fixture.load("m", MODEL);
    fixture.free_all();
    let Fixture {
        driver,
        directory,
        engine,
    } = fixture;
    drop(engine);
    assert_eq!(driver.registered(), 0);
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[test]
fn what_a_write_leaves_out_is_zeros_and_no_other_tensors_bytes() {
    let fixture = Fixture::with(8 * MIB, |builder| builder.threshold(TO_FILES).io_threads(1));
    fixture.load("m", &[("a", 4096)]);
    fixture.load("other", &[("x", 4096)]);
    fixture
        .engine
        .write_tensor("m", "a", &mut |_, _| Ok(()))
        .unwrap();
    fixture.free_all();
    let view = fixture.engine.map("m", "a").unwrap();
    assert!(read(&view).iter().all(|byte| *byte == 0));
    drop(view);
    fixture.finish();
}
