//! What is red, what is refused, and what a later command goes on with.

use std::fs;

use libtest_mimic::Trial;

use super::{bench, document, ended, lines, runs};
use crate::stage::{Stage, ran};
use crate::trial;

pub(super) fn tests() -> Vec<Trial> {
    let run = |name, body| trial(name, None, body);
    vec![
        run("bench::wrong_bytes_are_red", wrong_bytes),
        run(
            "bench::a_subject_that_does_something_else_is_red",
            something_else,
        ),
        run(
            "bench::what_is_missing_is_measured_by_a_later_command",
            resumed,
        ),
        run("bench::what_cannot_be_is_refused", refusals),
    ]
}

fn wrong_bytes() {
    let stage = Stage::new();
    let mut command = stage.bench();
    // Copies that nobody waited for.
    command.env("SPILLPROOF_SPECIMEN", "S15");
    command.args([
        "--device", "emulated", "--tables", "tensor", "--bytes", "2MiB", "--runs", "3",
    ]);
    command.args([
        "--only",
        "specimen-S15",
        "--json",
        "out.json",
        "--lines",
        "out.jsonl",
    ]);
    let under = ran(&mut command);
    ended(&under, 1);
    assert!(
        under.stderr.contains(
            "FAIL  tensor/2MiB/specimen-S15: wrong bytes after load_cold: tensor t0.0 is "
        ),
        "{under:#?}"
    );
    assert!(
        under
            .stdout
            .contains("FAILED: tensor/2MiB/specimen-S15: wrong bytes")
    );
    // It is not tried again.
    assert_eq!(lines(&stage).len(), 2);
}

fn something_else() {
    let stage = Stage::new();
    let mut command = stage.bench();
    // It says that it stored what it kept in RAM.
    command.args([
        "--device", "emulated", "--tables", "tensor", "--bytes", "2MiB", "--runs", "1",
    ]);
    command.args([
        "--only",
        "engine",
        "--env",
        "MMAP_MEM_THRESHOLD_GB=0",
        "--lines",
        "out.jsonl",
    ]);
    let under = ran(&mut command);
    ended(&under, 1);
    assert!(
        under
            .stderr
            .contains("FAIL  tensor/2MiB/engine: 0 of 2097152 bytes were written to a file"),
        "{under:#?}"
    );
}

fn resumed() {
    let stage = Stage::new();
    let common = [
        "--tables",
        "tensor",
        "--bytes",
        "2MiB",
        "--sample-bytes",
        "64KiB",
        "--only",
        "engine,ceiling",
    ];
    let with = |more: &[&str]| bench(&stage, &[&common[..], more].concat());
    // No time at all.
    let none = with(&["--runs", "2", "--time-limit", "0"]);
    ended(&none, 3);
    assert!(
        none.stdout.contains(
            "- tensor/2MiB/engine lacks 2 runs, the time limit came; go on with --resume"
        )
    );
    let stored = ["--runs", "1", "--resume", "out.jsonl", "--loads", "none"];
    ended(&with(&stored), 0);
    let of_engine = document(&stage)["runs"][1].clone();
    let steps = of_engine["steps"].as_array().unwrap().iter();
    let steps: Vec<_> = steps.map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(
        (steps, &of_engine["is_verified"]),
        (vec!["load_m", "store"], &true.into())
    );
    let first = document(&stage)["runs"].clone();
    ended(&with(&["--runs", "2", "--resume", "out.jsonl"]), 0);
    let document = document(&stage);
    assert_eq!(
        runs(&document),
        [
            ("tensor/2MiB/ceiling".to_owned(), 2),
            ("tensor/2MiB/engine".to_owned(), 2)
        ]
    );
    // What was there stays as it was.
    assert_eq!(document["runs"][0], first[0]);
    assert_eq!(document["sessions"].as_array().unwrap().len(), 3);
    let other = with(&[
        "--runs",
        "2",
        "--resume",
        "out.jsonl",
        "--env",
        "OFFLOAD_DURABLE=1",
    ]);
    ended(&other, 2);
    assert!(
        other
            .stderr
            .contains("was measured with --env \"\", now it is \"OFFLOAD_DURABLE=1\""),
        "{other:#?}"
    );
}

fn refusals() {
    let stage = Stage::new();
    let refused = |options: &[&str], status, error: &str| {
        let mut command = stage.bench();
        let under = ran(command.args(options).args(["--lines", "out.jsonl"]));
        ended(&under, status);
        assert!(under.stderr.contains(error), "{under:#?}");
        assert_eq!(under.stdout, "");
    };
    refused(
        &["--device", "cuda:99"],
        2,
        "there is no device cuda:99; choose among emulated",
    );
    let tensor = ["--device", "emulated", "--tables", "tensor"];
    refused(
        &[&tensor[..], &["--bytes", "5000"]].concat(),
        2,
        "--bytes 5000 is no multiple of 4096 bytes",
    );
    refused(
        &[&tensor[..], &["--only", "nobody"]].concat(),
        4,
        "no row is chosen",
    );
    refused(
        &[&tensor[..], &["--gpu", "require"]].concat(),
        4,
        "no GPU was found or chosen",
    );
    refused(&["--env", "novalue"], 2, "\"novalue\" is not NAME=VALUE");
    refused(
        &[&tensor[..], &["--directory", "/dev/shm"]].concat(),
        75,
        "/dev/shm is on a tmpfs",
    );
    fs::write(stage.outside().join("odd.jsonl"), "{}\n").unwrap();
    let mut command = stage.bench();
    let under = ran(command.args(tensor).args(["--resume", "odd.jsonl"]));
    ended(&under, 2);
    assert!(
        under
            .stderr
            .contains("line 1 of odd.jsonl is no record of a benchmark"),
        "{under:#?}"
    );
}
