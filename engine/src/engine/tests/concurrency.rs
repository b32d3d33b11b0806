//! Who waits for whom when operations run beside each other, and that nobody is kept from what is his.
use super::*;
use crate::ErrorKind;
use std::thread;

const M: &[(&str, u64)] = &[("a", MIB), ("b", MIB)];

fn fixture() -> Fixture {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture
}

/// Runs a request of "m" that stops with tensor "a", `meanwhile` beside it, and lets it go on; what the request gave.
fn beside_a_visitor(
    fixture: &Fixture,
    gate: &Gate,
    meanwhile: impl FnOnce(),
) -> Result<RequestReport, Error> {
    thread::scope(|scope| {
        let request = scope.spawn(|| fixture.engine.request("m", 0, &mut stopping_at(gate, "a")));
        gate.wait_until_reached();
        meanwhile();
        request.join().unwrap()
    })
}

#[test]
fn while_a_visitor_runs_everybody_else_goes_on() {
    let fixture = fixture();
    let gate = Gate::new();
    let outcome = beside_a_visitor(&fixture, &gate, || {
        fixture.load("n", M);
        fixture.assert_served("n", M);
        fixture.assert_served("m", M);
        overwrite(&fixture.engine, "m", "b", 3);
        let freed = fixture
            .engine
            .free_memory(Some("n"), MemoryRequest::Full)
            .unwrap();
        assert_eq!(freed.freed_bytes, 2 * MIB);
        fixture.engine.make_resident("n").unwrap();
        fixture.engine.drop_model("n").unwrap();
        gate.open();
    });
    outcome.unwrap();
    fixture.finish();
}

#[test]
fn two_visitors_may_look_at_one_block() {
    let fixture = fixture();
    let (gate, other) = (Gate::new(), Gate::new());
    let outcome = beside_a_visitor(&fixture, &gate, || {
        thread::scope(|scope| {
            let second = || {
                fixture
                    .engine
                    .request("m", 0, &mut stopping_at(&other, "a"))
            };
            let second = scope.spawn(second);
            other.wait_until_reached();
            gate.open();
            let free = scope.spawn(|| fixture.free_all());
            until(&fixture.engine, "freeing has its turn", |state| {
                !state.turns.is_empty()
            });
            assert_eq!(fixture.engine.status().tiers.vram, 2 * MIB);
            other.open();
            assert_eq!(free.join().unwrap().freed_bytes, 2 * MIB);
            second.join().unwrap().unwrap();
        });
    });
    outcome.unwrap();
    fixture.finish();
}

#[test]
fn freeing_waits_for_the_block_that_a_visitor_looks_at_and_frees_everything() {
    for threshold in [TO_FILES, TO_RAM] {
        let fixture = Fixture::new(8 * MIB, threshold);
        fixture.load("m", M);
        let good = contents(M).remove("a").unwrap();
        let gate = Gate::new();
        thread::scope(|scope| {
            let request = scope.spawn(|| {
                fixture.engine.request("m", 0, &mut |tensor| {
                    if tensor.name() == "a" {
                        gate.stop_here()?;
                        let mut out = vec![0; tensor.span_bytes() as usize];
                        tensor.read_at(0, &mut out)?;
                        assert!(out == good, "the visited block left");
                    }
                    Ok(())
                })
            });
            gate.wait_until_reached();
            let free = scope.spawn(|| {
                let everything = MemoryRequest::from_f64(1e30).unwrap();
                fixture.engine.free_memory(None, everything).unwrap()
            });
            until(&fixture.engine, "freeing has its turn", |state| {
                !state.turns.is_empty()
            });
            gate.open();
            let freed = free.join().unwrap();
            assert_eq!(
                (freed.extent, freed.freed_bytes),
                (crate::Extent::Full, 2 * MIB)
            );
            request.join().unwrap().unwrap();
        });
        fixture.assert_served("m", M);
        fixture.finish();
    }
}

#[test]
fn a_write_waits_for_the_visitor_who_sees_the_old_bytes_to_the_end() {
    let fixture = fixture();
    let good = contents(M).remove("a").unwrap();
    let gate = Gate::new();
    thread::scope(|scope| {
        let request = scope.spawn(|| {
            fixture.engine.request("m", 0, &mut |tensor| {
                if tensor.name() == "a" {
                    gate.stop_here()?;
                    let mut out = vec![0; tensor.span_bytes() as usize];
                    tensor.read_at(0, &mut out)?;
                    assert!(out == good, "written under the visitor");
                }
                Ok(())
            })
        });
        gate.wait_until_reached();
        let write = scope.spawn(|| overwrite(&fixture.engine, "m", "a", 9));
        until(&fixture.engine, "the write has its turn", |state| {
            !state.turns.is_empty()
        });
        gate.open();
        write.join().unwrap();
        request.join().unwrap().unwrap();
    });
    fixture.free_all();
    let view = fixture.engine.map("m", "a").unwrap();
    assert!(read(&view).iter().all(|byte| *byte == 9));
    drop(view);
    fixture.finish();
}

#[test]
fn a_drop_waits_for_the_visitor_and_the_request_learns_of_it_at_its_next_step() {
    let fixture = fixture();
    fixture.free_all();
    let gate = Gate::new();
    let outcome = beside_a_visitor(&fixture, &gate, || {
        thread::scope(|scope| {
            let dropped = scope.spawn(|| fixture.engine.drop_model("m"));
            until(&fixture.engine, "the drop has its turn", |state| {
                !state.turns.is_empty()
            });
            assert_eq!(fixture.engine.status().models.len(), 1);
            gate.open();
            dropped.join().unwrap().unwrap();
        });
        assert_eq!(fixture.engine.status().models.len(), 0);
        assert_eq!(fixture.driver.used_bytes(), 0);
        // Another model of that name is another model.
        fixture.load("m", &[("other", MIB)]);
    });
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownModel, "{error}");
    assert!(error.to_string().contains("\"m\""), "{error}");
    assert_eq!(fixture.driver.used_bytes(), MIB);
    fixture.finish();
}

#[test]
fn of_many_loads_of_one_name_one_wins() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let load = || {
            let source = ModelSource::Manifest(manifest(M));
            fixture
                .engine
                .load("m", source)
                .map_err(|error| error.to_string())
        };
        let loads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    });
    let lost: Vec<_> = outcomes
        .iter()
        .filter_map(|each| each.as_ref().err())
        .collect();
    assert_eq!(lost.len(), 7);
    assert!(
        lost.iter().all(|error| error.contains("is loaded already")),
        "{lost:?}"
    );
    fixture.assert_served("m", M);
    assert_eq!(fixture.driver.used_bytes(), 2 * MIB);
    fixture.finish();
}

#[test]
fn turns_are_had_in_the_order_of_asking() {
    let fixture = fixture();
    for name in ["n0", "n1", "n2", "n3"] {
        fixture.load(name, &[("x", 100)]);
    }
    let order = Mutex::new(Vec::new());
    let gate = Gate::new();
    thread::scope(|scope| {
        let engine = &fixture.engine;
        // A write keeps its turn while it asks for its contents.
        let first = scope.spawn(|| {
            engine.write_tensor("m", "a", &mut |offset, _| match offset {
                0 => gate.stop_here(),
                _ => Ok(()),
            })
        });
        gate.wait_until_reached();
        for (at, name) in ["n2", "n0", "n3", "n1"].into_iter().enumerate() {
            let order = &order;
            scope.spawn(move || {
                let mut contents = |_: u64, _: &mut [u8]| {
                    order.lock().unwrap().push(name);
                    Ok(())
                };
                engine.write_tensor(name, "x", &mut contents).unwrap();
            });
            until(engine, "it queues", |state| state.turns.len() == at + 2);
        }
        gate.open();
        first.join().unwrap().unwrap();
    });
    assert_eq!(*order.lock().unwrap(), ["n2", "n0", "n3", "n1"]);
    fixture.finish();
}

#[test]
fn a_request_that_fails_leaves_a_block_where_another_one_looks_at_it() {
    let fixture = fixture();
    fixture.free_all();
    let (gate, other) = (Gate::new(), Gate::new());
    thread::scope(|scope| {
        let failing = scope.spawn(|| {
            fixture.engine.request("m", 0, &mut |tensor| {
                if tensor.name() == "a" {
                    return gate.stop_here();
                }
                Err(Error::Caller("a layer".into()))
            })
        });
        gate.wait_until_reached();
        let second = || {
            fixture
                .engine
                .request("m", 0, &mut stopping_at(&other, "a"))
        };
        let second = scope.spawn(second);
        other.wait_until_reached();
        gate.open();
        assert!(failing.join().unwrap().is_err());
        assert_eq!(fixture.tiers("m"), [Tier::Vram, Tier::Mapped]);
        other.open();
        second.join().unwrap().unwrap();
    });
    fixture.assert_served("m", M);
    fixture.finish();
}

#[test]
fn a_request_that_succeeds_takes_no_copy_that_another_needs_to_go_back() {
    // Nothing is pinned while the visitor is at the tensor without bytes.
    let model = &[("a", MIB), ("none", 0)];
    let fixture = Fixture::new(8 * MIB, TO_RAM);
    fixture.load("m", model);
    fixture.free_all();
    let downloads = || fixture.driver.calls("cuMemcpyDtoHAsync");
    let before = downloads();
    let gate = Gate::new();
    thread::scope(|scope| {
        let failing = scope.spawn(|| {
            fixture.engine.request("m", 0, &mut |tensor| {
                if tensor.name() == "none" {
                    gate.stop_here()?;
                    return Err(Error::Caller("a layer".into()));
                }
                Ok(())
            })
        });
        gate.wait_until_reached();
        fixture.free_all();
        // Now both have brought the block in.
        fixture.engine.request("m", 0, &mut |_| Ok(())).unwrap();
        gate.open();
        assert!(failing.join().unwrap().is_err());
    });
    assert_eq!(fixture.tiers("m"), [Tier::Ram; 2]);
    assert_eq!(downloads(), before, "nothing is stored again");
    fixture.assert_served("m", model);
    assert_eq!(fixture.engine.state().ram_bytes(), 0);
    fixture.finish();
}
