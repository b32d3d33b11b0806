//! Deaths and starts, space that runs out, and the way that bytes took.

use super::*;
use crate::{
    case::CuFile,
    crash::{Deadly, Kill, Moment},
    device::{CufileMoves, Survivor},
    subject::Killed,
    world::Event,
};
use spillproof_board::ObjectKind;

const SIGKILL: ExitReport = ExitReport::Signalled {
    signal: 9,
    core: false,
};

/// A subject that was killed and left a file, and one in its place that removed it.
fn succession(signal: Deadly, exit: ExitReport) -> Run {
    let kill = Kill {
        signal,
        during: None,
        when: Moment::Sent,
    };
    let killed = Killed {
        landed: true,
        exit: Some(exit),
        wall: Duration::ZERO,
    };
    let mut dead = clean();
    let death = step(
        Action::World(Event::Kill(kill)),
        Outcome::Killed(killed),
        0,
        0,
    );
    dead.steps.push(death);
    dead.settled = None;
    let mut run = clean();
    let mut start = step(Action::World(Event::Restart), Outcome::Done, 0, 0);
    start.expected.clear();
    if signal == Deadly::Kill {
        let left = &mut dead.aftermath.as_mut().unwrap().offload_files.entries;
        left.insert("spill-1".into(), file(0o600));
        start.status_after.as_mut().unwrap().reaped_orphans = 1;
    }
    run.steps.insert(0, start);
    run.earlier.push(dead);
    run
}

fn tripped_by(mut run: Run, change: impl FnOnce(&mut Run)) -> Vec<InvariantId> {
    change(&mut run);
    tripped(|there| *there = run)
}

fn killed() -> Run {
    succession(Deadly::Kill, SIGKILL)
}

#[test]
fn nothing_is_wrong_with_a_death_whose_leftovers_go() {
    assert_eq!(tripped_by(killed(), |_| ()), []);
    for exit in [
        ExitReport::Exited(0),
        ExitReport::Exited(143),
        ExitReport::Signalled {
            signal: 15,
            core: false,
        },
    ] {
        assert_eq!(
            tripped_by(succession(Deadly::Terminate, exit), |_| ()),
            [],
            "{exit}"
        );
    }
}

#[test]
fn another_end_than_the_one_that_was_asked_for_trips_typed() {
    let segfault = ExitReport::Signalled {
        signal: 11,
        core: false,
    };
    for (signal, exit) in [
        (Deadly::Kill, segfault),
        (Deadly::Kill, ExitReport::Exited(0)),
        (Deadly::Terminate, ExitReport::Exited(1)),
        (Deadly::Terminate, SIGKILL),
    ] {
        let trips = tripped_by(succession(signal, exit), |_| ());
        assert_eq!(trips, [InvariantId::Typed], "{signal} {exit}");
    }
}

#[test]
fn files_of_the_dead_that_stay_and_files_of_the_live_that_go_trip_files() {
    let stays = |run: &mut Run| {
        let there = &mut run.steps[0].after.offload_files.entries;
        there.insert("spill-1".into(), file(0o600));
    };
    assert_eq!(tripped_by(killed(), stays), [InvariantId::Files]);
    let goes = |run: &mut Run| {
        run.earlier[0].neighbours.insert("spill-2".into());
    };
    assert_eq!(tripped_by(killed(), goes), [InvariantId::Files]);
    let unclean = |run: &mut Run| {
        let left = run.earlier[0].aftermath.as_mut().unwrap();
        left.offload_files
            .entries
            .insert("spill-1".into(), file(0o600));
        run.steps[0].status_after.as_mut().unwrap().reaped_orphans = 1;
    };
    let terminated = succession(Deadly::Terminate, ExitReport::Exited(143));
    assert_eq!(tripped_by(terminated, unclean), [InvariantId::Files]);
    let taken = |run: &mut Run| {
        let action = Action::ReadBack { model: "n".into() };
        let beside = Action::World(Event::Beside(Box::new(action)));
        let mut record = step(beside, Outcome::Done, 0, 0);
        let before = &mut record.before.offload_files.entries;
        before.insert("spill-3".into(), file(0o600));
        run.steps.push(record);
    };
    assert_eq!(tripped(taken), [InvariantId::Files]);
}

#[test]
fn orphans_that_nobody_reports_or_nobody_left_trip_truth() {
    let reported = |count| {
        move |run: &mut Run| {
            run.steps[0].status_after.as_mut().unwrap().reaped_orphans = count;
        }
    };
    assert_eq!(tripped_by(killed(), reported(0)), [InvariantId::Truth]);
    let terminated = succession(Deadly::Terminate, ExitReport::Exited(0));
    assert_eq!(tripped_by(terminated, reported(2)), [InvariantId::Truth]);
}

#[test]
fn device_memory_of_the_dead_trips_vram() {
    let held = |run: &mut Run| {
        let survivor = Survivor {
            pid: 1,
            kind: ObjectKind::DeviceMemory,
            bytes: MIB,
            call: "cuMemAlloc_v2".into(),
            serial: 3,
        };
        run.earlier[0].aftermath.as_mut().unwrap().device = DeviceReading::Board(BoardReading {
            survivors: vec![survivor],
            ..BoardReading::default()
        });
    };
    assert_eq!(tripped_by(killed(), held), [InvariantId::Vram]);
}

#[test]
fn what_a_death_did_to_the_next_subject_is_told_first() {
    let mut run = killed();
    run.steps[0].after.offload_files = run.earlier[0]
        .aftermath
        .as_ref()
        .unwrap()
        .offload_files
        .clone();
    run.settled.as_mut().unwrap().device = board(MIB);
    let told: Vec<_> = check(&run, ALL)
        .iter()
        .map(|violation| violation.invariant)
        .collect();
    assert_eq!(told[0], InvariantId::Files, "{told:?}");
    assert!(told.contains(&InvariantId::Vram), "{told:?}");
}

#[test]
fn signals_that_all_come_too_late_are_a_doubt() {
    let mut run = killed();
    assert_eq!(run.all_doubts(), Vec::<String>::new());
    let dead = run.earlier[0].steps.last_mut().unwrap();
    let Action::World(Event::Kill(kill)) = &mut dead.action else {
        panic!("{:?}", dead.action);
    };
    kill.during = Some(Box::new(Action::Drop { model: "m".into() }));
    assert_eq!(run.all_doubts(), Vec::<String>::new());
    let dead = run.earlier[0].steps.last_mut().unwrap();
    let Outcome::Killed(killed) = &mut dead.outcome else {
        panic!("{:?}", dead.outcome);
    };
    killed.landed = false;
    assert_eq!(run.all_doubts().len(), 1);
}

/// The offload fails for want of space, as the case expects.
fn full(run: &mut Run) {
    let step = &mut run.steps[1];
    step.expect = Expect::Error(ErrorKind::DiskFull);
    step.outcome = failure(ErrorKind::DiskFull);
    step.after = step.before.clone();
    step.status_after = step.status_before.clone();
}

#[test]
fn partial_files_and_writes_before_a_refusal_are_seen() {
    assert_eq!(tripped(full), []);
    let partial = |run: &mut Run| {
        full(run);
        let entry = FileEntry {
            bytes: 2 * MIB,
            ..file(0o600)
        };
        let files = &mut run.steps[1].after.offload_files.entries;
        files.insert(SPILL.into(), entry);
    };
    assert_eq!(tripped(partial), [InvariantId::Files]);
    let written = |run: &mut Run| {
        full(run);
        run.steps[1].after.written_bytes = 2 * MIB;
    };
    assert_eq!(tripped(written), [InvariantId::Policy]);
}

/// The offload went by cuFile, and the case asks for that.
fn by_cufile(run: &mut Run) {
    run.case.path = Some(TransferPath::CuFile);
    if let Gpu::Present { cufile, .. } = &mut run.case.gpu {
        *cufile = CuFile::DIRECT;
    }
    freed(run).moves[0].path = TransferPath::CuFile;
    count(run, MODEL_BYTES, 0);
}

fn count(run: &mut Run, direct: u64, compat: u64) {
    let DeviceReading::Board(board) = &mut run.steps[1].after.device else {
        panic!("no board");
    };
    let moves = |written_bytes| CufileMoves {
        written_bytes,
        read_bytes: 0,
    };
    board.cufile_direct = moves(direct);
    board.cufile_compat = moves(compat);
}

#[test]
fn a_way_that_was_not_taken_or_not_asked_for_trips_truth() {
    assert_eq!(tripped(by_cufile), []);
    let changes: [fn(&mut Run); 7] = [
        |run| {
            // Nothing was counted, and nothing is said.
            count(run, 0, 0);
            freed(run).moves[0].path = TransferPath::None;
        },
        |run| count(run, 0, 0),
        |run| count(run, 0, MODEL_BYTES),
        |run| count(run, 2 * MODEL_BYTES, 0),
        |run| freed(run).moves[0].path = TransferPath::Staged,
        |run| freed(run).moves[0].path = TransferPath::CuFileCompat,
        |run| run.case.settings.push(("OFFLOAD_CUFILE", "off".into())),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let trips = tripped(|run| {
            by_cufile(run);
            change(run);
        });
        assert_eq!(trips, [InvariantId::Truth], "change {index}");
    }
}

/// Bytes of the storage that two tensors share, and where the second begins.
const SHARED_BYTES: u64 = MODEL_BYTES + 100;
const SECOND_BYTES: u64 = 6 * MIB + 8;

/// Two tensors that share the middle of a storage came back by cuFile, which read so many bytes.
fn came_back(run: &mut Run, read_bytes: u64) {
    if let Gpu::Present { cufile, .. } = &mut run.case.gpu {
        *cufile = CuFile::DIRECT;
    }
    run.case.models = vec![model()];
    let step = &mut run.steps[0];
    step.status_before = Some(status(0));
    for status in [&mut step.status_before, &mut step.status_after] {
        let tensors = &mut status.as_mut().unwrap().models[0].tensors;
        tensors[0].path = Some(TransferPath::CuFile);
        let second = TensorStatus {
            name: "second".into(),
            ..tensors[0].clone()
        };
        tensors.push(second);
    }
    if let DeviceReading::Board(board) = &mut step.after.device {
        board.cufile_direct.read_bytes = read_bytes;
    }
}

#[test]
fn a_claimed_way_back_on_which_less_was_read_than_all_whole_pages_trips_truth() {
    let pages = SHARED_BYTES / 4096 * 4096;
    for read in [0, 4096, pages - 1] {
        let trips = tripped(|run| came_back(run, read));
        assert_eq!(trips, [InvariantId::Truth], "{read} of {pages}");
    }
    for read in [pages, SHARED_BYTES, 2 * SHARED_BYTES] {
        assert_eq!(tripped(|run| came_back(run, read)), [], "{read} of {pages}");
    }
}

#[test]
fn a_way_back_that_is_not_told_trips_truth() {
    for told in [None, Some(TransferPath::None)] {
        let trips = tripped(|run| {
            came_back(run, 2 * SHARED_BYTES);
            let status = run.steps[0].status_after.as_mut().unwrap();
            for tensor in &mut status.models[0].tensors {
                tensor.path = told;
            }
        });
        assert_eq!(trips, [InvariantId::Truth]);
    }
}

#[test]
fn tensors_side_by_side_may_come_back_one_by_one() {
    let side_by_side = |run: &mut Run, read| {
        came_back(run, read);
        let tensors = &mut run.case.models[0].manifest.tensors;
        tensors[0].shape = vec![SECOND_BYTES];
    };
    let one_by_one = SECOND_BYTES / 4096 * 4096 + (SHARED_BYTES - SECOND_BYTES) / 4096 * 4096;
    assert_eq!(tripped(|run| side_by_side(run, one_by_one)), []);
    let trips = tripped(|run| side_by_side(run, one_by_one - 1));
    assert_eq!(trips, [InvariantId::Truth]);
}

/// The manifest of the model that the run is about.
fn model() -> crate::case::Model {
    let manifest = serde_json::json!({
        "storages": [{"name": "t", "bytes": SHARED_BYTES, "fill": {"seed": 1}}],
        "tensors": [
            {"name": "t", "dtype": "u8", "shape": [7 * MIB], "storage": "t"},
            {
                "name": "second", "dtype": "u8", "shape": [SHARED_BYTES - SECOND_BYTES], "storage": "t",
                "byte_offset": SECOND_BYTES,
            },
        ],
    });
    crate::case::Model {
        name: "m".into(),
        manifest: serde_json::from_value(manifest).unwrap(),
        file: None,
    }
}

#[test]
fn one_descriptor_of_the_log_of_cufile_is_allowed_and_no_other() {
    let log = |name: &'static str, count: u64| {
        move |run: &mut Run| {
            run.work_dir = "/case/work".into();
            let process = settled(run).process.as_mut().unwrap();
            process.descriptors.insert(name.into(), count);
        }
    };
    assert_eq!(tripped(log("/case/work/cufile.log", 1)), []);
    assert_eq!(tripped(log("/case/work/cufile.log", 2)), [InvariantId::Fd]);
    assert_eq!(tripped(log("/case/other/cufile.log", 1)), [InvariantId::Fd]);
}
