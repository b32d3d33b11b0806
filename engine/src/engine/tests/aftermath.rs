//! What is told and what is kept after a fault: the first error and no later one, nothing that was made good, no bytes
//! twice.
use super::*;
use crate::ErrorKind;

const M: &[(&str, u64)] = &[("a", 2 * MIB), ("b", MIB), ("c", MIB)];

#[test]
fn a_refused_free_that_was_made_good_is_not_told_by_close() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.driver.fail("cuMemFree", 1, 2, 999);
    assert!(
        fixture
            .engine
            .free_memory(None, MemoryRequest::Full)
            .is_err()
    );
    fixture.free_all();
    fixture.engine.drop_model("m").unwrap();
    assert_eq!(fixture.engine.status().unreleased_bytes, 0);
    assert_eq!(fixture.engine.status().notes, Vec::<String>::new());
    fixture.finish();
}

#[test]
fn a_rollback_that_finds_no_room_is_not_told_by_close() {
    let model: &[(&str, u64)] = &[("a0", MIB), ("a1", MIB), ("a2", MIB)];
    let fixture = Fixture::with(2 * MIB, |builder| {
        builder.threshold(TO_RAM).ram_limit_bytes(Some(2 * MIB))
    });
    fixture.load("a", model);
    fixture.assert_served("a", model);
    for nth in 1..=3 {
        let mut visit = failing_at(nth, || Error::Cancelled("the visit"));
        let error = fixture.engine.request("a", 0, &mut visit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        assert_eq!(fixture.engine.status().notes, Vec::<String>::new());
    }
    fixture.assert_served("a", model);
    fixture.finish();
}

#[test]
fn a_failing_release_hides_neither_the_first_error_nor_the_panic() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.free_all();
    fixture.driver.fail("cuMemFree", 1, 1, 999);
    let error = fixture
        .engine
        .write_tensor("m", "a", &mut |_, _| Err(Error::Cancelled("the write")))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    // The first is the second try of what was refused above.
    fixture.driver.fail("cuMemFree", 2, 2, 999);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fixture
            .engine
            .write_tensor("m", "b", &mut |_, _| panic!("in the contents"))
    }));
    assert!(panicked.is_err());
    fixture.assert_served("m", M);
    fixture.finish();
}

#[test]
fn a_write_that_fails_before_it_begins_keeps_no_ram_copy_beside_the_device() {
    let fixture = Fixture::new(8 * MIB, TO_RAM);
    fixture.load("m", M);
    fixture.free_all();
    fixture.driver.fail("cuCtxSynchronize", 1, 1, 999);
    assert!(
        fixture
            .engine
            .write_tensor("m", "a", &mut |_, _| Ok(()))
            .is_err()
    );
    let shown = fixture.engine.status().tiers.ram;
    assert_eq!(fixture.engine.state().ram_bytes(), shown);
    fixture.assert_served("m", M);
    fixture.finish();
}
