//! Whether a directory can be trusted with offload files.
//!
//! Every check is made on the descriptor that is used afterwards, so that nothing can be swapped in between.

use super::sys;
use crate::{
    error::Error,
    settings::{Settings, TmpfsPolicy},
};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    sys::{
        stat::{FileStat, SFlag},
        statfs,
    },
    unistd::{self, AccessFlags, Uid},
};
use std::{
    ffi::OsStr,
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

/// `ramfs`, from the kernel's `include/uapi/linux/magic.h`; libc does not name it.
const RAMFS_MAGIC: libc::__fsword_t = 0x8584_58f6;

/// The base directory, checked.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) fd: OwnedFd,
    /// Absolute.
    pub(super) path: PathBuf,
    pub(super) counts_as_ram: bool,
    tmpfs: TmpfsPolicy,
}

impl Base {
    /// Opens and checks the base directory of `settings`.
    pub(super) fn open(settings: &Settings) -> Result<Self, Error> {
        // Without trailing slashes and dots, which would lead through a link.
        let path: PathBuf = std::path::absolute(settings.directory())
            .map_err(|error| Error::from_call("absolute", settings.directory(), 0, error))?
            .components()
            .collect();
        Self::open_at(path, settings.tmpfs())
    }

    /// Opens and checks the directory that is at the same path now; makes it when there is none (0700).
    pub(super) fn open_again(&self) -> Result<Self, Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|error| Error::Directory {
                path: self.path.clone(),
                reason: format!("is gone and cannot be made again ({error})"),
                remedy: "make it".into(),
            })?;
        Self::open_at(self.path.clone(), self.tmpfs)
    }

    fn open_at(path: PathBuf, tmpfs: TmpfsPolicy) -> Result<Self, Error> {
        let refuse = |reason: &str, remedy: &str| Error::Directory {
            path: path.clone(),
            reason: reason.to_owned(),
            remedy: remedy.to_owned(),
        };
        let name = path.as_os_str();
        let found = sys::stat_at(AT_FDCWD, name)
            .map_err(|error| refuse(&error.to_string(), "check the path"))?
            .ok_or_else(|| refuse("does not exist", "create it or choose another"))?;
        refuse_kind(&found, &refuse)?;
        let fd = sys::open_directory(AT_FDCWD, name)
            .map_err(|error| refuse(&format!("cannot be opened ({error})"), "check its mode"))?;
        let stat = sys::stat(&fd).map_err(|error| Error::from_call("fstat", &path, 0, error))?;
        refuse_owner_and_mode(&stat, &refuse)?;
        refuse_unwritable(&fd, &stat, &refuse)?;
        let in_memory =
            lives_in_memory(&fd).map_err(|error| Error::from_call("fstatfs", &path, 0, error))?;
        let counts_as_ram = match (in_memory, tmpfs) {
            (false, TmpfsPolicy::Refuse | TmpfsPolicy::CountAsRam) => false,
            (true, TmpfsPolicy::CountAsRam) => true,
            (true, TmpfsPolicy::Refuse) => {
                return Err(refuse(
                    "lives in memory (tmpfs)",
                    "choose one on a disk, or set OFFLOAD_TMPFS=count to count its files as RAM",
                ));
            }
        };
        Ok(Self {
            fd,
            path,
            counts_as_ram,
            tmpfs,
        })
    }

    /// The error of a call that changes the directory: what keeps us from writing makes the directory unusable.
    pub(super) fn error(&self, operation: &'static str, name: &OsStr, source: io::Error) -> Error {
        let path = self.path.join(name);
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => Error::Directory {
                path: self.path.clone(),
                reason: format!("is not writable ({operation}: {source})"),
                remedy: "make it writable or choose another".into(),
            },
            Some(_) | None => Error::from_call(operation, path, 0, source),
        }
    }

    pub(super) fn join(&self, name: &OsStr) -> PathBuf {
        Path::join(&self.path, name)
    }
}

type Refuse<'a> = dyn Fn(&str, &str) -> Error + 'a;

fn refuse_kind(stat: &FileStat, refuse: &Refuse<'_>) -> Result<(), Error> {
    if sys::is(stat, SFlag::S_IFLNK) {
        return Err(refuse(
            "is a symbolic link",
            "give the directory that it leads to",
        ));
    }
    if !sys::is(stat, SFlag::S_IFDIR) {
        return Err(refuse("is not a directory", "give a directory"));
    }
    Ok(())
}

fn refuse_owner_and_mode(stat: &FileStat, refuse: &Refuse<'_>) -> Result<(), Error> {
    let owner = Uid::from_raw(stat.st_uid);
    if owner != Uid::effective() && !owner.is_root() {
        return Err(refuse(
            &format!("belongs to user {owner}"),
            "give a directory of your own",
        ));
    }
    let mode = stat.st_mode;
    if mode & libc::S_IWOTH != 0 && mode & libc::S_ISVTX == 0 {
        return Err(refuse(
            &format!("is writable by everyone (mode {:04o})", mode & 0o7777),
            "chmod o-w or set the sticky bit",
        ));
    }
    Ok(())
}

/// Asks the system, and the owner's bits too: root may write anywhere, but a directory marked as read-only was
/// not meant for us.
fn refuse_unwritable(fd: &OwnedFd, stat: &FileStat, refuse: &Refuse<'_>) -> Result<(), Error> {
    let wanted = libc::S_IWUSR | libc::S_IXUSR;
    if Uid::from_raw(stat.st_uid) == Uid::effective() && stat.st_mode & wanted != wanted {
        return Err(refuse(
            &format!("is not writable (mode {:04o})", stat.st_mode & 0o7777),
            "chmod u+wx or choose another",
        ));
    }
    let access = AccessFlags::W_OK | AccessFlags::X_OK;
    sys::uninterrupted(|| unistd::faccessat(fd, ".", access, AtFlags::AT_EACCESS)).map_err(
        |error| {
            refuse(
                &format!("is not writable ({error})"),
                "make it writable or choose another",
            )
        },
    )
}

fn lives_in_memory(fd: &OwnedFd) -> io::Result<bool> {
    let kind = sys::uninterrupted(|| statfs::fstatfs(fd))?.filesystem_type();
    Ok(kind == statfs::TMPFS_MAGIC || kind.0 == RAMFS_MAGIC)
}
