//! A peak counts to the byte, also when it was over before anyone looked; pages of files are not part of it.

use crate::{bench::Bench, trial};
use libtest_mimic::Trial;
use spillproof_harness::probe::{PeakReading, PeakVerdict, PeakWatch, Uss};
use std::fs;

const MIB: u64 = 1 << 20;

/// What a step may take beside what it is about: stacks, heap, counters that lag.
const SLACK_BYTES: u64 = 2 * MIB;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "memory_released_before_the_end_of_a_step_is_in_its_peak",
            released,
        ),
        trial("a_step_that_does_nothing_has_no_peak", idle),
        trial("an_earlier_step_s_peak_is_not_this_one_s", reset),
        trial("reading_a_mapped_file_is_no_cost", file_read),
        trial("mapping_and_unmapping_files_is_no_cost", file_sweep),
        trial(
            "a_copy_beside_a_mapped_file_is_never_within",
            copy_beside_file,
        ),
        trial(
            "a_copy_in_place_of_file_pages_is_never_within",
            copy_for_file,
        ),
        trial(
            "a_released_file_map_does_not_hide_later_memory",
            copy_after_file,
        ),
    ]
}

fn peak(bench: &mut Bench, tasks: &[&str]) -> PeakReading {
    let watch = PeakWatch::start(bench.subject.pid(), Uss::Measured).unwrap();
    for task in tasks {
        bench.ask(task);
    }
    let reading = watch.finish().unwrap();
    assert!(reading.reset, "the high-water mark could not be reset");
    reading
}

fn data(bench: &Bench, name: &str, mib: usize) -> String {
    let path = bench.sandbox.offload_dir().join(name);
    fs::write(&path, vec![1; mib << 20]).unwrap();
    path.to_str().unwrap().to_owned()
}

fn released() {
    let mut bench = Bench::greeted("works");
    bench.ask("fill 1");
    let reading = peak(&mut bench, &["fill 32"]);
    let start = reading.start.anon_shared_bytes();
    let (lower, upper) = reading.anon_shared_bounds();
    assert!(upper >= start + 32 * MIB, "{reading:?}");
    assert!(upper <= start + 32 * MIB + SLACK_BYTES, "{reading:?}");
    assert!(reading.end.anon_shared_bytes() <= start + SLACK_BYTES);
    assert!((start..=upper).contains(&lower), "{reading:?}");
    assert_eq!(
        reading.exceeds(start + 32 * MIB + SLACK_BYTES),
        PeakVerdict::Within
    );
    assert_ne!(reading.exceeds(start + 31 * MIB), PeakVerdict::Within);
}

fn idle() {
    let mut bench = Bench::greeted("works");
    bench.ask("fill 1");
    let reading = peak(&mut bench, &["limits"]);
    let start = reading.start.anon_shared_bytes();
    assert_eq!(
        reading.exceeds(start + SLACK_BYTES),
        PeakVerdict::Within,
        "{reading:?}"
    );
    assert!(reading.samples >= 2);
    let uss = reading.uss.unwrap();
    assert!(uss.peak_bytes >= uss.start_bytes && uss.start_bytes > 0);
}

fn reset() {
    let mut bench = Bench::greeted("works");
    bench.ask("fill 48");
    let reading = peak(&mut bench, &["limits"]);
    let start = reading.start.anon_shared_bytes();
    assert_eq!(
        reading.exceeds(start + SLACK_BYTES),
        PeakVerdict::Within,
        "{reading:?}"
    );
    assert!(
        reading.high_water_bytes <= reading.start.resident_bytes() + SLACK_BYTES,
        "{reading:?}"
    );
}

fn file_read() {
    let mut bench = Bench::greeted("works");
    let file = data(&bench, "data", 64);
    bench.ask(&format!("map {file}"));
    let reading = peak(&mut bench, &[&format!("read {file}")]);
    let start = reading.start.anon_shared_bytes();
    assert!(
        reading.end.file_bytes >= reading.start.file_bytes + 60 * MIB,
        "{reading:?}"
    );
    assert!(reading.high_water_bytes >= start + 60 * MIB);
    // Nobody else maps the file.
    assert!(
        reading
            .uss
            .is_some_and(|uss| uss.end_bytes >= uss.start_bytes + 60 * MIB),
        "{reading:?}"
    );
    assert_ne!(
        reading.exceeds(start + SLACK_BYTES),
        PeakVerdict::Exceeded,
        "{reading:?}"
    );
    assert_eq!(
        reading.exceeds(start + 24 * MIB),
        PeakVerdict::Within,
        "{reading:?}"
    );
}

fn file_sweep() {
    let mut bench = Bench::greeted("works");
    let file = data(&bench, "data", 16);
    let reading = peak(&mut bench, &[&format!("sweep {file} 20")]);
    let start = reading.start.anon_shared_bytes();
    assert_ne!(
        reading.exceeds(start + SLACK_BYTES),
        PeakVerdict::Exceeded,
        "{reading:?}"
    );
    assert_eq!(
        reading.exceeds(start + 32 * MIB),
        PeakVerdict::Within,
        "{reading:?}"
    );
}

fn copy_beside_file() {
    let mut bench = Bench::greeted("works");
    let file = data(&bench, "data", 64);
    for _ in 0..10 {
        let tasks = [
            &format!("map {file}"),
            &format!("read {file}"),
            "fill 64",
            &format!("unmap {file}"),
        ];
        let tasks: Vec<&str> = tasks.iter().map(|task| task.as_ref()).collect();
        let reading = peak(&mut bench, &tasks);
        let limit = reading.start.anon_shared_bytes() + 60 * MIB;
        assert_ne!(reading.exceeds(limit), PeakVerdict::Within, "{reading:?}");
    }
}

fn copy_for_file() {
    let mut bench = Bench::greeted("works");
    let file = data(&bench, "data", 64);
    bench.ask(&format!("map {file}"));
    bench.ask(&format!("read {file}"));
    for _ in 0..10 {
        let reading = peak(&mut bench, &[&format!("swap {file} 64")]);
        let limit = reading.start.anon_shared_bytes() + 60 * MIB;
        assert_ne!(reading.exceeds(limit), PeakVerdict::Within, "{reading:?}");
    }
}

fn copy_after_file() {
    let mut bench = Bench::greeted("works");
    let file = data(&bench, "data", 64);
    bench.ask(&format!("map {file}"));
    bench.ask(&format!("read {file}"));
    let reading = peak(&mut bench, &[&format!("unmap {file}"), "fill 32"]);
    let start = reading.start.anon_shared_bytes();
    assert_ne!(
        reading.exceeds(start + 31 * MIB),
        PeakVerdict::Within,
        "{reading:?}"
    );
    assert_eq!(
        reading.exceeds(start + 48 * MIB),
        PeakVerdict::Within,
        "{reading:?}"
    );
}
