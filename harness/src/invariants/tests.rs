//! A run on which nothing is wrong, and one change of it for each thing that an invariant must see.

use super::{ALL, InvariantId, check};
use crate::{
    case::{Action, Amount, Case, Destinations, Expect, Gpu, Limits, MIB},
    device::{BoardReading, DeviceReading},
    observation::{Aftermath, Outcome, Phase, Reading, Run, StepRecord},
    probe::{FileEntry, FileKind, FilesReading, PeakReading, ProcessMemory, ProcessReading},
    subject::{Captured, Ended, ExitReport, Finding},
};
use spillproof_protocol::{
    Digest, ErrorKind, ErrorReply, Extent, FreeMemoryReply, ModelStatus, Move, RequestReply,
    StatusReply, TensorStatus, Tier, TierBytes, TransferPath,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

const SPILL: &str = "m.spill";
const MODEL_BYTES: u64 = 10 * MIB;

fn process() -> ProcessReading {
    ProcessReading {
        rss_anon_bytes: 20 * MIB,
        rss_shmem_bytes: 0,
        rss_file_bytes: 5 * MIB,
        high_water_bytes: 25 * MIB,
        uss_bytes: 20 * MIB,
        threads: 3,
        descriptors: BTreeMap::from([("socket:[*]".into(), 1)]),
        file_maps: BTreeMap::from([(PathBuf::from("/lib/libc.so.6"), 5)]),
        maps_total: 30,
    }
}

fn board(device_bytes: u64) -> DeviceReading {
    DeviceReading::Board(BoardReading {
        device_bytes,
        ..BoardReading::default()
    })
}

fn reading(device_bytes: u64) -> Reading {
    Reading {
        process: Some(process()),
        written_bytes: 0,
        device: board(device_bytes),
        offload_files: FilesReading::default(),
        other_files: FilesReading::default(),
    }
}

fn status(device_bytes: u64) -> StatusReply {
    let tier = if device_bytes > 0 {
        Tier::Vram
    } else {
        Tier::Mapped
    };
    StatusReply {
        models: vec![ModelStatus {
            name: "m".into(),
            device_bytes,
            tensors: vec![TensorStatus {
                name: "t".into(),
                tier,
                path: None,
            }],
        }],
        tiers: TierBytes {
            vram: device_bytes,
            ram: 0,
            mapped: MODEL_BYTES - device_bytes,
            file: 0,
        },
        files: Vec::new(),
        written_bytes: 0,
        read_bytes: 0,
        reaped_orphans: 0,
    }
}

fn peak(anon: u64) -> PeakReading {
    let memory = ProcessMemory::default();
    PeakReading {
        start: memory,
        end: memory,
        high_water_bytes: anon,
        sampled_anon_shared_peak_bytes: anon,
        anon_shared_upper_bytes: anon,
        sampled_file_peak_bytes: 0,
        uss_peak_bytes: anon,
        uss_start_bytes: 0,
        uss_end_bytes: 0,
        samples: 2,
        reset: true,
    }
}

fn step(action: Action, outcome: Outcome, before: u64, after: u64) -> StepRecord {
    StepRecord {
        number: 1,
        phase: Phase::Case,
        action,
        expect: Expect::Ok,
        outcome,
        wall: Duration::ZERO,
        before: reading(before),
        after: reading(after),
        status_before: Some(status(before)),
        status_after: Some(status(after)),
        peak: Some(peak(20 * MIB)),
        expected: BTreeMap::from([("t".into(), Digest::of(b"right"))]),
        justified_bytes: MODEL_BYTES,
    }
}

fn request(digest: &[u8]) -> StepRecord {
    let reply = RequestReply {
        digests: BTreeMap::from([("t".into(), Digest::of(digest))]),
        recoveries: 0,
    };
    let action = Action::Request {
        model: "m".into(),
        workspace_bytes: 0,
    };
    step(action, Outcome::Served(reply), MODEL_BYTES, MODEL_BYTES)
}

fn free() -> StepRecord {
    let moved = Move {
        tensors: vec!["t".into()],
        bytes: MODEL_BYTES,
        to: Tier::Mapped,
        written_bytes: MODEL_BYTES,
        path: TransferPath::Staged,
    };
    let reply = FreeMemoryReply {
        extent: Extent::Full,
        freed_bytes: MODEL_BYTES,
        moves: vec![moved],
    };
    let action = Action::Free {
        bytes: Amount::float(1e30),
        model: None,
        to: Destinations::All(Tier::Mapped),
    };
    let mut step = step(action, Outcome::Freed(reply), MODEL_BYTES, 0);
    let entry = FileEntry {
        bytes: MODEL_BYTES,
        allocated_bytes: MODEL_BYTES,
        ..file(0o600)
    };
    step.after.offload_files.entries.insert(SPILL.into(), entry);
    let process = step.after.process.as_mut().unwrap();
    process.file_maps.insert("/offload/m.spill".into(), 1);
    step
}

fn clean() -> Run {
    Run {
        case: Case {
            family: "f",
            name: "n".into(),
            models: Vec::new(),
            gpu: Gpu::with_vram(32 * MIB),
            device_name: None,
            settings: Vec::new(),
            open: Expect::Ok,
            steps: Vec::new(),
            limits: Limits::default(),
            requires: Vec::new(),
        },
        staging_bytes: 8 * MIB,
        open: Outcome::Done,
        open_wall: Duration::ZERO,
        baseline: Some(reading(0)),
        steps: vec![request(b"right"), free()],
        settled: Some(reading(0)),
        ended: None,
        aftermath: Some(Aftermath {
            offload_files: FilesReading::default(),
            device: board(0),
        }),
        offload_dir: "/offload".into(),
        doubts: Vec::new(),
        asides: Vec::new(),
        skipped: None,
        infrastructure: None,
    }
}

/// What a change of the clean run trips.
fn tripped(change: impl FnOnce(&mut Run)) -> Vec<InvariantId> {
    let mut run = clean();
    change(&mut run);
    let mut tripped: Vec<InvariantId> = check(&run, ALL)
        .iter()
        .map(|violation| violation.invariant)
        .collect();
    tripped.sort_unstable();
    tripped.dedup();
    tripped
}

fn settled(run: &mut Run) -> &mut Reading {
    run.settled.as_mut().unwrap()
}

fn settled_process(run: &mut Run) -> &mut ProcessReading {
    settled(run).process.as_mut().unwrap()
}

fn settled_board(run: &mut Run) -> &mut BoardReading {
    match &mut settled(run).device {
        DeviceReading::Board(board) => board,
        other @ (DeviceReading::Absent | DeviceReading::Nvml(_)) => panic!("{other:?}"),
    }
}

fn freed(run: &mut Run) -> &mut FreeMemoryReply {
    match &mut run.steps[1].outcome {
        Outcome::Freed(reply) => reply,
        other => panic!("{other:?}"),
    }
}

fn file(mode: u32) -> FileEntry {
    FileEntry {
        bytes: 10,
        allocated_bytes: 4096,
        mode,
        kind: FileKind::File,
        modified_ns: 1,
        inode: 7,
    }
}

fn failure(kind: ErrorKind) -> Outcome {
    Outcome::Failed(ErrorReply {
        kind,
        message: "m".into(),
    })
}

#[test]
fn nothing_is_wrong_with_the_clean_run() {
    assert_eq!(tripped(|_| ()), []);
}

#[test]
fn every_kind_of_device_object_that_is_left_trips_vram() {
    let changes: [fn(&mut BoardReading); 8] = [
        |board| board.device_bytes += 1,
        |board| board.pool_bytes += 1,
        |board| board.pinned_bytes += 1,
        |board| board.registered_bytes += 1,
        |board| board.contexts += 1,
        |board| board.streams += 1,
        |board| board.events += 1,
        |board| board.pools += 1,
    ];
    for change in changes {
        assert_eq!(
            tripped(|run| change(settled_board(run))),
            [InvariantId::Vram]
        );
    }
}

#[test]
fn device_memory_kept_by_a_failed_call_trips_vram() {
    let trips = tripped(|run| {
        run.steps[0] = request(b"right");
        run.steps[0].expect = Expect::Error(ErrorKind::DeviceOom);
        run.steps[0].outcome = failure(ErrorKind::DeviceOom);
        run.steps[0].after.device = board(MODEL_BYTES + 1);
    });
    assert_eq!(trips, [InvariantId::Vram]);
}

#[test]
fn a_peak_over_the_limit_trips_rss_and_one_at_it_does_not() {
    let limit = 20 * MIB + 8 * MIB + 8 * MIB;
    assert_eq!(tripped(|run| run.steps[1].peak = Some(peak(limit))), []);
    let over = |run: &mut Run| run.steps[1].peak = Some(peak(limit + 1));
    assert_eq!(tripped(over), [InvariantId::Rss]);
    let kept = |run: &mut Run| settled_process(run).rss_anon_bytes = limit + 1;
    assert_eq!(tripped(kept), [InvariantId::Rss]);
}

#[test]
fn memory_that_grows_with_every_request_trips_rss_and_noise_does_not() {
    let requests = |growth_bytes: fn(u64) -> u64| {
        move |run: &mut Run| {
            run.steps = (0..25)
                .map(|index| {
                    let mut step = request(b"right");
                    let process = step.after.process.as_mut().unwrap();
                    process.rss_anon_bytes += growth_bytes(index);
                    step
                })
                .collect();
        }
    };
    assert_eq!(
        tripped(requests(|index| index * 128 * 1024)),
        [InvariantId::Rss]
    );
    assert_eq!(tripped(requests(|index| index * 64 * 1024)), []);
    assert_eq!(tripped(requests(|index| (index % 3) * 3 * MIB)), []);
    let once = |index| if index > 12 { 6 * MIB } else { 0 };
    assert_eq!(tripped(requests(once)), []);
}

#[test]
fn one_descriptor_or_thread_or_mapping_too_many_trips_its_invariant() {
    let opened = |run: &mut Run| {
        settled_process(run).descriptors.insert("/x".into(), 1);
    };
    assert_eq!(tripped(opened), [InvariantId::Fd]);
    let closed = |run: &mut Run| settled_process(run).descriptors.clear();
    assert_eq!(tripped(closed), [InvariantId::Fd]);
    assert_eq!(
        tripped(|run| settled_process(run).threads += 1),
        [InvariantId::Threads]
    );
    let mapped = |run: &mut Run| {
        let maps = &mut settled_process(run).file_maps;
        maps.insert("/offload/x (deleted)".into(), 1);
    };
    assert_eq!(tripped(mapped), [InvariantId::Maps]);
    let library = |run: &mut Run| {
        settled_process(run)
            .file_maps
            .insert("/lib/libm.so.6".into(), 4);
    };
    assert_eq!(tripped(library), []);
}

#[test]
fn a_map_in_the_file_only_tier_trips_maps() {
    let trips = tripped(|run| {
        freed(run).moves[0].to = Tier::File;
        let all = Destinations::All(Tier::File);
        run.steps[1].action = match run.steps[1].action.clone() {
            Action::Free { bytes, model, .. } => Action::Free {
                bytes,
                model,
                to: all,
            },
            other => panic!("{other:?}"),
        };
    });
    assert_eq!(trips, [InvariantId::Maps]);
}

#[test]
fn files_left_strayed_changed_or_open_to_others_trip_files() {
    let changes: [fn(&mut Run); 5] = [
        |run| {
            let files = &mut settled(run).offload_files.entries;
            files.insert("m.spill".into(), file(0o600));
        },
        |run| {
            let files = &mut settled(run).other_files.entries;
            files.insert("work/scratch".into(), file(0o600));
        },
        |run| {
            let before = &mut run.baseline.as_mut().unwrap().other_files.entries;
            before.insert("work/log".into(), file(0o600));
        },
        |run| {
            let files = &mut run.aftermath.as_mut().unwrap().offload_files.entries;
            files.insert("m.spill".into(), file(0o600));
        },
        |run| {
            let files = &mut run.steps[1].after.offload_files.entries;
            files.insert("other".into(), file(0o640));
        },
    ];
    for change in changes {
        assert_eq!(tripped(change), [InvariantId::Files]);
    }
}

#[test]
fn wrong_missing_and_unknown_digests_trip_data() {
    assert_eq!(
        tripped(|run| run.steps[0] = request(b"wrong")),
        [InvariantId::Data]
    );
    let missing = |run: &mut Run| {
        run.steps[0].expected.insert("u".into(), Digest::of(b"u"));
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
    let management = |run: &mut Run| run.steps[1].outcome = failure(ErrorKind::Io);
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
fn every_lie_about_what_was_freed_trips_policy() {
    let changes: [fn(&mut Run); 7] = [
        |run| freed(run).freed_bytes -= 1,
        |run| freed(run).extent = Extent::Partial,
        |run| freed(run).moves[0].to = Tier::Ram,
        |run| run.steps[1].status_after = Some(status(1)),
        |run| run.steps[1].after.device = board(MODEL_BYTES / 2),
        |run| run.steps[1].after.written_bytes = MODEL_BYTES + 2 * MIB,
        |run| {
            run.steps[1].action = Action::Free {
                bytes: Amount::whole(0),
                model: None,
                to: Destinations::Any,
            };
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let trips = tripped(change);
        assert!(trips.contains(&InvariantId::Policy), "{index}: {trips:?}");
    }
}

#[test]
fn destinations_that_nothing_bears_out_trip_policy() {
    let changes: [fn(&mut Run); 4] = [
        // Said to be mapped, and no map is there.
        |run| {
            let process = run.steps[1].after.process.as_mut().unwrap();
            process.file_maps.remove(Path::new("/offload/m.spill"));
        },
        // Said to be in files, and the files are empty.
        |run| {
            let files = &mut run.steps[1].after.offload_files.entries;
            files.get_mut(Path::new(SPILL)).unwrap().allocated_bytes = 0;
        },
        // Said to be in RAM, and it is in a file.
        |run| {
            freed(run).moves[0].to = Tier::Ram;
            run.steps[1].action = free_to(Destinations::Any);
        },
        // Files are turned off, and there is one.
        |run| {
            run.case.settings = vec![("MMAP_MEM_THRESHOLD_GB", "0".into())];
            run.steps[1].action = free_to(Destinations::Any);
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert_eq!(tripped(change), [InvariantId::Policy], "{index}");
    }
}

fn free_to(to: Destinations) -> Action {
    Action::Free {
        bytes: Amount::Unsaid,
        model: None,
        to,
    }
}

#[test]
fn the_share_of_ram_is_counted_to_the_byte() {
    let split = |ram_bytes| {
        move |run: &mut Run| {
            let rest = Tier::Mapped;
            run.steps[1].action = free_to(Destinations::Split { ram_bytes, rest });
        }
    };
    assert_eq!(tripped(split(0)), []);
    assert_eq!(tripped(split(1)), [InvariantId::Policy]);
}

#[test]
fn a_file_that_changes_without_a_reported_write_trips_policy() {
    let again = |change: fn(&mut FileEntry)| {
        move |run: &mut Run| {
            let mut next = request(b"right");
            next.before = run.steps[1].after.clone();
            next.after = run.steps[1].after.clone();
            next.after.device = next.before.device.clone();
            let files = &mut next.after.offload_files.entries;
            change(files.get_mut(Path::new(SPILL)).unwrap());
            run.steps.push(next);
        }
    };
    assert_eq!(tripped(again(|_| ())), []);
    let rewritten = again(|entry| entry.modified_ns += 1);
    assert_eq!(tripped(rewritten), [InvariantId::Policy]);
    let given_back = again(|entry| {
        entry.modified_ns += 1;
        entry.allocated_bytes -= 4096;
    });
    assert_eq!(tripped(given_back), []);
    let reported = |run: &mut Run| {
        let status = run.steps[1].status_after.as_mut().unwrap();
        status.written_bytes = MODEL_BYTES + 2 * MIB;
    };
    assert_eq!(tripped(reported), [InvariantId::Policy]);
}

#[test]
fn a_copy_kept_in_ram_after_a_reload_trips_rss() {
    let kept = |run: &mut Run| {
        run.case.limits.ram_tier_bytes = 100 * MIB;
        let process = run.steps[0].after.process.as_mut().unwrap();
        process.rss_anon_bytes += 40 * MIB;
    };
    assert_eq!(tripped(kept), [InvariantId::Rss]);
}

#[test]
fn staging_that_is_resident_at_the_baseline_does_not_count_twice() {
    let pinned = |run: &mut Run| {
        for reading in [run.baseline.as_mut(), run.settled.as_mut()] {
            match &mut reading.unwrap().device {
                DeviceReading::Board(board) => board.registered_bytes = 8 * MIB,
                other @ (DeviceReading::Absent | DeviceReading::Nvml(_)) => panic!("{other:?}"),
            }
        }
        run.steps[1].peak = Some(peak(28 * MIB + 1));
    };
    assert_eq!(tripped(pinned), [InvariantId::Rss]);
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
fn a_refused_request_that_frees_trips_policy() {
    let trips = tripped(|run| {
        run.steps[1].expect = Expect::Error(ErrorKind::InvalidArgument);
        run.steps[1].outcome = failure(ErrorKind::InvalidArgument);
    });
    assert_eq!(trips, [InvariantId::Policy]);
}

#[test]
fn violations_on_the_board_trip_device() {
    let text = "cuMemFree_v2: double free";
    let trips = tripped(|run| settled_board(run).violations.push(text.into()));
    assert_eq!(trips, [InvariantId::Device]);
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
}
