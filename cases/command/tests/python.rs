//! A script in Python: the same without a plan, and every fault as an exception of its own.

use libtest_mimic::Trial;

use crate::stage::{Ran, Stage, fixture, has, ran};
use crate::trial;

const WELL: &str = "\
buffered: 1000
positioned: 16384
mapped: bytes
child: child
device: one MiB
";

pub(crate) fn tests() -> Vec<Trial> {
    let impediment = (!has("python3")).then_some("there is no python3 here");
    let trial = |name, body| trial(name, impediment, body);
    vec![
        trial("python::it_does_the_same_without_a_plan", the_same),
        trial("python::a_full_disk_is_an_oserror", full),
        trial("python::a_mapping_that_is_refused_is_an_oserror", unmapped),
        trial("python::a_device_out_of_memory_is_a_memory_error", device),
        trial("python::its_child_meets_a_fault", child),
    ]
}

fn plain() -> Ran {
    let stage = Stage::new();
    ran(stage
        .plain("python3")
        .arg(fixture("workload.py"))
        .arg(stage.scope()))
}

fn under(options: &[&str]) -> Ran {
    let stage = Stage::new();
    let mut command = stage.inject(options);
    command.arg("python3").arg(fixture("workload.py"));
    ran(command.arg(stage.scope()))
}

fn the_same() {
    let plain = plain();
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
    let counts = under.stderr.lines().next().unwrap();
    assert!(counts.contains(", pwrite 4, "), "{counts}");
    assert_eq!(under.stderr.lines().count(), 1, "{under:#?}");
}

/// One line is another, and the script ends with 1.
fn differs(rule: &str, line: &str, other: &str, count: &str) {
    let under = under(&["--plan", rule]);
    assert_eq!(under.stdout, WELL.replace(line, other), "{under:#?}");
    assert_eq!(under.status, Some(1));
    under.reports(&format!("{rule}: {count}"));
}

fn full() {
    let error = "OSError: [Errno 28] No space left on device";
    differs(
        "pwrite:error=ENOSPC:when=3",
        "positioned: 16384",
        &format!("positioned: {error}"),
        "1 of 3 calls",
    );
    differs(
        "write:error=ENOSPC:path=*/buffered",
        "buffered: 1000",
        &format!("buffered: {error}"),
        "1 of 1 calls",
    );
}

fn unmapped() {
    differs(
        "mmap:error=ENOMEM:path=*/mapped",
        "mapped: bytes",
        "mapped: OSError: [Errno 12] Cannot allocate memory",
        "1 of 1 calls",
    );
}

fn device() {
    differs(
        "cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY",
        "device: one MiB",
        "device: MemoryError: the device has no MiB left",
        "1 of 1 calls",
    );
}

fn child() {
    let under = under(&["--plan", "write:error=EIO:path=*/child"]);
    assert_eq!(
        under.stdout,
        WELL.replace("child: child", "child: "),
        "{under:#?}"
    );
    assert_eq!(under.status, Some(0));
    under.reports("write:error=EIO:path=*/child: 1 of 1 calls");
}
