//! The ways to run the calls.

use std::env;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use spillproof_faults::{FAULTS_VARIABLE, Options, Plan, Shared};
use tempfile::TempDir;

use crate::player::Player;

/// Calls of a batch where nothing but a wrapper is in the way. A batch is shorter than a turn that the scheduler gives.
const QUICK: u32 = 200;
/// The same where each call stops the process.
const SLOW: u32 = 10;

/// A directory, plans in memory, and an emulated driver.
pub(crate) struct Stage {
    directory: TempDir,
    idle: (Shared, OwnedFd),
    other: (Shared, OwnedFd),
    waiting: (Shared, OwnedFd),
    elsewhere: (Shared, OwnedFd),
}

/// Rules for other calls.
const OTHER: &str = "fsync,cuCtxSynchronize:delay=1us";
/// Rules for each of the calls that are made, and none of whose turns comes.
const WAITING: &str = "pread,pwrite,open,close,stat,fstat,mmap,munmap,cuMemAlloc,cuMemFree,cuMemcpyHtoDAsync,cuStreamSynchronize,cuStreamCreate,cuStreamDestroy,cuFileHandleRegister,cuFileHandleDeregister:delay=1us:when=1000000000";
/// Rules for the same calls on paths that nobody opens, or from a library that is not there.
const ELSEWHERE: &str = "pread,pwrite,open,close,stat,fstat,mmap,munmap:delay=1us:path=*/nowhere;cuMemAlloc,cuMemFree,cuMemcpyHtoDAsync,cuStreamSynchronize,cuStreamCreate,cuStreamDestroy,cuFileHandleRegister,cuFileHandleDeregister:delay=1us:caller=nobody.so";

impl Stage {
    pub(crate) fn new() -> Stage {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let outside = fs::canonicalize(directory.path()).unwrap();
        let (scope, libraries) = (outside.join("scope"), outside.join("lib"));
        fs::create_dir(&scope).unwrap();
        fs::write(scope.join("file"), [1; 4096]).unwrap();
        fs::create_dir(&libraries).unwrap();
        for name in ["libcuda.so.1", "libcufile.so.0"] {
            symlink(library("libcuda_emulator.so"), libraries.join(name)).unwrap();
        }
        let memory = |plan: &str| {
            let options = Options {
                scopes: vec![scope.clone()],
                ..Options::default()
            };
            let plan = if plan.is_empty() {
                Plan::default()
            } else {
                plan.parse().unwrap()
            };
            Shared::create(&plan, &options).unwrap()
        };
        Stage {
            idle: memory(""),
            other: memory(OTHER),
            waiting: memory(WAITING),
            elsewhere: memory(ELSEWHERE),
            directory,
        }
    }
}

fn library(name: &str) -> PathBuf {
    let path = env::current_exe().unwrap().with_file_name(name);
    assert!(
        path.exists(),
        "{} is missing: a dev-dependency should have built it",
        path.display()
    );
    path
}

/// Whose way it is, and whether the limit holds for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    OursWithoutRule,
    OursWithRule,
    Other,
}

/// A way to run the calls.
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    command: Box<dyn Fn() -> Command>,
}

impl Method {
    pub(crate) fn start(&self) -> Player {
        Player::start(&mut (self.command)())
    }
}

/// What cannot be measured here, and how it could be.
pub(crate) fn missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !can_run("fiu-run") {
        missing.push(
            "libfiu, which is not installed; Debian has it in the packages fiu-utils and libfiu0",
        );
    }
    if !can_run("strace") {
        missing.push("strace, which is not installed, or may not trace here");
    }
    missing
}

fn can_run(tracer: &str) -> bool {
    let output = match tracer {
        "fiu-run" => Command::new(tracer).args(["-x", "true"]).output(),
        _ => Command::new(tracer)
            .args(["-o", "/dev/null", "true"])
            .output(),
    };
    output.is_ok_and(|output| output.status.success())
}

/// The words before the program, of each way that needs another one.
const OTHERS: &[(&str, &[&str], u32)] = &[
    (
        "libfiu, a point for another call",
        &[
            "fiu-run",
            "-x",
            "-f",
            "",
            "-c",
            "enable name=posix/io/sync/fsync",
        ],
        QUICK,
    ),
    (
        "libfiu, random points for other calls",
        &[
            "fiu-run",
            "-x",
            "-f",
            "",
            "-c",
            "enable_random name=posix/io/sync/*,probability=0.5",
        ],
        QUICK,
    ),
    (
        "`strace -e inject=`, another call, `--seccomp-bpf`",
        &[
            "strace",
            "-f",
            "--seccomp-bpf",
            "-o",
            "/dev/null",
            "-e",
            "trace=fsync",
            "-e",
            "inject=fsync:error=EIO",
        ],
        QUICK,
    ),
    (
        "`strace -e inject=`, another call",
        &[
            "strace",
            "-f",
            "-o",
            "/dev/null",
            "-e",
            "trace=fsync",
            "-e",
            "inject=fsync:error=EIO",
        ],
        SLOW,
    ),
    (
        "`strace -e trace=none`",
        &["strace", "-f", "-o", "/dev/null", "-e", "trace=none"],
        SLOW,
    ),
];

/// Bare first. Of ours alone, if that is asked for.
pub(crate) fn all(stage: &Stage, is_ours_alone: bool) -> Vec<Method> {
    let outside = fs::canonicalize(stage.directory.path()).unwrap();
    let start = move |before: &[&str], calls: u32| {
        let own = env::current_exe().unwrap();
        let mut command = match before {
            [] => Command::new(&own),
            [program, words @ ..] => {
                let mut command = Command::new(program);
                command.args(words).arg(&own);
                command
            }
        };
        command
            .args(["play", &calls.to_string()])
            .arg(outside.join("scope"))
            .env("LD_LIBRARY_PATH", outside.join("lib"))
            // cuFile writes a log where the process is.
            .current_dir(&outside)
            .env_remove("LD_PRELOAD");
        command
    };
    let preloaded = |name, way, memory: &OwnedFd| {
        let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
        let start = start.clone();
        let command = move || {
            let mut command = start(&[], QUICK);
            command
                .env("LD_PRELOAD", library("libspillproof_interposer.so"))
                .env(FAULTS_VARIABLE, &path);
            command
        };
        Method {
            name,
            way,
            command: Box::new(command),
        }
    };
    let bare = start.clone();
    let mut methods = vec![
        Method {
            name: "bare",
            way: Way::Other,
            command: Box::new(move || bare(&[], QUICK)),
        },
        preloaded("no plan", Way::OursWithoutRule, &stage.idle.1),
        preloaded(
            "a rule for another call",
            Way::OursWithoutRule,
            &stage.other.1,
        ),
        preloaded(
            "a rule for the call on another path or of another caller",
            Way::OursWithRule,
            &stage.elsewhere.1,
        ),
        preloaded(
            "a rule for the call whose turn does not come",
            Way::OursWithRule,
            &stage.waiting.1,
        ),
    ];
    for (name, before, calls) in OTHERS {
        if !is_ours_alone && can_run(before[0]) {
            let start = start.clone();
            methods.push(Method {
                name,
                way: Way::Other,
                command: Box::new(move || start(before, *calls)),
            });
        }
    }
    methods
}
