//! RAM or disk that is short: what counts against which limit, and what is served nevertheless.
use super::*;
use crate::ErrorKind;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::process::Command;

const ALONE: &str = "SPILLPROOF_ENGINE_TEST_ALONE";

/// Whether this is a process of the test's own, whose limits it may change. If not, one is started and must succeed.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg(format!("engine::tests::shortages::{test}"))
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// Limits this process; the hard limit stays.
fn limit(resource: Resource, most: u64) {
    let (_, hard) = getrlimit(resource).unwrap();
    setrlimit(resource, most, hard).unwrap();
}

#[test]
fn files_in_memory_count_against_the_ram_limit() {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let fixture = Fixture::with(8 * MIB, |builder| {
        builder
            .threshold(TO_FILES)
            .directory(memory.path())
            .ram_limit_bytes(Some(3 * MIB))
    });
    for name in ["k", "l"] {
        fixture.load(name, &[("x", 2 * MIB)]);
    }
    let free = |name| fixture.engine.free_memory(Some(name), MemoryRequest::Full);
    assert_eq!(free("k").unwrap().freed_bytes, 2 * MIB);
    assert_eq!(free("l").unwrap_err().kind(), ErrorKind::HostMemory);
    // What left came back: its place is free again.
    fixture.engine.drop_model("k").unwrap();
    assert_eq!(free("l").unwrap().freed_bytes, 2 * MIB);
    fixture.finish();
}

#[test]
fn a_full_disk_does_not_fail_a_request_that_other_blocks_can_make_room_for() {
    if !is_alone("a_full_disk_does_not_fail_a_request_that_other_blocks_can_make_room_for") {
        return;
    }
    let fixture = Fixture::new(2 * MIB, TO_FILES);
    for name in ["served", "kept"] {
        fixture.load(name, &[("x", MIB)]);
        fixture.free_all();
    }
    // Has no copy, and would leave first.
    fixture.load("fresh", &[("x", MIB)]);
    fixture.engine.make_resident("kept").unwrap();
    limit(Resource::RLIMIT_FSIZE, 0);
    assert_eq!(fixture.assert_served("served", &[("x", MIB)]), 1);
    assert_eq!(fixture.tiers("fresh"), [Tier::Vram]);
    assert_eq!(fixture.tiers("kept"), [Tier::Mapped]);
    // Where nothing has a copy the disk is what there is to tell.
    overwrite(&fixture.engine, "served", "x", 1);
    let error = fixture.engine.make_resident("kept").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    fixture.finish();
}

#[test]
fn address_space_that_ends_is_no_host_memory_and_the_block_stays() {
    if !is_alone("address_space_that_ends_is_no_host_memory_and_the_block_stays") {
        return;
    }
    let fixture = Fixture::new(256 * MIB, TO_RAM);
    let model: &[(&str, u64)] = &[("x", 128 * MIB)];
    fixture.load("m", model);
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    limit(Resource::RLIMIT_AS, pages * 4096 + 20 * MIB);
    let outcome = fixture.engine.free_memory(None, MemoryRequest::Full);
    limit(Resource::RLIMIT_AS, u64::MAX);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::HostMemory);
    fixture.assert_served("m", model);
    fixture.finish();
}

#[test]
fn a_request_for_nothing_asks_the_system_nothing() {
    if !is_alone("a_request_for_nothing_asks_the_system_nothing") {
        return;
    }
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", &[("x", MIB)]);
    // No file can be opened, those of /proc included.
    limit(Resource::RLIMIT_NOFILE, 0);
    let free = |bytes| {
        fixture
            .engine
            .free_memory(None, MemoryRequest::AtLeast(bytes))
    };
    let (nothing, something) = (free(0), free(1));
    limit(Resource::RLIMIT_NOFILE, 64);
    assert!(nothing.unwrap().moves.is_empty());
    assert_eq!(something.unwrap_err().kind(), ErrorKind::Io);
    fixture.finish();
}

#[test]
fn what_only_views_keep_counts_against_the_limit_in_ram() {
    const N: &[(&str, u64)] = &[("a", 2 * MIB), ("b", MIB)];
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (driver, directory) = (FakeDriver::new(8 * MIB), tempfile::tempdir().unwrap());
    for (threshold, place) in [(TO_RAM, directory.path()), (TO_FILES, memory.path())] {
        let settings = Settings::builder()
            .directory(place)
            .tmpfs(TmpfsPolicy::CountAsRam)
            .threshold(threshold)
            .staging_bytes(2 * MIB)
            .io_threads(2)
            .ram_limit_bytes(Some(4 * MIB))
            .build()
            .unwrap();
        let engine = Engine::open_on(driver.context(), settings).unwrap();
        let mut views = Vec::new();
        for _ in 0..3 {
            let source = ModelSource::Manifest(manifest(N));
            engine.load("m", source).unwrap();
            let freed = engine.free_memory(None, MemoryRequest::Full);
            if let Err(error) = &freed {
                assert_eq!(error.kind(), ErrorKind::HostMemory, "{error}");
            }
            assert_eq!(freed.is_ok(), views.is_empty());
            views.extend(engine.map("m", "a"));
            views.extend(engine.map("m", "b"));
            engine.drop_model("m").unwrap();
        }
        let held: u64 = views.iter().map(TensorView::span_bytes).sum();
        assert_eq!(held, 3 * MIB);
        drop(views);
        let source = ModelSource::Manifest(manifest(N));
        engine.load("m", source).unwrap();
        engine.free_memory(None, MemoryRequest::Full).unwrap();
        engine.close().unwrap();
    }
}
