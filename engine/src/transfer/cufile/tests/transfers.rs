//! Which bytes cuFile moves, how, and only after it was tried out.
use super::*;

#[test]
fn blocks_of_any_length_travel_by_cufile_with_exact_lengths_and_zero_padding() {
    let fixture = Fixture::new(CuFileUse::Auto);
    for bytes in [PAGE, PAGE + 1, SLOT, 2 * SLOT - 1, 3 * SLOT + PAGE + 77] {
        let (written, read) = (
            fixture.traffic.written_bytes(),
            fixture.traffic.read_bytes(),
        );
        assert_eq!(fixture.round_trip(bytes), BY_CUFILE, "{bytes}");
        assert_eq!(
            fixture.traffic.written_bytes() - written,
            padded_bytes(bytes)
        );
        assert_eq!(fixture.traffic.read_bytes() - read, bytes);
    }
    assert_eq!(fixture.library.handles(), 1, "one a file");
    assert_eq!(fixture.notes(), "");
    fixture.finish();
}

#[test]
fn a_block_smaller_than_a_page_is_staged_and_said_to_be() {
    let fixture = Fixture::new(CuFileUse::Auto);
    let before = fixture.library.calls("cuFileWrite");
    for bytes in [1, PAGE - 1] {
        assert_eq!(fixture.round_trip(bytes), STAGED);
    }
    assert_eq!(fixture.library.calls("cuFileWrite"), before);
    fixture.finish();
}

#[test]
fn device_work_that_is_pending_is_waited_for_before_each_transfer() {
    let fixture = Fixture::new(CuFileUse::Auto);
    let before = fixture.cuda.calls("cuCtxSynchronize");
    fixture.round_trip(PAGE);
    assert_eq!(fixture.cuda.calls("cuCtxSynchronize") - before, 2);
    let source = fixture.filled(&contents(PAGE));
    let range = fixture.range(PAGE);
    let transfers = fixture.library.calls("cuFileWrite");
    fixture.cuda.fail("cuCtxSynchronize", 1, 1, 999);
    let stored = fixture.cufile.store(span(&source), &range, &Stop::never());
    assert_eq!(stored.unwrap_err().kind(), ErrorKind::DeviceError);
    assert_eq!(fixture.library.calls("cuFileWrite"), transfers);
    drop((source, range));
    fixture.finish();
}

#[test]
fn large_blocks_go_in_bounded_pieces_from_registered_memory() {
    let bytes = 33 * MIB + 5;
    let fixture = Fixture::new(CuFileUse::Auto);
    assert_eq!(fixture.round_trip(bytes), BY_CUFILE);
    assert_eq!(fixture.library.largest_transfer() as u64, 16 * MIB);
    assert_eq!(fixture.library.calls("cuFileBufRegister"), 2);
    assert_eq!(fixture.library.calls("cuFileBufDeregister"), 2);
    fixture.finish();
}

#[test]
fn compatibility_mode_takes_small_pieces_and_registers_nothing() {
    let bytes = 9 * MIB + PAGE;
    let fixture = Fixture::with(CuFileUse::On, FakeCuFile::serve_in_compat_mode);
    let compat = TransferPath::CuFileCompat;
    assert_eq!(fixture.round_trip(bytes), (compat, compat));
    assert_eq!(fixture.library.largest_transfer() as u64, 4 * MIB);
    assert_eq!(fixture.library.calls("cuFileBufRegister"), 0);
    fixture.finish();
}

#[test]
fn compatibility_mode_is_not_used_unless_asked_for_and_nothing_is_written_to_learn_it() {
    let parts = Parts::new();
    parts.library.serve_in_compat_mode();
    let reason = parts.open(CuFileUse::Auto).err().unwrap();
    assert!(reason.contains("OFFLOAD_CUFILE=on"), "{reason}");
    assert_eq!(parts.library.calls("cuFileHandleRegister"), 0);
    parts.assert_clean();
}

#[test]
fn refused_memory_is_used_unregistered_and_not_offered_again() {
    let bytes = DIRECT_PIECE_BYTES + PAGE;
    let fixture = Fixture::new(CuFileUse::Auto);
    fixture
        .library
        .fail("cuFileBufRegister", 1, u64::MAX, Fault::Code(5036));
    assert_eq!(fixture.round_trip(bytes), BY_CUFILE);
    assert_eq!(fixture.library.calls("cuFileBufRegister"), 1);
    assert!(fixture.notes().contains("5036"), "{}", fixture.notes());
    fixture.finish();
}

#[test]
fn short_transfers_are_continued() {
    let fixture = Fixture::new(CuFileUse::Auto);
    for call in ["cuFileWrite", "cuFileRead"] {
        fixture
            .library
            .fail(call, 1, u64::MAX, Fault::Short(4096 + 512));
    }
    assert_eq!(fixture.round_trip(SLOT + 9), BY_CUFILE);
    assert!(fixture.library.calls("cuFileRead") > 50);
    fixture.finish();
}

#[test]
fn a_file_that_was_cut_is_an_error_and_no_stale_device_memory() {
    let fixture = Fixture::new(CuFileUse::Auto);
    let (_, range, checksums) = fixture.store(SLOT);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(range.file().path())
        .unwrap();
    file.set_len(3 * PAGE).unwrap();
    let target = fixture.filled(&contents(SLOT));
    let before = fixture.library.calls("cuFileRead");
    let loaded = fixture
        .cufile
        .load(&range, &checksums, span(&target), &Stop::never());
    assert_eq!(loaded.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(fixture.library.calls("cuFileRead"), before);
    drop((range, target));
    fixture.finish();
}

#[test]
fn a_transfer_that_is_to_stop_stops_without_taking_the_other_way() {
    let fixture = Fixture::new(CuFileUse::Auto);
    let source = fixture.filled(&contents(SLOT));
    let range = fixture.range(SLOT);
    let cancellation = crate::Cancellation::new();
    cancellation.cancel();
    let stop = Stop::new(&cancellation, "the store");
    let before = fixture.library.calls("cuFileWrite");
    let stored = fixture.cufile.store(span(&source), &range, &stop);
    assert!(matches!(stored, Err(Error::Cancelled("the store"))));
    assert_eq!(fixture.library.calls("cuFileWrite"), before);
    drop((source, range));
    assert_eq!(fixture.notes(), "");
    fixture.finish();
}

#[test]
fn a_name_that_leads_to_another_file_is_not_trusted() {
    let fixture = Fixture::new(CuFileUse::Auto);
    let path = fixture.file.as_ref().unwrap().path().to_owned();
    std::fs::rename(&path, path.with_extension("moved")).unwrap();
    std::fs::write(&path, [9; 100]).unwrap();
    assert_eq!(fixture.round_trip(SLOT), STAGED);
    assert!(
        fixture.notes().contains("another file"),
        "{}",
        fixture.notes()
    );
    assert_eq!(std::fs::read(&path).unwrap(), [9; 100]);
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(path.with_extension("moved")).unwrap();
    fixture.finish();
}

#[test]
fn a_file_that_lost_its_name_before_its_first_use_is_moved_by_cufile_all_the_same() {
    let fixture = Fixture::new(CuFileUse::Auto);
    std::fs::remove_file(fixture.file.as_ref().unwrap().path()).unwrap();
    assert_eq!(fixture.round_trip(SLOT), BY_CUFILE);
    assert_eq!(fixture.notes(), "");
    fixture.finish();
}

#[test]
fn a_probe_that_fails_anywhere_is_a_reason_and_leaves_nothing() {
    let faults = [
        ("cuFileHandleRegister", 1, Fault::Code(5027)),
        ("cuFileWrite", 1, Fault::Returns(-1, libc::EPERM)),
        ("cuFileWrite", 2, Fault::Flips),
        ("cuFileRead", 1, Fault::Flips),
        ("cuFileRead", 2, Fault::Code(5030)),
        ("cuFileRead", 2, Fault::Returns(0, 0)),
        ("cuFileWrite", 2, Fault::Closed),
    ];
    for (call, nth, fault) in faults {
        let parts = Parts::new();
        parts.library.fail(call, nth, nth, fault);
        assert!(parts.open(CuFileUse::On).is_err(), "{call} {fault:?}");
        parts.assert_clean();
    }
    // A library that only reads back what it wrote itself is of no use: others read the file, too.
    let parts = Parts::new();
    parts.library.fail("cuFileWrite", 1, 9, Fault::Hides);
    parts.library.fail("cuFileRead", 1, 9, Fault::Hides);
    assert!(parts.open(CuFileUse::On).is_err());
    parts.assert_clean();
    drop(parts);
    for call in [
        "cuMemAlloc",
        "cuMemcpyHtoDAsync",
        "cuMemcpyDtoHAsync",
        "cuCtxSynchronize",
    ] {
        for nth in 1..=2 {
            let parts = Parts::new();
            parts.cuda.fail(call, nth, nth, 999);
            assert!(parts.open(CuFileUse::On).is_err(), "{call} {nth}");
            parts.assert_clean();
        }
    }
}
