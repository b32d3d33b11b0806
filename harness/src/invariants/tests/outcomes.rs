//! What came back: digests, errors, findings, and what was not measured.

use super::*;
use crate::case::{CuFile, CuFileFault};

#[test]
fn wrong_missing_and_unknown_digests_trip_data() {
    assert_eq!(
        tripped(|run| run.steps[0] = request(b"wrong")),
        [InvariantId::Data]
    );
    let missing = |run: &mut Run| {
        run.steps[0].expected.insert("u".into(), digest_of(b"u"));
    };
    assert_eq!(tripped(missing), [InvariantId::Data]);
    assert_eq!(
        tripped(|run| run.steps[0].expected.clear()),
        [InvariantId::Data]
    );
}

#[test]
fn work_that_fails_trips_progress_and_management_that_fails_trips_truth() {
    let work = |run: &mut Run| run.steps[0].outcome = failure(ErrorKind::DeviceOom);
    assert_eq!(tripped(work), [InvariantId::Progress]);
    let management = |run: &mut Run| {
        run.steps[1].outcome = failure(ErrorKind::Io);
        run.steps[1].after.offload_files.entries.clear();
    };
    assert_eq!(tripped(management), [InvariantId::Truth]);
}

#[test]
fn a_hang_trips_progress_and_typed() {
    let deadline = Duration::from_secs(1);
    let hang = |run: &mut Run| {
        let finding = Finding::Hang {
            verb: "request",
            deadline,
        };
        run.steps[0].outcome = Outcome::Misbehaved(finding);
    };
    assert_eq!(tripped(hang), [InvariantId::Progress, InvariantId::Typed]);
}

#[test]
fn errors_of_another_kind_trip_typed_and_success_in_their_place_trips_truth() {
    let expect = Expect::Error(ErrorKind::DeviceOom);
    let other = |run: &mut Run| {
        run.steps[0].expect = expect.clone();
        run.steps[0].outcome = failure(ErrorKind::Internal);
    };
    assert_eq!(tripped(other), [InvariantId::Typed]);
    let swallowed = |run: &mut Run| run.steps[0].expect = expect.clone();
    assert_eq!(tripped(swallowed), [InvariantId::Truth]);
    let aside = |run: &mut Run| run.asides.push(("quit", failure(ErrorKind::Io)));
    assert_eq!(tripped(aside), [InvariantId::Typed]);
}

#[test]
fn an_empty_read_back_of_what_is_on_the_host_trips_data() {
    let empty = |run: &mut Run| {
        let action = Action::ReadBack { model: "m".into() };
        let read_back = step(action, Outcome::ReadBack(BTreeMap::new()), 0, 0);
        run.steps.push(read_back);
    };
    assert_eq!(tripped(empty), [InvariantId::Data]);
}

#[test]
fn what_the_supervisor_found_at_the_end_trips_typed() {
    let ended = |run: &mut Run| {
        run.ended = Some(Ended {
            exit: ExitReport::Exited(5),
            killed: false,
            stdout: Captured::default(),
            stderr: Captured::default(),
            findings: vec![Finding::ExitStatusAfterQuit { status: 5 }],
        });
    };
    assert_eq!(tripped(ended), [InvariantId::Typed]);
}

#[test]
fn what_was_not_measured_is_a_doubt() {
    let doubts = |change: fn(&mut Run)| {
        let mut run = clean();
        change(&mut run);
        run.all_doubts().len()
    };
    assert_eq!(doubts(|_| ()), 0);
    assert_eq!(doubts(|run| run.baseline = None), 1);
    assert_eq!(doubts(|run| run.settled = None), 1);
    let undecided = |run: &mut Run| {
        run.steps[0].peak.as_mut().unwrap().anon_shared_upper_bytes = u64::MAX;
    };
    assert_eq!(doubts(undecided), 1);
    assert_eq!(doubts(|run| run.steps[0].peak = None), 1);
    let unreached = |run: &mut Run| {
        let step = crate::case::Step {
            action: Action::ReleaseBallast,
            expect: Expect::Ok,
        };
        run.case.steps = vec![step; 3];
    };
    assert_eq!(doubts(unreached), 1);
    let faulty = |run: &mut Run, met: u64| {
        if let Gpu::Present { cufile, .. } = &mut run.case.gpu {
            *cufile = CuFile::Present {
                compat: false,
                fault: Some(CuFileFault::BuffersRefused(5036)),
            };
        }
        let last = run.steps.last_mut().unwrap();
        if let DeviceReading::Board(board) = &mut last.after.device {
            board.cufile_faults = met;
        }
    };
    let mut run = clean();
    faulty(&mut run, 0);
    let [doubt] = &run.all_doubts()[..] else {
        panic!("{:?}", run.all_doubts())
    };
    assert!(doubt.contains("buffers_refused=5036"), "{doubt}");
    faulty(&mut run, 1);
    assert_eq!(run.all_doubts(), Vec::<String>::new());
}
