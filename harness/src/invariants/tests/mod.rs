//! A run on which nothing is wrong, and one change of it for each thing that an invariant must see: here the run, and the
//! invariants of resources and memory.

mod faulted;
mod lanes;
mod ledger;
mod masks;
mod outcomes;
mod policy;
mod worlds;

use super::{ALL, InvariantId, check};
use crate::{
    case::{Action, Amount, Case, Destinations, Expect, Gpu, Limits, MIB},
    device::{BoardReading, DeviceReading},
    observation::{Aftermath, Outcome, Phase, Reading, Run, StepRecord},
    probe::{FileEntry, FileKind, FilesReading, PeakReading, ProcessMemory, ProcessReading},
    subject::{Captured, Ended, ExitReport, Finding},
    world::World,
};
use spillproof_protocol::{
    Digest, DigestAlgorithm, ErrorKind, ErrorReply, Extent, FreeMemoryReply, ModelStatus, Move,
    RequestReply, StatusReply, TensorStatus, Tier, TierBytes, TransferPath,
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
        ledger: None,
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
            mapped: MODEL_BYTES.saturating_sub(device_bytes),
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
        uss: None,
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
        fired: Vec::new(),
        wall: Duration::ZERO,
        before: reading(before),
        after: reading(after),
        status_before: Some(status(before)),
        status_after: Some(status(after)),
        peak: Some(peak(20 * MIB)),
        expected: BTreeMap::from([("t".into(), digest_of(b"right"))]),
        justified_bytes: MODEL_BYTES,
    }
}

fn digest_of(contents: &[u8]) -> Digest {
    DigestAlgorithm::default().digest(contents)
}

fn request(digest: &[u8]) -> StepRecord {
    let reply = RequestReply {
        digests: BTreeMap::from([("t".into(), digest_of(digest))]),
        recoveries: 0,
    };
    let action = Action::Request {
        model: "m".into(),
        workspace_bytes: 0,
        digests: true,
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
    let case = Case {
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
        world: World::default(),
        path: None,
        faults: None,
        pace: crate::case::Pace::default(),
    };
    Run {
        staging_bytes: 8 * MIB,
        open: Outcome::Done,
        baseline: Some(reading(0)),
        steps: vec![request(b"right"), free()],
        settled: Some(reading(0)),
        aftermath: Some(Aftermath {
            offload_files: FilesReading::default(),
            device: board(0),
        }),
        ..Run::new(&case, "/offload".into())
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
    let changes: [fn(&mut BoardReading); 11] = [
        |board| board.device_bytes += 1,
        |board| board.pool_bytes += 1,
        |board| board.pinned_bytes += 1,
        |board| board.registered_bytes += 1,
        |board| board.contexts += 1,
        |board| board.streams += 1,
        |board| board.events += 1,
        |board| board.pools += 1,
        |board| board.cufile_handles += 1,
        |board| board.cufile_buffers += 1,
        |board| board.cufile_batches += 1,
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
fn violations_on_the_board_trip_device() {
    let text = "cuMemFree_v2: double free";
    let trips = tripped(|run| settled_board(run).violations.push(text.into()));
    assert_eq!(trips, [InvariantId::Device]);
}
