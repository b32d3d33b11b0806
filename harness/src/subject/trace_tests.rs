//! What a process that is stopped at every system call shows, who of its threads stands still when, and that it ends as it would have.

use super::*;
use crate::settle::settle;
use std::{
    env,
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Names the directory that the child of these tests writes to.
const DIRECTORY_VARIABLE: &str = "SPILLPROOF_TEST_WRITERS";
const WRITERS: usize = 3;
/// Within which each thread has its turn several times.
const MOST_LOOKS: u32 = 300;
const BOUND: Duration = Duration::from_secs(20);

/// A child with several threads, each of which makes a file of its own longer and longer.
pub(in crate::subject) struct Writers {
    child: Child,
    directory: tempfile::TempDir,
}

impl Writers {
    /// Returns once all of them write.
    pub(in crate::subject) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = concat!(module_path!(), "::the_child_of_these_tests_writes");
        let (_, name) = name.split_once("::").unwrap();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", name])
            .env(DIRECTORY_VARIABLE, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let writers = Self { child, directory };
        let all_write = || writers.lengths().iter().all(|length| *length > 0);
        settle(BOUND, || all_write().then_some(())).expect("the child writes");
        writers
    }

    pub(in crate::subject) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn lengths(&self) -> Vec<u64> {
        lengths(self.directory.path())
    }

    pub(in crate::subject) fn total(&self) -> u64 {
        self.lengths().iter().sum()
    }

    /// Tells whether more than `total` is written.
    pub(in crate::subject) fn more_than(&self, total: u64) -> impl Fn() -> bool + Send + 'static {
        let directory = self.directory.path().to_owned();
        move || lengths(&directory).iter().sum::<u64>() > total
    }

    /// How many of its threads a tracer has stopped, and how many there are.
    pub(in crate::subject) fn standing(&self) -> (usize, usize) {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let states: Vec<String> = tasks
            .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
            .collect();
        let standing = states.iter().filter(|state| state.contains("tracing stop"));
        (standing.count(), states.len())
    }

    /// Waits, within a bound, until more is written than `total`.
    pub(in crate::subject) fn write_more_than(&self, total: u64) -> bool {
        settle(BOUND, || (self.total() > total).then_some(())).is_some()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lengths(directory: &Path) -> Vec<u64> {
    let length = |writer| fs::metadata(file(directory, writer));
    let lengths = (0..WRITERS).map(|writer| length(writer).map_or(0, |found| found.len()));
    lengths.collect()
}

fn file(directory: &Path, writer: usize) -> PathBuf {
    directory.join(writer.to_string())
}

/// Does nothing unless it was started by [`Writers`].
#[test]
fn the_child_of_these_tests_writes() {
    let Some(directory) = env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from) else {
        return;
    };
    // Ends with the directory, should nobody end it.
    let write = |path: PathBuf| {
        let mut file = File::create(&path).unwrap();
        while path.exists() {
            file.write_all(b"x").unwrap();
        }
    };
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let path = file(&directory, writer);
            scope.spawn(move || write(path));
        }
    });
}

#[test]
fn a_process_does_nothing_unseen_between_two_looks() {
    let directory = tempfile::tempdir().unwrap();
    let files = || fs::read_dir(directory.path()).unwrap().count();
    let script = "read line; for i in 1 2 3 4 5 6 7 8 9; do : > $i; done";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut traced = Traced::stop(Pid::from_raw(child.id().cast_signed())).unwrap();
    drop(child.stdin.take());
    let mut counts = Vec::new();
    let look = || {
        counts.push(files());
        Next::GoOn
    };
    assert_eq!(traced.run(Whom::All, look, |_| false), Ran::Ended);
    drop(traced);
    counts.dedup();
    assert_eq!(counts, (0..=9).collect::<Vec<_>>());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_real_time_signal_is_passed_on_and_is_no_end() {
    let mut child = Command::new("sh")
        .args([
            "-c",
            "trap 'exit 5' 34; echo ready; read line; while :; do kill -0 $$; done",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    let mut traced = Traced::stop(pid).unwrap();
    drop(child.stdin.take());
    let mut looks = 0;
    let look = || {
        looks += 1;
        if looks == 50 {
            let sent = Command::new("kill")
                .args(["-34", &pid.to_string()])
                .status();
            assert!(sent.unwrap().success());
        }
        Next::GoOn
    };
    assert_eq!(traced.run(Whom::All, look, |_| false), Ran::Ended);
    drop(traced);
    assert!(looks > 50, "{looks}");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_process_that_is_let_go_runs_on() {
    let mut child = Command::new("sh")
        .args(["-c", "read line; exit 7"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut traced = Traced::stop(pid).unwrap();
            assert_eq!(traced.run(Whom::All, || Next::Stay, |_| false), Ran::Looked);
        });
    });
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn every_thread_stands_still_between_moments_and_goes_on_after_the_last() {
    let writers = Writers::start();
    let mut traced = Traced::stop(writers.pid()).unwrap();
    traced.halt(BOUND);
    let (standing, all) = writers.standing();
    assert_eq!(standing, all);
    assert!(all > WRITERS, "{all}");
    let before = writers.total();
    let due = || {
        if writers.total() >= before + 10 {
            Next::Stay
        } else {
            Next::GoOn
        }
    };
    assert_eq!(traced.run(Whom::All, due, |_| false), Ran::Looked);
    traced.halt(BOUND);
    assert_eq!(writers.standing(), (all, all));
    // Each may have been in a call while the last look was made.
    let total = writers.total();
    let most = before + 10 + WRITERS as u64;
    assert!(total <= most, "{total} bytes, {most} at most");
    drop(traced);
    assert_eq!(writers.standing().0, 0);
    assert!(writers.write_more_than(total));
}

#[test]
fn the_thread_that_a_look_was_for_stands_still_while_the_others_go_on() {
    let writers = Writers::start();
    let mut traced = Traced::stop(writers.pid()).unwrap();
    // By then it is one that writes.
    let mut looks = 0;
    let late = || {
        looks += 1;
        if looks == 50 { Next::Stay } else { Next::GoOn }
    };
    assert_eq!(traced.run(Whom::All, late, |_| false), Ran::Looked);
    traced.halt(BOUND);
    let before = writers.lengths();
    let grown = || {
        let lengths = writers.lengths();
        let pairs = lengths.iter().zip(&before);
        pairs
            .filter(|(length, before)| *length > &(*before + 20))
            .count()
    };
    let look = || {
        if grown() >= WRITERS - 1 {
            Next::Over
        } else {
            Next::GoOn
        }
    };
    assert_eq!(traced.run(Whom::Others, look, |_| false), Ran::Over);
    let lengths = writers.lengths();
    let still = lengths
        .iter()
        .zip(&before)
        .filter(|(now, before)| now == before);
    assert_eq!(still.count(), 1);
}

#[test]
fn no_thread_is_kept_from_going_on_by_the_others() {
    let writers = Writers::start();
    let mut traced = Traced::stop(writers.pid()).unwrap();
    traced.halt(BOUND);
    let before = writers.lengths();
    let all_grown = || {
        let lengths = writers.lengths();
        let mut pairs = lengths.iter().zip(&before);
        pairs.all(|(now, before)| *now >= before + 3)
    };
    let mut looks = 0;
    let look = || {
        looks += 1;
        // By then the one that went on last has stopped again, and is there to be served as the others are.
        let all_stand = || (writers.standing().0 >= WRITERS).then_some(());
        settle(Duration::from_millis(5), all_stand);
        if looks == MOST_LOOKS || all_grown() {
            Next::Over
        } else {
            Next::GoOn
        }
    };
    assert_eq!(traced.run(Whom::All, look, |_| false), Ran::Over);
    assert!(looks < MOST_LOOKS, "{:?} of {before:?}", writers.lengths());
}

#[test]
fn letting_go_of_a_process_that_was_killed_takes_no_time() {
    let mut writers = Writers::start();
    let mut traced = Traced::stop(writers.pid()).unwrap();
    traced.halt(BOUND);
    writers.child.kill().unwrap();
    assert!(settle(BOUND, || traced.has_ended().then_some(())).is_some());
    let started = Instant::now();
    drop(traced);
    let wall = started.elapsed();
    assert!(wall < LETTING_GO_BOUND / 4, "{wall:?}");
    assert!(!writers.child.wait().unwrap().success());
}

#[test]
fn a_process_that_is_killed_while_it_runs_is_let_go_at_once() {
    let writers = Writers::start();
    let mut traced = Traced::stop(writers.pid()).unwrap();
    let kill = || {
        nix::sys::signal::kill(writers.pid(), Signal::SIGKILL).unwrap();
        Next::Over
    };
    assert_eq!(traced.run(Whom::All, kill, |_| false), Ran::Over);
    let started = Instant::now();
    drop(traced);
    let wall = started.elapsed();
    assert!(wall < LETTING_GO_BOUND / 4, "{wall:?}");
}
