//! What the machine itself does at most, measured by a program of its own beside the subjects.

use super::{
    failure::{Clock, Failure},
    record::{Run, Step},
};
use crate::{error::HarnessError, subject::Helper};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
};

/// Ways that are tried for direct transfers: threads, and bytes of one call.
const THREADS: [u64; 5] = [1, 2, 4, 8, 12];
const CHUNK_BYTES: [u64; 3] = [1 << 20, 4 << 20, 16 << 20];

/// Ways in which the page cache is read.
const CACHED_THREADS: [u64; 3] = [4, 8, 16];
const CACHED_BYTES: u64 = 4 << 20;

/// What the ceilings of a tensor are of, and what the one of a swap is.
const OF_TENSORS: [&str; 5] = ["write", "read", "cached", "to_host", "to_device"];
const OF_SWAPS: [&str; 1] = ["mixed"];

/// What is asked of the program.
pub(super) struct Wish<'b> {
    pub(super) program: &'b Path,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) directory: &'b Path,
    pub(super) bytes: u64,
    pub(super) is_of_swaps: bool,
    /// Bytes of each try.
    pub(super) sample_bytes: u64,
    /// Earlier runs of the row: what was chosen then stays.
    pub(super) earlier: Vec<&'b Run>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    measured: Vec<Measured>,
    tried: Vec<Measured>,
    skipped: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    what: String,
    bytes: u64,
    seconds: f64,
    threads: u64,
    chunk_bytes: u64,
    #[serde(default)]
    sync_seconds: Option<f64>,
}

impl Measured {
    fn step(self, is_trial: bool) -> Step {
        let name = match self.what.as_str() {
            "cached" => format!("cached_{}", self.threads),
            _ => self.what,
        };
        Step {
            name,
            bytes: self.bytes,
            seconds: self.seconds,
            threads: Some(self.threads),
            chunk_bytes: Some(self.chunk_bytes),
            sync_seconds: self.sync_seconds,
            is_trial,
            ..Step::default()
        }
    }
}

/// Measures once. What could not be measured is told beside the run.
pub(super) fn run(
    wish: &Wish<'_>,
    clock: Clock,
) -> Result<(Run, BTreeMap<String, String>), Failure> {
    let line = answer(arguments(wish), wish, clock)?;
    let answer: Answer = serde_json::from_str(&line).map_err(|error| {
        HarnessError::Case(format!(
            "{} answered {line:?}: {error}",
            wish.program.display()
        ))
    })?;
    let tried = answer.tried.into_iter().map(|one| one.step(true));
    let measured = answer.measured.into_iter().map(|one| one.step(false));
    let run = Run {
        steps: tried.chain(measured).collect(),
        ..Run::default()
    };
    Ok((run, answer.skipped))
}

fn arguments(wish: &Wish<'_>) -> Vec<String> {
    let kinds: &[&str] = if wish.is_of_swaps {
        &OF_SWAPS
    } else {
        &OF_TENSORS
    };
    let ways = |threads: &[u64], chunks: &[u64]| {
        let all = threads
            .iter()
            .flat_map(|threads| chunks.iter().map(move |bytes| format!("{threads}x{bytes}")));
        all.collect::<Vec<_>>().join(",")
    };
    let mut arguments = vec![
        "--bytes".to_owned(),
        wish.bytes.to_string(),
        "--measure".into(),
        kinds.join(","),
        "--candidates".into(),
        ways(&THREADS, &CHUNK_BYTES),
        "--sample-bytes".into(),
        wish.sample_bytes.to_string(),
        "--cached".into(),
        ways(&CACHED_THREADS, &[CACHED_BYTES]),
    ];
    for kind in ["write", "read", "mixed"] {
        let measured = |run: &&Run| {
            let mut steps = run.steps.iter();
            let found = steps.find(|step| !step.is_trial && step.name == kind)?;
            Some(format!("{kind}={}x{}", found.threads?, found.chunk_bytes?))
        };
        if let Some(known) = wish.earlier.iter().find_map(measured) {
            arguments.extend(["--known".into(), known]);
        }
    }
    arguments
}

/// What the program prints; it is ended when time is over.
fn answer(arguments: Vec<String>, wish: &Wish<'_>, clock: Clock) -> Result<String, Failure> {
    let mut command = Command::new(wish.program);
    command
        .args(arguments)
        .arg("--directory")
        .arg(wish.directory)
        .env_clear()
        .envs(wish.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut program = Helper::start(command)?;
    let (_, Some(mut stdout)) = program.pipes() else {
        return Err(HarnessError::Case("the ceiling program has no pipe".into()).into());
    };
    let (told, telling) = mpsc::channel();
    let reader = thread::Builder::new().name("ceiling".into());
    reader
        .spawn(move || {
            let mut text = String::new();
            let read = stdout.read_to_string(&mut text);
            // Nobody waits any more when time was over.
            let _ = told.send(read.map(|_| text));
        })
        .map_err(HarnessError::system("ceiling thread"))?;
    match telling.recv_timeout(clock.call_bound()) {
        Ok(read) => Ok(read.map_err(HarnessError::system("read"))?),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Failure::OutOfTime),
    }
}

#[cfg(test)]
mod tests {
    //! What is asked of the program, and what its answer becomes.
    use super::*;

    fn wish<'b>(program: &'b Path, earlier: Vec<&'b Run>) -> Wish<'b> {
        Wish {
            program,
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            directory: Path::new("/"),
            bytes: 8192,
            is_of_swaps: false,
            sample_bytes: 4096,
            earlier,
        }
    }

    #[test]
    fn what_was_chosen_in_an_earlier_run_is_not_chosen_again() {
        let step = |name: &str, threads, is_trial| Step {
            name: name.into(),
            threads: Some(threads),
            chunk_bytes: Some(4096),
            is_trial,
            ..Step::default()
        };
        let run = Run {
            steps: vec![step("write", 1, true), step("write", 8, false)],
            ..Run::default()
        };
        let arguments = arguments(&wish(Path::new("none"), vec![&run]));
        let known: Vec<_> = arguments
            .iter()
            .skip_while(|word| *word != "--known")
            .collect();
        assert_eq!(known, ["--known", "write=8x4096"]);
    }

    #[test]
    fn an_answer_becomes_steps_and_what_is_no_answer_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        let says = |text: &str| {
            std::fs::write(&program, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(&program, mode).unwrap();
            run(&wish(&program, Vec::new()), Clock::start(None))
        };
        let (run, skipped) = says(
            r#"{"measured":[{"what":"cached","bytes":8192,"seconds":0.5,"threads":4,"chunk_bytes":4096}],
                "tried":[{"what":"write","bytes":4096,"seconds":1.5,"threads":1,"chunk_bytes":4096,"sync_seconds":0.1}],
                "skipped":{"to_host":"no CUDA library"}}"#,
        )
        .unwrap();
        assert_eq!(run.steps[0].name, "write");
        assert!(run.steps[0].is_trial && !run.steps[1].is_trial);
        assert_eq!(
            (run.steps[1].name.as_str(), run.steps[1].seconds),
            ("cached_4", 0.5)
        );
        assert_eq!(skipped["to_host"], "no CUDA library");
        let error = says("nonsense").unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
    }
}
