//! A forked child has its parent's values and none of its threads: it leaves everything alone, and waits for nobody.
#![allow(unsafe_code)]
use super::*;

const M: &[(&str, u64)] = &[("a", 2 * MIB), ("b", MIB)];

/// Runs `act` in a forked child, which is ended by an alarm when it waits for ever; whether it ended well.
fn in_forked_child(act: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child uses this test's engine and the allocator, which survives a fork; it never returns from here.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        // SAFETY: an alarm that nobody handles ends the child.
        unsafe { libc::alarm(10) };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        let code = i32::from(!matches!(outcome, Ok(true)));
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `pid` is this thread's child, and `status` is a local.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status == 0
}

#[test]
fn a_child_that_drops_what_it_was_born_with_leaves_the_parents_bytes() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.free_all();
    let mut view = Some(fixture.engine.map("m", "a").unwrap());
    let good = contents(M).remove("a").unwrap();
    // A second generation: the view holds the range in the first.
    overwrite(&fixture.engine, "m", "a", 5);
    fixture.free_all();
    assert_eq!(fixture.spill_files().len(), 2);
    let mut model = None;
    assert!(in_forked_child(|| {
        drop(view.take());
        model = fixture.engine.state().models.pop();
        drop(model.take());
        true
    }));
    assert!(read(view.as_ref().unwrap()) == good);
    fixture.engine.make_resident("m").unwrap();
    drop(view);
    fixture.finish();
}

#[test]
fn a_child_is_refused_operations_that_others_have_begun_and_closes_without_waiting() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    let Fixture {
        engine,
        directory,
        driver,
    } = fixture;
    let mut engine = Some(engine);
    // The child is forked while another thread, which it will not have, is inside an operation.
    let (begun, forked) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    let opened = engine.as_ref().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let outcome = opened.write_tensor("m", "b", &mut |_, out| {
                begun.wait();
                forked.wait();
                out.fill(1);
                Err(Error::Cancelled("the write"))
            });
            assert!(outcome.is_err());
        });
        begun.wait();
        let ended_well = in_forked_child(|| {
            let refused = |outcome| matches!(outcome, Err(Error::OtherProcess { .. }));
            refused(opened.free_memory(None, MemoryRequest::Full).map(|_| ()))
                && refused(opened.drop_model("m"))
                && refused(opened.request("m", 0, &mut |_| Ok(())).map(|_| ()))
        });
        // The thread goes on before anything is asserted: a test that fails must end.
        forked.wait();
        assert!(ended_well, "operations of the child");
    });
    assert!(in_forked_child(|| {
        let _ = engine.take().map(Engine::close);
        true
    }));
    Fixture {
        engine: engine.take().unwrap(),
        directory,
        driver,
    }
    .finish();
}

#[test]
fn a_child_that_only_looks_waits_for_no_lock_that_it_was_born_with() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.free_all();
    let view = fixture.engine.map("m", "a").unwrap();
    let good = contents(M).remove("a").unwrap();
    let (held, forked) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let state = fixture.engine.state();
            held.wait();
            forked.wait();
            drop(state);
        });
        held.wait();
        let ended_well = in_forked_child(|| {
            let status = fixture.engine.status();
            let says_so = status
                .notes
                .iter()
                .any(|note| note.contains("forked child"));
            let map = fixture.engine.map("m", "a");
            let refused = matches!(map, Err(Error::OtherProcess { .. }));
            // What it has already it may read.
            status.models.is_empty() && says_so && refused && read(&view) == good
        });
        forked.wait();
        assert!(ended_well);
    });
    drop(view);
    fixture.finish();
}

#[test]
fn a_child_of_a_visitor_reads_no_device() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    let visited = fixture.engine.request("m", 0, &mut |tensor| {
        let refused = in_forked_child(|| {
            let mut out = [0; 1];
            matches!(tensor.read_at(0, &mut out), Err(Error::OtherProcess { .. }))
        });
        assert!(refused);
        Ok(())
    });
    visited.unwrap();
    fixture.finish();
}

#[test]
fn a_child_that_returns_from_a_visitor_waits_for_no_lock_that_it_was_born_with() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.free_all();
    let parent = std::process::id();
    for is_refused in [true, false] {
        let (held, forked) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        let mut child = None;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                held.wait();
                let state = fixture.engine.state();
                held.wait();
                forked.wait();
                drop(state);
            });
            let visited = fixture.engine.request("m", MIB, &mut |_| {
                if child.is_some() {
                    return Ok(());
                }
                held.wait();
                held.wait();
                // SAFETY: the child uses this test's engine and the allocator, which survives a fork, and is ended below.
                let pid = unsafe { libc::fork() };
                child = Some(pid);
                if pid == 0 {
                    // SAFETY: an alarm that nobody handles ends the child.
                    unsafe { libc::alarm(10) };
                    return match is_refused {
                        true => Err(Error::Caller("in the child".into())),
                        false => Ok(()),
                    };
                }
                forked.wait();
                Ok(())
            });
            if std::process::id() != parent {
                let refused = matches!(visited, Err(Error::OtherProcess { .. }));
                // SAFETY: ends the child without running what belongs to the parent.
                unsafe { libc::_exit(i32::from(!refused)) };
            }
            visited.unwrap();
        });
        let mut status = 0;
        // SAFETY: the pid is that of this thread's child, and `status` is a local.
        unsafe { libc::waitpid(child.unwrap(), &mut status, 0) };
        assert_eq!(status, 0);
        fixture.free_all();
    }
    fixture.finish();
}
