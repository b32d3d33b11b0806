//! Opening the driver, and every way in which a transfer can answer.
use super::{
    Driver, Failure, Handle, Reach,
    answer::move_all,
    code::Code,
    fake::{FakeCuFile, Fault},
};
use crate::cuda::fake::FakeDriver;
use std::{
    io::Write,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// The answers of a call, one after the other; what it moved, or why not.
fn moved(wanted: usize, answers: &[(isize, i32)]) -> Result<u64, Failure> {
    let (mut left, mut total, mut expected) = (answers.iter(), 0, 0);
    move_all(
        "cuFileRead",
        wanted,
        0,
        |done| {
            assert_eq!(done, expected);
            let (returned, errno) = *left.next().expect("no more calls than answers");
            expected += usize::try_from(returned).unwrap_or(0);
            (returned, errno)
        },
        |count| total += count,
    )?;
    assert_eq!(left.len(), 0, "fewer calls than answers");
    Ok(total)
}

fn reach(answer: (isize, i32)) -> Reach {
    moved(8192, &[answer]).unwrap_err().reach()
}

fn text(answer: (isize, i32)) -> String {
    moved(8192, &[answer]).unwrap_err().to_string()
}

#[test]
fn whole_and_short_counts_are_continued_to_the_end() {
    assert_eq!(moved(8192, &[(8192, 0)]).unwrap(), 8192);
    assert_eq!(
        moved(8192, &[(4096, 0), (512, 0), (3584, 0)]).unwrap(),
        8192
    );
    // What the last call of all leaves in errno means nothing with a whole count.
    assert_eq!(moved(8192, &[(8192, libc::EAGAIN)]).unwrap(), 8192);
    assert_eq!(moved(0, &[]).unwrap(), 0);
}

#[test]
fn interruptions_are_repeated_but_not_for_ever() {
    let interrupted = (-1, libc::EINTR);
    assert_eq!(
        moved(8192, &[interrupted, (-4, 0), (8192, 0)]).unwrap(),
        8192
    );
    let failure = move_all("cuFileRead", 8192, 0, |_| interrupted, |_| {}).unwrap_err();
    assert_eq!(failure.errno(), Some(libc::EINTR));
}

#[test]
fn a_code_is_a_code_in_whichever_way_it_comes() {
    for answer in [
        (-5008, 0),
        (-1, 5008),
        (5008, 0),
        (0, 5008),
        (8192, 5008),
        (-22, 5008),
    ] {
        let failure = moved(8192, &[answer]).unwrap_err();
        let is_it = matches!(&failure, Failure::Code { code, .. } if *code == Code(5008));
        assert!(is_it, "{answer:?}: {failure}");
        assert_eq!(failure.errno(), None);
    }
}

#[test]
fn an_errno_is_an_errno_in_whichever_way_it_comes() {
    for answer in [(-1, libc::ENOSPC), (-(libc::ENOSPC as isize), 0)] {
        let failure = moved(8192, &[answer]).unwrap_err();
        assert_eq!(failure.errno(), Some(libc::ENOSPC), "{answer:?}");
        assert_eq!(failure.reach(), Reach::Transfer);
    }
    // −1 alone is not EPERM, and EPERM is what the library says of any errno.
    assert!(matches!(
        moved(8192, &[(-1, 0)]).unwrap_err(),
        Failure::Nonsense { returned: -1, .. }
    ));
    let refused = moved(8192, &[(-1, libc::EPERM)]).unwrap_err();
    assert_eq!(refused.errno(), None);
    assert!(
        refused.to_string().contains("does not say why"),
        "{refused}"
    );
    assert_eq!(refused.reach(), Reach::Transfer);
}

#[test]
fn counts_that_cannot_be_are_failures_and_not_progress() {
    for returned in [8193, isize::MAX, 100, 511, isize::MIN] {
        let failure = moved(8192, &[(returned, 0)]).unwrap_err();
        let is_it =
            matches!(&failure, Failure::Nonsense { returned: found, .. } if *found == returned);
        assert!(is_it, "{returned}: {failure}");
    }
    // The end of the file is never taken for the bytes that were on the device before (F31).
    let failure = moved(8192, &[(4096, 0), (0, 0)]).unwrap_err();
    assert!(failure.to_string().contains("at byte 4096"), "{failure}");
}

#[test]
fn failures_reach_as_far_as_their_code_says() {
    for code in [5001, 5004, 5006, 5010, 5033, 5034, 5048] {
        assert_eq!(reach((-code, 0)), Reach::Process, "{code}");
    }
    for code in [5008, 5018, 5019, 5020, 5022, 5027, 5028, 5030, 5031, 5777] {
        assert_eq!(reach((-code, 0)), Reach::File, "{code}");
    }
    for code in [5011, 5012, 5014, 5017, 5036, 5043, 5044] {
        assert_eq!(reach((-code, 0)), Reach::Transfer, "{code}");
    }
    assert_eq!(reach((0, 0)), Reach::File);
    assert!(Reach::Transfer < Reach::File && Reach::Engine < Reach::Process);
}

#[test]
fn a_failure_names_its_call_and_its_code() {
    let text = text((-5031, 0));
    assert_eq!(text, "cuFileRead failed with 5031 (no new descriptor)");
}

#[test]
fn a_driver_that_does_not_open_is_a_reason_within_the_bound() {
    let cuda = FakeDriver::new(0);
    let library = FakeCuFile::new(&cuda);
    for code in [5001, 5010, 5033] {
        library.fail("cuFileDriverOpen", 1, 1, Fault::Code(code));
        let reason = library.driver().err().unwrap();
        assert!(reason.contains(&code.to_string()), "{reason}");
    }
    library.fail("cuFileDriverGetProperties", 1, 1, Fault::Code(5002));
    let reason = library.driver().err().unwrap();
    assert!(reason.contains("cuFileDriverGetProperties"), "{reason}");
    // Somebody else in the process was first.
    library.fail("cuFileDriverOpen", 1, 1, Fault::Code(5026));
    assert!(library.driver().is_ok());
}

#[test]
fn a_driver_that_hangs_is_left_to_itself_after_the_bound() {
    let cuda = FakeDriver::new(0);
    let library = FakeCuFile::new(&cuda);
    let (release, wait) = mpsc::channel();
    let begun = Instant::now();
    let reason = library
        .hanging_driver(wait, Duration::from_millis(50))
        .err()
        .unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(50));
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(reason.contains("within 50 ms"), "{reason}");
    release.send(()).unwrap();
}

#[test]
fn a_panic_while_the_driver_opens_is_a_reason_at_once() {
    let begun = Instant::now();
    let reason = Driver::open(|| panic!("in an initialiser"), Duration::from_secs(60))
        .err()
        .unwrap();
    assert!(reason.contains("panicked"), "{reason}");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_driver_that_was_lost_or_closed_by_others_is_not_called_any_more() {
    let cuda = FakeDriver::new(0);
    let library = FakeCuFile::new(&cuda);
    let driver = library.driver().unwrap();
    let handle = handle(&driver);
    assert!(driver.is_open());
    library.close_by_somebody_else();
    drop(handle);
    assert_eq!(library.calls("cuFileHandleDeregister"), 0);
    assert!(driver.usable().unwrap_err().contains("closed"));
    driver.lose("a later reason");
    assert!(driver.usable().unwrap_err().contains("closed"));
    assert_eq!(library.violations(), Vec::<String>::new());
}

#[test]
fn a_refused_handle_closes_its_descriptor_and_a_registered_one_goes_before_it() {
    let cuda = FakeDriver::new(0);
    let library = FakeCuFile::new(&cuda);
    let driver = library.driver().unwrap();
    for code in [5008, 5027, 5030] {
        library.fail("cuFileHandleRegister", 1, 1, Fault::Code(code));
        let file = tempfile::tempfile().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let inode = inode(&path);
        assert!(Handle::register(&driver, file).is_err());
        assert_ne!(self::inode(&path), inode);
    }
    drop(handle(&driver));
    assert_eq!(library.handles(), 0);
    assert_eq!(library.violations(), Vec::<String>::new());
}

/// The file behind a descriptor, while there is one; other tests open and close some, too.
fn inode(path: &str) -> Option<std::path::PathBuf> {
    std::fs::read_link(path).ok()
}

fn handle(driver: &Arc<Driver>) -> Handle {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 4096]).unwrap();
    Handle::register(driver, file).unwrap()
}
