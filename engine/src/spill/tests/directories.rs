//! Which base directories are refused, and what the engine's own looks like.

use super::{names, open, settings};
use crate::{
    error::{Error, ErrorKind},
    settings::{Settings, TmpfsPolicy},
    spill::SpillDirectory,
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

#[track_caller]
fn assert_refused(result: Result<SpillDirectory, Error>, path: &Path, reason: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Directory, "{error}");
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains(reason), "{message}");
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn with_mode(mode: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
    directory
}

#[test]
fn a_missing_directory_is_refused_and_not_made() {
    let parent = tempfile::tempdir().unwrap();
    let missing = parent.path().join("missing");
    assert_refused(open(&missing), &missing, "does not exist");
    assert!(!missing.exists());
}

#[test]
fn a_file_instead_of_a_directory_is_refused_and_kept() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "precious").unwrap();
    assert_refused(open(file.path()), file.path(), "is not a directory");
    assert_eq!(fs::read(file.path()).unwrap(), b"precious");
    let below = file.path().join("below");
    assert_refused(open(&below), &below, "Not a directory");
}

#[test]
fn a_symbolic_link_is_refused_however_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let link = directory.path().join("link");
    fs::create_dir(&target).unwrap();
    symlink(&target, &link).unwrap();
    for spelling in ["link", "link/", "link/.", "./link//"] {
        let path = directory.path().join(spelling);
        assert_refused(open(&path), &link, "is a symbolic link");
    }
    assert!(names(&target).is_empty());
    symlink(
        directory.path().join("nowhere"),
        directory.path().join("dangling"),
    )
    .unwrap();
    let dangling = directory.path().join("dangling");
    assert_refused(open(&dangling), &dangling, "is a symbolic link");
}

#[test]
fn a_directory_without_our_write_bits_is_refused_even_to_root() {
    for bits in [0o500, 0o600, 0o400, 0o000, 0o555] {
        let directory = with_mode(bits);
        let result = open(directory.path());
        let error = result.unwrap_err().to_string();
        assert!(
            error.contains("is not writable") || error.contains("cannot be opened"),
            "{bits:o}: {error}"
        );
        fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(names(directory.path()).is_empty());
    }
}

#[test]
fn a_world_writable_directory_needs_the_sticky_bit() {
    let directory = with_mode(0o777);
    assert_refused(
        open(directory.path()),
        directory.path(),
        "is writable by everyone (mode 0777)",
    );
    let directory = with_mode(0o1777);
    assert!(open(directory.path()).is_ok());
}

#[test]
fn a_directory_in_memory_is_refused_or_counted_as_told() {
    let somewhere = tempfile::tempdir().unwrap();
    let kind = Command::new("stat")
        .args(["-f", "-c", "%T"])
        .arg(somewhere.path())
        .output()
        .unwrap();
    let in_memory = kind.stdout.starts_with(b"tmpfs");
    assert_eq!(open(somewhere.path()).unwrap().counts_as_ram(), in_memory);
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let refusing = Settings::builder()
        .directory(memory.path())
        .build()
        .unwrap();
    assert_eq!(refusing.tmpfs(), TmpfsPolicy::Refuse);
    assert_refused(
        SpillDirectory::open(&refusing),
        memory.path(),
        "lives in memory",
    );
    assert!(names(memory.path()).is_empty());
    assert!(open(memory.path()).unwrap().counts_as_ram());
}

#[test]
fn the_own_directory_is_private_locked_and_gone_after_close() {
    let base = tempfile::tempdir().unwrap();
    let directory = open(base.path()).unwrap();
    let path = directory.path().to_owned();
    assert_eq!(path.parent(), Some(base.path()));
    let own = path.file_name().unwrap().to_str().unwrap();
    assert!(
        own.starts_with(&format!("spill-{}-", std::process::id())),
        "{own}"
    );
    assert_eq!(names(base.path()), [own]);
    assert_eq!(mode(&path), 0o700);
    assert_eq!(names(&path), ["owner.lock"]);
    assert_eq!(mode(&path.join("owner.lock")), 0o600);
    let lock = fs::File::open(path.join("owner.lock")).unwrap();
    assert!(lock.try_lock().is_err(), "it is locked");
    assert!(directory.disk_available_bytes().unwrap() > 0);
    assert_eq!(directory.reaped_orphans(), 0);
    directory.close().unwrap();
    assert!(names(base.path()).is_empty());
}

#[test]
fn dropping_does_what_close_does() {
    let base = tempfile::tempdir().unwrap();
    drop(open(base.path()).unwrap());
    assert!(names(base.path()).is_empty());
}

#[test]
fn two_engines_of_one_process_share_a_base_and_nothing_else() {
    let base = tempfile::tempdir().unwrap();
    let one = open(base.path()).unwrap();
    let other = open(base.path()).unwrap();
    assert_ne!(one.path(), other.path());
    let file = one.create("m1-g0.spill", 4096).unwrap();
    other.create("m1-g0.spill", 4096).unwrap();
    other.close().unwrap();
    assert!(file.path().exists());
    drop(file);
    one.close().unwrap();
    assert!(names(base.path()).is_empty());
}

#[test]
fn a_relative_path_is_made_absolute_once() {
    let base = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(base.path().strip_prefix("/").unwrap());
    let directory = SpillDirectory::open(&settings(&relative)).unwrap();
    assert!(directory.path().is_absolute());
    assert!(directory.path().exists());
}

#[test]
fn descriptors_do_not_reach_a_program_that_is_started() {
    let base = tempfile::tempdir().unwrap();
    let directory = open(base.path()).unwrap();
    let _file = directory.create("m1-g0.spill", 4096).unwrap();
    let base_path = base.path().to_str().unwrap();
    let listing = |arguments: &[&str]| {
        let output = Command::new("ls").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let ours = format!("/proc/{}/fd", std::process::id());
    let held = listing(&["-l", &ours]);
    assert_eq!(
        held.matches(base_path).count(),
        4,
        "base, directory, lock, file: {held}"
    );
    let inherited = listing(&["-l", "/proc/self/fd"]);
    assert!(!inherited.contains(base_path), "{inherited}");
}

#[test]
fn a_forked_child_does_not_clean_up_after_its_parent() {
    let base = tempfile::tempdir().unwrap();
    let mut directory = open(base.path()).unwrap();
    // What a child sees: the values of its parent under another process number.
    let owned = directory.owned.get_mut().unwrap();
    Arc::get_mut(owned).unwrap().pid += 1;
    let path = directory.path().to_owned();
    let file = directory.create("m1-g0.spill", 4096).unwrap();
    drop(file);
    assert!(path.join("m1-g0.spill").exists());
    drop(directory);
    assert!(path.join("owner.lock").exists());
}

#[test]
fn a_directory_that_cannot_be_removed_is_reported_by_close() {
    let base = tempfile::tempdir().unwrap();
    let directory = open(base.path()).unwrap();
    let path = directory.path().to_owned();
    fs::write(path.join("stranger"), "precious").unwrap();
    let error = directory.close().unwrap_err();
    assert!(
        matches!(&error, Error::Io { operation: "rmdir", path: named, .. } if *named == path),
        "{error}"
    );
    assert_eq!(fs::read(path.join("stranger")).unwrap(), b"precious");
}
