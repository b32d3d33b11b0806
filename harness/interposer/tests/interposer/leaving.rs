//! What is known of processes that end, become other programs, or start them without the interposer.
#![allow(unsafe_code)]

use std::path::Path;

use libtest_mimic::Trial;
use spillproof_faults::Presence;

use crate::stage::{Stage, text};
use crate::trial;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("leaving::however_a_process_ends_it_is_whole", ends),
        trial(
            "leaving::a_program_that_drops_the_preload_and_becomes_another_is_open",
            || becomes(&["env", "-u", "LD_PRELOAD", "true"], Presence::Open),
        ),
        trial(
            "leaving::a_program_that_becomes_another_with_the_interposer_is_whole",
            || becomes(&["env", "OTHER=1", "true"], Presence::Whole),
        ),
        trial("leaving::a_killed_process_is_open", || {
            becomes(&["sh", "-c", "kill -9 $$"], Presence::Open);
        }),
        trial(
            "leaving::children_without_the_preload_are_missing",
            children,
        ),
        trial(
            "leaving::what_a_child_in_its_parents_memory_opens_is_its_own",
            opened_in_shared_memory,
        ),
    ]
}

pub(crate) fn play(what: &str, directory: &Path) {
    match what {
        "main" => {}
        "exit" => std::process::exit(0),
        // SAFETY: ends the process.
        "_exit" => unsafe { libc::_exit(0) },
        "spawned" => start(libc::posix_spawnp),
        "vforked" => vforked(c"/bin/true"),
        "vforked in vain" => vforked(c"/nowhere/to/be/found"),
        #[allow(deprecated)]
        "vforked open" => open_beside(directory, || {
            // SAFETY: the child opens a file and ends.
            let child = unsafe { libc::vfork() };
            if child == 0 {
                open_and_end(directory);
            }
            child
        }),
        "cloned open" => open_beside(directory, || {
            let mut stack = vec![0u128; 1 << 14];
            let flags = libc::CLONE_VM | libc::SIGCHLD;
            let argument = (&raw const directory).cast_mut().cast();
            // SAFETY: the stack is large enough and aligned; it and the argument live until the child has ended.
            unsafe {
                let top = stack.as_mut_ptr_range().end.cast();
                let child = libc::clone(open_in_child, top, flags, argument);
                libc::waitid(
                    libc::P_PID,
                    child as u32,
                    &mut std::mem::zeroed(),
                    libc::WEXITED | libc::WNOWAIT,
                );
                child
            }
        }),
        _ => panic!("{what}"),
    }
}

extern "C" fn open_in_child(directory: *mut libc::c_void) -> i32 {
    // SAFETY: the argument of the call that made the child.
    open_and_end(unsafe { *directory.cast::<&Path>() })
}

fn open_and_end(directory: &Path) -> ! {
    open(directory, "child");
    // SAFETY: ends the child.
    unsafe { libc::_exit(0) }
}

/// Opens a file that stays open.
fn open(directory: &Path, name: &str) {
    let path = std::ffi::CString::new(text(&directory.join(name))).unwrap();
    // SAFETY: a terminated name.
    let number = unsafe { libc::open(path.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600) };
    assert!(number >= 0);
}

/// Opens a file before there is a child, and one after it is gone.
fn open_beside(directory: &Path, start: impl FnOnce() -> i32) {
    open(directory, "before");
    let child = start();
    // SAFETY: waits for that child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    open(directory, "after");
    print!("{} {child}", std::process::id());
}

fn opened_in_shared_memory() {
    for way in ["vforked open", "cloned open"] {
        let stage = Stage::new("");
        let said = stage.play(&["leaving", way, text(&stage.scope())]);
        let (parent, child) = said.split_once(' ').unwrap();
        let (parent, child): (u32, u32) = (parent.parse().unwrap(), child.parse().unwrap());
        let opened = stage
            .ledger()
            .into_iter()
            .map(|entry| (entry.path, entry.pid));
        let expected = [("before", parent), ("child", child), ("after", parent)];
        let expected = expected.map(|(path, pid)| (path.to_owned(), pid));
        assert_eq!(opened.collect::<Vec<_>>(), expected, "{way}");
    }
}

fn presences(stage: &Stage) -> Vec<Presence> {
    let processes = stage.shared.processes();
    processes.iter().map(|process| process.presence).collect()
}

fn ends() {
    for way in ["main", "exit", "_exit"] {
        let stage = Stage::new("");
        stage.play(&["leaving", way, "-"]);
        assert_eq!(presences(&stage), [Presence::Whole], "{way}");
    }
}

fn becomes(words: &[&str], presence: Presence) {
    let stage = Stage::new("");
    let mut command = stage.command(words[0]);
    command.args(&words[1..]).output().unwrap();
    assert_eq!(presences(&stage), [presence], "{words:?}");
}

type Spawn = unsafe extern "C" fn(
    *mut libc::pid_t,
    *const libc::c_char,
    *const libc::posix_spawn_file_actions_t,
    *const libc::posix_spawnattr_t,
    *const *mut libc::c_char,
    *const *mut libc::c_char,
) -> i32;

/// Starts `true` without an environment.
fn start(spawn: Spawn) {
    let words = [c"true".as_ptr().cast_mut(), std::ptr::null_mut()];
    let environment = [std::ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: arrays that end with null; waits for the child of the line above.
    unsafe {
        let nothing = std::ptr::null();
        let result = spawn(
            &raw mut pid,
            words[0],
            nothing,
            nothing.cast(),
            words.as_ptr(),
            environment.as_ptr(),
        );
        assert_eq!(result, 0);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

/// A child in this process's memory that becomes another program, or tries to.
#[allow(deprecated)]
fn vforked(program: &std::ffi::CStr) {
    let words = [program.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    // SAFETY: the child does nothing but become another program or end; its parent waits for it.
    unsafe {
        let child = libc::vfork();
        if child == 0 {
            libc::execve(program.as_ptr(), words.as_ptr(), environment.as_ptr());
            libc::_exit(127);
        }
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
}

fn children() {
    for (way, child) in [
        ("spawned", Presence::Missing),
        ("vforked", Presence::Missing),
        ("vforked in vain", Presence::Whole),
    ] {
        let stage = Stage::new("");
        stage.play(&["leaving", way, "-"]);
        assert_eq!(presences(&stage), [Presence::Whole, child], "{way}");
    }
}
