//! PyTorch's subjects, as far as they go without a GPU.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;

use super::{document, ended, runs};
use crate::stage::{Stage, has, ran, text};
use crate::trial;

const PYTHON: &str = "SPILLPROOF_PYTHON";

pub(super) fn tests() -> Vec<Trial> {
    let python = (!has("python3")).then_some("there is no python3 here");
    let torch = (!has_torch())
        .then_some("the Python that SPILLPROOF_PYTHON names, or python3, has no torch and numpy");
    vec![
        trial(
            "bench::python_without_torch_is_a_skip",
            python,
            without_torch,
        ),
        trial("bench::torch_is_measured_on_the_cpu", torch, torch_cpu),
    ]
}

fn python() -> PathBuf {
    std::env::var_os(PYTHON).map_or_else(|| "python3".into(), PathBuf::from)
}

fn has_torch() -> bool {
    let found = "import importlib.util as u, sys; sys.exit(any(u.find_spec(n) is None for n in ('torch', 'numpy')))";
    let status = std::process::Command::new(python())
        .args(["-c", found])
        .status();
    status.is_ok_and(|status| status.success())
}

fn on_the_cpu(who: &str) -> Vec<String> {
    let words = [
        "--device",
        "emulated",
        "--tables",
        "tensor,requests",
        "--bytes",
        "2MiB",
        "--model-bytes",
        "2MiB",
        "--requests",
        "3",
        "--runs",
        "1",
        "--only",
        who,
        "--env",
        "SPILLPROOF_TORCH_DEVICE=cpu",
        "--json",
        "out.json",
        "--lines",
        "out.jsonl",
        "--python",
    ];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.push(text(&python()).into());
    words
}

fn without_torch() {
    let stage = Stage::new();
    let package = stage.outside().join("packages/torch");
    fs::create_dir_all(&package).unwrap();
    fs::write(
        package.join("__init__.py"),
        "raise ImportError('it is not here')\n",
    )
    .unwrap();
    let mut command = stage.bench();
    command.env("PYTHONPATH", stage.outside().join("packages"));
    let under = ran(command.args(on_the_cpu("torch-cpu")));
    // Nothing was measured.
    ended(&under, 4);
    assert!(
        under.stdout.contains("not measured: tensor/2MiB/torch-cpu: open: cuda_missing: PyTorch cannot be imported: it is not here; install torch"),
        "{under:#?}"
    );
}

fn torch_cpu() {
    let stage = Stage::new();
    let mut command = stage.bench();
    let under = ran(command.args(on_the_cpu("torch-cpu")));
    ended(&under, 0);
    let document = document(&stage);
    let row = |name: &str| (name.to_owned(), 1);
    assert_eq!(
        runs(&document),
        [
            row("requests/0/torch-cpu"),
            row("requests/512/torch-cpu"),
            row("tensor/2MiB/torch-cpu")
        ]
    );
    for run in document["runs"].as_array().unwrap() {
        assert_eq!(run["is_verified"], true, "{run:#}");
    }
    let mut command = stage.bench();
    let under = ran(command.args(on_the_cpu("torch-gds")));
    ended(&under, 4);
    assert!(
        under.stdout.contains("torch.cuda.gds does not serve cpu"),
        "{under:#?}"
    );
}
