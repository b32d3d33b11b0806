//! Whole trees end, and nobody's exit status goes to anyone else.

use crate::{
    bench::{Bench, PATIENCE, SHORT},
    trial,
};
use libtest_mimic::Trial;
use spillproof_harness::{
    crash::Deadly,
    probe::{self, ProbeError},
    sandbox::Sandbox,
    settle::settle,
    subject::{CallOutcome, Ended, ExitReport, Finding},
};
use std::{fs, process::Command, thread};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "a_child_that_outlives_its_subject_is_found_and_ended",
            || {
                left_behind("forks_a_child");
            },
        ),
        trial("a_daemon_in_its_own_session_is_found_and_ended", || {
            left_behind("forks_a_daemon");
        }),
        trial("killing_a_subject_ends_its_daemons_too", killed_with_daemon),
        trial(
            "a_daemon_that_outlives_its_terminated_subject_is_found",
            terminated_with_daemon,
        ),
        trial(
            "dropping_a_subject_ends_its_daemons_too",
            dropped_with_daemon,
        ),
        trial("subjects_outlive_the_thread_that_started_them", thread_ends),
        trial("parallel_subjects_keep_their_own_exit_statuses", parallel),
        trial(
            "children_of_other_code_keep_their_exit_statuses",
            other_children,
        ),
    ]
}

fn is_gone(pid: u32) -> bool {
    matches!(probe::process(pid), Err(ProbeError::Gone { .. }))
}

/// Not even a zombie.
fn is_reaped(pid: u32) -> bool {
    !fs::exists(format!("/proc/{pid}")).unwrap()
}

/// The process that was left, once it is there.
fn left(sandbox: &Sandbox) -> u32 {
    let path = sandbox.work_dir().join("left");
    let pid = settle(PATIENCE, || fs::read_to_string(&path).ok()).unwrap();
    let pid = pid.parse().unwrap();
    assert!(!is_gone(pid));
    pid
}

fn left_behind(behaviour: &str) {
    let mut bench = Bench::greeted(behaviour);
    bench.status(PATIENCE).unwrap();
    let pid = left(&bench.sandbox);
    bench.quit().unwrap();
    let ended = bench.finish();
    assert_eq!(ended.exit, ExitReport::Exited(0));
    let [Finding::LeftChildren { processes }] = &ended.findings[..] else {
        panic!("{:?}", ended.findings)
    };
    assert_eq!(processes.len(), 1);
    assert_eq!(processes[0].pid, pid);
    assert!(processes[0].command.contains(behaviour), "{processes:?}");
    assert!(is_reaped(pid));
}

fn killed_with_daemon() {
    let mut bench = Bench::greeted("forks_a_daemon");
    bench.status(PATIENCE).unwrap();
    let pid = left(&bench.sandbox);
    bench.subject.kill();
    let ended = bench.finish();
    // The harness killed the subject: what it leaves then is not its fault.
    assert_eq!(ended.findings, []);
    assert!(ended.killed);
    assert!(is_reaped(pid));
}

fn terminated_with_daemon() {
    let mut bench = Bench::greeted("forks_a_daemon");
    bench.status(PATIENCE).unwrap();
    let pid = left(&bench.sandbox);
    let killed = bench.subject.kill_idle(PATIENCE, Deadly::Terminate);
    assert!(killed.exit.is_some(), "{killed:?}");
    let ended = bench.finish();
    let [Finding::LeftChildren { processes }] = &ended.findings[..] else {
        panic!("{:?}", ended.findings)
    };
    assert_eq!(processes[0].pid, pid);
    assert!(is_reaped(pid));
}

fn dropped_with_daemon() {
    let bench = Bench::greeted("forks_a_daemon");
    let (subject, pid) = (bench.subject.pid(), left(&bench.sandbox));
    drop(bench);
    assert!(is_reaped(pid));
    assert!(is_reaped(subject));
}

fn thread_ends() {
    let mut bench = thread::spawn(|| Bench::greeted("behaves")).join().unwrap();
    // The thread is gone from the kernel's list a moment after it was joined.
    thread::sleep(SHORT);
    assert!(matches!(bench.status(PATIENCE), Ok(CallOutcome::Ok(_))));
}

fn life(behaviour: &str) -> Ended {
    let mut bench = Bench::greeted(behaviour);
    // What is found here is found again at the end.
    let _ = bench.status(PATIENCE);
    let _ = bench.quit();
    bench.finish()
}

fn parallel() {
    let signalled = |signal| ExitReport::Signalled {
        signal,
        core: false,
    };
    let lives = [
        ("behaves", ExitReport::Exited(0)),
        ("forks_a_daemon", ExitReport::Exited(0)),
        ("quits_with_status_5", ExitReport::Exited(5)),
        ("exits_with_status_3", ExitReport::Exited(3)),
        ("aborts", signalled(6)),
        ("dies_by_sigkill", signalled(9)),
    ];
    thread::scope(|scope| {
        for turn in 0..lives.len() {
            let lives = &lives;
            scope.spawn(move || {
                for (behaviour, exit) in lives.iter().cycle().skip(turn).take(lives.len()) {
                    let ended = life(behaviour);
                    assert_eq!(ended.exit, *exit, "{behaviour}: {:?}", ended.findings);
                    assert!(!ended.killed, "{behaviour}");
                }
            });
        }
    });
}

fn other_children() {
    thread::scope(|scope| {
        let subjects = scope.spawn(|| {
            for _ in 0..5 {
                life("forks_a_daemon");
            }
        });
        let mut statuses = 0;
        while !subjects.is_finished() || statuses == 0 {
            let child = Command::new("sh").args(["-c", "exit 7"]).spawn();
            // Dead, and not waited for while subjects end.
            let mut child = child.unwrap();
            thread::sleep(SHORT / 10);
            assert_eq!(child.wait().unwrap().code(), Some(7));
            statuses += 1;
        }
    });
}
