//! For each error that may or must be masked, and for each excuse: the file, the memory or the word that it holds for, and another
//! beside it for which it does not.

use super::{
    faulted::{fired, met},
    *,
};
use crate::{faults::Fired, probe::LedgerReading};
use spillproof_faults::{Kind, LedgerEntry, SiteId};

const OTHER: &str = "other.spill";

fn at(path: &str, fired: Fired) -> Fired {
    Fired {
        path: path.into(),
        ..fired
    }
}

/// What trips when a request is served after these errors, and the file changed in it or did not.
fn served(errors: &[Fired], recoveries: u64, writes: bool) -> Vec<InvariantId> {
    served_with_hole(errors, recoveries, writes, 0)
}

/// As above, where so much of the file is a hole.
fn served_with_hole(
    errors: &[Fired],
    recoveries: u64,
    writes: bool,
    hole_bytes: u64,
) -> Vec<InvariantId> {
    tripped(|run| {
        run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
        let mut next = request(b"right");
        next.before = run.steps[1].after.clone();
        next.before.device = board(MODEL_BYTES);
        next.after = next.before.clone();
        if writes {
            let files = &mut next.after.offload_files.entries;
            let entry = files.get_mut(Path::new(SPILL)).unwrap();
            entry.modified_ns += 1;
            entry.allocated_bytes = entry.bytes - hole_bytes;
            next.justified_bytes += MODEL_BYTES;
        }
        if let Outcome::Served(reply) = &mut next.outcome {
            reply.recoveries = recoveries;
        }
        next.fired = errors.to_vec();
        run.steps.push(next);
    })
    .into_iter()
    // That the file changed without a move is told of this request as well.
    .filter(|invariant| *invariant != InvariantId::Policy)
    .collect()
}

#[test]
fn a_close_tells_of_bytes_where_the_step_wrote_the_file() {
    let close = |path| [at(path, fired("close", "EIO"))];
    assert_eq!(served(&close(SPILL), 1, true), [InvariantId::Truth]);
    assert_eq!(served(&close(SPILL), 1, false), []);
    assert_eq!(served(&close(OTHER), 1, true), []);
}

#[test]
fn a_full_disk_is_made_good_by_what_goes_elsewhere_and_not_in_the_file_that_met_it() {
    for site in ["pwrite", "fallocate", "ftruncate"] {
        let full = [at(SPILL, fired(site, "ENOSPC"))];
        assert_eq!(served(&full, 1, false), [], "{site}");
        assert_eq!(served(&full, 1, true), [InvariantId::Truth], "{site}");
        assert_eq!(served(&full, 0, false), [InvariantId::Truth], "{site}");
        // What met it was taken back; another tensor of the file stays.
        assert_eq!(served_with_hole(&full, 1, true, 4096), [], "{site}");
        // It was written again.
        assert_eq!(served(&full, 2, true), [], "{site}");
    }
}

#[test]
fn a_length_that_was_not_compared_before_a_reload_is_told() {
    let unknown = |path| [at(path, fired("fstat", "ENOMEM"))];
    assert_eq!(served(&unknown(SPILL), 0, false), [InvariantId::Truth]);
    assert_eq!(served(&unknown(SPILL), 0, true), []);
    assert_eq!(served(&unknown(SPILL), 1, false), []);
    assert_eq!(served(&unknown(OTHER), 0, false), []);
    let by_name = [at(SPILL, fired("fstatat", "ENOMEM"))];
    assert_eq!(served(&by_name, 0, false), []);
    assert_eq!(met(1, &unknown(SPILL), None), []);
}

#[test]
fn what_a_sync_tells_of_lost_bytes_is_no_advice() {
    let told = |error| met(1, &[fired("sync_file_range", error)], None);
    assert_eq!(told("EINVAL"), []);
    assert_eq!(told("EIO"), [InvariantId::Truth]);
    assert_eq!(told("ENOSPC"), [InvariantId::Truth]);
}

#[test]
fn a_filesystem_that_cannot_be_asked_is_told_unless_it_says_that_it_never_can() {
    assert_eq!(met(1, &[fired("fstatfs", "ENOSYS")], None), []);
    let told = met(1, &[fired("fstatfs", "EIO")], None);
    assert_eq!(told, [InvariantId::Truth]);
}

#[test]
fn descriptors_that_run_out_are_told_with_cufile_as_well() {
    let with_cufile = |error: &'static str| {
        tripped(|run| {
            run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
            run.case.settings = vec![("OFFLOAD_CUFILE", "on".into())];
            run.steps[1].fired = vec![fired("openat", error)];
        })
    };
    for error in ["EMFILE", "ENFILE", "EACCES"] {
        assert_eq!(with_cufile(error), [InvariantId::Truth], "{error}");
    }
    assert_eq!(with_cufile("EINVAL"), []);
    // Another descriptor of the file leads to it.
    assert_eq!(with_cufile("ENOENT"), []);
}

#[test]
fn only_past_the_page_cache_may_a_transfer_be_refused_as_invalid_without_a_word() {
    let refused = |site: &'static str, file_io: Option<&'static str>| {
        tripped(|run| {
            run.case.faults = Some("pwrite:error=EINVAL".parse().unwrap());
            let settings = file_io.into_iter();
            run.case.settings = settings
                .map(|value| ("OFFLOAD_FILE_IO", value.into()))
                .collect();
            run.steps[1].fired = vec![fired(site, "EINVAL")];
        })
    };
    for site in ["pread", "pwrite"] {
        assert_eq!(refused(site, Some("direct")), [], "{site}");
        for other in [None, Some("buffered")] {
            assert_eq!(refused(site, other), [InvariantId::Truth], "{site}");
        }
    }
}

#[test]
fn a_lost_device_is_told_where_memory_is_pinned() {
    let told = |error| met(1, &[fired("cuMemHostRegister", error)], None);
    assert_eq!(told("CUDA_ERROR_NOT_SUPPORTED"), []);
    assert_eq!(told("CUDA_ERROR_ILLEGAL_ADDRESS"), [InvariantId::Truth]);
}

#[test]
fn staging_and_ordinary_io_must_serve_where_cufile_and_direct_io_do_not() {
    let io = || Some(failure(ErrorKind::Io));
    for site in ["cuFileHandleRegister", "cuFileWrite"] {
        let refused = [fired(site, "CU_FILE_INTERNAL_ERROR")];
        assert_eq!(met(1, &refused, io()), [InvariantId::Progress], "{site}");
    }
    let full = Some(failure(ErrorKind::DiskFull));
    assert_eq!(met(1, &[fired("cuFileWrite", "ENOSPC")], full), []);
    let opened = |flags: i32| Fired {
        key: u64::from(flags as u32),
        ..fired("openat", "EINVAL")
    };
    let direct = opened(libc::O_RDWR | libc::O_DIRECT);
    assert_eq!(met(1, &[direct], io()), [InvariantId::Progress]);
    assert_eq!(met(1, &[opened(libc::O_RDWR)], io()), []);
    for error in ["CUDA_ERROR_NOT_SUPPORTED", "CUDA_ERROR_NOT_PERMITTED"] {
        let refused = [fired("cuMemHostRegister", error)];
        let failed = met(1, &refused, Some(failure(ErrorKind::DeviceError)));
        assert_eq!(failed, [InvariantId::Progress], "{error}");
    }
}

fn memory(key: u64, serial: u64) -> LedgerEntry {
    LedgerEntry {
        kind: Kind::DeviceMemory,
        key,
        bytes: 1000,
        site: SiteId::named("cuMemAlloc"),
        nth: 1,
        serial,
        pid: 1,
        path: String::new(),
        caller: String::new(),
        is_ending: false,
    }
}

fn holding(held: &[LedgerEntry]) -> Option<LedgerReading> {
    let context = LedgerEntry {
        kind: Kind::Context,
        bytes: 0,
        ..memory(1, 1)
    };
    Some(LedgerReading {
        held: [&[context], held].concat(),
        lost: 0,
        cufile_closes: 0,
    })
}

fn refused(key: u64, error: &str) -> Fired {
    Fired {
        key,
        serial: 50,
        ..fired("cuMemFree", error)
    }
}

/// What trips where this is left on the device at the end, after a free of the key 7 that was refused so and told.
fn left(held: &[LedgerEntry], device_bytes: u64, error: &str) -> Vec<InvariantId> {
    tripped(|run| {
        run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
        run.steps[0].fired = vec![refused(7, error)];
        run.steps[0].outcome = failure(ErrorKind::DeviceError);
        run.baseline.as_mut().unwrap().ledger = holding(&[]);
        settled(run).ledger = holding(held);
        settled(run).device = board(device_bytes);
    })
}

#[test]
fn memory_that_was_said_to_be_none_is_excused_and_no_other() {
    let unknown = "CUDA_ERROR_INVALID_VALUE";
    assert_eq!(left(&[memory(7, 9)], 1024, unknown), []);
    let vram = [InvariantId::Vram];
    assert_eq!(left(&[memory(8, 9)], 1024, unknown), vram);
    assert_eq!(left(&[memory(7, 9)], 1025, unknown), vram);
    let both = [memory(7, 9), memory(8, 10)];
    assert_eq!(left(&both, 2048, unknown), vram);
    // It was made at that address after the refusal.
    assert_eq!(left(&[memory(7, 51)], 1024, unknown), vram);
    // That can be tried again.
    assert_eq!(left(&[memory(7, 9)], 1024, "CUDA_ERROR_UNKNOWN"), vram);
}

#[test]
fn a_free_that_is_tried_again_may_be_refused_again_without_a_word_and_another_may_not() {
    let again = |key| {
        tripped(|run| {
            run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
            run.steps[0].fired = vec![refused(7, "CUDA_ERROR_UNKNOWN")];
            run.steps[0].outcome = failure(ErrorKind::DeviceError);
            run.steps[1].number = 2;
            run.steps[1].fired = vec![refused(key, "CUDA_ERROR_UNKNOWN")];
        })
    };
    assert_eq!(again(7), []);
    assert_eq!(again(8), [InvariantId::Truth]);
}

#[test]
fn memory_that_is_missing_is_told_by_who_takes_some() {
    let missing = || Some(failure(ErrorKind::DeviceOom));
    let refused = [refused(7, "CUDA_ERROR_UNKNOWN")];
    assert_eq!(met(0, &refused, missing()), []);
    assert_eq!(met(1, &refused, missing()), [InvariantId::Typed]);
}

#[test]
fn a_file_that_was_said_not_to_be_there_may_stay_and_no_other() {
    let left = |file: &str, denied: &str, error: &str| {
        tripped(|run| {
            run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
            run.steps[1].fired = vec![at(denied, fired("unlinkat", error))];
            let files = &mut settled(run).offload_files.entries;
            files.insert(file.into(), super::file(0o600));
        })
    };
    assert_eq!(left("d/m.spill", "d/m.spill", "ENOENT"), []);
    assert_eq!(left("d", "d/m.spill", "ENOENT"), []);
    assert_eq!(left("d/m.spill", "d", "ENOENT"), []);
    let files = [InvariantId::Files];
    assert_eq!(left("d/other.spill", "d/m.spill", "ENOENT"), files);
    assert_eq!(left("d/m.spill", "d/m.spill", "EIO"), files);
}

#[test]
fn what_is_kept_before_the_device_is_lost_is_not_excused_by_it() {
    let kept = |lost_at: usize| {
        tripped(|run| {
            run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
            run.steps[0].fired = vec![fired("pread", "EIO")];
            run.steps[0].outcome = failure(ErrorKind::Io);
            run.steps[0].after.device = board(MODEL_BYTES + 1);
            let lost = fired("cuStreamSynchronize", "CUDA_ERROR_ILLEGAL_ADDRESS");
            run.steps[lost_at].fired.push(lost);
            run.steps[1].number = 2;
            run.steps[1].outcome = failure(ErrorKind::DeviceError);
            let before = run.steps[1].before.clone();
            run.steps[1].after = before;
            run.steps[1].status_after = run.steps[1].status_before.clone();
        })
    };
    assert_eq!(kept(0), []);
    assert_eq!(kept(1), [InvariantId::Vram]);
}

#[test]
fn a_double_free_is_excused_for_what_a_denied_call_gave_back() {
    let freed = |after: bool, address: &str| {
        tripped(|run| {
            run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
            let denied = Fired {
                after,
                ..refused(0x70, "CUDA_ERROR_UNKNOWN")
            };
            run.steps[0].fired = vec![denied];
            run.steps[0].outcome = failure(ErrorKind::DeviceError);
            let violation = format!("cuMemFree_v2: double free of {address} (process 1)");
            settled_board(run).violations.push(violation);
        })
    };
    assert_eq!(freed(true, "0x70"), []);
    assert_eq!(freed(true, "0x80"), [InvariantId::Device]);
    assert_eq!(freed(true, "0x700"), [InvariantId::Device]);
    assert_eq!(freed(false, "0x70"), [InvariantId::Device]);
}
