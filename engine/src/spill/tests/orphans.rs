//! What is taken for an orphan, and what of it is removed.

use super::{child::Waiting, names, open};
use crate::spill::{
    LOCK_NAME,
    owner::{DirectoryName, Owner},
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The name of a directory of this process, which lives.
fn living() -> DirectoryName {
    DirectoryName {
        owner: Owner::this_process().unwrap(),
        number: 1 << 40,
        unfinished: false,
    }
}

/// The name of a directory of an earlier process with our number, which is gone.
fn dead() -> DirectoryName {
    let mut name = living();
    name.owner = name.owner.earlier();
    name
}

/// A directory under that name, with a lock file and a spill file.
fn plant(base: &TempDir, name: DirectoryName) -> PathBuf {
    let path = base.path().join(name.to_string());
    fs::create_dir(&path).unwrap();
    fs::write(path.join(LOCK_NAME), "").unwrap();
    fs::write(path.join("m1-g0.spill"), "weights").unwrap();
    path
}

/// Orphans that an engine which starts here now removes.
fn reaped(base: &Path) -> u64 {
    open(base).unwrap().reaped_orphans()
}

#[test]
fn what_a_killed_process_left_is_reaped() {
    let base = tempfile::tempdir().unwrap();
    let child = Waiting::start("hold", base.path());
    let [orphan] = &names(base.path())[..] else {
        panic!("one directory");
    };
    let orphan = base.path().join(orphan);
    assert_eq!(names(&orphan), ["m1-g0.spill", "m2-g0.spill", "owner.lock"]);
    child.kill();
    assert!(orphan.exists(), "nobody cleaned up");
    let directory = open(base.path()).unwrap();
    assert_eq!(directory.reaped_orphans(), 1);
    assert!(!orphan.exists());
    directory.close().unwrap();
    assert!(names(base.path()).is_empty());
}

#[test]
fn a_living_process_keeps_its_files() {
    let base = tempfile::tempdir().unwrap();
    let child = Waiting::start("hold", base.path());
    let before = names(base.path());
    assert_eq!(reaped(base.path()), 0);
    assert_eq!(names(base.path()), before);
    child.kill();
    assert_eq!(reaped(base.path()), 1);
}

#[test]
fn a_directory_that_a_living_process_has_not_locked_yet_is_left_alone() {
    for unfinished in [true, false] {
        let base = tempfile::tempdir().unwrap();
        let name = DirectoryName {
            unfinished,
            ..living()
        };
        let path = base.path().join(name.to_string());
        fs::create_dir(&path).unwrap();
        assert_eq!(reaped(base.path()), 0, "just made");
        assert!(path.exists());
        fs::write(path.join(LOCK_NAME), "").unwrap();
        assert_eq!(reaped(base.path()), 0, "lock made, not taken");
        assert!(path.join(LOCK_NAME).exists());
    }
}

#[test]
fn a_locked_directory_is_left_alone_whoever_seems_to_own_it() {
    // As seen from another PID namespace, where the owner's number means nothing.
    let base = tempfile::tempdir().unwrap();
    let path = plant(&base, dead());
    let lock = File::open(path.join(LOCK_NAME)).unwrap();
    lock.lock().unwrap();
    assert_eq!(reaped(base.path()), 0);
    assert_eq!(names(&path), ["m1-g0.spill", "owner.lock"]);
    drop(lock);
    assert_eq!(reaped(base.path()), 1);
    assert!(names(base.path()).is_empty());
}

#[test]
fn a_death_at_any_step_of_making_or_removing_leaves_something_that_is_reaped() {
    for unfinished in [true, false] {
        for files in [&[][..], &[LOCK_NAME][..], &[LOCK_NAME, "m1-g0.spill"][..]] {
            let base = tempfile::tempdir().unwrap();
            let name = DirectoryName {
                unfinished,
                ..dead()
            };
            let path = base.path().join(name.to_string());
            fs::create_dir(&path).unwrap();
            for file in files {
                fs::write(path.join(file), "").unwrap();
            }
            assert_eq!(reaped(base.path()), 1, "{name} with {files:?}");
            assert!(names(base.path()).is_empty());
        }
    }
}

#[test]
fn links_in_an_orphan_are_removed_and_not_followed() {
    let elsewhere = tempfile::tempdir().unwrap();
    let precious = elsewhere.path().join("precious.spill");
    fs::write(&precious, "precious").unwrap();
    let base = tempfile::tempdir().unwrap();
    let path = plant(&base, dead());
    symlink(&precious, path.join("file.spill")).unwrap();
    symlink(elsewhere.path(), path.join("directory.spill")).unwrap();
    assert_eq!(reaped(base.path()), 1);
    assert!(names(base.path()).is_empty());
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}

#[test]
fn a_link_in_place_of_an_orphan_or_its_lock_is_left_alone() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = plant(&elsewhere, dead());
    let base = tempfile::tempdir().unwrap();
    symlink(&target, base.path().join(dead().to_string())).unwrap();
    assert_eq!(reaped(base.path()), 0);
    assert_eq!(names(&target), ["m1-g0.spill", "owner.lock"]);

    let base = tempfile::tempdir().unwrap();
    let path = plant(&base, dead());
    fs::remove_file(path.join(LOCK_NAME)).unwrap();
    symlink(target.join(LOCK_NAME), path.join(LOCK_NAME)).unwrap();
    assert_eq!(reaped(base.path()), 0);
    assert_eq!(names(&path), ["m1-g0.spill", "owner.lock"]);
}

#[test]
fn a_lock_that_is_no_regular_file_is_left_alone_without_waiting() {
    let base = tempfile::tempdir().unwrap();
    let path = plant(&base, dead());
    fs::remove_file(path.join(LOCK_NAME)).unwrap();
    mkfifo(&path.join(LOCK_NAME), Mode::S_IRWXU).unwrap();
    assert_eq!(reaped(base.path()), 0);
    assert_eq!(names(&path), ["m1-g0.spill", "owner.lock"]);
}

#[test]
fn what_no_engine_made_stays_and_keeps_its_directory() {
    let base = tempfile::tempdir().unwrap();
    let path = plant(&base, dead());
    fs::write(path.join("notes.txt"), "precious").unwrap();
    assert_eq!(reaped(base.path()), 0);
    assert_eq!(names(&path), ["notes.txt", "owner.lock"]);
    fs::remove_file(path.join("notes.txt")).unwrap();
    assert_eq!(reaped(base.path()), 1, "a later start finishes");
}

#[test]
fn one_orphan_that_cannot_be_removed_does_not_keep_the_others_or_the_engine() {
    let base = tempfile::tempdir().unwrap();
    let stubborn = plant(&base, dead());
    fs::create_dir(stubborn.join("directory.spill")).unwrap();
    let other = DirectoryName {
        number: 3,
        ..dead()
    };
    let other = plant(&base, other);
    assert_eq!(reaped(base.path()), 1);
    assert!(stubborn.exists());
    assert!(!other.exists());
}

#[test]
fn other_names_in_the_base_are_left_alone() {
    let base = tempfile::tempdir().unwrap();
    for name in [
        "spill",
        "spill-1",
        "spill-x-1",
        "spill-1-1.old",
        "m1-g0.spill",
    ] {
        let path = base.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("m1-g0.spill"), "").unwrap();
    }
    fs::write(base.path().join(dead().to_string()), "a file").unwrap();
    let before = names(base.path());
    assert_eq!(reaped(base.path()), 0);
    assert_eq!(names(base.path()), before);
}

#[test]
fn what_belongs_to_another_user_is_left_alone() {
    let base = tempfile::tempdir().unwrap();
    let path = plant(&base, dead());
    // Only root can give a directory away; for anyone else no orphan of another user can be made here.
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
        assert_eq!(reaped(base.path()), 0);
        assert_eq!(names(&path), ["m1-g0.spill", "owner.lock"]);
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    }
    assert_eq!(reaped(base.path()), 1);
}

#[test]
fn an_orphan_whose_lock_alone_was_removed_is_reaped() {
    let base = tempfile::tempdir().unwrap();
    let child = Waiting::start("hold", base.path());
    let orphan = base.path().join(&names(base.path())[0]);
    fs::remove_file(orphan.join(LOCK_NAME)).unwrap();
    assert_eq!(reaped(base.path()), 0, "it lives");
    assert_eq!(names(&orphan), ["m1-g0.spill", "m2-g0.spill"]);
    child.kill();
    assert_eq!(reaped(base.path()), 1);
    assert!(names(base.path()).is_empty());
}
