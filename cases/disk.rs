//! Calls on files, maps and device memory that fail at the border: each failure is told, made good by another try or done
//! without, and leaves nothing behind. Which step a fault meets is the engine's own affair; what must come of it follows from
//! the receipts.

use crate::{
    models::plain,
    steps::{CaseWords as _, case, drop_model, free, load, modify, read_back, request},
    suite::FILE_IO,
    world_steps::dies_idle,
};
use spillproof_harness::{
    case::{Amount, Case, CuFile, Destinations, Gpu, MIB},
    crash::Deadly,
};
use spillproof_protocol::{Capability, TransferPath};

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    PLANS
        .iter()
        .map(|(name, plan)| journey(name, plan))
        .chain(DURABLE.iter().map(|(name, plan)| durable(name, plan)))
        .chain([failed_change(), no_direct_io(), direct_io_refused()])
        .chain(no_descriptor_for_cufile())
        .chain(no_descriptor_at_a_start())
        .chain(CLOSES.iter().map(|(name, plan)| under_pressure(name, plan)))
        .collect()
}

/// Names and plans, by what fails.
const PLANS: &[(&str, &str)] = &[
    // Writing.
    (
        "enospc_at_the_first_write",
        "pwrite,write:error=ENOSPC:when=1",
    ),
    (
        "enospc_at_a_middle_write",
        "pwrite,write:error=ENOSPC:when=4",
    ),
    ("edquot", "pwrite,write:error=EDQUOT:when=2"),
    ("efbig", "pwrite,write:error=EFBIG:when=2"),
    ("eio_on_write", "pwrite,write:error=EIO:when=2"),
    ("eio_on_every_write", "pwrite,write:error=EIO"),
    (
        "short_write_then_enospc",
        "pwrite,write:short=4096:when=2;pwrite,write:error=ENOSPC:when=3",
    ),
    ("short_writes", "pwrite,write:short=4096:when=1..8"),
    ("interrupted_writes", "pwrite,write:error=EINTR:when=1+2"),
    ("slow_writes", "pwrite,write:delay=2ms"),
    (
        "slow_copies",
        "cuMemcpyDtoHAsync,cuMemcpyDtoH,cuMemcpyHtoDAsync,cuMemcpyHtoD:delay=2ms",
    ),
    // Making files.
    ("no_permission", "open,openat:error=EACCES:when=1"),
    ("no_descriptor", "open,openat:error=EMFILE:when=1"),
    ("read_only_filesystem", "open,openat:error=EROFS:when=1"),
    ("name_too_long", "open,openat:error=ENAMETOOLONG:when=1"),
    ("no_length", "ftruncate:error=EIO:when=1"),
    (
        "no_space_to_reserve",
        "fallocate,posix_fallocate:error=ENOSPC:when=1",
    ),
    (
        "no_reservations",
        "fallocate,posix_fallocate:error=EOPNOTSUPP",
    ),
    ("eio_at_close", "close:error=EIO:when=1"),
    ("enospc_at_close", "close:error=ENOSPC:when=1"),
    // Reading.
    ("eio_on_the_first_read", "pread,read:error=EIO:when=1"),
    ("eio_on_a_later_read", "pread,read:error=EIO:when=4"),
    ("short_reads", "pread,read:short=4096:when=1..8"),
    ("interrupted_reads", "pread,read:error=EINTR:when=1+2"),
    // Maps.
    ("no_maps", "mmap:error=ENOMEM"),
    ("no_advice", "madvise:error=ENOMEM"),
    // Removing.
    ("a_file_that_stays", "unlink,unlinkat:error=EIO:when=1"),
    // The device.
    (
        "device_oom_once",
        "cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:when=4",
    ),
    (
        "device_oom_for_good",
        "cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:when=8+",
    ),
    (
        "a_copy_to_the_host_fails",
        "cuMemcpyDtoHAsync,cuMemcpyDtoH:error=CUDA_ERROR_INVALID_VALUE:when=2",
    ),
    (
        "a_copy_is_queued_and_said_to_have_failed",
        "cuMemcpyDtoHAsync:error=CUDA_ERROR_UNKNOWN:after:when=2",
    ),
    (
        "a_copy_to_the_device_fails",
        "cuMemcpyHtoDAsync,cuMemcpyHtoD:error=CUDA_ERROR_INVALID_VALUE:when=9",
    ),
];

/// To files and back, twice, and once more after a change; through one thread, so that calls come in one order.
fn journey(name: &str, plan: &str) -> Case {
    let free_all = || free(Amount::float(1e30), Destinations::Any);
    case("disk", name, 32, vec![plain("a", 1, &[2 * MIB; 6])])
        .set("OFFLOAD_IO_THREADS", "1")
        .set("OFFLOAD_STAGING_MB", "4")
        .needs(Capability::Modify)
        .failing(plan)
        .steps([
            load("a"),
            free_all(),
            read_back("a"),
            request("a"),
            free_all(),
            request("a"),
            modify("a", "t1", 7),
            free_all(),
            request("a"),
            drop_model("a"),
            // What could not be removed has gone by now.
            load("a"),
            free_all(),
            drop_model("a"),
        ])
}

/// Where bytes have to be on the disk before device memory goes.
const DURABLE: &[(&str, &str)] = &[
    ("eio_at_a_sync", "fsync,fdatasync:error=EIO:when=2"),
    ("eio_at_every_sync", "fsync,fdatasync:error=EIO"),
];

fn durable(name: &str, plan: &str) -> Case {
    journey(name, plan).set("OFFLOAD_DURABLE", "1")
}

/// The same where cuFile moves bytes directly. Its descriptor is the one for direct I/O: the second that is opened, after that
/// which made the file.
fn by_cufile(mut case: Case) -> Case {
    if let Gpu::Present { cufile, .. } = &mut case.gpu {
        *cufile = CuFile::DIRECT;
    }
    case.set("OFFLOAD_CUFILE", "on").needs(Capability::CuFile)
}

fn no_direct_io() -> Case {
    by_cufile(journey("no_direct_io", "open,openat:error=EINVAL:when=2"))
}

/// The file opens for direct I/O, and the first write through it is refused all the same (F37).
fn direct_io_refused() -> Case {
    let plan = "pwrite:error=EINVAL:when=1";
    journey("direct_io_refused_at_a_write", plan).set(FILE_IO, "direct")
}

/// No descriptor for cuFile where a block leaves: an error, and no reason to take another way from then on (F36).
fn no_descriptor_for_cufile() -> Vec<Case> {
    let plans = [
        (
            "no_descriptor_for_cufile",
            "open,openat:error=EMFILE:when=2",
        ),
        (
            "no_file_entry_for_cufile",
            "open,openat:error=ENFILE:when=2",
        ),
    ];
    let case = |(name, plan)| only_by_cufile(journey(name, plan));
    plans.into_iter().map(case).collect()
}

/// What a start opens where a killed one left files, from the directory on to what cuFile is tried out with.
const STARTING_OPENS: std::ops::RangeInclusive<u32> = 1..=9;

/// No descriptor while a start tries cuFile out: an error as well. A start that took cuFile for unusable would stage ever after.
fn no_descriptor_at_a_start() -> Vec<Case> {
    let free_all = || free(Amount::float(1e30), Destinations::Any);
    let case = |nth| {
        let name = format!("no_descriptor_at_open_{nth}_of_a_start");
        let mut case = case("disk", name, 32, vec![plain("a", 1, &[2 * MIB; 3])])
            .failing(&format!("open,openat:error=EMFILE:when={nth}"))
            .steps([load("a"), free_all()])
            .steps(dies_idle(Deadly::Kill))
            .steps([load("a"), free_all(), request("a")])
            // What could not be removed goes with the next start.
            .steps(dies_idle(Deadly::Kill))
            .steps([load("a"), free_all()]);
        if let Some(faults) = &mut case.faults {
            faults.steps = 3..4;
        }
        only_by_cufile(case)
    };
    STARTING_OPENS.map(case).collect()
}

fn only_by_cufile(case: Case) -> Case {
    Case {
        path: Some(TransferPath::CuFile),
        ..by_cufile(case)
    }
}

/// What closing a file tells where a request makes another model leave (F42).
const CLOSES: &[(&str, &str)] = &[
    ("eio_at_close_under_pressure", "close:error=EIO:when=1"),
    (
        "enospc_at_close_under_pressure",
        "close:error=ENOSPC:when=2",
    ),
    ("edquot_at_every_close_under_pressure", "close:error=EDQUOT"),
];

/// The device holds one of two models. The request that meets the fault makes the other one leave for its file.
fn under_pressure(name: &str, plan: &str) -> Case {
    let models = vec![plain("a", 1, &[2 * MIB; 3]), plain("b", 2, &[2 * MIB; 3])];
    let mut case = case("disk", name, 8, models)
        .set("OFFLOAD_IO_THREADS", "1")
        .set("OFFLOAD_STAGING_MB", "4")
        .failing(plan)
        .steps([load("a"), load("b"), request("a")])
        .steps([request("b"), request("a")]);
    if let Some(faults) = &mut case.faults {
        faults.steps = 2..3;
    }
    case
}

/// The first copy after those of a load is that of the change: it fails, and the tensor has its old bytes or its new ones from then on.
fn failed_change() -> Case {
    let free_all = || free(Amount::float(1e30), Destinations::Any);
    let plan = "cuMemcpyHtoDAsync,cuMemcpyHtoD:error=CUDA_ERROR_INVALID_VALUE:when=7";
    let model = plain("a", 1, &[64 << 10; 6]);
    case("disk", "a_copy_for_a_change_fails", 32, vec![model])
        .set("OFFLOAD_IO_THREADS", "1")
        .set("OFFLOAD_STAGING_MB", "4")
        .needs(Capability::Modify)
        .failing(plan)
        .steps([
            load("a"),
            modify("a", "t1", 7),
            request("a"),
            free_all(),
            read_back("a"),
            request("a"),
            modify("a", "t1", 8),
            free_all(),
            request("a"),
            drop_model("a"),
        ])
}
