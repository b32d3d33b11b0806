//! What a subject sees of the harness, and what becomes of it when the harness dies.

use crate::{
    bench::{Bench, PATIENCE, command},
    trial,
};
use libtest_mimic::Trial;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use spillproof_harness::{
    error::HarnessError,
    probe::{self, ProbeError},
    sandbox::Sandbox,
    settle::settle,
    subject::{Limits, Subject, SubjectCommand, TREE_VARIABLE},
};
use std::{
    collections::BTreeSet,
    env,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("the_environment_is_scrubbed", environment),
        trial(
            "what_the_command_asks_for_wins_over_the_device_and_the_base",
            precedence,
        ),
        trial(
            "no_descriptor_of_the_harness_reaches_a_subject",
            descriptors,
        ),
        trial("limits_hold_and_cores_are_off", limits),
        trial("a_file_limit_is_an_error_and_not_a_death", file_limit),
        trial("a_subject_dies_with_a_killed_harness", killed_harness),
        trial(
            "a_program_that_is_not_there_is_the_harness_s_error",
            missing_program,
        ),
    ]
}

fn environment() {
    let mut bench = Bench::greeted("works");
    let environment = bench.ask("environment");
    let names: BTreeSet<&str> = environment
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "HOME",
        "LANG",
        "OFFLOAD_DIR",
        "PATH",
        "RUST_BACKTRACE",
        "SPILLPROOF_SOCKET_FD",
        "TMPDIR",
        TREE_VARIABLE,
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let within = bench.sandbox.root().to_str().unwrap();
    for name in ["HOME", "TMPDIR", "OFFLOAD_DIR"] {
        assert!(environment[name].as_str().unwrap().starts_with(within));
    }
}

fn precedence() {
    let sandbox = Sandbox::create(&env::temp_dir(), "precedence").unwrap();
    let command = SubjectCommand {
        env: vec![("LANG".into(), "command".into())],
        ..command("works")
    };
    let device = vec![
        ("LANG".into(), "device".into()),
        ("HOME".into(), "device".into()),
    ];
    let subject = Subject::spawn(&command, &sandbox, device, Limits::default()).unwrap();
    let mut bench = Bench { sandbox, subject };
    bench.hello(PATIENCE).unwrap();
    let environment = bench.ask("environment");
    assert_eq!(environment["LANG"], "command");
    assert_eq!(environment["HOME"], "device");
}

fn descriptors() {
    // Left open without close-on-exec, as a C library would.
    let leak = File::open("/proc/self/stat").unwrap();
    fcntl(&leak, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let mut bench = Bench::greeted("works");
    let targets = bench.ask("descriptors");
    let targets: Vec<&str> = targets
        .as_array()
        .unwrap()
        .iter()
        .map(|target| target.as_str().unwrap())
        .collect();
    let starting = |prefix: &str| {
        targets
            .iter()
            .filter(|target| target.starts_with(prefix))
            .count()
    };
    assert_eq!(starting("/dev/null"), 1, "{targets:?}");
    assert_eq!(starting("pipe:"), 2, "{targets:?}");
    // The rogue reads and writes through one descriptor each.
    assert_eq!(starting("socket:"), 2, "{targets:?}");
    // The listing of its own descriptors.
    assert_eq!(starting("/proc/"), 1, "{targets:?}");
    assert_eq!(targets.len(), 6, "{targets:?}");
    let seen = probe::process(bench.subject.pid()).unwrap().descriptors;
    assert_eq!(seen.values().sum::<u64>(), 5, "{seen:?}");
}

fn limits() {
    let limits = Limits {
        address_space_bytes: Some(3 << 30),
        descriptors: Some(77),
        file_bytes: Some(123_456),
        ..Limits::default()
    };
    let mut bench = Bench::with_limits("works", limits);
    bench.hello(PATIENCE).unwrap();
    let text = bench.ask("limits");
    for (name, value) in [
        ("Max core file size", "0"),
        ("Max open files", "77"),
        ("Max file size", "123456"),
        ("Max address space", "3221225472"),
    ] {
        let line = text
            .as_str()
            .unwrap()
            .lines()
            .find(|line| line.starts_with(name));
        let line = line.unwrap().strip_prefix(name).unwrap();
        let words: Vec<&str> = line.split_ascii_whitespace().take(2).collect();
        assert_eq!(words, [value, value], "{name}");
    }
}

fn file_limit() {
    let limits = Limits {
        file_bytes: Some(1000),
        ..Limits::default()
    };
    let mut bench = Bench::with_limits("works", limits);
    bench.hello(PATIENCE).unwrap();
    assert_eq!(bench.ask("write small 1000"), serde_json::Value::Null);
    assert_eq!(bench.ask("write large 1001"), libc::EFBIG);
}

/// A harness with one subject; prints the subject's pid, and waits to be killed.
pub(crate) fn run_harness(directory: &Path) -> ExitCode {
    let sandbox = Sandbox::create(directory, "harness").unwrap();
    // One that would not notice its socket closing.
    let subject = Subject::spawn(
        &command("never_answers_hello"),
        &sandbox,
        Vec::new(),
        Limits::default(),
    )
    .unwrap();
    println!("{}", subject.pid());
    thread::sleep(Duration::from_secs(3600));
    ExitCode::SUCCESS
}

fn killed_harness() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Command::new(env::current_exe().unwrap())
        .arg("harness")
        .arg(directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(harness.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let subject = line.trim().parse().unwrap();
    assert!(probe::process(subject).is_ok());
    kill(Pid::from_raw(harness.id().cast_signed()), Signal::SIGKILL).unwrap();
    harness.wait().unwrap();
    let gone = settle(PATIENCE, || {
        matches!(probe::process(subject), Err(ProbeError::Gone { .. })).then_some(())
    });
    assert_eq!(gone, Some(()), "subject {subject} outlived its harness");
}

fn missing_program() {
    let sandbox = Sandbox::create(&env::temp_dir(), "missing").unwrap();
    let command = SubjectCommand {
        program: "/nonexistent/subject".into(),
        ..command("behaves")
    };
    let error = Subject::spawn(&command, &sandbox, Vec::new(), Limits::default()).unwrap_err();
    assert!(matches!(error, HarnessError::Start { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/subject"));
}
