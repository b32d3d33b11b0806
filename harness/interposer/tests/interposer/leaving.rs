//! What is known of processes that end, become other programs, or start them without the interposer.
#![allow(unsafe_code)]

use std::path::Path;

use libtest_mimic::Trial;
use spillproof_faults::Presence;

use crate::stage::Stage;
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
    ]
}

pub(crate) fn play(what: &str, _: &Path) {
    match what {
        "main" => {}
        "exit" => std::process::exit(0),
        // SAFETY: ends the process.
        "_exit" => unsafe { libc::_exit(0) },
        "spawned" => start(libc::posix_spawnp),
        "vforked" => vforked(c"/bin/true"),
        "vforked in vain" => vforked(c"/nowhere/to/be/found"),
        _ => panic!("{what}"),
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
