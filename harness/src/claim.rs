//! Whose a directory is: its maker holds a lock on it, so that what a killed suite left is told from what a living one uses.
//!
//! The lock is flock(2) on the directory itself. The kernel lets go of it when the maker is gone, however it ended, and no number
//! that another process may have by now has to be believed. It needs no file of its own, so it serves cgroups too. Where a
//! filesystem knows no such locks nothing is ever reaped.

use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What the names of claimed directories begin with. Nothing else is ever reaped.
const PREFIX: &str = "spillproof-held-";

/// The beginning of the names that this process reaps: with a part for the running kernel, because another one, on another
/// machine of a shared filesystem, may not see its locks.
pub(crate) fn prefix() -> &'static str {
    static OURS: OnceLock<String> = OnceLock::new();
    OURS.get_or_init(|| {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let kernel = match boot.get(..8) {
            Some(first) => first.to_owned(),
            // Nobody's but this process's.
            None => format!("pid{}", std::process::id()),
        };
        format!("{PREFIX}{kernel}-")
    })
}

/// How long reaping goes on; what is still there then is left to the next process.
const REAPING_BOUND: Duration = Duration::from_secs(5);

/// Reapers of other processes may take the lock in the moment between making and locking.
const TRIES: u32 = 16;

/// The right to a directory, until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Claim {
    _locked: File,
}

impl Claim {
    /// Claims a directory that was just made; `None` when a reaper was faster, and it is gone or will be.
    pub(crate) fn take(directory: &Path) -> io::Result<Option<Self>> {
        let Some(opened) = missing_is_none(File::open(directory))? else {
            return Ok(None);
        };
        match opened.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            // No such locks here: nobody else will get one either.
            Err(TryLockError::Error(_)) => return Ok(Some(Self { _locked: opened })),
        }
        let there = is_at(&opened, directory)?;
        Ok(there.then_some(Self { _locked: opened }))
    }
}

/// A fresh directory below `base` that nobody reaps.
pub(crate) fn claimed_directory(base: &Path, label: &str) -> io::Result<(TempDir, Claim)> {
    for _ in 0..TRIES {
        let directory = tempfile::Builder::new()
            .prefix(&format!("{}{label}", prefix()))
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .tempdir_in(base)?;
        if let Some(claim) = Claim::take(directory.path())? {
            return Ok((directory, claim));
        }
    }
    Err(reaped_too_soon(base))
}

/// Others reap faster than this process can make.
pub(crate) fn reaped_too_soon(base: &Path) -> io::Error {
    let text = format!("each of {TRIES} new directories in {base:?} was reaped at once");
    io::Error::new(ErrorKind::ResourceBusy, text)
}

/// Removes what dead makers left in a place, once in a process. Failures leave it to the next process.
pub(crate) fn reap_once(place: &Path, remove: fn(&Path) -> io::Result<()>) {
    static REAPED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut reaped = REAPED.lock().unwrap_or_else(PoisonError::into_inner);
    if reaped.insert(place.to_owned()) {
        // Whoever comes meanwhile goes on: nothing waits for this.
        drop(reaped);
        let _ = reap(place, remove, Instant::now() + REAPING_BOUND);
    }
}

fn reap(place: &Path, remove: fn(&Path) -> io::Result<()>, until: Instant) -> io::Result<()> {
    for entry in fs::read_dir(place)? {
        if Instant::now() >= until {
            break;
        }
        let entry = entry?;
        let named = entry.file_name().to_string_lossy().starts_with(prefix());
        if named && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // Others reap here too, and may not be allowed to.
            let _ = reap_directory(&entry.path(), remove);
        }
    }
    Ok(())
}

fn reap_directory(directory: &Path, remove: fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let opened = File::open(directory)?;
    let own = opened.metadata()?.uid() == nix::unistd::geteuid().as_raw();
    if own && opened.try_lock().is_ok() && is_at(&opened, directory)? {
        // Locked until it is gone.
        remove(directory)?;
    }
    Ok(())
}

/// Removes a directory and all that is in it, also where a case took permissions away.
pub(crate) fn remove_tree(directory: &Path) -> io::Result<()> {
    open_up(directory)?;
    fs::remove_dir_all(directory)
}

fn open_up(directory: &Path) -> io::Result<()> {
    // A link in its place is not followed.
    let flag = FchmodatFlags::NoFollowSymlink;
    match fchmodat(nix::fcntl::AT_FDCWD, directory, Mode::S_IRWXU, flag) {
        Ok(()) => {}
        // Not every kernel can do without following; what needs no opening up goes on.
        Err(_) if fs::read_dir(directory).is_ok() => {}
        Err(error) => return Err(error.into()),
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether this is what is to be found under the path.
fn is_at(opened: &File, path: &Path) -> io::Result<bool> {
    let (ours, there) = (
        opened.metadata()?,
        missing_is_none(fs::symlink_metadata(path))?,
    );
    Ok(there.is_some_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}

fn missing_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    //! What is reaped, and what never is.
    use super::*;

    fn later() -> Instant {
        Instant::now() + PATIENCE
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn only_directories_that_are_named_so_and_that_nobody_holds_are_reaped() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        let (left, held_name) = (format!("{}left", prefix()), format!("{}file", prefix()));
        fs::create_dir_all(at(&left).join("offload/closed")).unwrap();
        fs::write(at(&left).join("offload/closed/file"), "x").unwrap();
        let closed = at(&left).join("offload/closed");
        fs::set_permissions(closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        fs::create_dir(at("models")).unwrap();
        fs::write(at(&held_name), "x").unwrap();
        fs::write(at("models/weights"), "x").unwrap();
        let link = format!("{}link", prefix());
        std::os::unix::fs::symlink(at("models"), at(&link)).unwrap();
        let elsewhere = at(&format!("{PREFIX}00000000-left"));
        fs::create_dir(&elsewhere).unwrap();
        let (held, claim) = claimed_directory(base.path(), "case-").unwrap();
        reap(base.path(), remove_tree, later()).unwrap();
        assert!(!at(&left).exists());
        for kept in [
            held.path(),
            &at("models/weights"),
            &at(&held_name),
            &elsewhere,
        ] {
            assert!(kept.exists(), "{kept:?}");
        }
        assert!(fs::symlink_metadata(at(&link)).is_ok());
        drop(claim);
        // A child that another test starts holds the lock, too, until it has become its program.
        let until = later();
        while held.path().exists() && Instant::now() < until {
            reap(base.path(), remove_tree, until).unwrap();
        }
        assert!(!held.path().exists());
    }

    #[test]
    fn reaping_ends_when_its_time_is_over() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join(format!("{}left", prefix()))).unwrap();
        reap(base.path(), remove_tree, Instant::now()).unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_made_while_others_reap_is_there_when_it_is_claimed() {
        let base = tempfile::tempdir().unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = reap(base.path(), remove_tree, later());
                }
            });
            let made: Vec<_> = (0..200)
                .filter_map(|_| claimed_directory(base.path(), "").ok())
                .collect();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(made.len() > 100, "{}", made.len());
            assert!(made.iter().all(|(directory, _)| directory.path().is_dir()));
        });
    }
}
