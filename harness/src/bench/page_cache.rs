//! Whether files are in the page cache, and how they get there and out again.
#![allow(unsafe_code)]

use crate::error::HarnessError;
use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};
use std::{
    fs::File,
    io::{self, Read as _},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

const PAGE_BYTES: usize = 4096;

/// Pages that `mincore` tells of at a time.
const WINDOW_PAGES: usize = 1 << 20;

/// Bytes of each read that brings a file in.
const READ_BYTES: usize = 1 << 20;

/// How often files are read until all of them is there.
const MOST_READS: usize = 5;

/// Files, and how much of them is in the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Residency {
    pub(super) bytes: u64,
    pub(super) resident_bytes: u64,
}

/// Takes the files out of the page cache, as far as nobody has mapped them, and tells what is still there.
pub(super) fn make_cold(files: &[PathBuf]) -> Result<Residency, HarnessError> {
    for path in files {
        let file = open(path)?;
        // Dirty pages stay otherwise.
        file.sync_data().map_err(HarnessError::path("sync", path))?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(HarnessError::system("posix_fadvise"))?;
    }
    residency(files)
}

/// Reads the files whole, and tells what of them is in the page cache then. A kernel that reclaims what nobody has used for a
/// moment, as those of small virtual machines do, takes pages while others come: then once more.
pub(super) fn make_warm(files: &[PathBuf]) -> Result<Residency, HarnessError> {
    let mut all = residency(files)?;
    for _ in 0..MOST_READS {
        if all.resident_bytes == all.bytes {
            break;
        }
        for path in files {
            let there = residency(std::slice::from_ref(path))?;
            if there.resident_bytes < there.bytes {
                read_through(path)?;
            }
        }
        all = residency(files)?;
    }
    Ok(all)
}

/// How much of the files is in the page cache.
pub(super) fn residency(files: &[PathBuf]) -> Result<Residency, HarnessError> {
    let mut all = Residency::default();
    for path in files {
        let file = open(path)?;
        let metadata = file.metadata();
        let bytes = metadata.map_err(HarnessError::path("look at", path))?.len();
        all.bytes += bytes;
        if let Some(length) = NonZeroUsize::new(bytes as usize) {
            all.resident_bytes += resident_bytes(&file, length)?;
        }
    }
    Ok(all)
}

fn open(path: &Path) -> Result<File, HarnessError> {
    File::open(path).map_err(HarnessError::path("open", path))
}

/// From the first byte to the last by one reader, as whoever copies or writes a file does. Several at once keep the kernel from reading
/// ahead, and the file lies in the page cache in single pages: loads of 4 GiB from there took 151 to 274 ms, and 149 to 155 from a
/// file that one reader had brought in (H200, Linux 6.18, one run).
fn read_through(path: &Path) -> Result<(), HarnessError> {
    let mut file = open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(HarnessError::path("read", path)(error)),
        }
    }
}

fn resident_bytes(file: &File, length: NonZeroUsize) -> Result<u64, HarnessError> {
    // SAFETY: a new mapping at a place of the kernel's choice, of which no byte is ever touched.
    let start = unsafe {
        mmap(
            None,
            length,
            ProtFlags::PROT_READ,
            MapFlags::MAP_SHARED,
            file,
            0,
        )
    }
    .map_err(HarnessError::system("mmap"))?;
    let mut pages = vec![0u8; WINDOW_PAGES.min(length.get().div_ceil(PAGE_BYTES))];
    let (mut resident, mut at, mut failure) = (0, 0, None);
    while at < length.get() {
        let len = (length.get() - at).min(pages.len() * PAGE_BYTES);
        // SAFETY: the range lies in the mapping, and the vector has a byte for each page of it.
        let told = unsafe { libc::mincore(start.as_ptr().byte_add(at), len, pages.as_mut_ptr()) };
        if told != 0 {
            failure = Some(io::Error::last_os_error());
            break;
        }
        let there = &pages[..len.div_ceil(PAGE_BYTES)];
        resident += there.iter().filter(|&&page| page & 1 == 1).count();
        at += len;
    }
    // SAFETY: mapped above, and nobody refers to it any more.
    unsafe { munmap(start, length.get()) }.map_err(HarnessError::system("munmap"))?;
    match failure {
        Some(error) => Err(HarnessError::system("mincore")(error)),
        None => Ok((resident * PAGE_BYTES).min(length.get()) as u64),
    }
}

#[cfg(test)]
mod tests {
    //! Pages that come and go on a real disk.
    use super::*;
    use std::{fs, os::unix::fs::FileExt};

    #[test]
    fn what_is_read_is_there_and_what_is_dropped_is_not() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let paths: Vec<PathBuf> = ["one", "two", "empty"]
            .map(|name| directory.path().join(name))
            .into();
        for (path, bytes) in paths.iter().zip([5 << 20, 4097, 0]) {
            fs::write(path, vec![7; bytes]).unwrap();
        }
        let bytes = (5 << 20) + 4097;
        let told = |resident_bytes| Residency {
            bytes,
            resident_bytes,
        };
        assert_eq!(make_cold(&paths).unwrap(), told(0));
        // One page of the first file.
        File::open(&paths[0])
            .and_then(|file| {
                posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
                file.read_exact_at(&mut [0; 1], 4096)
            })
            .unwrap();
        let some = residency(&paths).unwrap().resident_bytes;
        assert!(some > 0 && some < bytes, "{some}");
        assert_eq!(make_warm(&paths).unwrap(), told(bytes));
        assert_eq!(make_cold(&paths).unwrap(), told(0));
    }
}
