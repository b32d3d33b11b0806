//! One spill file: sparse, and trusted through its open descriptor only.

use super::{
    FileMap, OwnedDirectory, SPILL_SUFFIX,
    direct::{self, DirectAccess, Reached},
    sys,
};
use crate::error::Error;
use memmap2::MmapOptions;
use nix::{
    fcntl::{FallocateFlags, OFlag, fallocate},
    sys::{
        resource::{Resource, getrlimit},
        stat::{FileStat, SFlag},
    },
};
use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file of an engine's directory, never reopened by name. Its name goes when it is dropped.
#[derive(Debug)]
pub(crate) struct SpillFile {
    directory: Arc<OwnedDirectory>,
    name: OsString,
    path: PathBuf,
    file: File,
    /// Known from its making on, so that its end needs nothing that can fail to know what is ours.
    identity: FileStat,
    bytes: u64,
    direct: DirectAccess,
}

impl SpillFile {
    pub(super) fn create(
        directory: &Arc<OwnedDirectory>,
        name: &str,
        bytes: u64,
    ) -> Result<Self, Error> {
        if name.contains('/') || !name.ends_with(SPILL_SUFFIX) {
            return Err(Error::Internal(format!(
                "{name:?} is not the name of a spill file"
            )));
        }
        let path = directory.path.join(name);
        refuse_above_limit("create", &path, bytes)?;
        let name = OsString::from(name);
        let file = sys::create_file(&directory.fd, &name).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::AlreadyExists(path.clone()),
            _ => Error::from_call("create", &path, bytes, error),
        })?;
        let identity = sys::stat(&file).map_err(|error| {
            // Nothing else can have taken the name of a file made a moment ago.
            let _ = sys::unlink(&directory.fd, &name);
            Error::from_call("fstat", &path, bytes, error)
        })?;
        let created = Self {
            directory: Arc::clone(directory),
            name,
            path,
            file,
            identity,
            bytes,
            direct: DirectAccess::default(),
        };
        created
            .file
            .set_len(bytes)
            .map_err(|error| created.error("ftruncate", bytes, error))?;
        Ok(created)
    }

    /// Absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Length, bytes; space is reserved for parts of it only.
    pub(crate) fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether it belongs to this process, which a forked child's does not.
    pub(crate) fn is_ours(&self) -> bool {
        self.directory.is_ours()
    }

    /// Takes space for a range that has none, before anything is written there (E25). A filesystem that cannot do so
    /// must at least have the space free now (F44).
    ///
    /// # Errors
    /// [`Error::DiskFull`], and the range is without space again; [`Error::Io`].
    pub(crate) fn reserve(&self, offset: u64, bytes: u64) -> Result<(), Error> {
        let (start, length) = self.range(offset, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        // Again: it may have been lowered since the file was made.
        refuse_above_limit("reserve", &self.path, offset + bytes)?;
        // Asked first, since a reservation that cannot succeed may fill the filesystem before it fails.
        let available = sys::available_bytes(&self.file)
            .map_err(|error| self.error("fstatvfs", bytes, error))?;
        if available < bytes {
            return Err(Error::DiskFull {
                path: self.path.clone(),
                operation: "reserve",
                wanted: bytes,
                available: Some(available),
                source: None,
            });
        }
        let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let reserved = sys::uninterrupted(|| fallocate(&self.file, flags, start, length));
        tolerate_unsupported(reserved).map_err(|error| {
            // A part may have been taken; that it cannot be given back is the lesser error.
            let _ = self.discard(offset, bytes);
            self.error("fallocate", bytes, error)
        })
    }

    /// Writes all of `bytes`. Interrupted writes are repeated, short ones continued, one that moves nothing is an error.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]; a part may have been written.
    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let wanted = bytes.len() as u64;
        self.range(offset, wanted)?;
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| self.error("pwrite", wanted, error))
    }

    /// As [`write_all_at`](Self::write_all_at), past the page cache where that is possible: memory, offset and length are to be multiples
    /// of 4096. How many bytes went past it.
    ///
    /// # Errors
    /// As [`write_all_at`](Self::write_all_at); no descriptor for direct I/O (F36).
    pub(crate) fn write_direct_at(&self, bytes: &[u8], offset: u64) -> Result<u64, Error> {
        let wanted = bytes.len() as u64;
        self.range(offset, wanted)?;
        let written = match self.direct()? {
            Some(file) => direct::write(&file, bytes, offset)
                .map_err(|error| self.error("pwrite", wanted, error))?,
            None => Reached::Refused,
        };
        let done = self.reached(written);
        self.write_all_at(&bytes[done..], offset + done as u64)?;
        Ok(done as u64)
    }

    /// As [`read_exact_at`](Self::read_exact_at), past the page cache where that is possible. How many bytes came past it.
    ///
    /// # Errors
    /// As [`read_exact_at`](Self::read_exact_at); no descriptor for direct I/O (F36).
    pub(crate) fn read_direct_at(&self, out: &mut [u8], offset: u64) -> Result<u64, Error> {
        let wanted = out.len() as u64;
        let read = match self.direct()? {
            Some(file) if offset.saturating_add(wanted) <= self.bytes => {
                match direct::read(&file, out, offset) {
                    // Where it ends is asked by the ordinary way.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Reached::Bytes(0),
                    read => read.map_err(|error| self.error("pread", wanted, error))?,
                }
            }
            Some(_) => Reached::Bytes(0),
            None => Reached::Refused,
        };
        let done = self.reached(read);
        self.read_exact_at(&mut out[done..], offset + done as u64)?;
        Ok(done as u64)
    }

    fn reached(&self, reached: Reached) -> usize {
        match reached {
            Reached::Bytes(done) => done,
            Reached::Refused => {
                self.direct.refuse();
                0
            }
        }
    }

    /// The descriptor for direct I/O; `None` where there is none (F37).
    fn direct(&self) -> Result<Option<Arc<File>>, Error> {
        self.direct.file(|| match self.open_again(OFlag::O_DIRECT) {
            Ok(file) => self.verified(file).map(Some),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(self.error("open", 0, error)),
        })
    }

    /// Fills all of `out`. Interrupted reads are repeated, short ones continued.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file ends before that, [`Error::Io`].
    pub(crate) fn read_exact_at(&self, out: &mut [u8], offset: u64) -> Result<(), Error> {
        let wanted = out.len() as u64;
        let end = offset.saturating_add(wanted);
        let ended = |at: u64| self.corrupt(format!("it ends at byte {at}, before byte {end}"));
        if end > self.bytes {
            return Err(ended(self.bytes));
        }
        self.file
            .read_exact_at(out, offset)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    ended(self.file.metadata().map_or(0, |metadata| metadata.len()))
                }
                _ => self.error("pread", wanted, error),
            })
    }

    /// Compares the file's length with what it was made with (E22).
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(crate) fn check_len(&self) -> Result<(), Error> {
        let stat = sys::stat(&self.file).map_err(|error| self.error("fstat", 0, error))?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        if !sys::is(&stat, SFlag::S_IFREG) || length != self.bytes {
            return Err(self.corrupt(format!("it has {length} bytes instead of {}", self.bytes)));
        }
        Ok(())
    }

    /// Maps a range for reading (E20).
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file has another length than it was made with, [`Error::Io`].
    pub(crate) fn map(&self, offset: u64, bytes: u64) -> Result<FileMap, Error> {
        self.check_len()?;
        self.map_as_it_is(offset, bytes)
    }

    /// As [`map`](Self::map), whatever the file's length is by now.
    ///
    /// # Errors
    /// [`Error::Io`].
    #[allow(unsafe_code)]
    pub(crate) fn map_as_it_is(&self, offset: u64, bytes: u64) -> Result<FileMap, Error> {
        self.range(offset, bytes)?;
        let length = usize::try_from(bytes)
            .map_err(|_| Error::Internal(format!("a map of {bytes} bytes does not fit")))?;
        let mut options = MmapOptions::new();
        options.offset(offset).len(length);
        // SAFETY: a `FileMap` makes no reference to what is mapped, so neither a change of the file nor a cut below a
        // mapped page can reach memory that Rust trusts.
        let map = unsafe { options.map(&self.file) };
        let map = map.map_err(|error| self.error("mmap", bytes, error))?;
        Ok(FileMap::new(map, offset))
    }

    /// Fills all of `out` from `at` of a map of this file. A page that somebody cut off is an error, not a signal (F52);
    /// zeros inside the last page are for checksums to find (F53).
    ///
    /// # Errors
    /// As [`read_exact_at`](Self::read_exact_at).
    pub(crate) fn read_mapped_at(
        &self,
        map: &FileMap,
        at: u64,
        out: &mut [u8],
    ) -> Result<(), Error> {
        map.read_at(at, out, |missing, offset| {
            self.read_exact_at(missing, offset)
        })
    }

    /// Gives the space of a range back; it reads as zeros then. Filesystems that cannot do so keep it until the file goes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn discard(&self, offset: u64, bytes: u64) -> Result<(), Error> {
        let (start, length) = self.range(offset, bytes)?;
        if bytes == 0 || !self.directory.is_ours() {
            return Ok(());
        }
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let discarded = sys::uninterrupted(|| fallocate(&self.file, flags, start, length));
        tolerate_unsupported(discarded).map_err(|error| self.error("fallocate", bytes, error))
    }

    /// Opens the file once more, for direct I/O; on a filesystem that refuses that (F37), for ordinary I/O. Its name is used
    /// but not trusted: what it leads to must be this file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the name leads elsewhere, [`Error::Io`], also when there are no descriptors left (F36).
    pub(crate) fn open_direct(&self) -> Result<File, Error> {
        let opened = sys::direct_or_ordinary(|flags| self.open_again(flags))
            .map_err(|error| self.error("open", 0, error))?;
        self.verified(opened)
    }

    fn open_again(&self, flags: OFlag) -> io::Result<File> {
        sys::open_again(&self.directory.fd, &self.name, flags).or_else(|error| {
            match error.raw_os_error() {
                // The name is gone, the file is not.
                Some(libc::ENOENT) => sys::open_unnamed(&self.file, flags).map_err(|_| error),
                Some(_) | None => Err(error),
            }
        })
    }

    /// The descriptor, if it is one of this file.
    fn verified(&self, opened: File) -> Result<File, Error> {
        let stat = sys::stat(&opened).map_err(|error| self.error("fstat", 0, error))?;
        if !sys::same_file(&stat, &self.identity) {
            return Err(self.corrupt("its name leads to another file".into()));
        }
        Ok(opened)
    }

    /// Learns what has become of the bytes so far on filesystems that tell when a descriptor is closed (F42): NFS, FUSE, quotas.
    /// The file's own descriptor stays open, as it is never opened by name again, and nobody could act on what its end says.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`].
    pub(crate) fn close_once(&self) -> Result<(), Error> {
        let closed = sys::close_once(&self.file).or_else(|error| match error.raw_os_error() {
            // No descriptor to close: the disk itself tells.
            Some(libc::EMFILE) => self.file.sync_data(),
            Some(_) | None => Err(error),
        });
        closed.map_err(|error| self.error("close", 0, error))
    }

    /// Waits until the bytes are on the disk. A failure is not repeated: after it, the kernel may call lost pages clean (F41).
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`].
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file
            .sync_data()
            .map_err(|error| self.error("fdatasync", 0, error))
    }

    /// A range as the system's calls take it.
    fn range(&self, offset: u64, bytes: u64) -> Result<(i64, i64), Error> {
        let outside = || {
            Error::Internal(format!(
                "{bytes} bytes at {offset} are outside the {} of {}",
                self.bytes,
                self.path.display()
            ))
        };
        offset
            .checked_add(bytes)
            .filter(|end| *end <= self.bytes)
            .ok_or_else(outside)?;
        let start = i64::try_from(offset).map_err(|_| outside())?;
        let length = i64::try_from(bytes).map_err(|_| outside())?;
        Ok((start, length))
    }

    fn error(&self, operation: &'static str, wanted: u64, source: io::Error) -> Error {
        Error::from_call(operation, &self.path, wanted, source)
    }

    fn corrupt(&self, detail: String) -> Error {
        Error::Corrupt {
            what: self.path.display().to_string(),
            detail,
        }
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.directory
            .unlink_or_keep(&self.name, &self.file, self.identity);
    }
}

/// A file above the process's limit would raise SIGXFSZ, which kills by default.
fn refuse_above_limit(operation: &'static str, path: &Path, bytes: u64) -> Result<(), Error> {
    let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE)
        .map_err(|error| Error::from_call("getrlimit", path, bytes, error.into()))?;
    if bytes > limit {
        return Err(Error::DiskFull {
            path: path.to_owned(),
            operation,
            wanted: bytes,
            available: Some(limit),
            source: Some(io::Error::from_raw_os_error(libc::EFBIG)),
        });
    }
    Ok(())
}

/// Not every filesystem reserves and gives back ranges; the others do without.
fn tolerate_unsupported(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    //! What only an odd filesystem answers.
    use super::*;

    #[test]
    fn a_filesystem_without_reservation_is_tolerated_and_a_full_one_is_not() {
        for errno in [libc::EOPNOTSUPP, libc::ENOTSUP, libc::ENOSYS] {
            assert!(tolerate_unsupported(Err(io::Error::from_raw_os_error(errno))).is_ok());
        }
        for errno in [libc::ENOSPC, libc::EIO, libc::EINVAL] {
            let error = tolerate_unsupported(Err(io::Error::from_raw_os_error(errno)));
            assert_eq!(error.unwrap_err().raw_os_error(), Some(errno));
        }
    }
}
