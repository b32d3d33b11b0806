//! Who may wait for whom: looking at an engine waits for no transfer and no caller's code.
use super::*;
use std::{sync::mpsc, time::Duration};

const M: &[(&str, u64)] = &[("a", 2 * MIB), ("b", MIB)];

#[test]
fn status_and_views_wait_for_no_write_that_is_under_way() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.load("n", M);
    fixture
        .engine
        .free_memory(Some("n"), MemoryRequest::Full)
        .unwrap();
    let engine = &fixture.engine;
    let (begin, begun) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let written = std::thread::scope(|scope| {
        scope.spawn(move || {
            if begun.recv().is_ok() {
                read(&engine.map("n", "b").unwrap());
                tell.send(engine.status().models.len()).unwrap();
            }
        });
        engine.write_tensor("m", "b", &mut |_, out| {
            out.fill(1);
            if begin.send(()).is_ok() {
                // The other thread first: where it would wait, so would this one, for ever.
                let models = told.recv_timeout(Duration::from_secs(10));
                models.map_err(|_| Error::Cancelled("the other thread's status"))?;
            }
            assert_eq!(engine.status().models.len(), 2);
            // One window is enough.
            Err(Error::Cancelled("the write"))
        })
    });
    assert!(
        matches!(written, Err(Error::Cancelled("the write"))),
        "{written:?}"
    );
    fixture.finish();
}
