//! A program in C: the same without a plan, and every fault in its own words. Threads, forks, programs that it becomes or starts, libraries
//! that it loads late.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use libtest_mimic::Trial;

use crate::stage::{Ran, Stage, ran};
use crate::trial;

const WELL: &str = "\
8 threads of 1000 writes: well
parent after fork: well
child after fork: well
child that became another program: well
spawned child: well
spawned child without an environment: well
library loaded late: well
block 1: well
block 2: well
block 3: well
";

pub(crate) fn tests() -> Vec<Trial> {
    let trial = |name, body| trial(name, None, body);
    vec![
        trial("c::it_does_the_same_without_a_plan", the_same),
        trial("c::of_8000_writes_in_8_threads_just_one_fails", threads),
        trial("c::both_sides_of_a_fork_are_counted", forked),
        trial(
            "c::programs_that_it_becomes_and_starts_meet_faults",
            children,
        ),
        trial("c::a_library_loaded_late_meets_a_fault", late),
        trial("c::the_device_runs_out_of_memory_once", device),
        trial(
            "c::signals_are_passed_on_and_the_end_by_one_is_told",
            signals,
        ),
        trial("c::arguments_status_and_streams_are_its_own", status),
    ]
}

struct Workload {
    stage: Stage,
    words: [std::path::PathBuf; 3],
}

impl Workload {
    fn new() -> Workload {
        let stage = Stage::new();
        let words = [
            stage.compile("workload.c", "workload", &["-pthread", "-ldl"]),
            stage.scope(),
            stage.compile("late.c", "liblate.so", &["-shared", "-fPIC"]),
        ];
        Workload { stage, words }
    }

    fn plain(&self) -> Ran {
        ran(self.stage.plain(&self.words[0]).args(&self.words[1..]))
    }

    fn under(&self, options: &[&str]) -> Ran {
        ran(self.stage.inject(options).args(&self.words))
    }
}

/// What the program says where one line is another.
fn instead(line: &str, other: &str) -> String {
    assert!(WELL.contains(line));
    WELL.replace(line, other)
}

fn the_same() {
    let workload = Workload::new();
    let plain = workload.plain();
    assert_eq!((plain.status, plain.stdout.as_str()), (Some(0), WELL));
    let under = workload.under(&[]);
    assert_eq!(
        (under.status, under.stdout.as_str()),
        (Some(0), WELL),
        "{under:#?}"
    );
    // 8 threads × 1000, both sides of the fork × 10, a child that became another program, a spawned one, the library.
    let counts = under.stderr.lines().next().unwrap();
    assert!(counts.contains(", write 8023, "), "{counts}");
    assert!(counts.ends_with(", cuMemAlloc 3, cuMemFree 3"), "{counts}");
    // The one without an environment has no interposer.
    let missing =
        "spillproof: 1 process that the program started ran without the interposer, uncounted: ";
    assert!(
        under.stderr.lines().nth(1).unwrap().starts_with(missing),
        "{under:#?}"
    );
    assert_eq!(under.stderr.lines().count(), 2, "{under:#?}");
}

fn threads() {
    let workload = Workload::new();
    let rule = "write:error=ENOSPC:when=4321:path=*/thread-*";
    let under = workload.under(&["--plan", rule]);
    let line = "8 threads of 1000 writes: 1 failed: No space left on device";
    assert_eq!(
        under.stdout,
        instead("8 threads of 1000 writes: well", line)
    );
    assert_eq!(under.status, Some(1));
    under.reports(&format!("{rule}: 1 of 8000 calls"));
    let fired: Vec<&str> = under
        .stderr
        .lines()
        .filter(|line| line.contains("fired at"))
        .collect();
    let [fired] = fired[..] else {
        panic!("{under:#?}")
    };
    assert!(
        fired.starts_with("spillproof:   fired at write, call 4321 of rule 1, in "),
        "{fired}"
    );
}

fn forked() {
    let workload = Workload::new();
    let rule = "write:error=EIO:when=11+:path=*/forked-by-*";
    let under = workload.under(&["--plan", rule]);
    under.reports(&format!("{rule}: 10 of 20 calls"));
    // Which side is later is nobody's promise, but the calls of both are numbered as one.
    let failed: u32 = under
        .stdout
        .lines()
        .filter(|line| line.contains("after fork"))
        .map(|line| match line.split_once(": ").unwrap() {
            (_, "well") => 0,
            ("child after fork", _) => 1,
            (_, failed) => failed.split_once(' ').unwrap().0.parse().unwrap(),
        })
        .sum();
    assert!((1..=11).contains(&failed), "{under:#?}");
    assert_eq!(under.status, Some(1));
}

fn children() {
    let workload = Workload::new();
    // The child that became another program comes first, the spawned one is second, the third is out of reach.
    let rule = "write:error=EDQUOT:when=1..2:path=*/one-*";
    let under = workload.under(&["--plan", rule]);
    under.reports(&format!("{rule}: 2 of 2 calls"));
    let expected = WELL
        .replace(
            "another program: well",
            "another program: 1 failed: Disk quota exceeded",
        )
        .replace(
            "spawned child: well",
            "spawned child: 1 failed: Disk quota exceeded",
        );
    assert_eq!(under.stdout, expected);
}

fn late() {
    let workload = Workload::new();
    let rule = "open:error=EACCES:caller=liblate.so";
    let under = workload.under(&["--plan", rule]);
    let line = "library loaded late: 1 failed: Permission denied";
    assert_eq!(under.stdout, instead("library loaded late: well", line));
    under.reports(&format!("{rule}: 1 of 1 calls"));
}

fn device() {
    let workload = Workload::new();
    let rule = "cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:when=2";
    let under = workload.under(&["--plan", rule]);
    let line = "block 2: the device is out of memory";
    assert_eq!(under.stdout, instead("block 2: well", line));
    assert_eq!(under.status, Some(1));
    under.reports(&format!("{rule}: 1 of 3 calls"));
}

fn signals() {
    let stage = Stage::new();
    let mut command = stage.inject(&[]);
    // Says when it is ready, and waits without end.
    command.args(["sh", "-c", "echo ready; read line"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let pid = child.id().to_string();
    assert!(
        ran(std::process::Command::new("sh").args(["-c", "kill -TERM $0", &pid])).status == Some(0)
    );
    // Waiting closes a standard input that is left in the child.
    let stdin = child.stdin.take();
    let status = child.wait().unwrap();
    drop(stdin);
    // The program died of it, not the command.
    assert_eq!((status.signal(), status.code()), (None, Some(128 + 15)));
}

fn status() {
    let stage = Stage::new();
    let script = "echo \"$0 $1\"; echo told >&2; exit 42";
    let under = ran(stage
        .inject(&[])
        .args(["sh", "-c", script, "--plan", "a b"]));
    assert_eq!(
        (under.status, under.stdout.as_str()),
        (Some(42), "--plan a b\n")
    );
    assert!(under.stderr.starts_with("told\n"), "{under:#?}");
}
