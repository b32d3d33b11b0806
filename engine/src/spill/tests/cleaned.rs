//! Somebody cleans up while the engine lives: its directory, the base directory, or the lock alone.

use super::{names, open};
use crate::{error::ErrorKind, spill::SpillDirectory};
use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// The directory under a base of its own that can be removed, too.
fn fixture() -> (tempfile::TempDir, std::path::PathBuf, SpillDirectory) {
    let parent = tempfile::tempdir().unwrap();
    let base = parent.path().join("base");
    fs::create_dir(&base).unwrap();
    let directory = open(&base).unwrap();
    (parent, base, directory)
}

fn is_locked(directory: &Path) -> bool {
    let lock = File::open(directory.join("owner.lock")).unwrap();
    lock.try_lock().is_err()
}

#[test]
fn a_directory_that_was_removed_is_made_again_and_open_files_live_on() {
    for removes_base in [false, true] {
        let (_parent, base, directory) = fixture();
        let old = directory.create("m1-g0.spill", 8192).unwrap();
        old.write_all_at(b"weights", 0).unwrap();
        let removed = if removes_base {
            &base
        } else {
            directory.path()
        };
        fs::remove_dir_all(removed).unwrap();
        let new = directory.create("m1-g1.spill", 8192).unwrap();
        assert_eq!(names(directory.path()), ["m1-g1.spill", "owner.lock"]);
        assert!(is_locked(directory.path()));
        for made in [&base, directory.path()]
            .iter()
            .skip(usize::from(!removes_base))
        {
            let mode = fs::metadata(made).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", made.display());
        }
        let mut out = [0; 7];
        old.check_len().unwrap();
        old.read_exact_at(&mut out, 0).unwrap();
        assert_eq!(&out, b"weights");
        drop(old);
        assert_eq!(directory.pending_unlinks(), 0);
        assert_eq!(names(directory.path()), ["m1-g1.spill", "owner.lock"]);
        drop(new);
        directory.close().unwrap();
        assert!(names(&base).is_empty());
    }
}

#[test]
fn a_lock_that_was_removed_alone_is_made_again() {
    let (_parent, base, directory) = fixture();
    fs::remove_file(directory.path().join("owner.lock")).unwrap();
    let file = directory.create("m1-g0.spill", 8192).unwrap();
    assert!(is_locked(directory.path()));
    drop(file);
    directory.close().unwrap();
    assert!(names(&base).is_empty());
}

#[test]
fn close_after_a_removal_is_clean_and_touches_nothing_that_came_after() {
    let (_parent, base, directory) = fixture();
    let path = directory.path().to_owned();
    fs::remove_dir_all(&path).unwrap();
    directory.close().unwrap();
    assert!(names(&base).is_empty());

    let (_parent, _base, directory) = fixture();
    let path = directory.path().to_owned();
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    directory.close().unwrap();
    assert!(path.exists(), "somebody else's");

    let (_parent, _base, directory) = fixture();
    fs::remove_file(directory.path().join("owner.lock")).unwrap();
    let path = directory.path().to_owned();
    directory.close().unwrap();
    assert!(!path.exists());
}

#[test]
fn where_it_cannot_be_made_again_the_error_is_typed_and_the_next_try_may_succeed() {
    let (parent, base, directory) = fixture();
    fs::remove_dir_all(directory.path()).unwrap();
    fs::write(directory.path(), "an impostor").unwrap();
    let error = directory.create("m1-g0.spill", 8192).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Directory, "{error}");
    assert_eq!(fs::read(directory.path()).unwrap(), b"an impostor");
    fs::remove_file(directory.path()).unwrap();

    fs::remove_dir_all(&base).unwrap();
    fs::write(&base, "an impostor").unwrap();
    let error = directory.create("m1-g0.spill", 8192).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Directory, "{error}");
    assert_eq!(fs::read(&base).unwrap(), b"an impostor");
    fs::remove_file(&base).unwrap();

    let elsewhere = parent.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &base).unwrap();
    let error = directory.create("m1-g0.spill", 8192).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Directory, "{error}");
    assert!(names(&elsewhere).is_empty(), "no link is followed");
    fs::remove_file(&base).unwrap();

    drop(directory.create("m1-g0.spill", 8192).unwrap());
    directory.close().unwrap();
    assert!(names(&base).is_empty());
}
