//! System calls relative to a directory's descriptor, each retried when a signal interrupts it (F43).
//!
//! All of them go through the C library, by way of `nix`, so that whoever watches or fails calls at that border sees them.

use nix::{
    errno::Errno,
    fcntl::{self, AtFlags, FcntlArg, OFlag},
    sys::{
        stat::{self, FileStat, Mode, SFlag},
        statvfs,
    },
    unistd::{self, UnlinkatFlags},
};
use std::{
    ffi::OsStr,
    fs::{File, TryLockError},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

/// Calls `call` again for as long as it is interrupted.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Opens the directory `name` in `at`, never through a link.
pub(super) fn open_directory(at: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    uninterrupted(|| fcntl::openat(at.as_fd(), name, flags, Mode::empty()))
}

/// Makes the file `name` in `at`, readable and writable by its owner only; fails when anything has that name (E34).
pub(super) fn create_file(at: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags =
        OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    uninterrupted(|| fcntl::openat(at.as_fd(), name, flags, mode)).map(File::from)
}

/// Opens the existing file `name` in `at`, never through a link and never waiting for the other end of a FIFO.
pub(super) fn open_file(at: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    uninterrupted(|| fcntl::openat(at.as_fd(), name, flags, Mode::empty())).map(File::from)
}

/// Opens the existing file `name` in `at` for reading and writing, never through a link, with direct I/O when `flags` say so.
pub(super) fn open_again(at: impl AsFd, name: &OsStr, flags: OFlag) -> io::Result<File> {
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | flags;
    uninterrupted(|| fcntl::openat(at.as_fd(), name, flags, Mode::empty())).map(File::from)
}

/// Opens an open file once more, by the link that `/proc` has to it: it need not have a name.
pub(super) fn open_unnamed(file: &File, flags: OFlag) -> io::Result<File> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | flags;
    uninterrupted(|| fcntl::open(link.as_str(), flags, Mode::empty())).map(File::from)
}

/// Opens for direct I/O; for ordinary I/O only where the filesystem refuses that (F37). That there are no descriptors left,
/// for instance, says nothing about direct I/O (F36).
pub(super) fn direct_or_ordinary<T>(mut open: impl FnMut(OFlag) -> io::Result<T>) -> io::Result<T> {
    match open(OFlag::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(OFlag::empty()),
        other => other,
    }
}

/// Closes a descriptor of the file, not the last one: filesystems that write behind tell with each what became of the bytes.
pub(super) fn close_once(file: &File) -> io::Result<()> {
    uninterrupted(|| {
        let second = fcntl::fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(0))?;
        // Whatever it says, the descriptor is gone, so another try needs another one.
        unistd::close(second)
    })
}

/// Locks an open file; `false` where somebody else has it locked.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    loop {
        return match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {
                continue;
            }
            Err(TryLockError::Error(error)) => Err(error),
        };
    }
}

/// Makes the directory `name` in `at`, mode 0700.
pub(super) fn make_directory(at: impl AsFd, name: &OsStr) -> io::Result<()> {
    uninterrupted(|| stat::mkdirat(at.as_fd(), name, Mode::S_IRWXU))
}

/// Gives the directory `from` in `at` the name `to`; the caller has seen that `to` is free.
pub(super) fn rename(at: impl AsFd, from: &OsStr, to: &OsStr) -> io::Result<()> {
    uninterrupted(|| fcntl::renameat(at.as_fd(), from, at.as_fd(), to))
}

/// Removes the name of a file; a link is removed, not followed.
pub(super) fn unlink(at: impl AsFd, name: &OsStr) -> io::Result<()> {
    uninterrupted(|| unistd::unlinkat(at.as_fd(), name, UnlinkatFlags::NoRemoveDir))
}

/// Removes an empty directory.
pub(super) fn remove_directory(at: impl AsFd, name: &OsStr) -> io::Result<()> {
    uninterrupted(|| unistd::unlinkat(at.as_fd(), name, UnlinkatFlags::RemoveDir))
}

/// What an open descriptor refers to.
pub(super) fn stat(fd: impl AsFd) -> io::Result<FileStat> {
    uninterrupted(|| stat::fstat(fd.as_fd()))
}

/// What `name` in `at` is, the link itself if it is one; `None` when there is nothing.
pub(super) fn stat_at(at: impl AsFd, name: &OsStr) -> io::Result<Option<FileStat>> {
    let found = uninterrupted(|| stat::fstatat(at.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW));
    match found {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether two descriptions are of one file.
pub(super) fn same_file(one: &FileStat, other: &FileStat) -> bool {
    one.st_dev == other.st_dev && one.st_ino == other.st_ino
}

/// Whether a description is of this type of file.
pub(super) fn is(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

/// Bytes that the filesystem of `fd` gives to us; a filesystem without a size, such as an unlimited tmpfs, gives any number.
pub(super) fn available_bytes(fd: impl AsFd) -> io::Result<u64> {
    let stat = uninterrupted(|| statvfs::fstatvfs(fd.as_fd()))?;
    if stat.blocks() == 0 {
        return Ok(u64::MAX);
    }
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

#[cfg(test)]
mod tests {
    //! Interruption, which no other test can time, and refusals of direct I/O, which not every filesystem gives.
    use super::*;

    #[test]
    fn an_interrupted_call_is_repeated_until_it_says_something_else() {
        let mut answers = [Err(Errno::EINTR), Err(Errno::EINTR), Ok(7)].into_iter();
        assert_eq!(uninterrupted(|| answers.next().unwrap()).unwrap(), 7);
        let mut answers = [Err(Errno::EINTR), Err(Errno::EIO)].into_iter();
        let error = uninterrupted(|| -> nix::Result<()> { answers.next().unwrap() }).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }

    #[test]
    fn only_a_refusal_of_direct_io_leads_to_ordinary_io() {
        let answer = |refusal: Option<i32>, flags: OFlag| match refusal {
            Some(errno) if flags == OFlag::O_DIRECT => Err(io::Error::from_raw_os_error(errno)),
            Some(_) | None => Ok(flags),
        };
        let opened = direct_or_ordinary(|flags| answer(None, flags));
        assert_eq!(opened.unwrap(), OFlag::O_DIRECT);
        let opened = direct_or_ordinary(|flags| answer(Some(libc::EINVAL), flags));
        assert_eq!(opened.unwrap(), OFlag::empty());
        for errno in [libc::EMFILE, libc::ENFILE, libc::EACCES] {
            let opened = direct_or_ordinary(|flags| answer(Some(errno), flags));
            assert_eq!(opened.unwrap_err().raw_os_error(), Some(errno));
        }
    }
}
