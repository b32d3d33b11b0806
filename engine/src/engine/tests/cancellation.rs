//! Operations that are cancelled at every point at which anything happens: the old state or the new one, nothing kept.
use super::*;
use crate::{Cancellation, ErrorKind};
use std::thread;

/// Two chunks and one.
const M: &[(&str, u64)] = &[("a", 2 * MIB), ("b", MIB)];
const CALLS: [&str; 5] = [
    "cuMemAlloc",
    "cuMemFree",
    "cuMemcpyHtoDAsync",
    "cuMemcpyDtoHAsync",
    "cuCtxSynchronize",
];

/// Runs `act` on a new fixture again and again, each time cancelled inside another call of the driver, until it ends
/// before that; `check` sees what it left. How often it was cancelled.
fn at_every_call(
    begin: impl Fn() -> Fixture,
    act: impl Fn(&Fixture, &Cancellation) -> Result<(), Error>,
    check: impl Fn(&Fixture, Result<(), Error>),
) -> u64 {
    let mut cancelled = 0;
    for call in CALLS {
        for nth in 1.. {
            let fixture = begin();
            let cancellation = Cancellation::new();
            let cancel = cancellation.clone();
            fixture.driver.meanwhile(call, nth, move || cancel.cancel());
            let outcome = act(&fixture, &cancellation);
            if let Err(error) = &outcome {
                assert_eq!(error.kind(), ErrorKind::Cancelled, "{call} {nth}: {error}");
                cancelled += 1;
            }
            let over = !cancellation.is_cancelled();
            assert_eq!(fixture.engine.status().notes, Vec::<String>::new());
            check(&fixture, outcome);
            let shown = fixture.engine.status().tiers.ram;
            assert_eq!(fixture.engine.state().ram_bytes(), shown);
            fixture.finish();
            if over {
                break;
            }
        }
    }
    cancelled
}

#[test]
fn a_cancelled_load_leaves_no_model() {
    let cancelled = at_every_call(
        || Fixture::new(8 * MIB, TO_FILES),
        |fixture, cancellation| {
            let source = ModelSource::Manifest(manifest(M));
            fixture
                .engine
                .unless(cancellation)
                .load("m", source)
                .map(|_| ())
        },
        |fixture, outcome| match outcome {
            Ok(()) => assert_eq!(fixture.assert_served("m", M), 0),
            Err(_) => {
                assert_eq!(fixture.engine.status().models.len(), 0);
                assert_eq!(fixture.driver.used_bytes(), 0);
                fixture.load("m", M);
            }
        },
    );
    assert!(cancelled > 0);
}

#[test]
fn a_cancelled_load_that_made_others_leave_keeps_their_bytes() {
    let cancelled = at_every_call(
        || {
            let fixture = Fixture::new(4 * MIB, TO_FILES);
            fixture.load("other", M);
            fixture
        },
        |fixture, cancellation| {
            let source = ModelSource::Manifest(manifest(M));
            fixture
                .engine
                .unless(cancellation)
                .load("m", source)
                .map(|_| ())
        },
        |fixture, outcome| {
            let models = 1 + usize::from(outcome.is_ok());
            assert_eq!(fixture.engine.status().models.len(), models);
            fixture.assert_served("other", M);
        },
    );
    assert!(cancelled > 0);
}

#[test]
fn cancelled_freeing_tells_what_left_and_keeps_the_rest_where_it_was() {
    for threshold in [TO_FILES, TO_RAM] {
        let cancelled = at_every_call(
            || {
                let fixture = Fixture::new(8 * MIB, threshold);
                fixture.load("m", M);
                fixture
            },
            |fixture, cancellation| {
                let engine = fixture.engine.unless(cancellation);
                engine.free_memory(None, MemoryRequest::Full).map(|_| ())
            },
            |fixture, outcome| {
                let freed = match outcome {
                    Ok(()) => 3 * MIB,
                    Err(Error::FreedLess { report, .. }) => report.freed_bytes,
                    Err(_) => 0,
                };
                let status = fixture.engine.status();
                assert_eq!(status.tiers.vram, 3 * MIB - freed);
                assert_eq!(fixture.driver.used_bytes(), 3 * MIB - freed);
                let files = usize::from(threshold == TO_FILES && freed > 0);
                assert_eq!(fixture.spill_files().len(), files, "partial files are gone");
                fixture.assert_served("m", M);
            },
        );
        assert!(cancelled > 0);
    }
}

#[test]
fn a_cancelled_request_takes_back_what_it_brought_in() {
    for threshold in [TO_FILES, TO_RAM] {
        let cancelled = at_every_call(
            || {
                let fixture = Fixture::new(8 * MIB, threshold);
                fixture.load("m", M);
                fixture.free_all();
                fixture
            },
            |fixture, cancellation| {
                let engine = fixture.engine.unless(cancellation);
                engine.request("m", MIB, &mut |_| Ok(())).map(|_| ())
            },
            |fixture, outcome| {
                let resident = if outcome.is_ok() { 3 * MIB } else { 0 };
                assert_eq!(fixture.driver.used_bytes(), resident);
                assert_eq!(fixture.engine.status().tiers.vram, resident);
                fixture.assert_served("m", M);
            },
        );
        assert!(cancelled > 0);
    }
}

#[test]
fn cancelled_making_resident_takes_back_what_it_brought_in() {
    let cancelled = at_every_call(
        || {
            let fixture = Fixture::new(8 * MIB, TO_FILES);
            fixture.load("m", M);
            fixture.free_all();
            fixture
        },
        |fixture, cancellation| {
            let engine = fixture.engine.unless(cancellation);
            engine.make_resident("m").map(|_| ())
        },
        |fixture, outcome| {
            let resident = if outcome.is_ok() { 3 * MIB } else { 0 };
            assert_eq!(fixture.driver.used_bytes(), resident);
            fixture.assert_served("m", M);
        },
    );
    assert!(cancelled > 0);
}

#[test]
fn a_cancelled_write_leaves_the_old_bytes_or_the_new() {
    for (has_copy, threshold) in [
        (true, TO_FILES),
        (true, TO_RAM),
        (false, TO_FILES),
        (false, TO_RAM),
    ] {
        let cancelled = at_every_call(
            || {
                let fixture = Fixture::new(8 * MIB, threshold);
                fixture.load("m", M);
                if has_copy {
                    fixture.free_all();
                }
                fixture
            },
            |fixture, cancellation| {
                let engine = fixture.engine.unless(cancellation);
                engine.write_tensor("m", "a", &mut |_, out| {
                    out.fill(5);
                    Ok(())
                })
            },
            |fixture, outcome| {
                let shown = fixture.engine.status().tiers.ram;
                assert_eq!(fixture.engine.state().ram_bytes(), shown);
                fixture.free_all();
                let view = fixture.engine.map("m", "a").unwrap();
                let bytes = read(&view);
                match outcome {
                    Ok(()) => assert!(bytes.iter().all(|byte| *byte == 5)),
                    Err(_) => assert!(bytes == contents(M)["a"]),
                }
            },
        );
        assert_eq!(cancelled > 0, has_copy, "begun, it goes through");
    }
}

#[test]
fn an_operation_cancelled_before_it_begins_does_nothing() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    let cancellation = Cancellation::new();
    cancellation.cancel();
    let engine = fixture.engine.unless(&cancellation);
    let before = (
        fixture.engine.status(),
        fixture.driver.calls("cuCtxSetCurrent"),
    );
    let outcomes = [
        engine
            .load("n", ModelSource::Manifest(manifest(M)))
            .map(|_| ()),
        engine
            .request("m", 0, &mut |_| panic!("visited"))
            .map(|_| ()),
        engine.make_resident("m").map(|_| ()),
        engine.free_memory(None, MemoryRequest::Full).map(|_| ()),
        engine.write_tensor("m", "a", &mut |_, _| panic!("written")),
        engine.drop_model("m"),
    ];
    for outcome in outcomes {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    }
    let after = (
        fixture.engine.status(),
        fixture.driver.calls("cuCtxSetCurrent"),
    );
    assert_eq!(before, after);
    fixture.finish();
}

#[test]
fn a_request_cancelled_by_its_visitor_ends_before_the_next_visit() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.free_all();
    let cancellation = Cancellation::new();
    let mut visits = 0;
    let error = fixture
        .engine
        .unless(&cancellation)
        .request("m", MIB, &mut |_| {
            visits += 1;
            cancellation.cancel();
            Ok(())
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "the request was cancelled");
    assert_eq!((visits, fixture.driver.used_bytes()), (1, 0));
    fixture.finish();
}

#[test]
fn a_long_transfer_ends_between_its_chunks() {
    let model = &[("long", 12 * MIB)];
    for threshold in [TO_FILES, TO_RAM] {
        for (is_reload, call) in [(false, "cuMemcpyDtoHAsync"), (true, "cuMemcpyHtoDAsync")] {
            let fixture = Fixture::new(16 * MIB, threshold);
            fixture.load("m", model);
            if is_reload {
                fixture.free_all();
            }
            let cancellation = Cancellation::new();
            let (cancel, before) = (cancellation.clone(), fixture.driver.calls(call));
            fixture.driver.meanwhile(call, 2, move || cancel.cancel());
            let engine = fixture.engine.unless(&cancellation);
            let outcome = match is_reload {
                false => engine.free_memory(None, MemoryRequest::Full).map(|_| ()),
                true => engine.make_resident("m").map(|_| ()),
            };
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
            // Two threads may each be in a chunk of the twelve.
            assert!(fixture.driver.calls(call) - before <= 3);
            fixture.assert_served("m", model);
            fixture.finish();
        }
    }
}

#[test]
fn waits_for_a_visitor_end_when_they_are_cancelled() {
    type Act = fn(&Fixture, &Cancellation) -> Result<(), Error>;
    let free: Act = |fixture, cancellation| {
        let engine = fixture.engine.unless(cancellation);
        engine.free_memory(None, MemoryRequest::Full).map(|_| ())
    };
    let write: Act = |fixture, cancellation| {
        let engine = fixture.engine.unless(cancellation);
        engine.write_tensor("m", "a", &mut |_, _| panic!("written"))
    };
    let forget: Act = |fixture, cancellation| fixture.engine.unless(cancellation).drop_model("m");
    for act in [free, write, forget] {
        let fixture = Fixture::new(8 * MIB, TO_FILES);
        fixture.load("m", M);
        let (gate, cancellation) = (Gate::new(), Cancellation::new());
        thread::scope(|scope| {
            let engine = &fixture.engine;
            let request = scope.spawn(|| engine.request("m", 0, &mut stopping_at(&gate, "a")));
            gate.wait_until_reached();
            let waiting = scope.spawn(|| act(&fixture, &cancellation));
            until(engine, "it has its turn", |state| !state.turns.is_empty());
            cancellation.cancel();
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            assert_eq!(engine.status().tiers.vram, 3 * MIB);
            gate.open();
            request.join().unwrap().unwrap();
        });
        fixture.assert_served("m", M);
        fixture.finish();
    }
}

#[test]
fn a_wait_for_memory_ends_when_it_is_cancelled() {
    let fixture = Fixture::new(4 * MIB, TO_FILES);
    let held = &[("none", 0), ("held", MIB)];
    fixture.load("m", held);
    fixture.load("n", M);
    let (gate, cancellation) = (Gate::new(), Cancellation::new());
    thread::scope(|scope| {
        let engine = &fixture.engine;
        let request = scope.spawn(|| engine.request("m", MIB, &mut stopping_at(&gate, "none")));
        gate.wait_until_reached();
        let unless = engine.unless(&cancellation);
        let waiting = scope.spawn(move || unless.request("n", 7 * MIB / 2, &mut |_| Ok(())));
        until(engine, "it lets the turn go", |state| {
            state.inside.len() == 2 && state.turns.is_empty()
        });
        cancellation.cancel();
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        gate.open();
        request.join().unwrap().unwrap();
    });
    fixture.assert_served("n", M);
    fixture.finish();
}
