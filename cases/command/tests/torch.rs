//! PyTorch on a real GPU: the same without a plan; with one, device memory runs out once, the disk once, and the script goes on.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::stage::{Ran, Stage, fixture, has, ran};
use crate::trial;

const WELL: &str = r#"{"stage": "allocate", "try": 1, "result": 16777216.0}
{"stage": "save", "try": 1, "result": true}
{"stage": "allocate again", "try": 1, "result": 16777216.0}
{"stage": "end", "unrecovered": 0}
"#;

pub(crate) fn tests() -> Vec<Trial> {
    let impediment = impediment();
    let impediment = impediment.as_deref();
    vec![
        trial(
            "torch::it_does_the_same_without_a_plan",
            impediment,
            the_same,
        ),
        trial(
            "torch::a_device_and_a_disk_without_room_are_told_and_got_over",
            impediment,
            both,
        ),
    ]
}

/// Found out without a CUDA context: listing must not make one.
fn impediment() -> Option<String> {
    if !Path::new("/proc/driver/nvidia/version").exists() {
        return Some("there is no GPU here".to_owned());
    }
    if !has("python3") {
        return Some("there is no python3 here".to_owned());
    }
    let found = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)";
    let status = Command::new("python3").args(["-c", found]).status();
    (!status.is_ok_and(|status| status.success())).then(|| "python3 has no torch here".to_owned())
}

fn the_same() {
    let stage = Stage::new();
    let mut plain = stage.plain("python3");
    plain.arg(fixture("torch_oom.py")).arg(stage.scope());
    let plain = ran(plain.env_remove("LD_LIBRARY_PATH"));
    assert_eq!(
        (plain.status, plain.stdout.as_str()),
        (Some(0), WELL),
        "{plain:#?}"
    );
    let under = under(&[]);
    assert_eq!(
        (under.status, under.stdout.as_str()),
        (Some(0), WELL),
        "{under:#?}"
    );
}

fn both() {
    let oom = "cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:when=1..2";
    let full = "write:error=ENOSPC:when=1";
    let under = under(&["--plan", &format!("{oom};{full}")]);
    eprintln!("{}{}", under.stdout, under.stderr);
    let lines: Vec<&str> = under.stdout.lines().collect();
    let [refused, allocated, unsaved, saved, again, end] = lines[..] else {
        panic!("{under:#?}");
    };
    assert!(
        refused.starts_with(r#"{"stage": "allocate", "try": 1, "error": "OutOfMemoryError", "#),
        "{refused}"
    );
    assert_eq!(
        allocated,
        r#"{"stage": "allocate", "try": 2, "result": 16777216.0}"#
    );
    assert_eq!(
        unsaved,
        r#"{"stage": "save", "try": 1, "error": "OSError", "text": "[Errno 28] No space left on device"}"#
    );
    assert_eq!(saved, r#"{"stage": "save", "try": 2, "result": true}"#);
    let well: Vec<&str> = WELL.lines().collect();
    assert_eq!([again, end], well[2..]);
    assert_eq!(under.status, Some(0));
    assert_eq!(
        under.stderr.matches("fired at cuMemAlloc").count(),
        2,
        "{under:#?}"
    );
    assert_eq!(
        under.stderr.matches("fired at write").count(),
        1,
        "{under:#?}"
    );
}

fn under(options: &[&str]) -> Ran {
    let stage = Stage::new();
    let mut command = stage.inject(options);
    command.arg("python3").arg(fixture("torch_oom.py"));
    // The machine's own driver.
    ran(command.arg(stage.scope()).env_remove("LD_LIBRARY_PATH"))
}
