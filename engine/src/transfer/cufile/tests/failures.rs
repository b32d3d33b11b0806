//! Whatever cuFile answers, the block travels the other way, and what has failed for good is not tried again.
use super::*;

#[test]
fn any_failure_of_one_transfer_is_made_good_the_staged_way_and_the_next_is_by_cufile() {
    for fault in [
        Fault::Returns(-1, libc::EPERM),
        Fault::Returns(-1, libc::EIO),
        Fault::Returns(-5, 0),
        Fault::Code(5011),
        Fault::Returns(-1, 5044),
    ] {
        let fixture = Fixture::new(CuFileUse::Auto);
        fixture.library.fail("cuFileWrite", 1, 1, fault);
        let (path, range, checksums) = fixture.store(SLOT + 1);
        assert_eq!(path, TransferPath::Staged, "{fault:?}");
        fixture.library.fail("cuFileRead", 1, 1, fault);
        assert_eq!(
            fixture.load(SLOT + 1, &range, &checksums),
            TransferPath::Staged
        );
        drop(range);
        assert!(fixture.notes().contains("cuFileWrite failed"));
        assert!(fixture.notes().contains("cuFileRead failed"));
        assert_eq!(fixture.round_trip(SLOT), BY_CUFILE, "{fault:?}");
        fixture.finish();
    }
}

#[test]
fn a_file_that_cufile_fails_on_is_not_offered_again_and_another_one_is() {
    for fault in [
        Fault::Code(5027),
        Fault::Code(5030),
        Fault::Code(5031),
        Fault::Returns(0, 0),
        Fault::Returns(-1, 0),
        Fault::Returns(8 << 20, 0),
    ] {
        let mut fixture = Fixture::new(CuFileUse::Auto);
        fixture.library.fail("cuFileWrite", 1, 1, fault);
        assert_eq!(fixture.round_trip(SLOT), STAGED, "{fault:?}");
        let calls = fixture.library.calls("cuFileWrite");
        assert_eq!(fixture.library.handles(), 0, "it goes with the refusal");
        assert_eq!(fixture.round_trip(SLOT), STAGED, "{fault:?}");
        assert_eq!(fixture.library.calls("cuFileWrite"), calls);
        fixture.next_file(1);
        assert_eq!(fixture.round_trip(SLOT), BY_CUFILE, "{fault:?}");
        fixture.finish();
    }
}

#[test]
fn a_refused_handle_leaves_the_file_to_the_staged_way() {
    for code in [5008, 5027, 5030] {
        let fixture = Fixture::new(CuFileUse::Auto);
        let before = fixture.library.calls("cuFileHandleRegister");
        fixture
            .library
            .fail("cuFileHandleRegister", 1, 1, Fault::Code(code));
        assert_eq!(fixture.round_trip(SLOT), STAGED, "{code}");
        assert_eq!(fixture.library.calls("cuFileHandleRegister") - before, 1);
        assert!(fixture.notes().contains(&code.to_string()));
        fixture.finish();
    }
}

#[test]
fn failures_in_a_row_over_files_end_in_not_asking_any_more() {
    let mut fixture = Fixture::new(CuFileUse::Auto);
    fixture
        .library
        .fail("cuFileHandleRegister", 1, u64::MAX, Fault::Code(5030));
    let before = fixture.library.calls("cuFileHandleRegister");
    for number in 1..10 {
        fixture.next_file(number);
        assert_eq!(fixture.round_trip(PAGE), STAGED);
    }
    assert_eq!(fixture.library.calls("cuFileHandleRegister") - before, 3);
    assert!(fixture.notes().contains("not used any more"));
    fixture.finish();
}

#[test]
fn successes_in_between_keep_cufile_in_use() {
    let fixture = Fixture::new(CuFileUse::Auto);
    for _ in 0..4 {
        fixture
            .library
            .fail("cuFileWrite", 1, 1, Fault::Returns(-1, libc::EIO));
        let paths = (TransferPath::Staged, TransferPath::CuFile);
        assert_eq!(fixture.round_trip(PAGE), paths);
    }
    fixture.finish();
}

#[test]
fn a_driver_that_is_gone_is_not_called_again_by_anybody() {
    for code in [5001, 5010, 5034] {
        let mut fixture = Fixture::new(CuFileUse::Auto);
        assert_eq!(fixture.round_trip(PAGE), BY_CUFILE);
        fixture.library.fail("cuFileWrite", 1, 1, Fault::Code(code));
        assert_eq!(fixture.round_trip(PAGE), STAGED, "{code}");
        let calls = fixture.library.calls("cuFileHandleRegister");
        fixture.next_file(1);
        assert_eq!(fixture.round_trip(PAGE), STAGED, "{code}");
        assert_eq!(fixture.library.calls("cuFileHandleRegister"), calls);
        assert!(fixture.cufile.driver.usable().is_err());
        assert!(fixture.notes().contains(&code.to_string()));
        // What the library still has is given back all the same.
        fixture.finish();
    }
}

#[test]
fn a_driver_closed_by_somebody_else_is_noticed_and_never_opened_again_behind_their_back() {
    let mut fixture = Fixture::new(CuFileUse::Auto);
    let (path, range, checksums) = fixture.store(SLOT);
    assert_eq!(path, TransferPath::CuFile);
    fixture.library.fail("cuFileRead", 1, 1, Fault::Closed);
    assert_eq!(fixture.load(SLOT, &range, &checksums), TransferPath::Staged);
    drop(range);
    let calls = fixture.library.calls("cuFileHandleRegister");
    fixture.next_file(1);
    assert_eq!(fixture.round_trip(SLOT), STAGED);
    assert_eq!(fixture.library.calls("cuFileHandleRegister"), calls);
    assert!(fixture.notes().contains("closed by somebody else"));
    fixture.finish();
}

#[test]
fn a_driver_that_others_closed_and_opened_again_takes_new_files_and_no_old_handles() {
    let mut fixture = Fixture::new(CuFileUse::Auto);
    let (_, range, checksums) = fixture.store(SLOT);
    fixture.library.fail("cuFileRead", 1, 1, Fault::Reopened);
    assert_eq!(fixture.load(SLOT, &range, &checksums), TransferPath::Staged);
    drop(range);
    assert!(fixture.notes().contains("5027"), "{}", fixture.notes());
    assert_eq!(fixture.round_trip(SLOT), STAGED);
    fixture.next_file(1);
    assert_eq!(fixture.round_trip(SLOT), BY_CUFILE);
    fixture.finish();
}

#[test]
fn wrong_bytes_from_cufile_are_noticed_replaced_and_end_its_use() {
    let mut fixture = Fixture::new(CuFileUse::Auto);
    let (_, range, checksums) = fixture.store(SLOT);
    fixture.library.fail("cuFileRead", 1, 2, Fault::Flips);
    assert_eq!(fixture.load(SLOT, &range, &checksums), TransferPath::Staged);
    assert!(fixture.notes().contains("wrong bytes"));
    assert_eq!(fixture.load(SLOT, &range, &checksums), TransferPath::Staged);
    drop(range);
    fixture.next_file(1);
    assert_eq!(
        fixture.round_trip(SLOT),
        STAGED,
        "not for other files, either"
    );
    fixture.finish();
}

#[test]
fn a_file_changed_under_one_read_and_put_right_is_read_again_and_not_held_against_cufile() {
    let mut fixture = Fixture::new(CuFileUse::Auto);
    for number in 1..5 {
        fixture.next_file(number);
        let (_, range, checksums) = fixture.store(SLOT);
        fixture.library.fail("cuFileRead", 1, 1, Fault::Flips);
        assert_eq!(fixture.load(SLOT, &range, &checksums), TransferPath::CuFile);
    }
    let notes = fixture.notes();
    assert!(notes.contains("changed while it was read"), "{notes}");
    assert!(!notes.contains("wrong bytes"), "{notes}");
    assert_eq!(fixture.round_trip(SLOT), BY_CUFILE);
    fixture.finish();
}

#[test]
fn what_stands_against_opening_files_for_a_while_is_not_held_against_cufile() {
    let mut fixture = Fixture::new(CuFileUse::Auto);
    for number in 1..5 {
        fixture.next_file(number);
        let path = fixture.file.as_ref().unwrap().path().to_owned();
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).unwrap();
        std::fs::write(&path, [9; 100]).unwrap();
        assert_eq!(fixture.round_trip(SLOT), STAGED);
        assert!(fixture.notes().contains("another file"));
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(fixture.cufile.notes().len(), number as usize);
    }
    assert_eq!(
        fixture.round_trip(SLOT),
        BY_CUFILE,
        "with the name put right"
    );
    fixture.finish();
}

#[test]
fn a_damaged_file_is_corrupt_by_either_way_and_not_held_against_cufile() {
    let fixture = Fixture::new(CuFileUse::Auto);
    let (_, range, checksums) = fixture.store(SLOT);
    range.write_all_at(&[1, 2, 3], 100).unwrap();
    let target = fixture.filled(&vec![0; SLOT as usize]);
    let loaded = fixture
        .cufile
        .load(&range, &checksums, span(&target), &Stop::never());
    assert_eq!(loaded.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(fixture.notes(), "");
    drop((range, target));
    assert_eq!(fixture.round_trip(SLOT), BY_CUFILE);
    fixture.finish();
}

#[test]
fn a_full_disk_is_told_as_such_and_not_tried_twice() {
    for errno in [libc::ENOSPC, libc::EDQUOT, libc::EFBIG] {
        for answer in [
            Fault::Returns(-1, errno),
            Fault::Returns(-errno as isize, 0),
        ] {
            let fixture = Fixture::new(CuFileUse::Auto);
            fixture.library.fail("cuFileWrite", 1, 1, answer);
            let source = fixture.filled(&contents(SLOT));
            let range = fixture.range(SLOT);
            let copies = fixture.cuda.calls("cuMemcpyDtoHAsync");
            let stored = fixture.cufile.store(span(&source), &range, &Stop::never());
            assert_eq!(stored.unwrap_err().kind(), ErrorKind::DiskFull);
            assert_eq!(fixture.cuda.calls("cuMemcpyDtoHAsync"), copies);
            drop((source, range));
            assert_eq!(fixture.round_trip(SLOT), BY_CUFILE);
            fixture.finish();
        }
    }
}

#[test]
fn when_both_ways_fail_the_error_is_the_second_and_tells_the_first() {
    let fixture = Fixture::new(CuFileUse::Auto);
    let source = fixture.filled(&contents(SLOT));
    let range = fixture.range(SLOT);
    fixture
        .library
        .fail("cuFileWrite", 1, 9, Fault::Returns(-1, libc::EPERM));
    for _ in 0..5 {
        fixture.cuda.fail("cuMemcpyDtoHAsync", 1, 1, 999);
        let stored = fixture.cufile.store(span(&source), &range, &Stop::never());
        let error = stored.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceError);
        let text = error.to_string();
        assert!(
            text.contains("999") && text.contains("cuFileWrite"),
            "{text}"
        );
    }
    fixture.library.stop_failing();
    drop((source, range));
    assert_eq!(
        fixture.round_trip(SLOT),
        BY_CUFILE,
        "what fails either way is not held against cuFile"
    );
    fixture.finish();
}
