//! Whole programs, unchanged: they run under the interposer as without it, and meet the faults of a plan. Rust's own file calls, C, Python,
//! several threads, forks, programs that become others, libraries loaded late.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use libtest_mimic::Trial;
use spillproof_faults::{FAULTS_VARIABLE, Kind, LedgerEntry, NOT_ATTACHED_STATUS};

use crate::stage::{Stage, describe, said, text};
use crate::trial;

const THREADS: usize = 8;
const WRITES: usize = 200;

pub(crate) fn tests() -> Vec<Trial> {
    let python = has_python();
    if !python {
        eprintln!("SKIP  programs::python: there is no python3 here");
    }
    vec![
        trial("programs::rust_file_calls_do_the_same", rust),
        trial(
            "programs::c_does_the_same_and_meets_enospc_and_out_of_memory",
            c,
        ),
        trial(
            "programs::python_does_the_same_and_meets_enospc",
            python_script,
        )
        .with_ignored_flag(!python),
        trial(
            "programs::threads_are_counted_exactly_and_one_call_fails_once",
            threads,
        ),
        trial(
            "programs::forked_children_count_into_the_same_memory",
            forked,
        ),
        trial(
            "programs::a_program_that_becomes_another_joins_anew",
            becomes,
        ),
        trial(
            "programs::a_child_without_the_variable_does_not_run",
            scrubbed,
        ),
        trial(
            "programs::a_library_loaded_late_is_seen_and_told_apart",
            loaded,
        ),
        trial(
            "programs::a_process_killed_at_a_call_leaves_its_receipt",
            killed,
        ),
        trial(
            "programs::a_cancelled_thread_unwinds_through_a_wrapper",
            unwound,
        ),
    ]
}

pub(crate) fn play(what: &str, directory: &Path) {
    match what {
        "rust" => play_rust(directory),
        "threads" => play_threads(directory),
        "forks" => play_forks(directory),
        "becomes" => play_becomes(directory),
        "scrubbed" => play_scrubbed(),
        "killed" => play_killed(directory),
        "cancelled" => play_cancelled(directory),
        _ => panic!("{what}"),
    }
}

fn has_python() -> bool {
    let output = Command::new("python3").arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// A C program or library, compiled.
fn compiled(stage: &Stage, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let file = stage.outside().join(name).with_extension("c");
    let program = stage.outside().join(name);
    fs::write(&file, source).unwrap();
    let mut command = Command::new("cc");
    command
        .arg("-O1")
        .arg("-o")
        .arg(&program)
        .arg(&file)
        .args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", describe(&command, &output));
    program
}

fn rust() {
    let stage = Stage::new("");
    let scope = stage.scope();
    let words = ["program", "rust", text(&scope)];
    let with = stage.play(&words);
    fs::remove_dir_all(stage.scope()).unwrap();
    fs::create_dir(stage.scope()).unwrap();
    let without = said(
        Command::new(std::env::current_exe().unwrap())
            .arg("play")
            .args(words),
    );
    assert_eq!(with, without);
    assert_eq!((stage.calls("rename"), stage.calls("unlink")), (1, 1));
    // Two of them fail. Folders are opened, too, and closed inside libc.
    assert_eq!(stage.calls("open"), stage.calls("close") + 2);
    assert_eq!(stage.ledger(), []);
}

fn play_rust(directory: &Path) {
    let path = directory.join("file");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all(b"one two three").unwrap();
    file.write_all_at(b"ONE", 0).unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(4)).unwrap();
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    file.set_len(7).unwrap();
    fs::copy(&path, directory.join("copy")).unwrap();
    fs::create_dir_all(directory.join("a/b")).unwrap();
    fs::rename(directory.join("copy"), directory.join("a/b/copy")).unwrap();
    println!(
        "{rest} {:?}",
        fs::read_to_string(directory.join("a/b/copy"))
    );
    println!(
        "{:?} {:?}",
        fs::metadata(&path).unwrap().len(),
        file.metadata().unwrap().len()
    );
    let missing = File::open(directory.join("missing")).unwrap_err();
    println!(
        "{:?} {:?}",
        missing.kind(),
        File::create_new(&path).map(drop).unwrap_err().kind()
    );
    fs::remove_file(&path).unwrap();
    fs::remove_dir_all(directory.join("a")).unwrap();
    println!("{}", fs::read_dir(directory).unwrap().count());
}

fn c() {
    let source = include_str!("program.c");
    let stage = Stage::new("");
    let scope = stage.scope();
    let program = compiled(&stage, "program", source, &["-ldl"]);
    let run = |stage: &Stage| {
        let mut command = stage.command(&program);
        command.arg(stage.scope());
        stage.emulated(&mut command);
        said(&mut command)
    };
    assert_eq!(run(&stage), "write 5 errno 0\ncopy HELLO\nmalloc 0\n");
    assert_eq!(stage.calls("pwrite"), 1);
    // The stream's reads and its close are inside libc, where only the latter is seen.
    assert_eq!((stage.calls("read"), stage.calls("close")), (0, 0));
    let is_descriptor = |entry: &LedgerEntry| entry.kind == Kind::Descriptor;
    assert!(!stage.ledger().iter().any(is_descriptor));
    assert_eq!(fs::read(scope.join("file")).unwrap(), b"HELLO");
    let plan = "pwrite:error=ENOSPC;cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY";
    let failing = Stage::new(plan);
    assert_eq!(run(&failing), "write -1 errno 28\ncopy \nmalloc 2\n");
    assert_eq!(failing.shared.receipts().len(), 2);
}

fn python_script() {
    let script = include_str!("program.py");
    let run = |stage: &Stage| {
        let mut command = stage.command("python3");
        command.args(["-c", script]).arg(stage.scope());
        said(&mut command)
    };
    let plain = Stage::new("");
    assert_eq!(run(&plain), "5 hello\nchild ran\ngone\n");
    assert!(plain.calls("write") >= 1 && plain.calls("fsync") == 1);
    let failing = Stage::new("write:error=ENOSPC:path=*/scope/*");
    assert_eq!(
        run(&failing),
        "[Errno 28] No space left on device\nchild ran\ngone\n"
    );
}

fn threads() {
    let total = THREADS * WRITES;
    let stage = Stage::new(&format!("pwrite:error=EIO:when={}", total / 2));
    let said = stage.play(&["program", "threads", text(&stage.scope())]);
    assert_eq!(said, "1 failed");
    assert_eq!(stage.calls("pwrite"), total as u64);
    let receipts = stage.shared.receipts();
    assert_eq!(receipts.len(), 1);
    assert_eq!(receipts[0].nth, total as u64 / 2);
    assert_eq!(stage.ledger(), []);
}

fn play_threads(directory: &Path) {
    let failed: usize = thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|index| {
                scope.spawn(move || {
                    let mut failed = 0;
                    for round in 0..WRITES {
                        // Opened and closed each time: the numbers wander between the threads.
                        let file = File::create(directory.join(format!("{index}"))).unwrap();
                        failed += usize::from(file.write_all_at(b"x", round as u64).is_err());
                    }
                    failed
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum()
    });
    print!("{failed} failed");
}

fn forked() {
    let stage = Stage::new("write:error=EIO:when=3");
    let said = stage.play(&["program", "forks", text(&stage.scope())]);
    assert_eq!(said, "4 children, 1 failed");
    assert_eq!(stage.calls("write"), 4);
    let attached = stage.shared.attachments();
    let processes: BTreeSet<u32> = attached.iter().map(|attachment| attachment.pid).collect();
    assert_eq!(processes.len(), 5);
    let receipts = stage.shared.receipts();
    assert_eq!(receipts.len(), 1);
    assert_ne!(receipts[0].pid, attached[0].pid);
    // What a child has of its parent's is the parent's; each child's own is its own.
    assert_eq!(stage.ledger().len(), 1 + 4);
}

fn play_forks(directory: &Path) {
    let shared = File::create(directory.join("shared")).unwrap();
    let mut failed = 0;
    for index in 0..4 {
        // SAFETY: one thread, and the child ends without unwinding.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let own = File::create(directory.join(format!("{index}"))).unwrap();
            let status = i32::from((&shared).write(b"x").is_err());
            std::mem::forget(own);
            // SAFETY: ends the child.
            unsafe { libc::_exit(status) };
        }
        let mut status = 0;
        // SAFETY: waits for the child of the line above.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        failed += libc::WEXITSTATUS(status);
    }
    print!("4 children, {failed} failed");
    std::mem::forget(shared);
}

fn becomes() {
    let stage = Stage::new("");
    stage.play(&["program", "becomes", text(&stage.scope())]);
    let attached = stage.shared.attachments();
    assert_eq!(attached.len(), 2, "{attached:?}");
    assert_eq!(attached[0].pid, attached[1].pid);
    assert_eq!(stage.calls("write"), 1);
}

fn play_becomes(directory: &Path) {
    use std::os::unix::process::CommandExt;
    let executable = std::env::current_exe().unwrap();
    let words = ["play", "scope", "write", text(directory)];
    panic!("{}", Command::new(executable).args(words).exec());
}

fn scrubbed() {
    let stage = Stage::new("");
    assert_eq!(
        stage.play(&["program", "scrubbed", text(&stage.scope())]),
        "true"
    );
}

fn play_scrubbed() {
    let mut command = Command::new("/bin/true");
    let output = command.env_remove(FAULTS_VARIABLE).output().unwrap();
    print!("{}", output.status.code() == Some(NOT_ATTACHED_STATUS));
}

fn loaded() {
    let stage = Stage::new("pwrite:error=EIO:caller=liblate.so:when=2");
    let library = compiled(
        &stage,
        "liblate.so",
        include_str!("late.c"),
        &["-shared", "-fPIC"],
    );
    let program = compiled(&stage, "loader", include_str!("loader.c"), &["-ldl"]);
    let mut command = stage.command(program);
    command.arg(&library).arg(stage.scope().join("file"));
    // The program's own calls come between the library's and do not count for the rule.
    assert_eq!(said(&mut command), "1 1 -1 1\n");
    assert_eq!(stage.calls("pwrite"), 4);
}

fn killed() {
    let stage = Stage::new("fsync:signal=SIGKILL");
    let mut command = stage.role(&["program", "killed", text(&stage.scope())]);
    let output = command.output().unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(libc::SIGKILL));
    assert_eq!(stage.shared.receipts().len(), 1);
    let left: Vec<String> = stage.ledger().into_iter().map(|entry| entry.path).collect();
    assert_eq!(left, ["file"]);
}

fn play_killed(directory: &Path) {
    let file = File::create(directory.join("file")).unwrap();
    file.sync_all().unwrap();
}

fn unwound() {
    let stage = Stage::new("");
    assert_eq!(
        stage.play(&["program", "cancelled", text(&stage.scope())]),
        "cancelled"
    );
}

/// A thread that is cancelled in a wrapped call: glibc unwinds its stack through the wrapper.
fn play_cancelled(_: &Path) {
    use std::ffi::c_void;
    use std::ptr::null_mut;
    unsafe extern "C" {
        fn pthread_cancel(thread: libc::pthread_t) -> i32;
    }
    extern "C-unwind" fn reads(pipe: *mut c_void) -> *mut c_void {
        let mut byte = 0u8;
        // SAFETY: one byte of room.
        unsafe {
            unsafe extern "C-unwind" {
                fn read(file: i32, bytes: *mut u8, count: usize) -> isize;
            }
            read(pipe as usize as i32, &raw mut byte, 1);
        }
        null_mut()
    }
    let mut ends = [0i32; 2];
    // SAFETY: pipes and a thread of this function's own; the thread has no destructors to run.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        let mut reader: libc::pthread_t = 0;
        let body: extern "C-unwind" fn(*mut c_void) -> *mut c_void = reads;
        let body = std::mem::transmute::<
            extern "C-unwind" fn(*mut c_void) -> *mut c_void,
            extern "C" fn(*mut c_void) -> *mut c_void,
        >(body);
        let argument = ends[0] as usize as *mut c_void;
        assert_eq!(
            libc::pthread_create(&raw mut reader, null_mut(), body, argument),
            0
        );
        pthread_cancel(reader);
        let mut result: *mut c_void = null_mut();
        assert_eq!(libc::pthread_join(reader, &raw mut result), 0);
        // PTHREAD_CANCELED
        assert_eq!(result as isize, -1);
    }
    print!("cancelled");
}
