//! What the ledger of calls tells of things that are left, where the device tells of none.

use super::*;
use crate::{
    case::{CuFile, CuFileFault, Gpu},
    probe::LedgerReading,
};
use spillproof_faults::{Kind, LedgerEntry, SiteId};

fn entry(kind: Kind, site: &str, bytes: u64, serial: u64) -> LedgerEntry {
    LedgerEntry {
        kind,
        key: serial,
        bytes,
        site: SiteId::named(site),
        nth: 12,
        serial,
        pid: 1,
        path: String::new(),
        caller: "libengine.so".into(),
        is_ending: false,
    }
}

fn context(serial: u64) -> LedgerEntry {
    entry(Kind::Context, "cuDevicePrimaryCtxRetain", 0, serial)
}

fn slot(serial: u64) -> LedgerEntry {
    entry(Kind::PinnedMemory, "cuMemHostAlloc", MIB, serial)
}

fn holding(held: &[LedgerEntry]) -> Option<LedgerReading> {
    Some(LedgerReading {
        held: held.to_vec(),
        lost: 0,
        cufile_closes: 0,
    })
}

/// The clean run, whose board tells of nothing, with these things held at the baseline and at the end.
fn run(before: &[LedgerEntry], after: &[LedgerEntry]) -> Run {
    let mut run = clean();
    run.baseline.as_mut().unwrap().ledger = holding(before);
    settled(&mut run).ledger = holding(after);
    run
}

fn violations(run: &Run) -> Vec<String> {
    let all = check(run, ALL).into_iter();
    all.map(|one| format!("{}: {}", one.invariant, one.message))
        .collect()
}

#[test]
fn what_is_left_of_each_kind_is_named_by_call_size_serial_and_step() {
    let before = [context(1), slot(2)];
    let mut left = run(
        &before,
        &[
            context(1),
            slot(2),
            entry(Kind::PinnedMemory, "cuMemHostAlloc", 64 * MIB, 117),
        ],
    );
    left.steps[1].after.ledger = settled(&mut left).ledger.clone();
    let step = left.steps[1].place();
    assert_eq!(
        violations(&left),
        [format!(
            "vram: survivor: cuMemHostAlloc #12, 64.0 MiB, by libengine.so, serial 117 ({step})"
        )]
    );
    for (kind, site) in [
        (Kind::DeviceMemory, "cuMemAlloc"),
        (Kind::PinnedMemory, "cuMemHostAlloc"),
        (Kind::RegisteredMemory, "cuMemHostRegister"),
        (Kind::Stream, "cuStreamCreate"),
        (Kind::Event, "cuEventCreate"),
        (Kind::MemoryPool, "cuMemPoolCreate"),
        (Kind::AddressRange, "cuMemAddressReserve"),
        (Kind::PhysicalMemory, "cuMemCreate"),
        (Kind::DeviceMapping, "cuMemMap"),
        (Kind::CuFileHandle, "cuFileHandleRegister"),
        (Kind::CuFileBuffer, "cuFileBufRegister"),
        (Kind::CuFileStream, "cuFileStreamRegister"),
        (Kind::CuFileBatch, "cuFileBatchIOSetUp"),
    ] {
        let left = run(&before, &[context(1), slot(2), entry(kind, site, 0, 9)]);
        let found = violations(&left);
        let wanted = format!("vram: survivor: {site} #12, by libengine.so, serial 9");
        assert_eq!(found, [wanted]);
    }
}

#[test]
fn what_replaces_another_of_its_kind_and_size_is_not_left_over() {
    let before = [context(1), slot(2), slot(3)];
    assert_eq!(violations(&run(&before, &before)), [""; 0]);
    let replaced = [context(1), slot(3), slot(4)];
    assert_eq!(violations(&run(&before, &replaced)), [""; 0]);
    let more = [context(1), slot(3), slot(4), slot(5)];
    let found = violations(&run(&before, &more));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("serial 5"), "{found:?}");
    let mut larger = replaced.clone();
    larger[2].bytes += 1;
    assert_eq!(violations(&run(&before, &larger)).len(), 1);
}

#[test]
fn device_memory_that_an_unload_leaves_is_named_at_its_step() {
    let memory = entry(Kind::DeviceMemory, "cuMemAlloc", 4 * MIB, 30);
    let mut left = run(&[context(1)], &[context(1)]);
    let step = left
        .steps
        .iter()
        .position(|step| matches!(step.outcome, Outcome::Freed(_)));
    let step = &mut left.steps[step.unwrap()];
    step.after.ledger = holding(&[context(1), memory, slot(31)]);
    let place = step.place();
    let found = violations(&left);
    let wanted = format!(
        "vram: {place}: nothing is loaded, yet survivor: cuMemAlloc #12, 4.0 MiB, by libengine.so, serial 30 ({place})"
    );
    assert_eq!(found, [wanted]);
}

#[test]
fn what_goes_with_its_context_or_its_driver_is_not_left_over() {
    let handle = entry(Kind::CuFileHandle, "cuFileHandleRegister", 0, 8);
    let lost = [slot(5), entry(Kind::Stream, "cuStreamCreate", 0, 6)];
    assert_eq!(violations(&run(&[context(1)], &lost)), [""; 0]);

    let with_handle = || run(&[context(1)], &[context(1), handle.clone()]);
    assert_eq!(violations(&with_handle()).len(), 1);
    let mut closed = with_handle();
    let ledger = settled(&mut closed).ledger.as_mut().unwrap();
    ledger.cufile_closes = 1;
    assert_eq!(violations(&closed), [""; 0]);
    let mut closes = with_handle();
    closes.case.gpu = Gpu::with_vram(MIB);
    if let Gpu::Present { cufile, .. } = &mut closes.case.gpu {
        *cufile = CuFile::Present {
            compat: false,
            fault: Some(CuFileFault::ClosesAfter(3)),
        };
    }
    assert_eq!(violations(&closes), [""; 0]);
}

#[test]
fn descriptors_and_maps_are_named_where_proc_shows_them() {
    let mut file = entry(Kind::Descriptor, "openat", 0, 7);
    file.path = "m1-g0.spill".into();
    let mut map = entry(Kind::FileMapping, "mmap", MIB, 8);
    map.path = "m1-g0.spill".into();
    let mut left = run(&[context(1)], &[context(1), file, map]);
    assert_eq!(violations(&left), [""; 0]);
    let process = settled_process(&mut left);
    let target = "/offload/m1-g0.spill (deleted)";
    process.descriptors.insert(target.into(), 1);
    process.file_maps.insert(target.into(), 1);
    let found = violations(&left);
    for named in [
        "fd: survivor: openat #12, m1-g0.spill, by libengine.so, serial 7",
        "maps: survivor: mmap #12, 1.0 MiB, m1-g0.spill, by libengine.so, serial 8",
    ] {
        assert!(found.iter().any(|one| one == named), "{found:#?}");
    }
}

#[test]
fn a_full_ledger_and_none_at_all_are_told_apart() {
    let mut full = run(&[context(1)], &[context(1)]);
    settled(&mut full).ledger.as_mut().unwrap().lost = 3;
    let doubts = full.all_doubts();
    assert!(
        doubts
            .iter()
            .any(|doubt| doubt.contains("3 things found no room")),
        "{doubts:?}"
    );
    let mut none = run(&[], &[context(1), slot(2)]);
    none.baseline.as_mut().unwrap().ledger = None;
    assert_eq!(violations(&none), [""; 0]);
    assert_eq!(none.all_doubts(), [""; 0]);
}
