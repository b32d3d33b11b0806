//! Maps whose file changes under them, and kernels that do not copy out of them: bytes or a typed error, no signal.
#![allow(unsafe_code)]

use super::open;
use crate::{
    error::{Error, ErrorKind},
    spill::{FileMap, SpillDirectory, SpillFile},
};
use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use std::{fs::File, io::IoSliceMut, thread};
use tempfile::TempDir;

const PAGE: u64 = 4096;
/// More than a reader's window.
const BYTES: u64 = (4 << 20) + 3 * PAGE;

struct Fixture {
    file: SpillFile,
    map: FileMap,
    bytes: Vec<u8>,
    _directory: SpillDirectory,
    _base: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let directory = open(base.path()).unwrap();
        let file = directory.create("m1-g0.spill", BYTES).unwrap();
        let bytes: Vec<u8> = (0..BYTES).map(|at| (at / 7) as u8 | 1).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let map = file.map(PAGE, BYTES - PAGE).unwrap();
        Self {
            file,
            map,
            bytes,
            _directory: directory,
            _base: base,
        }
    }

    /// Reads from `at` of the file on, through the map.
    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, Error> {
        let mut out = vec![0; len as usize];
        self.file
            .read_mapped_at(&self.map, at - PAGE, &mut out)
            .map(|()| out)
    }

    fn expected(&self, at: u64, len: u64) -> &[u8] {
        &self.bytes[at as usize..(at + len) as usize]
    }

    fn cut(&self, bytes: u64) {
        let file = File::options().write(true).open(self.file.path()).unwrap();
        file.set_len(bytes).unwrap();
    }
}

#[test]
fn any_range_is_read_and_none_outside_the_map() {
    let fixture = Fixture::new();
    for (at, len) in [
        (PAGE, BYTES - PAGE),
        (PAGE + 1, 1),
        (BYTES - 3, 3),
        (BYTES, 0),
    ] {
        assert!(fixture.read(at, len).unwrap() == fixture.expected(at, len));
    }
    for (at, len) in [(PAGE, BYTES), (BYTES, 1), (u64::MAX, 2)] {
        let error = fixture.read(at, len).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    }
}

#[test]
fn a_page_that_is_cut_off_after_the_map_was_made_is_an_error_that_names_file_and_length() {
    let fixture = Fixture::new();
    let length = 3 * PAGE + 5;
    fixture.cut(length);
    for (at, len) in [(PAGE, BYTES - PAGE), (3 * PAGE, 2 * PAGE), (BYTES - 1, 1)] {
        let error = fixture.read(at, len).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let (path, text) = (fixture.file.path().display().to_string(), error.to_string());
        assert!(text.contains(&path), "{text}");
        assert!(text.contains(&format!("byte {length}")), "{text}");
    }
    let kept = fixture.read(PAGE, length - PAGE).unwrap();
    assert!(kept == fixture.expected(PAGE, length - PAGE));
    let last_page = fixture.read(length, PAGE - 5).unwrap();
    assert!(last_page.iter().all(|byte| *byte == 0), "checksums see it");
}

#[test]
fn a_file_without_a_name_is_read_on() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.file.path()).unwrap();
    let all = fixture.read(PAGE, BYTES - PAGE).unwrap();
    assert!(all == fixture.expected(PAGE, BYTES - PAGE));
}

/// Lets the kernel answer `process_vm_readv` with `errno`, on this thread only and for as long as it lives.
fn refuse_copies(errno: Errno) {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equals = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    // SAFETY: plain constructors of four instructions.
    let mut program = unsafe {
        [
            libc::BPF_STMT(load, 0),
            libc::BPF_JUMP(equals, libc::SYS_process_vm_readv as u32, 0, 1),
            libc::BPF_STMT(answer, libc::SECCOMP_RET_ERRNO | errno as u32),
            libc::BPF_STMT(answer, libc::SECCOMP_RET_ALLOW),
        ]
    };
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: takes integers only.
    let unprivileged = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(unprivileged, 0);
    // SAFETY: `filter` points to a program of its length, both alive during the call.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    let (source, mut target) = ([0u8; 1], [0u8; 1]);
    let from = RemoteIoVec {
        base: source.as_ptr() as usize,
        len: 1,
    };
    let refused = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut target)], &[from]);
    assert_eq!(refused, Err(errno));
}

#[test]
fn where_the_kernel_or_a_filter_refuses_the_copy_the_descriptor_serves() {
    for errno in [Errno::EPERM, Errno::ENOSYS] {
        let fixture = Fixture::new();
        let outcome = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                refuse_copies(errno);
                let all = fixture.read(PAGE, BYTES - PAGE).unwrap();
                assert!(all == fixture.expected(PAGE, BYTES - PAGE));
                fixture.cut(2 * PAGE);
                let error = fixture.read(PAGE, BYTES - PAGE).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            });
            reader.join()
        });
        assert!(outcome.is_ok());
    }
}
