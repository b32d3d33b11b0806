//! Spill files: exclusive, sparse, reserved, exact in length, gone when dropped.

use super::{names, open};
use crate::{
    error::{Error, ErrorKind},
    spill::{SpillDirectory, SpillFile},
};
use nix::unistd::dup;
use std::{
    fs,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{MetadataExt, symlink},
    },
    path::Path,
    sync::Arc,
};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn fixture() -> (TempDir, SpillDirectory) {
    let base = tempfile::tempdir().unwrap();
    let directory = open(base.path()).unwrap();
    (base, directory)
}

fn allocated_bytes(file: &SpillFile) -> u64 {
    fs::metadata(file.path()).unwrap().blocks() * 512
}

/// Changes a file's length behind the engine's back.
fn set_len(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    result.map(|_| ()).unwrap_err().kind()
}

/// Maps a range and reads all of it.
fn read_map(file: &SpillFile, offset: u64, bytes: u64) -> Vec<u8> {
    let map = file.map(offset, bytes).unwrap();
    let mut out = vec![1; bytes as usize];
    file.read_mapped_at(&map, 0, &mut out).unwrap();
    out
}

#[test]
fn a_file_is_private_sparse_and_gone_when_dropped() {
    let (_base, directory) = fixture();
    let file = directory.create("m1-g0.spill", 1 << 30).unwrap();
    let metadata = fs::symlink_metadata(file.path()).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o600);
    assert_eq!((metadata.len(), file.len()), (1 << 30, 1 << 30));
    assert!(allocated_bytes(&file) < MIB);
    file.check_len().unwrap();
    drop(file);
    assert_eq!(names(directory.path()), ["owner.lock"]);
}

#[test]
fn what_has_the_chosen_name_is_named_and_left_untouched() {
    let (_base, directory) = fixture();
    let path = directory.path().join("m1-g0.spill");
    let assert_taken = || {
        let error = directory.create("m1-g0.spill", 8).unwrap_err();
        assert!(
            matches!(&error, Error::AlreadyExists(named) if *named == path),
            "{error}"
        );
    };
    fs::write(&path, "precious").unwrap();
    assert_taken();
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
    let target = directory.path().join("target");
    symlink(&target, &path).unwrap();
    assert_taken();
    assert!(!target.exists(), "the link was not followed");
    fs::remove_file(&path).unwrap();
    directory.create("m1-g0.spill", 8).unwrap();
}

#[test]
fn a_name_that_is_no_spill_file_is_refused() {
    let (_base, directory) = fixture();
    for name in ["../m.spill", "m", "a/b.spill", ""] {
        assert_eq!(
            kind(directory.create(name, 8)),
            ErrorKind::Internal,
            "{name}"
        );
    }
    let long = format!("{}.spill", "m".repeat(300));
    let error = directory.create(&long, 8).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Io {
                operation: "create",
                ..
            }
        ),
        "{error}"
    );
    assert!(names(directory.path()).len() == 1);
}

#[test]
fn a_length_that_no_file_can_have_leaves_nothing_behind() {
    let (_base, directory) = fixture();
    for bytes in [u64::MAX, i64::MAX as u64] {
        let kind = kind(directory.create("m1-g0.spill", bytes));
        assert!(
            matches!(kind, ErrorKind::DiskFull | ErrorKind::Io),
            "{kind}"
        );
        assert_eq!(names(directory.path()), ["owner.lock"]);
    }
}

#[test]
fn what_was_written_is_read_back_by_calls_and_through_a_map() {
    let (_base, directory) = fixture();
    let file = directory.create("m1-g0.spill", MIB).unwrap();
    let bytes: Vec<u8> = (0..5000u32).map(|byte| byte as u8).collect();
    file.write_all_at(&bytes, 8192).unwrap();
    let mut out = vec![1; 5002];
    file.read_exact_at(&mut out, 8191).unwrap();
    assert_eq!((out[0], out[5001]), (0, 0));
    assert_eq!(out[1..5001], bytes);
    assert_eq!(read_map(&file, 8192, 5000), bytes);
    assert_eq!(read_map(&file, 8195, 10), bytes[3..13]);
    file.sync().unwrap();
}

#[test]
fn reserving_takes_space_and_discarding_gives_it_back_as_zeros() {
    let (_base, directory) = fixture();
    let file = directory.create("m1-g0.spill", 8 * MIB).unwrap();
    file.reserve(MIB, 4 * MIB).unwrap();
    assert!((4 * MIB..5 * MIB).contains(&allocated_bytes(&file)));
    file.check_len().unwrap();
    file.write_all_at(&[9; 4096], MIB).unwrap();
    file.write_all_at(&[9; 4096], 3 * MIB).unwrap();
    file.discard(MIB, 2 * MIB).unwrap();
    assert!((2 * MIB..3 * MIB).contains(&allocated_bytes(&file)));
    let mut out = [1; 4096];
    file.read_exact_at(&mut out, MIB).unwrap();
    assert_eq!(out, [0; 4096]);
    file.read_exact_at(&mut out, 3 * MIB).unwrap();
    assert_eq!(out, [9; 4096]);
    file.check_len().unwrap();
    file.reserve(0, 0).unwrap();
    file.discard(0, 0).unwrap();
}

#[test]
fn a_reservation_beyond_the_filesystem_is_a_full_disk_and_takes_nothing() {
    let (_base, directory) = fixture();
    let bytes = directory
        .disk_available_bytes()
        .unwrap()
        .next_multiple_of(4096)
        + (1 << 36);
    let file = directory.create("m1-g0.spill", bytes).unwrap();
    let error = file.reserve(0, bytes).unwrap_err();
    let Error::DiskFull {
        path,
        operation,
        wanted,
        available: Some(available),
        source: None,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (path.as_path(), operation, wanted),
        (file.path(), "reserve", bytes)
    );
    assert!(available < bytes);
    assert!(allocated_bytes(&file) < MIB);
}

#[test]
fn ranges_outside_the_file_are_refused() {
    let (_base, directory) = fixture();
    let file = directory.create("m1-g0.spill", 8192).unwrap();
    for (offset, bytes) in [(0, 8193), (8192, 1), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(kind(file.reserve(offset, bytes)), ErrorKind::Internal);
        assert_eq!(kind(file.discard(offset, bytes)), ErrorKind::Internal);
        assert_eq!(kind(file.map(offset, bytes)), ErrorKind::Internal);
    }
    assert_eq!(kind(file.write_all_at(&[1; 2], 8191)), ErrorKind::Internal);
    file.check_len().unwrap();
}

#[test]
fn reading_past_the_end_is_corrupt_and_not_stale_bytes() {
    let (_base, directory) = fixture();
    let file = directory.create("m1-g0.spill", 8192).unwrap();
    let mut out = [1; 2];
    assert_eq!(kind(file.read_exact_at(&mut out, 8191)), ErrorKind::Corrupt);
    assert_eq!(
        kind(file.read_exact_at(&mut out, u64::MAX)),
        ErrorKind::Corrupt
    );
    assert_eq!(out, [1, 1]);
    file.read_exact_at(&mut out, 8190).unwrap();
}

#[test]
fn a_file_truncated_behind_our_back_is_corrupt_before_any_page_is_touched() {
    let (_base, directory) = fixture();
    let file = directory.create("m1-g0.spill", 8192).unwrap();
    for bytes in [8191, 4096, 0] {
        set_len(file.path(), bytes);
        let error = file.check_len().unwrap_err().to_string();
        assert!(
            error.contains(&format!("{bytes} bytes instead of 8192")),
            "{error}"
        );
        assert_eq!(kind(file.map(0, 1)), ErrorKind::Corrupt);
        let error = file.read_exact_at(&mut [0; 8192], 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(
            error.to_string().contains(&format!("ends at byte {bytes}")),
            "{error}"
        );
    }
    set_len(file.path(), 8193);
    assert_eq!(
        kind(file.check_len()),
        ErrorKind::Corrupt,
        "longer is wrong too"
    );
    set_len(file.path(), 8192);
    file.check_len().unwrap();
}

#[test]
fn an_unlinked_file_is_read_through_its_descriptor() {
    let (_base, directory) = fixture();
    let file = directory.create("m1-g0.spill", 8192).unwrap();
    file.write_all_at(b"weights", 0).unwrap();
    fs::remove_file(file.path()).unwrap();
    fs::write(file.path(), "an impostor").unwrap();
    let mut out = [0; 7];
    file.check_len().unwrap();
    file.read_exact_at(&mut out, 0).unwrap();
    assert_eq!(&out, b"weights");
    let path = file.path().to_owned();
    drop(file);
    assert_eq!(
        fs::read(&path).unwrap(),
        b"an impostor",
        "not ours to remove"
    );
    assert_eq!(directory.pending_unlinks(), 0);
    assert_eq!(kind(directory.close()), ErrorKind::Io, "and told");
    fs::remove_file(path).unwrap();
}

#[test]
fn the_directory_goes_with_the_last_file_when_that_outlives_the_engine() {
    let (base, directory) = fixture();
    let file = Arc::new(directory.create("m1-g0.spill", 8192).unwrap());
    let view = Arc::clone(&file);
    drop(file);
    directory.close().unwrap();
    view.write_all_at(b"weights", 0).unwrap();
    view.check_len().unwrap();
    assert_eq!(names(base.path()).len(), 1);
    drop(view);
    assert!(names(base.path()).is_empty());
}

#[test]
fn a_panic_takes_the_files_with_it() {
    let (base, directory) = fixture();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _file = directory.create("m1-g0.spill", 8192).unwrap();
        std::panic::resume_unwind(Box::new("a defect"));
    }));
    assert!(unwound.is_err());
    assert!(names(base.path()).is_empty());
}

/// Makes the open directory `fd` something in which nothing can be found or removed, until dropped.
struct Broken {
    fd: RawFd,
    original: std::os::fd::OwnedFd,
}

impl Broken {
    fn new(directory: &SpillDirectory) -> Self {
        let fd = directory.owned().fd.as_raw_fd();
        let original = dup(&directory.owned().fd).unwrap();
        replace(fs::File::open("/dev/null").unwrap().as_raw_fd(), fd);
        Self { fd, original }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        replace(self.original.as_raw_fd(), self.fd);
    }
}

#[allow(unsafe_code)]
fn replace(source: RawFd, target: RawFd) {
    // SAFETY: both are open, `target` stays open and owned by whom it was; it only refers to something else.
    assert_eq!(unsafe { libc::dup2(source, target) }, target);
}

#[test]
fn a_failed_unlink_is_counted_emptied_reported_and_retried() {
    let (base, directory) = fixture();
    let file = directory.create("m1-g0.spill", 8192).unwrap();
    file.reserve(0, 8192).unwrap();
    let path = file.path().to_owned();
    let broken = Broken::new(&directory);
    drop(file);
    assert_eq!(directory.pending_unlinks(), 1);
    let error = directory.retry_unlinks().unwrap_err();
    assert!(
        matches!(&error, Error::Io { operation: "unlink", path: named, .. } if *named == path),
        "{error}"
    );
    assert_eq!(directory.pending_unlinks(), 1, "kept for another try");
    drop(broken);
    assert_eq!(
        fs::metadata(&path).unwrap().blocks(),
        0,
        "its space is free already"
    );
    directory.retry_unlinks().unwrap();
    assert_eq!(directory.pending_unlinks(), 0);
    assert!(!path.exists());
    directory.close().unwrap();
    assert!(names(base.path()).is_empty());
}

#[test]
fn close_retries_what_could_not_be_unlinked() {
    let (base, directory) = fixture();
    let file = directory.create("m1-g0.spill", 8192).unwrap();
    let broken = Broken::new(&directory);
    drop(file);
    drop(broken);
    directory.close().unwrap();
    assert!(names(base.path()).is_empty());
}

#[test]
fn counting_what_could_not_be_unlinked_waits_for_no_unlink() {
    let (_base, directory) = fixture();
    let owned = directory.owned();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let list = owned.pending();
        let directory = &directory;
        scope.spawn(move || tell.send(directory.pending_unlinks()));
        let counted = told.recv_timeout(std::time::Duration::from_secs(10));
        drop(list);
        assert_eq!(counted, Ok(0));
    });
}
