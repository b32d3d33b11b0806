//! Not waking a library that would never come back: on a machine without `/proc/modules` (a kernel without loadable modules,
//! or one in user space) `cuFileDriverOpen` reads lines of that file for ever, at the cost of one processor (seen with
//! versions 1.14 and 1.20). The watchdog would bound the wait, and not what the thread costs.
#![allow(unsafe_code)]

use super::symbols::Symbols;
use memchr::memmem;
use std::{
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

const TABLE: &str = "/proc/modules";

const WINDOW_BYTES: usize = 64 << 10;

/// Whether the driver may be opened.
///
/// # Errors
/// The reason why not, for people.
pub(super) fn check(symbols: &Symbols) -> Result<(), String> {
    check_at(Path::new(TABLE), || library_of(symbols))
}

fn check_at(table: &Path, library: impl FnOnce() -> io::Result<PathBuf>) -> Result<(), String> {
    if table.exists() {
        return Ok(());
    }
    // Only a library that names the table reads it. One that cannot be looked at may.
    let asks = library().and_then(|path| contains(File::open(path)?, TABLE.as_bytes()));
    match asks {
        Ok(false) => Ok(()),
        Ok(true) | Err(_) => Err(format!(
            "no cuFile: {TABLE} is missing, without which opening its driver does not end"
        )),
    }
}

/// The file that the library was loaded from.
fn library_of(symbols: &Symbols) -> io::Result<PathBuf> {
    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is one of a loaded library, the structure is there to be written to, and zeros are valid for it.
    let found = unsafe {
        match libc::dladdr(symbols.open_driver as *const _, found.as_mut_ptr()) {
            0 => return Err(io::ErrorKind::NotFound.into()),
            _ => found.assume_init(),
        }
    };
    if found.dli_fname.is_null() {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the loader's own string, which lives as long as the library, and that is never unloaded.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    Ok(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Whether `wanted` is somewhere in the stream.
fn contains(mut stream: impl Read, wanted: &[u8]) -> io::Result<bool> {
    let mut window = Vec::with_capacity(WINDOW_BYTES + wanted.len());
    loop {
        // The end of the window before may be the beginning of it.
        let kept = window.len().min(wanted.len() - 1);
        window.drain(..window.len() - kept);
        let added = stream
            .by_ref()
            .take(WINDOW_BYTES as u64)
            .read_to_end(&mut window)?;
        if memmem::find(&window, wanted).is_some() {
            return Ok(true);
        }
        if added == 0 {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Which libraries are opened where the table of kernel modules is missing.
    use super::*;

    const MISSING: &str = "/nobody/has/this";

    fn library(contents: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), contents).unwrap();
        file
    }

    #[test]
    fn without_the_table_a_library_that_reads_it_is_not_opened_and_another_one_is() {
        let reader = library(b"\x7fELF\0/proc/cpuinfo\0/proc/modules\0");
        let other = library(b"\x7fELF\0/proc/cpuinfo\0/proc/driver/modules\0");
        let of = |table: &str, file: &Path| check_at(Path::new(table), || Ok(file.to_owned()));
        let reason = of(MISSING, reader.path()).unwrap_err();
        assert!(reason.contains("/proc/modules is missing"), "{reason}");
        assert_eq!(of(MISSING, other.path()), Ok(()));
        assert_eq!(of("/proc/self/status", reader.path()), Ok(()));
        assert!(of(MISSING, Path::new(MISSING)).is_err(), "nobody can tell");
    }

    #[test]
    fn the_name_is_found_wherever_windows_end() {
        for at in WINDOW_BYTES - 20..WINDOW_BYTES + 5 {
            let mut bytes = vec![0; at];
            bytes.extend_from_slice(TABLE.as_bytes());
            assert!(contains(&*bytes, TABLE.as_bytes()).unwrap(), "{at}");
            bytes.pop();
            assert!(!contains(&*bytes, TABLE.as_bytes()).unwrap(), "{at}");
        }
    }
}
