//! The engine's own directory of spill files: made for one engine, locked while it lives, gone with the last file.
//!
//! Fault model: any call may fail, the process may be killed between any two of them, other engines of the same
//! user may share the base directory, and so may strangers where it is sticky. Not guarded against: a process of
//! the same user that changes files in the engine's directory on purpose; lengths and checksums notice it late.

mod base;
mod direct;
mod file;
mod map;
mod owner;
mod reap;
mod sys;
#[cfg(test)]
mod tests;

pub(crate) use file::SpillFile;
pub(crate) use map::FileMap;

use crate::{error::Error, settings::Settings};
use base::Base;
use nix::{
    sys::stat::{FileStat, SFlag},
    unistd::Uid,
};
use owner::{DirectoryName, Owner};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Held locked for as long as the owner lives.
const LOCK_NAME: &str = "owner.lock";

/// What every spill file's name ends with.
const SPILL_SUFFIX: &str = ".spill";

/// A name is lost only to something that is in its place or to a reaper in another PID namespace.
const MAX_NAMES_TRIED: u32 = 64;

/// Numbers the engines of this process.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The directory of one engine. Somebody who cleans up may remove it: files that are open live on without names, and
/// the next file that is made makes it again, at the same path.
#[derive(Debug)]
pub(crate) struct SpillDirectory {
    owned: Mutex<Arc<OwnedDirectory>>,
    path: PathBuf,
    reaped_orphans: u64,
}

impl SpillDirectory {
    /// Checks the base directory, removes what dead owners left in it, and makes a locked directory of our own.
    ///
    /// # Errors
    /// [`Error::Directory`] when the base directory cannot be trusted or written; [`Error::DiskFull`], [`Error::Io`].
    pub(crate) fn open(settings: &Settings) -> Result<Self, Error> {
        let base = Base::open(settings)?;
        let reaped_orphans =
            reap::reap(&base).map_err(|error| Error::from_call("readdir", &base.path, 0, error))?;
        let owned = Arc::new(OwnedDirectory::create(base)?);
        Ok(Self {
            path: owned.path.clone(),
            owned: Mutex::new(owned),
            reaped_orphans,
        })
    }

    fn owned(&self) -> Arc<OwnedDirectory> {
        // Replaced by one assignment. Nobody keeps the lock: who looks at the status waits for no file.
        let owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&owned)
    }

    /// Directories of dead owners that were removed.
    pub(crate) fn reaped_orphans(&self) -> u64 {
        self.reaped_orphans
    }

    /// Absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that the filesystem of this directory gives to us (E25, S13).
    pub(crate) fn disk_available_bytes(&self) -> Result<u64, Error> {
        sys::available_bytes(&self.owned().fd)
            .map_err(|error| Error::from_call("fstatvfs", &self.path, 0, error))
    }

    /// Whether what is written here takes host memory (E35).
    pub(crate) fn counts_as_ram(&self) -> bool {
        self.owned().base.counts_as_ram
    }

    /// Makes the file `name`, `bytes` long and without space of its own yet.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when something has that name, which is left untouched (E34); [`Error::DiskFull`]
    /// when the filesystem or a limit refuses the length; [`Error::Directory`] when the directory was removed and
    /// cannot be made again; [`Error::Io`].
    pub(crate) fn create(&self, name: &str, bytes: u64) -> Result<SpillFile, Error> {
        let owned = self.owned();
        let is_gone = |error: &Error| matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
        let created = owned
            .keep_lock()
            .and_then(|()| SpillFile::create(&owned, name, bytes));
        match created {
            // In a directory that is there a file can be made, or the answer is another one.
            Err(error) if is_gone(&error) => {
                let again = Arc::new(owned.make_again()?);
                *self.owned.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&again);
                SpillFile::create(&again, name, bytes)
            }
            created => created,
        }
    }

    /// Files whose removal failed.
    pub(crate) fn pending_unlinks(&self) -> u64 {
        self.owned().pending_count.load(Ordering::Relaxed)
    }

    /// Tries to remove those files again (E36).
    ///
    /// # Errors
    /// The first failure; every file has been tried.
    pub(crate) fn retry_unlinks(&self) -> Result<(), Error> {
        self.owned().retry_unlinks()
    }

    /// Removes the directory. While views still hold files of it, the last of them does so instead (E33).
    ///
    /// # Errors
    /// What is left and why; the next engine that starts here tries again.
    pub(crate) fn close(self) -> Result<(), Error> {
        let owned = self.owned.into_inner();
        match Arc::into_inner(owned.unwrap_or_else(PoisonError::into_inner)) {
            Some(mut owned) => owned.remove().and(all_unmapped(&owned.path)),
            None => Ok(()),
        }
    }
}

/// Whether the kernel took back every map that has ended.
fn all_unmapped(path: &Path) -> Result<(), Error> {
    map::retry_unmaps();
    match map::refused_bytes() {
        0 => Ok(()),
        bytes => {
            let source = io::Error::other(format!("{bytes} bytes of ended maps stay mapped"));
            Err(Error::from_call("munmap", path, bytes as u64, source))
        }
    }
}

/// The directory itself, shared by its files.
#[derive(Debug)]
struct OwnedDirectory {
    base: Base,
    /// As it was made.
    parsed: DirectoryName,
    name: OsString,
    path: PathBuf,
    fd: OwnedFd,
    /// Locked; closing it, by death too, gives the lock back.
    lock: Mutex<File>,
    /// A forked child has these values too, and must not clean up after its parent (F62).
    pid: u32,
    pending: Mutex<Vec<PendingUnlink>>,
    /// As many as are pending, also while they are tried again: who looks at the status waits for no `unlink`.
    pending_count: AtomicU64,
    removed: bool,
}

/// A file that could not be removed.
#[derive(Debug)]
struct PendingUnlink {
    name: OsString,
    identity: FileStat,
}

impl OwnedDirectory {
    fn create(base: Base) -> Result<Self, Error> {
        let owner = Owner::this_process()
            .map_err(|error| Error::from_call("read", "/proc/self/stat", 0, error))?;
        for _ in 0..MAX_NAMES_TRIED {
            let name = DirectoryName {
                owner,
                number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
                unfinished: false,
            };
            if let Some((fd, lock)) = make_locked(&base, name)? {
                return Ok(Self::of(base, name, fd, lock));
            }
        }
        Err(Error::Directory {
            path: base.path,
            reason: format!("has something in place of each of {MAX_NAMES_TRIED} names"),
            remedy: "empty it or choose another".into(),
        })
    }

    fn of(base: Base, parsed: DirectoryName, fd: OwnedFd, lock: File) -> Self {
        let name = OsString::from(parsed.to_string());
        Self {
            path: base.join(&name),
            base,
            parsed,
            name,
            fd,
            lock: Mutex::new(lock),
            pid: std::process::id(),
            pending: Mutex::default(),
            pending_count: AtomicU64::new(0),
            removed: false,
        }
    }

    /// Another one under the same name, after this one was removed, in the base directory that is there now.
    fn make_again(&self) -> Result<Self, Error> {
        let base = self.base.open_again()?;
        match make_locked(&base, self.parsed)? {
            Some((fd, lock)) => Ok(Self::of(base, self.parsed, fd, lock)),
            None => Err(Error::Directory {
                reason: format!("has something in place of {}", self.name.display()),
                path: base.path,
                remedy: "remove it".into(),
            }),
        }
    }

    /// Makes the lock's file again where somebody removed it alone: without it nobody could tell an orphan.
    fn keep_lock(&self) -> Result<(), Error> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |operation| {
            move |error| Error::from_call(operation, self.path.join(LOCK_NAME), 0, error)
        };
        if sys::stat(&*lock).map_err(failed("fstat"))?.st_nlink > 0 {
            return Ok(());
        }
        let again = sys::create_file(&self.fd, OsStr::new(LOCK_NAME)).map_err(failed("create"))?;
        if !sys::try_lock(&again).map_err(failed("flock"))? {
            return Err(failed("flock")(io::ErrorKind::WouldBlock.into()));
        }
        *lock = again;
        Ok(())
    }

    /// Whether its name still leads to it.
    fn is_there(&self) -> io::Result<bool> {
        let there = sys::stat_at(&self.base.fd, &self.name)?;
        let own = sys::stat(&self.fd)?;
        Ok(there.is_some_and(|there| sys::same_file(&there, &own)))
    }

    fn pending(&self) -> MutexGuard<'_, Vec<PendingUnlink>> {
        // The list is whole at every moment, so a panic elsewhere does not spoil it.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the name of `file`; a failure is kept for another try, without the file's space.
    fn unlink_or_keep(&self, name: &OsStr, file: &File, identity: FileStat) {
        if !self.is_ours() {
            return;
        }
        // A name that is not found, of a file that has one all the same, is looked for again.
        let is_gone = match self.unlink(name, &identity) {
            Ok(true) => true,
            Ok(false) => file.metadata().is_ok_and(|there| there.nlink() == 0),
            Err(_) => false,
        };
        if !is_gone {
            let _ = file.set_len(0);
            self.pending_count.fetch_add(1, Ordering::Relaxed);
            self.pending().push(PendingUnlink {
                name: name.to_owned(),
                identity,
            });
        }
    }

    /// Removes `name` as long as it still names that file, which the answer tells: what someone else put there stays.
    fn unlink(&self, name: &OsStr, identity: &FileStat) -> io::Result<bool> {
        match sys::stat_at(&self.fd, name)? {
            Some(there) if sys::same_file(&there, identity) => {
                sys::unlink(&self.fd, name).map(|()| true)
            }
            Some(_) | None => Ok(false),
        }
    }

    fn retry_unlinks(&self) -> Result<(), Error> {
        map::retry_unmaps();
        let mut first = None;
        // Taken out: nobody waits for these calls who only has another one to add.
        let pending = std::mem::take(&mut *self.pending());
        for pending in pending {
            match self.unlink(&pending.name, &pending.identity) {
                Ok(true | false) => {
                    self.pending_count.fetch_sub(1, Ordering::Relaxed);
                }
                Err(error) => {
                    let path = self.path.join(&pending.name);
                    first.get_or_insert(Error::from_call("unlink", path, 0, error));
                    self.pending().push(pending);
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    fn is_ours(&self) -> bool {
        std::process::id() == self.pid
    }

    fn remove(&mut self) -> Result<(), Error> {
        if self.removed || !self.is_ours() {
            return Ok(());
        }
        self.removed = true;
        self.retry_unlinks()?;
        let is_there = self.is_there();
        if !is_there.map_err(|error| Error::from_call("fstat", &self.path, 0, error))? {
            // Somebody removed it, and what has its name now is not this one.
            return Ok(());
        }
        // The lock goes last: what is left after a death in between can still be judged by the next start.
        let lock = OsStr::new(LOCK_NAME);
        match sys::unlink(&self.fd, lock) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::from_call("unlink", self.path.join(lock), 0, error));
            }
            Ok(()) | Err(_) => {}
        }
        sys::remove_directory(&self.base.fd, &self.name)
            .map_err(|error| Error::from_call("rmdir", &self.path, 0, error))
    }
}

impl Drop for OwnedDirectory {
    fn drop(&mut self) {
        // Nobody is there to be told; `close` is the way to know, and the next start reaps.
        let _ = self.remove();
    }
}

/// Makes a directory under a temporary name, locks it, and only then gives it its name: a directory of that name is
/// locked for as long as its owner lives. `None` when the name is lost; nothing of ours is left then.
fn make_locked(base: &Base, name: DirectoryName) -> Result<Option<(OwnedFd, File)>, Error> {
    let unfinished = DirectoryName {
        unfinished: true,
        ..name
    };
    let unfinished = OsString::from(unfinished.to_string());
    let name = OsString::from(name.to_string());
    match sys::make_directory(&base.fd, &unfinished) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(base.error("mkdir", &unfinished, error)),
    }
    let made = lock_and_name(base, &unfinished, &name);
    if !matches!(made, Ok(Some(_))) {
        if let Ok(directory) = sys::open_directory(&base.fd, &unfinished) {
            let _ = sys::unlink(directory, OsStr::new(LOCK_NAME));
        }
        let _ = sys::remove_directory(&base.fd, &unfinished);
    }
    made.or_else(|(operation, error)| match error.kind() {
        // Reaped from another PID namespace while it was being made.
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(base.error(operation, &unfinished, error)),
    })
}

type FailedCall = (&'static str, io::Error);

fn lock_and_name(
    base: &Base,
    unfinished: &OsStr,
    name: &OsStr,
) -> Result<Option<(OwnedFd, File)>, FailedCall> {
    let call = |operation| move |error| (operation, error);
    let directory = sys::open_directory(&base.fd, unfinished).map_err(call("open"))?;
    let stat = sys::stat(&directory).map_err(call("fstat"))?;
    if stat.st_uid != Uid::effective().as_raw() || !sys::is(&stat, SFlag::S_IFDIR) {
        return Ok(None);
    }
    let lock = sys::create_file(&directory, OsStr::new(LOCK_NAME)).map_err(call("create"))?;
    if !sys::try_lock(&lock).map_err(call("flock"))? {
        return Ok(None);
    }
    // A reaper that had the lock first has removed it.
    if sys::stat(&lock).map_err(call("fstat"))?.st_nlink == 0 {
        return Ok(None);
    }
    if sys::stat_at(&base.fd, name)
        .map_err(call("fstatat"))?
        .is_some()
    {
        return Ok(None);
    }
    match sys::rename(&base.fd, unfinished, name) {
        Ok(()) => Ok(Some((directory, lock))),
        Err(error) => match error.raw_os_error() {
            // Something took the name since we looked.
            Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOTDIR) => Ok(None),
            Some(_) | None => Err(("rename", error)),
        },
    }
}
