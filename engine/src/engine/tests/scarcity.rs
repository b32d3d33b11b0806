//! Requests beside each other on a device that does not hold all that they need: who waits, and who is refused.
use super::*;
use crate::ErrorKind;
use std::thread;

/// A visitor that stops with the tensor without bytes pins nothing.
const A: &[(&str, u64)] = &[("a0", 0), ("a1", 2 * MIB)];
const B: &[(&str, u64)] = &[("b0", 0), ("b1", 2 * MIB)];

/// Both models on files, the device of 4 MiB empty.
fn fixture() -> Fixture {
    let fixture = Fixture::new(4 * MIB, TO_FILES);
    fixture.load("a", A);
    fixture.load("b", B);
    fixture.free_all();
    fixture
}

fn is_waiting_for_memory(state: &State) -> bool {
    state.workspaces.held.iter().any(|(_, waits)| *waits)
}

#[test]
fn a_block_that_a_visitor_looks_at_leaves_for_another_request_when_the_visitor_returns() {
    let fixture = Fixture::new(3 * MIB, TO_FILES);
    fixture.load("a", &[("x", 2 * MIB)]);
    fixture.load("b", &[("y", 2 * MIB)]);
    fixture.free_all();
    let gate = Gate::new();
    thread::scope(|scope| {
        let engine = &fixture.engine;
        let first = scope.spawn(|| engine.request("a", 0, &mut stopping_at(&gate, "x")));
        gate.wait_until_reached();
        let second = scope.spawn(|| fixture.assert_served("b", &[("y", 2 * MIB)]));
        let refused = || fixture.driver.calls("cuMemGetInfo") > 0;
        until(engine, "the second meets out of memory", |_| refused());
        assert_eq!(fixture.tiers("a"), [Tier::Vram]);
        gate.open();
        assert_eq!(second.join().unwrap(), 1);
        first.join().unwrap().unwrap();
    });
    assert_eq!(fixture.tiers("a"), [Tier::Mapped]);
    fixture.finish();
}

#[test]
fn a_workspace_is_waited_for_until_its_request_ends() {
    let fixture = fixture();
    let gate = Gate::new();
    thread::scope(|scope| {
        let engine = &fixture.engine;
        let first = scope.spawn(|| engine.request("a", MIB, &mut stopping_at(&gate, "a0")));
        gate.wait_until_reached();
        let second = scope
            .spawn(|| engine.request("b", 7 * MIB / 2, &mut |_| Err(Error::Caller("seen".into()))));
        until(engine, "it lets the turn go", |state| {
            state.inside.len() == 2 && state.turns.is_empty()
        });
        // Others have their turn meanwhile.
        engine.make_resident("b").unwrap();
        gate.open();
        first.join().unwrap().unwrap();
        // It got the workspace, and so its visitor ran.
        let error = second.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    });
    fixture.finish();
}

#[test]
fn when_all_others_wait_the_last_one_gets_out_of_memory_and_the_rest_go_on() {
    let fixture = fixture();
    let (gate, other) = (Gate::new(), Gate::new());
    thread::scope(|scope| {
        let engine = &fixture.engine;
        // Both have their workspace; 1 MiB is left, and each needs 2.
        let first = scope.spawn(|| engine.request("a", 3 * MIB / 2, &mut stopping_at(&gate, "a0")));
        gate.wait_until_reached();
        let second =
            scope.spawn(|| engine.request("b", 3 * MIB / 2, &mut stopping_at(&other, "b0")));
        other.wait_until_reached();
        gate.open();
        until(engine, "the first waits", is_waiting_for_memory);
        other.open();
        let error = second.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceOom, "{error}");
        first.join().unwrap().unwrap();
        assert_eq!(engine.state().workspaces.held.len(), 0);
    });
    fixture.assert_served("b", B);
    fixture.finish();
}

#[test]
fn loads_writes_and_residents_wait_for_workspaces_too() {
    let fixture = fixture();
    let gate = Gate::new();
    thread::scope(|scope| {
        let engine = &fixture.engine;
        let first = scope.spawn(|| engine.request("a", 5 * MIB / 2, &mut stopping_at(&gate, "a0")));
        gate.wait_until_reached();
        let waiting = [
            scope.spawn(|| fixture.load("c", &[("c0", 2 * MIB)])),
            scope.spawn(|| overwrite(engine, "b", "b1", 7)),
            scope.spawn(|| engine.make_resident("b").map(|_| ()).unwrap()),
        ];
        until(engine, "all of them wait", |state| {
            state.inside.len() == 4 && state.turns.is_empty()
        });
        assert!(engine.drop_model("c").is_err(), "a load knows it alone");
        gate.open();
        // It needs 2 MiB beside its workspace, and nobody who goes on has any.
        let error = first.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceOom, "{error}");
        for each in waiting {
            each.join().unwrap();
        }
    });
    assert_eq!(fixture.engine.status().models.len(), 3);
    fixture.finish();
}

#[test]
fn requests_that_come_and_go_do_not_keep_memory_from_one_that_waits_for_it() {
    const NONE: &[(&str, u64)] = &[("none", 0)];
    let fixture = Fixture::new(4 * MIB, TO_FILES);
    for name in ["x", "y", "large"] {
        fixture.load(name, NONE);
    }
    let engine = &fixture.engine;
    let (gate, other) = (Gate::new(), Gate::new());
    let order = Mutex::new(Vec::new());
    let visited = |name: &'static str| order.lock().unwrap().push(name);
    thread::scope(|scope| {
        let comes_again = scope.spawn(|| {
            engine.request("x", MIB, &mut stopping_at(&gate, "none"))?;
            engine.request("x", MIB, &mut |_| {
                visited("x");
                Ok(())
            })
        });
        gate.wait_until_reached();
        let holds = scope.spawn(|| engine.request("y", MIB, &mut stopping_at(&other, "none")));
        other.wait_until_reached();
        let large = scope.spawn(|| {
            engine.request("large", 7 * MIB / 2, &mut |_| {
                visited("large");
                Ok(())
            })
        });
        until(engine, "the large one waits", |state| {
            state.workspaces.line.len() == 1 && state.turns.is_empty()
        });
        // One ends and comes again before the other ends.
        gate.open();
        until(engine, "it queues", |state| {
            state.workspaces.line.len() == 2 || !order.lock().unwrap().is_empty()
        });
        other.open();
        for request in [comes_again, holds, large] {
            request.join().unwrap().unwrap();
        }
    });
    assert_eq!(*order.lock().unwrap(), ["large", "x"]);
    assert!(engine.state().workspaces.line.is_empty());
    fixture.finish();
}
