//! The ways to run the calls.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use spillproof_faults::{FAULTS_VARIABLE, Options, Plan, Shared};
use tempfile::TempDir;

use crate::table::Times;

/// Calls of a round where nothing but a wrapper is in the way, and rounds. A round is shorter than a turn that the scheduler gives.
const QUICK: (u32, u32) = (500, 161);
/// The same where each call stops the process.
const SLOW: (u32, u32) = (50, 81);

/// A directory, plans in memory, and an emulated driver.
pub(crate) struct Stage {
    directory: TempDir,
    idle: (Shared, OwnedFd),
    waiting: (Shared, OwnedFd),
    elsewhere: (Shared, OwnedFd),
}

/// Rules for each of the calls that are made, and none of whose turns comes.
const WAITING: &str = "pread,pwrite,open,close,stat:delay=1us:when=1000000000;cuMemAlloc,cuMemFree:delay=1us:when=1000000000";
/// Rules for the same calls on paths that nobody opens, or from a library that is not there.
const ELSEWHERE: &str = "pread,pwrite,open,close,stat:delay=1us:path=*/nowhere;cuMemAlloc,cuMemFree:delay=1us:caller=nobody.so";

impl Stage {
    pub(crate) fn new() -> Stage {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let scope = fs::canonicalize(directory.path()).unwrap();
        fs::write(scope.join("file"), [1; 4096]).unwrap();
        fs::create_dir(scope.join("lib")).unwrap();
        symlink(
            library("libcuda_emulator.so"),
            scope.join("lib/libcuda.so.1"),
        )
        .unwrap();
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

/// A way to run the calls.
pub(crate) struct Method {
    pub(crate) name: &'static str,
    command: Box<dyn Fn() -> Command>,
}

impl Method {
    /// Times by call.
    pub(crate) fn run(&self) -> BTreeMap<String, Times> {
        let mut command = (self.command)();
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{command:?}: {}\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let lines = said.lines().map(|line| {
            let fields: Vec<&str> = line.split(';').collect();
            let [name, median, quickest] = fields[..] else {
                panic!("{line}");
            };
            let times = Times {
                median_ns: median.parse().unwrap(),
                quickest_ns: quickest.parse().unwrap(),
            };
            (name.to_owned(), times)
        });
        lines.collect()
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
const OTHERS: &[(&str, &[&str], (u32, u32))] = &[
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

/// Bare first.
pub(crate) fn all(stage: &Stage) -> Vec<Method> {
    let scope = fs::canonicalize(stage.directory.path()).unwrap();
    let start = move |before: &[&str], (calls, rounds): (u32, u32)| {
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
            .args(["play", &calls.to_string(), &rounds.to_string()])
            .arg(&scope)
            .env("LD_LIBRARY_PATH", scope.join("lib"))
            .env_remove("LD_PRELOAD");
        command
    };
    let preloaded = |name, memory: &OwnedFd| {
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
            command: Box::new(command),
        }
    };
    let bare = start.clone();
    let mut methods = vec![
        Method {
            name: "bare",
            command: Box::new(move || bare(&[], QUICK)),
        },
        preloaded("ours, no rule", &stage.idle.1),
        preloaded(
            "ours, a rule for the call whose turn does not come",
            &stage.waiting.1,
        ),
        preloaded(
            "ours, a rule for the call on another path or of another caller",
            &stage.elsewhere.1,
        ),
    ];
    for (name, before, effort) in OTHERS {
        if can_run(before[0]) {
            let start = start.clone();
            methods.push(Method {
                name,
                command: Box::new(move || start(before, *effort)),
            });
        }
    }
    methods
}
