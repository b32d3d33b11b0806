//! `spillproof bench` on the emulated device, with small sizes: what it measures, what it writes down, and what it says when something is wrong.

use std::fs;

use libtest_mimic::Trial;
use serde_json::Value;
use spillproof::bench::golden_directory;

use crate::stage::{Ran, Stage, ran};
use crate::trial;

mod refusals;
mod torch;

pub(crate) fn tests() -> Vec<Trial> {
    let run = |name, body| trial(name, None, body);
    let own = vec![
        run("bench::calls_and_bytes_are_as_recorded", counts),
        run("bench::a_tensor_is_measured_beside_its_ceilings", tensor),
        run("bench::requests_and_a_swap_are_measured", requests_and_swap),
    ];
    let all = [own, refusals::tests(), torch::tests()];
    all.into_iter().flatten().collect()
}

/// Runs it on the emulated device, with its results beside it.
pub(super) fn bench(stage: &Stage, options: &[&str]) -> Ran {
    let mut command = stage.bench();
    command.args(["--device", "emulated", "--json", "out.json"]);
    if !options.contains(&"--resume") {
        command.args(["--lines", "out.jsonl"]);
    }
    ran(command.args(options))
}

pub(super) fn document(stage: &Stage) -> Value {
    let text = fs::read_to_string(stage.outside().join("out.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(super) fn lines(stage: &Stage) -> Vec<Value> {
    let text = fs::read_to_string(stage.outside().join("out.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// How often each row was measured, in the order of their names.
pub(super) fn runs(document: &Value) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for run in document["runs"].as_array().unwrap() {
        *counts
            .entry(run["row"].as_str().unwrap().into())
            .or_default() += 1;
    }
    counts.into_iter().collect()
}

fn summary<'d>(document: &'d Value, row: &str, step: &str) -> &'d Value {
    let all = document["summaries"].as_array().unwrap();
    let found = all
        .iter()
        .find(|one| one["row"] == row && one["step"] == step);
    found.unwrap_or_else(|| panic!("no {step} of {row} in {all:#?}"))
}

#[track_caller]
pub(super) fn ended(under: &Ran, status: i32) {
    assert_eq!(under.status, Some(status), "{under:#?}");
}

fn counts() {
    let stage = Stage::new();
    let under = bench(&stage, &[]);
    ended(&under, 0);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(golden_directory("bench"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("counts", under.stdout));
    let document = document(&stage);
    let counts = document["counts"].as_array().unwrap();
    let of = |workload: &str| {
        let found = counts.iter().find(|one| one["workload"] == workload);
        found.unwrap_or_else(|| panic!("{workload} is not in {counts:#?}"))
    };
    assert_eq!(of("store")["written_bytes"], 32 << 20);
    assert_eq!(of("load")["read_bytes"], 32 << 20);
    for still in ["request_again", "free_unmodified"] {
        assert_eq!(of(still)["written_bytes"], 0, "{still}");
    }
}

fn tensor() {
    let stage = Stage::new();
    let options = [
        "--tables",
        "tensor",
        "--bytes",
        "2MiB,8MiB",
        "--runs",
        "2",
        "--sample-bytes",
        "64KiB",
    ];
    let under = bench(&stage, &options);
    ended(&under, 0);
    let document = document(&stage);
    let row = |size: &str, who: &str| (format!("tensor/{size}/{who}"), 2);
    assert_eq!(
        runs(&document),
        [
            row("2MiB", "ceiling"),
            row("2MiB", "engine"),
            row("2MiB", "engine-cufile"),
            row("8MiB", "ceiling"),
            row("8MiB", "engine"),
            row("8MiB", "engine-cufile"),
        ]
    );
    for step in [
        "write",
        "read",
        "cached_4",
        "cached_16",
        "to_host",
        "to_device",
    ] {
        let ceiling = summary(&document, "tensor/8MiB/ceiling", step);
        assert_eq!(
            (&ceiling["runs"], &ceiling["bytes"]),
            (&2.into(), &(8 << 20).into())
        );
        assert!(ceiling["median_seconds"].as_f64().unwrap() > 0.0);
    }
    // Each way is tried once in all, and the one that was chosen stays.
    let tries = document["runs"].as_array().unwrap().iter();
    let tries = tries.filter(|run| run["row"] == "tensor/8MiB/ceiling");
    let trials = tries.map(|run| {
        let steps = run["steps"].as_array().unwrap().iter();
        steps.filter(|step| step["is_trial"] == true).count()
    });
    // Five numbers of threads, three sizes of calls, there and back.
    assert_eq!(trials.collect::<Vec<_>>(), [5 * 3 * 2, 0]);
    for (step, bound) in [("store", "write"), ("load_cold", "read")] {
        let own = summary(&document, "tensor/8MiB/engine", step);
        let ceiling = summary(&document, "tensor/8MiB/ceiling", bound);
        let ratio =
            ceiling["median_seconds"].as_f64().unwrap() / own["median_seconds"].as_f64().unwrap();
        assert_eq!(own["ceiling"], bound);
        assert!((own["of_ceiling"].as_f64().unwrap() - ratio).abs() < 1e-9);
    }
    let store = summary(&document, "tensor/8MiB/engine", "store");
    assert_eq!(store["ways"][0], "staged");
    let cufile = summary(&document, "tensor/8MiB/engine-cufile", "store");
    assert_eq!(cufile["ways"][0], "cufile_compat");
    for run in document["runs"].as_array().unwrap() {
        let is_first = run["run"] == 1 && !run["row"].as_str().unwrap().ends_with("ceiling");
        assert_eq!(run["is_verified"], is_first, "{run:#}");
    }
    let skipped = document["skipped"].as_array().unwrap();
    assert_eq!(skipped.len(), 4, "{skipped:#?}");
    assert!(
        under
            .stdout
            .contains("not measured: tensor/8MiB/torch-gds: PyTorch needs a real GPU")
    );
    assert!(
        under.stdout.contains("| engine | load_warm |"),
        "{}",
        under.stdout
    );
    // A session, a line for each run, one for each skip.
    assert_eq!(lines(&stage).len(), 1 + 12 + 4);
    let left = fs::read_dir(stage.sandboxes()).unwrap().count();
    assert_eq!(left, 0, "directories of runs are left");
}

fn requests_and_swap() {
    let stage = Stage::new();
    let options = [
        "--tables",
        "requests,swap",
        "--model-bytes",
        "4MiB",
        "--requests",
        "4",
        "--runs",
        "1",
        "--sample-bytes",
        "64KiB",
    ];
    let under = bench(&stage, &options);
    ended(&under, 0);
    let document = document(&stage);
    let row = |name: &str| (name.to_owned(), 1);
    assert_eq!(
        runs(&document),
        [
            row("requests/0/engine"),
            row("requests/0/engine-cufile"),
            row("requests/512/engine"),
            row("requests/512/engine-cufile"),
            row("swap/ceiling"),
            row("swap/engine"),
            row("swap/engine-cufile"),
        ]
    );
    for threshold in ["0", "512"] {
        let row = format!("requests/{threshold}/engine");
        let memory = &summary(&document, &row, "request_4")["memory"];
        for field in [
            "rss_start_bytes",
            "rss_end_bytes",
            "rss_peak_bytes",
            "uss_start_bytes",
            "uss_peak_bytes",
        ] {
            assert!(
                memory[field].as_u64().unwrap() > 1 << 20,
                "{row}: {memory:#}"
            );
        }
        // The parent's table: RSS and USS at start, end and peak of each request.
        assert!(under.stdout.contains(&format!("## requests/{threshold}\n")));
    }
    // What goes to RAM is in it: both models but for half of one, which is on the device.
    let resident = |threshold: &str| {
        let row = format!("requests/{threshold}/engine");
        let memory = &summary(&document, &row, "request_4")["memory"];
        memory["rss_end_bytes"].as_u64().unwrap()
    };
    assert!(
        resident("0") >= resident("512") + (3 << 20),
        "{}",
        under.stdout
    );
    let swap = summary(&document, "swap/engine", "swap");
    assert_eq!(swap["ceiling"], "mixed");
    let steps = document["runs"].as_array().unwrap().iter();
    let swap = steps
        .filter(|run| run["row"] == "swap/engine")
        .flat_map(|run| run["steps"].as_array().unwrap());
    let written: Vec<&Value> = swap
        .filter(|step| step["name"] == "swap")
        .map(|step| &step["written_bytes"])
        .collect();
    assert_eq!(written, [4 << 20]);
}
