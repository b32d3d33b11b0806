//! Which calls count, what is recorded of them, and what the ledger says exists.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use libtest_mimic::Trial;
use spillproof_faults::Kind;

use crate::stage::{Stage, text};
use crate::trial;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("scope::calls_outside_do_not_count", outside),
        trial(
            "scope::relative_names_and_folders_count_where_they_lead",
            relative,
        ),
        trial("scope::absolute_names_count_where_they_lead", absolute),
        trial(
            "scope::a_descriptor_that_libc_closed_inside_is_looked_up_anew",
            unseen,
        ),
        trial("scope::a_rule_with_a_path_counts_by_path_alone", by_path),
        trial(
            "scope::a_rule_with_a_caller_counts_by_library_alone",
            by_caller,
        ),
        trial("scope::raw_system_calls_mean_their_functions", by_number),
        trial(
            "scope::the_trace_tells_site_size_offset_path_and_caller",
            trace,
        ),
        trial(
            "scope::the_ledger_names_survivors_by_the_call_that_made_them",
            ledger,
        ),
        trial(
            "scope::a_failed_close_and_a_failed_unlink_leave_the_ledger_right",
            refused,
        ),
    ]
}

pub(crate) fn play(what: &str, directory: &Path) {
    match what {
        "write" => fs::write(directory.join("file"), b"hello").unwrap(),
        "refused" => {
            let error = fs::write(directory.join("file"), b"hello").unwrap_err();
            print!("{:?}", error.kind());
        }
        "relative" => play_relative(directory),
        "absolute" => play_absolute(directory),
        "unseen" => play_unseen(directory),
        "by_number" => play_by_number(directory),
        "trace" => play_trace(directory),
        "ledger" => play_ledger(directory),
        "close" => play_close(directory),
        _ => panic!("{what}"),
    }
}

fn path(directory: &Path, name: &str) -> CString {
    CString::new(text(&directory.join(name))).unwrap()
}

fn outside() {
    let stage = Stage::new("write:error=ENOSPC");
    stage.play(&["scope", "write", text(&stage.outside())]);
    assert_eq!((stage.calls("open"), stage.calls("write")), (0, 0));
    assert_eq!(stage.shared.receipts(), []);
    let said = stage.play(&["scope", "refused", text(&stage.scope())]);
    assert_eq!(said, format!("{:?}", ErrorKind::StorageFull));
    assert_eq!((stage.calls("open"), stage.calls("write")), (1, 1));
    assert_eq!(stage.shared.receipts().len(), 1);
}

fn relative() {
    let stage = Stage::new("");
    stage.play(&["scope", "relative", text(&stage.scope())]);
    // By the working directory, by `..`, by a folder's descriptor, a file and four times a folder through links of the kernel, from the root.
    assert_eq!(stage.calls("open") + stage.calls("openat"), 9);
    assert_eq!(stage.calls("mkdir"), 1);
}

fn play_relative(directory: &Path) {
    std::env::set_current_dir(directory).unwrap();
    let first = File::create("a").unwrap();
    let name = directory.file_name().unwrap();
    fs::create_dir("folder").unwrap();
    File::open(Path::new("folder/../../").join(name).join("./a")).unwrap();
    // Leads out again.
    assert!(File::open("../nothing").is_err());
    let folder = directory.join("folder");
    // Not counted: a raw call.
    let folder = rustix::fs::open(&folder, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
    let folder = folder.unwrap();
    // SAFETY: the name is a terminated string; nobody uses the descriptor.
    let opened = unsafe { libc::openat(folder.as_raw_fd(), c"../a".as_ptr(), libc::O_RDONLY) };
    assert!(opened >= 0);
    File::open(format!("/proc/self/fd/{}", first.as_raw_fd())).unwrap();
    let number = folder.as_raw_fd();
    File::open(format!("/proc/self/fd/{number}/../a")).unwrap();
    File::open(format!("/dev/fd/{number}/./..//a")).unwrap();
    File::open("/proc/self/cwd/a").unwrap();
    let root = format!("/proc/{}/root", std::process::id());
    File::open(format!("{root}{}", text(&directory.join("a")))).unwrap();
    std::env::set_current_dir("/").unwrap();
    File::open(directory.join("a").strip_prefix("/").unwrap()).unwrap();
    // Not in the scope: beside it, below what is no folder, by a number that nobody has.
    let outside =
        rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    File::open(format!(
        "/proc/self/fd/{}/proc/self/maps",
        outside.as_raw_fd()
    ))
    .unwrap();
    assert!(File::open("/proc/self/fd/99999/a").is_err());
    assert!(File::open(format!("/proc/self/fd/{number}/../../nothing")).is_err());
}

/// Below the scope: names that stay in it, and names that lead out of it.
const STAYING: [&str; 12] = [
    "", "/", "//", "/.", "/a", "//a", "/./a", "/x/../a", "/.a", "/..a", "/a./b", "/a/",
];
const LEAVING: [&str; 7] = [
    "/..",
    "/../",
    "/../b",
    "//../b",
    "/./../b",
    "/x/../../b",
    "/../.b",
];

fn absolute() {
    for name in STAYING {
        let stage = Stage::new("");
        let path = format!("{}{name}", text(&stage.scope()));
        stage.play(&["scope", "absolute", &path]);
        assert_eq!(stage.calls("stat"), 1, "{path}");
    }
    for name in LEAVING {
        let stage = Stage::new("");
        let path = format!("{}{name}", text(&stage.scope()));
        stage.play(&["scope", "absolute", &path]);
        assert_eq!(stage.calls("stat"), 0, "{path}");
    }
}

fn play_absolute(path: &Path) {
    let name = CString::new(text(path)).unwrap();
    // SAFETY: a terminated name, and memory of the right type.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::stat(name.as_ptr(), &raw mut stat);
    }
}

fn unseen() {
    // One write in the scope; the other goes to the same number, open on something else.
    let stage = Stage::new("write:error=EIO:when=2");
    stage.play(&["scope", "unseen", text(&stage.scope())]);
    assert_eq!(stage.calls("write"), 1);
    assert_eq!(stage.shared.receipts(), []);
}

fn play_unseen(directory: &Path) {
    let file = File::create(directory.join("file")).unwrap();
    (&file).write_all(b"inside").unwrap();
    let outside = rustix::fs::memfd_create(c"outside", rustix::fs::MemfdFlags::empty()).unwrap();
    let mut number = rustix::fd::OwnedFd::from(file);
    // Raw, so that nobody sees it.
    rustix::io::dup2(&outside, &mut number).unwrap();
    (&File::from(number)).write_all(b"outside").unwrap();
}

fn by_path() {
    let stage = Stage::new("write:error=EDQUOT:path=*/file:when=1");
    let said = stage.play(&["scope", "refused", text(&stage.outside())]);
    assert_eq!(said, format!("{:?}", ErrorKind::QuotaExceeded));
    assert_eq!(stage.calls("write"), 0);
    let other = Stage::new("write:error=EDQUOT:path=*/another");
    other.play(&["scope", "write", text(&other.scope())]);
    assert_eq!(other.calls("write"), 1);
}

fn by_caller() {
    let stage = Stage::new("write:error=EIO:caller=interposer-*");
    stage.play(&["scope", "refused", text(&stage.scope())]);
    assert_eq!(stage.shared.receipts().len(), 1);
    let other = Stage::new("write:error=EIO:caller=libcufile.so*");
    other.play(&["scope", "write", text(&other.scope())]);
    assert_eq!(other.shared.receipts(), []);
}

fn by_number() {
    let stage = Stage::new("pwrite:error=ENOSPC:when=2");
    let said = stage.play(&["scope", "by_number", text(&stage.scope())]);
    assert_eq!(said, "4 -1 28");
    assert_eq!(stage.calls("pwrite"), 2);
    // Others are nobody's.
    assert_eq!(stage.calls("syscall"), 0);
}

fn play_by_number(directory: &Path) {
    let file = File::create(directory.join("file")).unwrap();
    let write = || {
        let (number, bytes) = (file.as_raw_fd(), b"four");
        // SAFETY: the bytes are there.
        unsafe { libc::syscall(libc::SYS_pwrite64, number, bytes.as_ptr(), bytes.len(), 0) }
    };
    let (first, second) = (write(), write());
    print!("{first} {second} {}", crate::calls::errno());
    // SAFETY: without arguments.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    assert!(thread > 0);
}

fn trace() {
    let stage = Stage::recording("");
    stage.play(&["scope", "trace", text(&stage.scope())]);
    let trace = stage.shared.trace();
    assert_eq!((trace.lost, trace.unreadable), (0, 0));
    let told: Vec<String> = trace
        .entries
        .iter()
        .map(|entry| {
            assert!(entry.caller.starts_with("interposer-"), "{entry:?}");
            let offset = entry
                .offset
                .map_or(String::new(), |offset| format!("@{offset}"));
            let name = entry.site.site().name;
            format!("{name}#{} {}{offset} {}", entry.nth, entry.size, entry.path)
        })
        .filter(|told| !told.starts_with("fcntl"))
        .collect();
    let expected = [
        "open#1 0 block",
        "pwrite#1 5@4096 block",
        "pwrite#2 3@0 block",
        "fsync#1 0 block",
        "close#1 0 block",
        "rename#1 0 block",
        "unlink#1 0 final",
    ];
    assert_eq!(told, expected);
}

fn play_trace(directory: &Path) {
    let file = File::create(directory.join("block")).unwrap();
    file.write_all_at(b"tail!", 4096).unwrap();
    file.write_all_at(b"top", 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    fs::rename(directory.join("block"), directory.join("final")).unwrap();
    fs::remove_file(directory.join("final")).unwrap();
}

fn ledger() {
    let stage = Stage::new("");
    stage.play_emulated(&["scope", "ledger", text(&stage.scope())]);
    let told: Vec<String> = stage
        .ledger()
        .iter()
        .map(|entry| {
            assert!(!entry.is_ending, "{entry:?}");
            let (kind, site) = (entry.kind, entry.site.site().name);
            format!(
                "{kind:?} {} by {site}#{} {}",
                entry.bytes, entry.nth, entry.path
            )
        })
        .collect();
    let expected = [
        "Descriptor 0 by open#1 kept",
        "FileMapping 4096 by mmap#1 kept",
        "Context 0 by cuDevicePrimaryCtxRetain#1 ",
        "DeviceMemory 8192 by cuMemAlloc#2 ",
        "PinnedMemory 4096 by cuMemHostAlloc#1 ",
        "Stream 0 by cuStreamCreate#1 ",
        "Descriptor 0 by dup#1 kept",
    ];
    assert_eq!(told, expected);
}

fn play_ledger(directory: &Path) {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let kept = options.open(directory.join("kept")).unwrap();
    kept.set_len(4096).unwrap();
    let map = |file: &File| {
        // SAFETY: fresh mappings, which nobody reads.
        let address = unsafe {
            let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                read,
                shared,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(address, libc::MAP_FAILED);
        address
    };
    let mapping = map(&kept);
    let library = crate::calls::open("libcuda.so.1", libc::RTLD_NOW);
    let call = |name: &str, arguments: &[usize]| {
        let address = crate::calls::find(library, name).unwrap();
        assert_eq!(crate::calls::call(address, arguments) as u32, 0, "{name}");
    };
    let get = |name: &str, arguments: &[usize]| {
        let mut value = 0usize;
        let mut all = vec![&raw mut value as usize];
        all.extend(arguments);
        call(name, &all);
        value
    };
    call("cuInit", &[0]);
    let context = get("cuDevicePrimaryCtxRetain", &[0]);
    call("cuCtxSetCurrent", &[context]);
    let gone = get("cuMemAlloc_v2", &[4096]);
    let left = get("cuMemAlloc_v2", &[8192]);
    get("cuMemHostAlloc", &[4096, 0]);
    let stream = get("cuStreamCreate", &[1]);
    call("cuMemFree_v2", &[gone]);
    // Refused by the driver itself: without a context nothing can be freed, and the memory stays in the ledger.
    call("cuCtxSetCurrent", &[0]);
    let free = crate::calls::find(library, "cuMemFree_v2").unwrap();
    assert_ne!(crate::calls::call(free, &[left]), 0);
    call("cuCtxSetCurrent", &[context]);
    call("cuStreamSynchronize", &[stream]);
    // What comes and goes.
    let other = map(&kept);
    // SAFETY: the mapping of the line above; descriptors that nobody else has.
    unsafe {
        assert_eq!(libc::munmap(other, 4096), 0);
        let copy = libc::fcntl(kept.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100);
        assert_eq!(libc::dup2(kept.as_raw_fd(), copy), copy);
        assert_eq!(libc::close_range(100, 200, 0), 0);
        assert!(libc::dup(kept.as_raw_fd()) >= 0);
    }
    let _ = (mapping, std::mem::ManuallyDrop::new(kept));
}

fn refused() {
    let stage = Stage::new("close:error=EIO:when=1;unlink:error=EACCES:when=1;munmap:error=ENOMEM");
    stage.play(&["scope", "close", text(&stage.scope())]);
    // The descriptor is closed whatever `close` says; the mapping that was not removed is still there.
    let kinds: Vec<Kind> = stage.ledger().iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [Kind::FileMapping]);
    assert_eq!(stage.shared.receipts().len(), 3);
}

fn play_close(directory: &Path) {
    let name = path(directory, "file");
    let mut text = String::new();
    // SAFETY: a descriptor and a mapping of this function's own.
    unsafe {
        let number = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600);
        assert_eq!(libc::ftruncate(number, 4096), 0);
        let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
        let mapping = libc::mmap(std::ptr::null_mut(), 4096, read, shared, number, 0);
        assert_eq!(libc::munmap(mapping, 4096), -1);
        assert_eq!(libc::close(number), -1);
        assert_eq!(libc::fcntl(number, libc::F_GETFD), -1);
        assert_eq!(libc::unlink(name.as_ptr()), -1);
    }
    File::open(directory.join("file"))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
}
