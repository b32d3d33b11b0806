//! Removes what owners left behind that a signal killed (E33).
//!
//! A directory is an orphan when its owner's process is gone *and* its lock can be had. Neither alone would do: the
//! lock alone is free for a moment while a directory is made, and process numbers mean nothing to a process in
//! another PID namespace. An engine whose unfinished directory is taken away all the same starts over with another name.

use super::{
    LOCK_NAME, SPILL_SUFFIX,
    base::Base,
    owner::{DirectoryName, Owner},
    sys,
};
use nix::{
    dir::Dir,
    fcntl::OFlag,
    sys::stat::{Mode, SFlag},
    unistd::Uid,
};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

/// What became of one directory entry.
enum Fate {
    /// It is no orphan, or not ours to judge.
    LeftAlone,
    /// It is gone.
    Removed,
}

/// Removes the orphans in `base` and counts them. An orphan that cannot be removed, because it holds something
/// that no engine made or because a call fails, stays for the next start.
pub(super) fn reap(base: &Base) -> io::Result<u64> {
    let mut removed = 0;
    for name in entries(&base.fd)? {
        let Some(parsed) = DirectoryName::parse(&name) else {
            continue;
        };
        // A failure here is one orphan's, and does not keep the engine from starting.
        match reap_one(base, &name, parsed.owner) {
            Ok(Fate::Removed) => removed += 1,
            Ok(Fate::LeftAlone) | Err(_) => {}
        }
    }
    Ok(removed)
}

fn reap_one(base: &Base, name: &OsStr, owner: Owner) -> io::Result<Fate> {
    if owner.is_alive()? {
        return Ok(Fate::LeftAlone);
    }
    let directory = sys::open_directory(&base.fd, name)?;
    if sys::stat(&directory)?.st_uid != Uid::effective().as_raw() {
        return Ok(Fate::LeftAlone);
    }
    let lock = match sys::stat_at(&directory, OsStr::new(LOCK_NAME))? {
        Some(_) => sys::open_file(&directory, OsStr::new(LOCK_NAME))?,
        None => match sys::remove_directory(&base.fd, name) {
            // Its owner died before it could lock, or while it cleaned up: then there is nothing in it.
            Ok(()) => return Ok(Fate::Removed),
            // Somebody removed the lock alone: one of our own keeps other reapers away.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                sys::create_file(&directory, OsStr::new(LOCK_NAME))?
            }
            Err(error) => return Err(error),
        },
    };
    let locked = sys::stat(&lock)?;
    if !sys::is(&locked, SFlag::S_IFREG) || !sys::try_lock(&lock).is_ok_and(|had| had) {
        return Ok(Fate::LeftAlone);
    }
    // Another process may have reaped the directory between our opening the lock and having it.
    let still_there = sys::stat_at(&directory, OsStr::new(LOCK_NAME))?
        .is_some_and(|there| sys::same_file(&there, &locked));
    if !still_there {
        return Ok(Fate::LeftAlone);
    }
    let mut unknown = false;
    for entry in entries(&directory)? {
        if entry == LOCK_NAME {
            continue;
        }
        if entry.as_bytes().ends_with(SPILL_SUFFIX.as_bytes()) {
            sys::unlink(&directory, &entry)?;
        } else {
            unknown = true;
        }
    }
    if unknown {
        return Ok(Fate::LeftAlone);
    }
    // The lock goes last, so that a death in between leaves a directory that can still be judged.
    sys::unlink(&directory, OsStr::new(LOCK_NAME))?;
    sys::remove_directory(&base.fd, name)?;
    Ok(Fate::Removed)
}

/// The names in a directory, in order.
fn entries(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // A descriptor of its own: the position in a directory belongs to the open description.
    let mut listing =
        sys::uninterrupted(|| Dir::openat(directory.as_fd(), ".", flags, Mode::empty()))?;
    let mut names = listing
        .iter()
        .map(|entry| {
            let entry = entry.map_err(io::Error::from)?;
            Ok(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned())
        })
        .filter(|name| !matches!(name, Ok(name) if name == "." || name == ".."))
        .collect::<io::Result<Vec<OsString>>>()?;
    names.sort();
    Ok(names)
}
