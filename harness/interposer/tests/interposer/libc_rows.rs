//! How each function of libc is called with success, and what shows that it did something. Preparations are raw system calls, which
//! nobody counts.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::path::Path;

use rustix::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use rustix::fs::{CWD, Mode, OFlags};

const FILE_BYTES: usize = 8192;

/// One call's surroundings.
pub(crate) struct Scene {
    directory: String,
    texts: Vec<CString>,
    buffer: Vec<u8>,
    pieces: Vec<[usize; 2]>,
    descriptors: Vec<i32>,
    mapping: Option<usize>,
    file: i32,
}

/// Bits of what a call may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    files: Vec<(String, u64, u64)>,
    descriptors: usize,
    mappings: usize,
    offset: u64,
    buffer: Vec<u8>,
}

/// Whether a success of that site is seen in [`State`].
pub(crate) fn shows(site: &str) -> bool {
    !matches!(
        site,
        "fsync" | "fdatasync" | "sync_file_range" | "flock" | "msync" | "madvise"
    )
}

impl Scene {
    /// A fresh file, `file`, and a fresh folder, `folder`, in a directory of the round's own.
    pub(crate) fn new(scope: &Path, round: usize) -> Scene {
        let directory = format!("{}/{round}", scope.display());
        rustix::fs::mkdir(directory.as_str(), Mode::RWXU).unwrap();
        rustix::fs::mkdir(format!("{directory}/folder").as_str(), Mode::RWXU).unwrap();
        let mut scene = Scene {
            directory,
            texts: Vec::new(),
            buffer: vec![b'b'; 4096],
            pieces: Vec::new(),
            descriptors: Vec::new(),
            mapping: None,
            file: -1,
        };
        scene.file = scene.open("file", OFlags::RDWR | OFlags::CREATE);
        // SAFETY: the scene keeps it open.
        let file = unsafe { BorrowedFd::borrow_raw(scene.file) };
        let written = rustix::io::pwrite(file, &[b'f'; FILE_BYTES], 0).unwrap();
        assert_eq!(written, FILE_BYTES);
        scene
    }

    fn open(&mut self, name: &str, flags: OFlags) -> i32 {
        let path = format!("{}/{name}", self.directory);
        let mode = Mode::RUSR | Mode::WUSR;
        let number = rustix::fs::openat(CWD, path.as_str(), flags, mode)
            .unwrap()
            .into_raw_fd();
        self.descriptors.push(number);
        number
    }

    fn text(&mut self, text: String) -> usize {
        let text = CString::new(text).unwrap();
        let address = text.as_ptr() as usize;
        self.texts.push(text);
        address
    }

    fn path(&mut self, name: &str) -> usize {
        self.text(format!("{}/{name}", self.directory))
    }

    fn pieces(&mut self) -> usize {
        let start = self.buffer.as_ptr() as usize;
        self.pieces = vec![[start, 16], [start + 16, 16]];
        self.pieces.as_ptr() as usize
    }

    /// A mapping of the file, made so that the interposer knows it.
    fn map(&mut self) -> usize {
        // SAFETY: a fresh mapping, which nobody reads.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                FILE_BYTES,
                libc::PROT_READ,
                libc::MAP_SHARED,
                self.file,
                0,
            )
        };
        assert_ne!(address, libc::MAP_FAILED);
        self.mapping = Some(address as usize);
        address as usize
    }

    /// A copy of the descriptor, at a number of its own.
    fn copy(&mut self, at_least: i32) -> i32 {
        // SAFETY: the scene keeps it open.
        let file = unsafe { BorrowedFd::borrow_raw(self.file) };
        let copy = rustix::io::fcntl_dupfd_cloexec(file, at_least).unwrap();
        let copy = copy.into_raw_fd();
        self.descriptors.push(copy);
        copy
    }

    /// A copy that the interposer has seen in use.
    fn seen_copy(&mut self, at_least: i32) -> usize {
        let copy = self.copy(at_least);
        // SAFETY: only asks.
        unsafe { libc::lseek(copy, 0, libc::SEEK_CUR) };
        copy as usize
    }

    /// The arguments of a successful call.
    pub(crate) fn arguments(&mut self, site: &str) -> Vec<usize> {
        let file = self.file as usize;
        let buffer = self.buffer.as_mut_ptr() as usize;
        let read_write = libc::O_RDWR as usize;
        match site {
            "open" => vec![self.path("file"), read_write],
            "creat" => vec![self.path("other"), 0o600],
            "mkstemp" | "mkostemp" => vec![self.path("tXXXXXX"), 0],
            "mkstemps" | "mkostemps" => vec![self.path("tXXXXXX.s"), 2, 0],
            "read" => vec![file, buffer, 16, 4096],
            "pread" => vec![file, buffer, 16, 0, 4096],
            "write" | "pwrite" => vec![file, buffer, 16, 0],
            "readv" | "preadv" | "preadv2" | "writev" | "pwritev" | "pwritev2" => {
                vec![file, self.pieces(), 2, 0, 0]
            }
            "copy_file_range" => {
                let other = self.open("other", OFlags::RDWR | OFlags::CREATE);
                vec![file, 0, other as usize, 0, 16, 0]
            }
            "sendfile" => {
                let other = self.open("other", OFlags::RDWR | OFlags::CREATE);
                vec![other as usize, file, 0, 16]
            }
            "splice" => {
                let (from, to) = rustix::pipe::pipe().unwrap();
                let (from, to) = (from.into_raw_fd(), to.into_raw_fd());
                self.descriptors.extend([from, to]);
                vec![file, 0, to as usize, 0, 16, 0]
            }
            "lseek" => vec![file, 100, libc::SEEK_SET as usize],
            "ftruncate" => vec![file, 100],
            "fallocate" => vec![file, 0, 0, 2 * FILE_BYTES],
            "posix_fallocate" => vec![file, 0, 2 * FILE_BYTES],
            "fsync" | "fdatasync" => vec![file],
            "sync_file_range" => vec![file, 0, 16, 2],
            "close" => vec![self.copy(100) as usize],
            "close_range" => {
                let copy = self.seen_copy(600);
                vec![copy, copy, 0]
            }
            "closefrom" => vec![self.seen_copy(900)],
            "dup" => vec![file],
            "dup2" | "dup3" => vec![file, 700, 0],
            "fcntl" => vec![file, libc::F_DUPFD as usize, 500],
            "flock" => vec![file, libc::LOCK_SH as usize],
            "mmap" => vec![
                0,
                FILE_BYTES,
                libc::PROT_READ as usize,
                libc::MAP_SHARED as usize,
                file,
                0,
            ],
            "munmap" => vec![self.map(), FILE_BYTES],
            "msync" => vec![self.map(), FILE_BYTES, libc::MS_SYNC as usize],
            "madvise" => vec![self.map(), FILE_BYTES, libc::MADV_NORMAL as usize],
            "rename" | "link" => vec![self.path("file"), self.path("other")],
            "unlink" => vec![self.path("file")],
            "mkdir" => vec![self.path("other"), 0o700],
            "rmdir" => vec![self.path("folder")],
            "stat" | "lstat" | "statfs" => vec![self.path("file"), buffer],
            "fstat" | "fstatfs" => vec![file, buffer],
            "__xstat" | "__lxstat" => vec![stat_version(), self.path("file"), buffer],
            "__fxstat" => vec![stat_version(), file, buffer],
            _ => self.relative_arguments(site),
        }
    }

    /// Those of functions that take a directory's descriptor.
    fn relative_arguments(&mut self, site: &str) -> Vec<usize> {
        let directory = self.open("", OFlags::DIRECTORY) as usize;
        let buffer = self.buffer.as_mut_ptr() as usize;
        let (name, other) = (self.text("file".to_owned()), self.text("other".to_owned()));
        match site {
            "openat" => vec![directory, name, libc::O_RDWR as usize],
            "renameat" | "renameat2" | "linkat" => vec![directory, name, directory, other, 0],
            "unlinkat" => vec![directory, name, 0],
            "mkdirat" => vec![directory, other, 0o700],
            "fstatat" => vec![directory, name, buffer, 0],
            "statx" => vec![directory, name, 0, 0x7ff, buffer],
            "__fxstatat" => vec![stat_version(), directory, name, buffer, 0],
            _ => panic!("the test does not know how to call {site}"),
        }
    }

    /// What the call may change.
    pub(crate) fn state(&self) -> State {
        let mut files: Vec<(String, u64, u64)> = list(&self.directory)
            .into_iter()
            .map(|name| {
                let path = format!("{}/{name}", self.directory);
                let is_temporary = name.starts_with('t');
                let name = if is_temporary { "t".to_owned() } else { name };
                (name, length(&path), digest(&path))
            })
            .collect();
        files.sort();
        // SAFETY: the scene keeps it open.
        let file = unsafe { BorrowedFd::borrow_raw(self.file) };
        State {
            files,
            descriptors: list("/proc/self/fd").len(),
            mappings: maps_of(&self.directory),
            offset: rustix::fs::tell(file).unwrap_or(u64::MAX),
            buffer: self.buffer.clone(),
        }
    }

    /// Closes and unmaps what is left, the result of the call too.
    pub(crate) fn end(self, site: &str, result: usize) {
        if matches!(site, "mmap") && result != usize::MAX {
            unmap(result);
        }
        if let Some(address) = self.mapping {
            unmap(address);
        }
        let opens = ["open", "openat", "creat", "dup", "dup2", "dup3", "fcntl"];
        let is_opened = opens.contains(&site) || site.starts_with("mk") && site.contains("temp");
        if is_opened && result as i32 >= 0 {
            close(result as i32);
        }
        self.descriptors.into_iter().for_each(close);
    }
}

fn close(number: i32) {
    // SAFETY: nobody uses the number after this; where the call under test has closed it already, nothing is done.
    unsafe {
        if rustix::io::fcntl_getfd(BorrowedFd::borrow_raw(number)).is_ok() {
            rustix::io::close(number);
        }
    }
}

fn unmap(address: usize) {
    // SAFETY: nobody refers to the mapping; where the call under test has removed it, nothing is there.
    let _ = unsafe { rustix::mm::munmap(address as *mut _, FILE_BYTES) };
}

/// `_STAT_VER` of glibc.
fn stat_version() -> usize {
    usize::from(cfg!(target_arch = "x86_64"))
}

fn read(path: &str) -> Vec<u8> {
    let file = rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match rustix::io::read(&file, &mut buffer).unwrap_or(0) {
            0 => break,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    close(file.into_raw_fd());
    bytes
}

fn list(path: &str) -> Vec<String> {
    let folder = rustix::fs::open(path, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut buffer = Vec::with_capacity(1 << 16);
    let mut entries = rustix::fs::RawDir::new(&folder, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    let own = folder.as_raw_fd().to_string();
    while let Some(entry) = entries.next() {
        let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
        if name != "." && name != ".." && name != own {
            names.push(name);
        }
    }
    close(folder.into_raw_fd());
    names
}

fn length(path: &str) -> u64 {
    rustix::fs::stat(path).map_or(0, |stat| stat.st_size as u64)
}

fn digest(path: &str) -> u64 {
    let is_file = rustix::fs::stat(path)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file());
    let bytes = if is_file { read(path) } else { Vec::new() };
    bytes
        .iter()
        .fold(0, |sum: u64, byte| sum.rotate_left(5) ^ u64::from(*byte))
}

fn maps_of(directory: &str) -> usize {
    let maps = String::from_utf8(read("/proc/self/maps")).unwrap();
    maps.lines().filter(|line| line.contains(directory)).count()
}
