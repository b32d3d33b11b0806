//! Absolute paths in fixed memory. Nothing here allocates or passes libc.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use rustix::fs::{CWD, readlinkat_raw};

use crate::text::Text;

/// `PATH_MAX`.
const CAPACITY_BYTES: usize = 4096;
/// What the kernel's links append to a name that is gone.
const DELETED: &[u8] = b" (deleted)";

/// An absolute path without `.`, `..` and double slashes; empty where there is none.
#[derive(Debug)]
pub(crate) struct PathText {
    bytes: [u8; CAPACITY_BYTES],
    length: usize,
    is_deleted: bool,
}

impl PathText {
    pub(crate) fn new() -> PathText {
        PathText {
            bytes: [0; CAPACITY_BYTES],
            length: 0,
            is_deleted: false,
        }
    }

    /// Whether the kernel called it the name of a file that is gone.
    pub(crate) fn is_deleted(&self) -> bool {
        self.is_deleted
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Becomes what a descriptor of this process is open on. Empty for what has no path: sockets, pipes, memory.
    /// Whether it leads to a path: the root is one, and empty.
    pub(crate) fn set_descriptor(&mut self, number: i32) -> bool {
        self.length = 0;
        if number < 0 {
            return false;
        }
        let link = Text::of(b"/proc/self/fd/").and_number(number.unsigned_abs());
        self.set_link(link.as_c_str())
    }

    /// Becomes the path that a call means by a name relative to `directory`, a descriptor or `AT_FDCWD`. An empty name means the
    /// directory itself. Symbolic links in the name are not followed, except the kernel's own to descriptors and directories of a process.
    ///
    /// # Safety
    /// `name` must be null or a terminated string.
    pub(crate) unsafe fn set_named(&mut self, directory: i32, name: *const c_char) {
        self.length = 0;
        if name.is_null() {
            return;
        }
        // SAFETY: not null, so a terminated string.
        let name = unsafe { CStr::from_ptr(name) };
        let bytes = name.to_bytes();
        if !bytes.starts_with(b"/") {
            let is_found = match directory {
                libc::AT_FDCWD => self.set_link(c"/proc/self/cwd"),
                _ => self.set_descriptor(directory),
            };
            if !is_found {
                return;
            }
        }
        for part in bytes.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => self.pop(),
                part => self.push(part),
            }
            if leads_to_open_file(self.as_bytes()) {
                let link = Text::of(self.as_bytes());
                if !self.set_link(link.as_c_str()) {
                    return;
                }
            }
        }
    }

    /// Becomes where a link leads; whether that is a path.
    fn set_link(&mut self, link: &CStr) -> bool {
        self.length = 0;
        let Ok(length) = readlinkat_raw(CWD, link, &mut self.bytes) else {
            return false;
        };
        let name = &self.bytes[..length];
        let is_root = name == b"/";
        self.length = length_of_file(name);
        self.is_deleted = self.length < name.len();
        is_root || self.length > 0
    }

    /// Becomes what the kernel calls the file behind a descriptor or a mapping.
    pub(crate) fn set_kernel_name(&mut self, name: &[u8]) {
        let name = &name[..name.len().min(CAPACITY_BYTES)];
        self.bytes[..name.len()].copy_from_slice(name);
        self.length = length_of_file(name);
    }

    fn pop(&mut self) {
        let slash = self.as_bytes().iter().rposition(|byte| *byte == b'/');
        self.length = slash.unwrap_or(0);
    }

    /// Names that do not fit are cut: the call fails of itself, and stays in its folder.
    fn push(&mut self, part: &[u8]) {
        let fitting = part
            .len()
            .min(CAPACITY_BYTES.saturating_sub(self.length + 1));
        if fitting == 0 {
            return;
        }
        self.bytes[self.length] = b'/';
        let start = self.length + 1;
        self.bytes[start..start + fitting].copy_from_slice(&part[..fitting]);
        self.length = start + fitting;
    }
}

/// The length of the path in the kernel's name of a file. Names of sockets and pipes are no paths; those of memory look like files at
/// the root, and the root itself is nobody's file.
fn length_of_file(name: &[u8]) -> usize {
    if !name.starts_with(b"/") || name.starts_with(b"/memfd:") || name == b"/" {
        return 0;
    }
    name.strip_suffix(DELETED).unwrap_or(name).len()
}

/// Whether a path is a link of the kernel to what a process has open, has as working directory or as root.
fn leads_to_open_file(path: &[u8]) -> bool {
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    if let Some(rest) = path.strip_prefix(b"/dev/") {
        return matches!(rest, b"stdin" | b"stdout" | b"stderr")
            || rest.strip_prefix(b"fd/").is_some_and(is_number);
    }
    let Some(rest) = path.strip_prefix(b"/proc/") else {
        return false;
    };
    let Some(end) = rest.iter().position(|byte| *byte == b'/') else {
        return false;
    };
    let (process, rest) = (&rest[..end], &rest[end + 1..]);
    let is_process = matches!(process, b"self" | b"thread-self") || is_number(process);
    let is_link =
        matches!(rest, b"cwd" | b"root") || rest.strip_prefix(b"fd/").is_some_and(is_number);
    is_process && is_link
}
