//! Models that do not fit, and requests that fail half way.
use super::*;
use crate::ErrorKind;

const A: &[(&str, u64)] = &[("a0", MIB), ("a1", MIB), ("a2", MIB)];
const B: &[(&str, u64)] = &[("b0", 2 * MIB), ("b1", MIB)];

#[test]
fn a_model_larger_than_the_device_is_served_again_and_again() {
    for threshold in [TO_RAM, TO_FILES] {
        let fixture = Fixture::new(2 * MIB + MIB / 2, threshold);
        fixture.load("a", A);
        // One miss of two visits is the least that a cyclic walk over three blocks with room for two can have.
        let recoveries: Vec<u64> = (0..4).map(|_| fixture.assert_served("a", A)).collect();
        assert_eq!(recoveries, [1, 2, 1, 2]);
        let resident = fixture.driver.used_bytes();
        assert_eq!(resident, 2 * MIB);
        fixture.finish();
    }
}

#[test]
fn two_models_that_do_not_fit_together_take_turns() {
    let fixture = Fixture::new(4 * MIB, TO_FILES);
    fixture.load("a", A);
    fixture.load("b", B);
    for _ in 0..3 {
        fixture.assert_served("a", A);
        fixture.assert_served("b", B);
    }
    let written = fixture.engine.status().written_bytes;
    fixture.assert_served("a", A);
    fixture.assert_served("b", B);
    assert_eq!(fixture.engine.status().written_bytes, written);
    fixture.finish();
}

#[test]
fn a_workspace_makes_others_leave_first_and_is_given_back() {
    let fixture = Fixture::new(6 * MIB, TO_RAM);
    fixture.load("a", A);
    fixture.load("b", B);
    let report = fixture
        .engine
        .request("b", 2 * MIB, &mut |_| Ok(()))
        .unwrap();
    assert_eq!(report.recoveries, 1);
    assert_eq!(fixture.tiers("b"), [Tier::Vram; 2]);
    assert_eq!(fixture.driver.used_bytes(), 4 * MIB);
    fixture.finish();
}

#[test]
fn a_visitor_is_told_where_the_workspace_is_and_its_own_error_comes_through() {
    let fixture = Fixture::new(6 * MIB, TO_RAM);
    fixture.load("a", A);
    let mut seen = Vec::new();
    for bytes in [0, MIB] {
        let visited = fixture.engine.request("a", bytes, &mut |tensor| {
            seen.push(tensor.workspace_address());
            assert_ne!(tensor.workspace_address(), tensor.address());
            Ok(())
        });
        visited.unwrap();
    }
    assert_eq!(seen[..3], [0; 3]);
    assert!(seen[3] != 0 && seen[3..].iter().all(|address| *address == seen[3]));
    let error = fixture
        .engine
        .request("a", 0, &mut |_| {
            Err(Error::Caller("a layer of mine".into()))
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(error.to_string(), "a layer of mine");
    fixture.finish();
}

#[test]
fn a_workspace_larger_than_the_device_is_refused_and_nothing_leaves() {
    let fixture = Fixture::new(4 * MIB, TO_RAM);
    fixture.load("a", A);
    let error = fixture
        .engine
        .request("a", 4 * MIB + 1, &mut |_| Ok(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceOom);
    assert_eq!(fixture.tiers("a"), [Tier::Vram; 3]);
    fixture.finish();
}

#[test]
fn a_block_larger_than_what_is_left_beside_the_workspace_fails_and_holds_nothing_new() {
    let fixture = Fixture::new(4 * MIB, TO_FILES);
    fixture.load("b", B);
    fixture.free_all();
    let written = fixture.engine.status().written_bytes;
    let error = fixture
        .engine
        .request("b", 2 * MIB + 1, &mut |_| Ok(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceOom);
    assert_eq!(fixture.driver.used_bytes(), 0);
    assert_eq!(fixture.engine.status().written_bytes, written);
    assert_eq!(fixture.assert_served("b", B), 0);
    fixture.finish();
}

#[test]
fn a_visitor_that_fails_undoes_what_the_request_brought_in() {
    for threshold in [TO_RAM, TO_FILES] {
        let fixture = Fixture::new(8 * MIB, threshold);
        fixture.load("a", A);
        // One stays: what was there before is there after.
        fixture
            .engine
            .free_memory(None, MemoryRequest::AtLeast(2 * MIB))
            .unwrap();
        let before = fixture.engine.status();
        let outcome = fixture.engine.request(
            "a",
            MIB,
            &mut failing_at(3, || Error::Cancelled("the visit")),
        );
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
        let after = fixture.engine.status();
        assert_eq!(after.tiers, before.tiers);
        assert_eq!(after.written_bytes, before.written_bytes);
        assert_eq!(fixture.driver.used_bytes(), MIB);
        fixture.assert_served("a", A);
        fixture.finish();
    }
}

#[test]
fn a_visitor_that_panics_undoes_what_the_request_brought_in() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("a", A);
    fixture.free_all();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fixture
            .engine
            .request("a", MIB, &mut failing_at(2, || panic!("in the visitor")))
    }));
    assert!(panicked.is_err());
    assert_eq!(fixture.driver.used_bytes(), 0);
    fixture.assert_served("a", A);
    fixture.finish();
}

#[test]
fn a_visitor_may_ask_for_status_and_views_but_not_start_an_operation() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("a", A);
    fixture.load("b", B);
    fixture
        .engine
        .free_memory(Some("b"), MemoryRequest::Full)
        .unwrap();
    fixture
        .engine
        .request("a", 0, &mut |_| {
            assert_eq!(fixture.engine.status().models.len(), 2);
            read(&fixture.engine.map("b", "b0")?);
            let nested = fixture.engine.free_memory(None, MemoryRequest::Full);
            assert_eq!(nested.unwrap_err().kind(), ErrorKind::InvalidArgument);
            Ok(())
        })
        .unwrap();
    fixture.finish();
}

#[test]
fn making_resident_evicts_others_and_never_itself() {
    let fixture = Fixture::new(5 * MIB, TO_FILES);
    fixture.load("a", A);
    fixture.load("b", B);
    let report = fixture.engine.make_resident("a").unwrap();
    assert_eq!(report.recoveries, 1);
    assert_eq!(fixture.tiers("a"), [Tier::Vram; 3]);
    fixture.finish();

    let fixture = Fixture::new(5 * MIB / 2, TO_FILES);
    fixture.load("a", A);
    fixture.free_all();
    let error = fixture.engine.make_resident("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceOom);
    assert_eq!(fixture.driver.used_bytes(), 0);
    assert_eq!(fixture.tiers("a"), [Tier::Mapped; 3]);
    fixture.finish();
}

#[test]
fn a_model_that_cannot_be_loaded_is_not_there() {
    let fixture = Fixture::new(3 * MIB / 2, TO_FILES);
    fixture.load("m", &[("x", MIB)]);
    let source = ModelSource::Manifest(manifest(B));
    let error = fixture.engine.load("b", source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceOom);
    assert_eq!(fixture.engine.status().models.len(), 1);
    fixture.assert_served("m", &[("x", MIB)]);
    fixture.finish();
}

#[test]
fn ram_for_what_does_not_fit_on_the_device_and_one_block_more_is_enough() {
    // The copies that a walk keeps for a rollback would not fit beside the blocks that leave.
    let fixture = Fixture::with(2 * MIB, |builder| {
        builder.threshold(TO_RAM).ram_limit_bytes(Some(2 * MIB))
    });
    fixture.load("a", A);
    for _ in 0..3 {
        fixture.assert_served("a", A);
    }
    let error = fixture
        .engine
        .free_memory(None, MemoryRequest::Full)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostMemory);
    fixture.assert_served("a", A);
    fixture.finish();
}

#[test]
fn empty_models_are_models() {
    let fixture = Fixture::new(0, TO_FILES);
    let model = &[("none", 0)];
    fixture.load("m", model);
    assert_eq!(fixture.assert_served("m", model), 0);
    assert!(fixture.free_all().moves.is_empty());
    assert_eq!(fixture.engine.map("m", "none").unwrap().span_bytes(), 0);
    overwrite(&fixture.engine, "m", "none", 1);
    fixture.finish();
}
