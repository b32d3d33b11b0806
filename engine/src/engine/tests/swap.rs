//! One model leaves while another one arrives.
use super::*;
use std::{sync::Arc, thread};

const A: &[(&str, u64)] = &[("a1", MIB), ("a2", MIB)];
const B: &[(&str, u64)] = &[("b1", MIB), ("b2", MIB)];

/// "a" on the device, "b" in its file.
fn fixture(capacity: u64) -> Fixture {
    let fixture = Fixture::new(capacity, TO_FILES);
    fixture.load("b", B);
    fixture.free_all();
    fixture.load("a", A);
    fixture
}

/// Lets "a" leave, stops it at its first copy from the device, does `meanwhile` and lets it go on.
fn while_a_leaves(fixture: &Fixture, meanwhile: impl FnOnce(&Gate)) {
    let gate = Arc::new(Gate::new());
    let stopped = Arc::clone(&gate);
    fixture.driver.meanwhile("cuMemcpyDtoHAsync", 1, move || {
        stopped.stop_here().unwrap();
    });
    thread::scope(|scope| {
        let leaving = scope.spawn(|| fixture.engine.free_memory(Some("a"), MemoryRequest::Full));
        gate.wait_until_reached();
        meanwhile(&gate);
        assert_eq!(leaving.join().unwrap().unwrap().freed_bytes, 2 * MIB);
    });
    assert_eq!(fixture.tiers("a"), [Tier::Mapped; 2]);
}

#[test]
fn a_model_arrives_while_another_one_leaves() {
    for request in [true, false] {
        let fixture = fixture(8 * MIB);
        while_a_leaves(&fixture, |gate| {
            if request {
                fixture.assert_served("b", B);
            } else {
                fixture.engine.make_resident("b").unwrap();
            }
            fixture.load("c", A);
            assert_eq!(fixture.tiers("a"), [Tier::Vram; 2], "it has not left yet");
            gate.open();
        });
        fixture.assert_served("b", B);
        fixture.assert_served("a", A);
        fixture.assert_served("c", A);
        fixture.finish();
    }
}

#[test]
fn one_that_needs_what_leaves_waits_for_it_and_takes_nothing_else() {
    let fixture = fixture(2 * MIB);
    while_a_leaves(&fixture, |gate| {
        thread::scope(|scope| {
            let arriving = scope.spawn(|| fixture.engine.make_resident("b"));
            until(&fixture.engine, "it is out of memory", |_| {
                fixture.driver.used_bytes() == 2 * MIB && fixture.driver.calls("cuMemGetInfo") > 0
            });
            assert_eq!(fixture.tiers("b"), [Tier::Mapped; 2]);
            gate.open();
            assert_eq!(arriving.join().unwrap().unwrap().recoveries, 1);
        });
    });
    fixture.assert_served("b", B);
    fixture.finish();
}

#[test]
fn who_changes_a_model_that_leaves_comes_after_it() {
    let fixture = fixture(8 * MIB);
    while_a_leaves(&fixture, |gate| {
        thread::scope(|scope| {
            let change = scope.spawn(|| overwrite(&fixture.engine, "a", "a1", 7));
            let second = scope.spawn(|| fixture.engine.make_resident("a"));
            until(&fixture.engine, "both wait for their turn", |state| {
                state.turns.len() == 3
            });
            gate.open();
            change.join().unwrap();
            second.join().unwrap().unwrap();
        });
        fixture
            .engine
            .free_memory(Some("a"), MemoryRequest::Full)
            .unwrap();
    });
    let view = fixture.engine.map("a", "a1").unwrap();
    assert!(read(&view).iter().all(|byte| *byte == 7));
    drop(view);
    fixture.finish();
}
