//! Probes see exactly what a process did, and say so when it is gone.

use crate::{
    bench::{Bench, PATIENCE},
    trial,
};
use libtest_mimic::Trial;
use nix::unistd::{SysconfVar, sysconf};
use spillproof_harness::{
    probe::{self, PeakWatch, ProbeError, ProcessReading, Uss},
    settle::settle,
};
use std::{collections::BTreeMap, fs, path::Path};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "an_open_descriptor_is_counted_by_its_target_and_no_more",
            descriptor,
        ),
        trial("a_mapped_file_is_counted_and_its_removal_is_seen", mapping),
        trial("bytes_written_to_files_are_counted_in_pages", written),
        trial("every_probe_of_a_dead_process_says_that_it_is_gone", dead),
        trial(
            "a_peak_that_was_not_watched_to_its_end_is_gone",
            dead_while_watched,
        ),
    ]
}

fn read(bench: &Bench) -> ProcessReading {
    probe::process(bench.subject.pid()).unwrap()
}

/// What `after` has more than `before`, or less.
fn changes<K: Ord + Clone>(before: &BTreeMap<K, u64>, after: &BTreeMap<K, u64>) -> Vec<(K, i64)> {
    let count = |map: &BTreeMap<K, u64>, key: &K| map.get(key).copied().unwrap_or(0).cast_signed();
    let mut keys: Vec<K> = before.keys().chain(after.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| (key.clone(), count(after, &key) - count(before, &key)))
        .filter(|(_, change)| *change != 0)
        .collect()
}

fn descriptor() {
    let mut bench = Bench::greeted("works");
    let file = bench.sandbox.offload_dir().join("data");
    fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    let before = read(&bench).descriptors;
    bench.ask(&format!("open {file}"));
    let open = read(&bench).descriptors;
    assert_eq!(changes(&before, &open), [(file.to_owned(), 1)]);
    bench.ask(&format!("close {file}"));
    assert_eq!(read(&bench).descriptors, before);
}

fn mapping() {
    let mut bench = Bench::greeted("works");
    let file = bench.sandbox.offload_dir().join("data");
    fs::write(&file, vec![1; 8192]).unwrap();
    let name = file.to_str().unwrap();
    let before = read(&bench);
    assert!(before.file_maps.keys().all(|path| path.is_absolute()));
    bench.ask(&format!("map {name}"));
    let mapped = read(&bench);
    assert_eq!(
        changes(&before.file_maps, &mapped.file_maps),
        [(file.clone(), 1)]
    );
    assert_eq!(mapped.maps_total, before.maps_total + 1);
    assert_eq!(mapped.descriptors, before.descriptors);
    fs::remove_file(&file).unwrap();
    let deleted = Path::new(&format!("{name} (deleted)")).to_owned();
    assert_eq!(read(&bench).file_maps[&deleted], 1);
    bench.ask(&format!("unmap {name}"));
    assert_eq!(read(&bench).file_maps, before.file_maps);
}

fn written() {
    let mut bench = Bench::greeted("works");
    let before = probe::written_bytes(bench.subject.pid()).unwrap();
    bench.ask("write data 100000");
    let written = probe::written_bytes(bench.subject.pid()).unwrap() - before;
    // Whole pages of the file; its answer on the socket does not count.
    let page = sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap();
    let page = u64::try_from(page).unwrap();
    let expected = if bench.sandbox.is_tmpfs() {
        0
    } else {
        100_000u64.next_multiple_of(page)
    };
    assert_eq!(written, expected);
}

fn dead() {
    let mut bench = Bench::greeted("works");
    let pid = bench.subject.pid();
    let all_say_gone = || {
        let gone = |error| matches!(error, ProbeError::Gone { pid: gone } if gone == pid);
        assert!(probe::process(pid).is_err_and(gone));
        assert!(probe::written_bytes(pid).is_err_and(gone));
        assert!(PeakWatch::start(pid, Uss::Measured).is_err_and(gone));
    };
    bench.subject.kill();
    settle(PATIENCE, || bench.subject.exit()).unwrap();
    let entry = format!("/proc/{pid}");
    assert!(Path::new(&entry).exists(), "it should be a zombie");
    all_say_gone();
    drop(bench);
    assert!(!Path::new(&entry).exists());
    all_say_gone();
}

fn dead_while_watched() {
    let mut bench = Bench::greeted("works");
    let watch = PeakWatch::start(bench.subject.pid(), Uss::Skipped).unwrap();
    bench.subject.kill();
    settle(PATIENCE, || bench.subject.exit()).unwrap();
    assert!(matches!(watch.finish(), Err(ProbeError::Gone { .. })));
}
