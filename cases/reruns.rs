//! Trials of the suite itself: what it prints for a red run is given to `sh` and must show the same again.

use crate::{
    bench::{self, Judged, SPECIMEN_VARIABLE},
    minimal::MINIMISE_VARIABLE,
    replay::{PLAN_VARIABLE, quoted},
};
use spillproof_harness::invariants;
use std::{
    collections::BTreeSet,
    env, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

/// A trial without a case: its name, and what it does.
pub type Rerun = (&'static str, fn() -> Result<(), String>);

/// All of them.
pub const RERUNS: &[Rerun] = &[
    ("replay::a_printed_line_shows_the_same_again", || {
        SHOWN.iter().try_for_each(shows_the_same_again)
    }),
    (
        "replay::a_needless_rule_is_left_out",
        a_needless_rule_is_left_out,
    ),
    (
        "replay::a_plan_that_is_none_ends_the_suite",
        a_plan_that_is_none,
    ),
    (
        "replay::a_subject_that_no_fault_reaches_is_red",
        a_subject_that_no_fault_reaches,
    ),
    (
        "replay::a_subject_that_refuses_the_interposer_is_judged_without_it",
        a_subject_that_refuses_the_interposer,
    ),
];

/// Who is judged, by which case, under which plan; by the case's own where none is given. And what it is worth.
struct Shown {
    specimen: &'static str,
    case: &'static str,
    plan: Option<&'static str>,
    word: &'static str,
    invariants: &'static [&'static str],
}

const SHOWN: &[Shown] = &[
    Shown {
        specimen: "S19",
        case: "disk::device_oom_for_good",
        plan: None,
        word: "FAIL",
        invariants: &["data"],
    },
    // A pattern in which sh would see more than a name.
    Shown {
        specimen: "S1",
        case: "oom::forced_1e30",
        plan: Some("pwrite,write:delay=1us:when=1;mmap:error=ENOMEM:path=*/it's $HOME"),
        word: "FAIL",
        invariants: &["policy", "progress"],
    },
    // One point of a search.
    Shown {
        specimen: "M21",
        case: "crash_points::reload_kill",
        plan: Some("close,munmap:signal=KILL:when=1"),
        word: "FAIL",
        invariants: &["files", "truth"],
    },
    // A trial that a gate leaves out.
    Shown {
        specimen: "S1",
        case: "pairs::drawn_19",
        plan: Some("mmap:delay=1us"),
        word: "FAIL",
        invariants: &["policy"],
    },
    Shown {
        specimen: "healthy",
        case: "oom::forced_1e30",
        plan: Some("cuMemPoolCreate:error=CUDA_ERROR_OUT_OF_MEMORY:when=1000"),
        word: "????",
        invariants: &[],
    },
];

fn shows_the_same_again(shown: &Shown) -> Result<(), String> {
    let stage = Stage::new().map_err(|error| format!("no directory to work in: {error}"))?;
    let trial = format!("{}[emulated]", shown.case);
    let mut first = scrubbed(&stage.suite);
    first
        .args(["--exact", &trial, "--nocapture"])
        .env(SPECIMEN_VARIABLE, shown.specimen);
    if let Some(plan) = shown.plan {
        first.env(PLAN_VARIABLE, plan);
    }
    let first = Red::of(run(&mut first)?)?;
    let is_expected = first.word == shown.word
        && first.invariants == shown.invariants.iter().map(ToString::to_string).collect();
    if !is_expected {
        return Err(format!(
            "{} by {}: {} {:?} in place of {} {:?}:\n{}",
            shown.specimen,
            trial,
            first.word,
            first.invariants,
            shown.word,
            shown.invariants,
            first.text
        ));
    }
    // The line itself, as it stands there; cargo is one that runs what is built already.
    let mut again = scrubbed(Path::new("sh"));
    again.args(["-c", &first.again]).env("PATH", stage.path());
    let again = Red::of(run(&mut again)?)?;
    if (&again.word, &again.invariants, &again.again)
        != (&first.word, &first.invariants, &first.again)
    {
        return Err(format!(
            "{}\nshows {} {:?}, not {} {:?}:\n{}",
            first.again, again.word, again.invariants, first.word, first.invariants, again.text
        ));
    }
    Ok(())
}

/// What is printed as smaller is smaller, and fails by the same invariant.
fn a_needless_rule_is_left_out() -> Result<(), String> {
    let stage = Stage::new().map_err(|error| format!("no directory to work in: {error}"))?;
    let mut first = scrubbed(&stage.suite);
    first
        .args(["--exact", "disk::device_oom_for_good[emulated]", "--nocapture"])
        .env(SPECIMEN_VARIABLE, "S19")
        .env(MINIMISE_VARIABLE, "1")
        .env(
            PLAN_VARIABLE,
            "pwrite,write:delay=1us:when=1;cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:when=8+;mmap:delay=1us",
        );
    let first = Red::of(run(&mut first)?)?;
    let mut lines = first.text.lines();
    let found = lines.find(|line| line.starts_with("  minimal:"));
    let line = lines.next().map(str::trim).unwrap_or_default();
    let is_smaller = found
        .is_some_and(|found| found.contains("data fails still with 1 of 3 rules and"))
        && line.contains(&format!(
            "{PLAN_VARIABLE}='cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:when=8+' "
        ))
        && line.contains("SPILLPROOF_STEPS=");
    if !is_smaller {
        return Err(format!("not made smaller:\n{}", first.text));
    }
    let mut again = scrubbed(Path::new("sh"));
    again.args(["-c", line]).env("PATH", stage.path());
    let again = Red::of(run(&mut again)?)?;
    if !again.invariants.contains("data") {
        return Err(format!(
            "{line}\nshows {:?}:\n{}",
            again.invariants, again.text
        ));
    }
    Ok(())
}

fn a_plan_that_is_none() -> Result<(), String> {
    let suite = env::current_exe().map_err(|error| error.to_string())?;
    for (plan, told) in [
        (
            "pwrite:error=ENOSP",
            "\n  pwrite:error=ENOSP\n               ^ \"ENOSP\" is no error; did you mean ENOSPC?\n",
        ),
        (
            "pwirte:error=EIO",
            "\n  pwirte:error=EIO\n  ^ \"pwirte\" is no site; did you mean pwrite?\n",
        ),
        ("mmap:error=ENOSPC", "mmap cannot return ENOSPC"),
        ("", "the plan is empty"),
    ] {
        let output = run(scrubbed(&suite).arg("--list").env(PLAN_VARIABLE, plan))?;
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(2) || !text.contains(told) {
            return Err(format!(
                "{plan:?}: {}, {text:?}, not 2 and {told:?}",
                output.status
            ));
        }
    }
    Ok(())
}

/// It takes the interposer out of its environment and does well.
fn a_subject_that_no_fault_reaches() -> Result<(), String> {
    let bench = bench::bench(&Judged::Engine)?;
    let subject = format!("env -u LD_PRELOAD {}", bench.subject.program.display());
    let suite = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = scrubbed(&suite);
    command
        .args(["--exact", "disk::eio_on_write[emulated]"])
        .env(bench::SUBJECT_VARIABLE, subject);
    let output = run(&mut command)?;
    let text = String::from_utf8_lossy(&output.stderr);
    let told = format!(
        "inconclusive: no fault reaches the subject: {} is not in it; it may be statically linked, or LD_PRELOAD was taken out of its environment",
        bench.interposer.display()
    );
    if output.status.code() == Some(101) && text.contains(&told) {
        return Ok(());
    }
    Err(format!("{}, not 101 and {told:?}:\n{text}", output.status))
}

/// As a program of another C library does, whose loader finds symbols missing: what needs no fault is judged all the same.
fn a_subject_that_refuses_the_interposer() -> Result<(), String> {
    let bench = bench::bench(&Judged::Engine)?;
    let stage = Stage::new().map_err(|error| format!("no directory to work in: {error}"))?;
    let refusing = stage.directory.join("refusing");
    let script = format!(
        "#!/bin/sh\n[ -z \"$LD_PRELOAD\" ] || exit 127\nexec {}\n",
        quoted(&bench.subject.program.display().to_string())
    );
    let written = fs::write(&refusing, script)
        .and_then(|()| fs::set_permissions(&refusing, fs::Permissions::from_mode(0o700)));
    written.map_err(|error| error.to_string())?;
    for (case, status, told) in [
        ("oom::forced_1e30[emulated]", 0, "no ledger of calls"),
        ("disk::edquot[emulated]", 101, "exit status 127"),
    ] {
        let mut command = scrubbed(&stage.suite);
        command
            .args(["--exact", case])
            .env(bench::SUBJECT_VARIABLE, &refusing);
        let output = run(&mut command)?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        if output.status.code() != Some(status) || !text.contains(told) {
            return Err(format!(
                "{case}: {}, not {status} and {told:?}:\n{text}",
                output.status
            ));
        }
    }
    Ok(())
}

/// A red run as it was printed.
struct Red {
    word: String,
    invariants: BTreeSet<String>,
    again: String,
    text: String,
}

impl Red {
    fn of(output: Output) -> Result<Self, String> {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let strange = |what: &str| format!("{what}, {}:\n{text}", output.status);
        if output.status.code() != Some(101) {
            return Err(strange("a red run ends with 101"));
        }
        let lines = || text.lines();
        let error = lines().find_map(|line| line.strip_prefix("Error: "));
        let word = error.and_then(|line| line.split_whitespace().next());
        let again: Vec<&str> = lines()
            .filter_map(|line| line.strip_prefix("  again:"))
            .collect();
        let [again] = again[..] else {
            return Err(strange("one line must show it again"));
        };
        let is_invariant = |word: &&str| invariants::ALL.iter().any(|(id, _)| id.name() == *word);
        let named = lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        Ok(Self {
            word: word.ok_or_else(|| strange("no verdict"))?.to_owned(),
            invariants: named.filter(is_invariant).map(str::to_owned).collect(),
            again: again.trim().to_owned(),
            text,
        })
    }
}

/// A directory with a `cargo` that runs the suite that is running now.
struct Stage {
    directory: PathBuf,
    suite: PathBuf,
}

impl Stage {
    fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let suite = env::current_exe()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("reruns-{}-{number}", std::process::id());
        // Where programs may be run: temporary directories may forbid it.
        let directory = suite.with_file_name(name);
        fs::create_dir(&directory)?;
        let stage = Self { directory, suite };
        let cargo = stage.directory.join("cargo");
        fs::write(&cargo, CARGO)?;
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o700))?;
        Ok(stage)
    }

    fn path(&self) -> String {
        let inherited = env::var("PATH").unwrap_or_default();
        format!("{}:{inherited}", self.directory.display())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What stays is in the build directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Takes what the line says up to `--`, and nothing else.
const CARGO: &str = r#"#!/bin/sh
test "$1 $2 $3 $4" = "test --test fault_suite --" || { echo "cargo $*" >&2; exit 3; }
shift 4
exec "$SUITE" "$@"
"#;

/// With nothing of what this run itself was asked to do.
fn scrubbed(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SPILLPROOF_") && text != crate::bench::DIRECTORY_VARIABLE {
            command.env_remove(&name);
        }
    }
    if let Ok(suite) = env::current_exe() {
        command.env("SUITE", suite);
    }
    command
}

fn run(command: &mut Command) -> Result<Output, String> {
    command
        .output()
        .map_err(|error| format!("cannot run {command:?}: {error}"))
}
