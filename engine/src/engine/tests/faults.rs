//! Failing device calls: typed, nothing lost, nothing kept, and the same call succeeds once the fault is over.
use super::*;
use crate::ErrorKind;

const M: &[(&str, u64)] = &[("a", 2 * MIB), ("b", MIB), ("c", MIB)];

#[test]
fn a_failed_copy_to_the_host_keeps_the_block_on_the_device_and_no_partial_file() {
    for call in ["cuMemcpyDtoHAsync", "cuStreamSynchronize"] {
        for nth in 1..=4 {
            let fixture = Fixture::new(8 * MIB, TO_FILES);
            fixture.load("m", M);
            fixture.driver.fail(call, nth, nth, 999);
            let error = fixture
                .engine
                .free_memory(None, MemoryRequest::Full)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeviceError);
            let status = fixture.engine.status();
            assert_eq!(status.tiers.vram + status.tiers.mapped, 4 * MIB);
            assert_eq!(fixture.driver.used_bytes(), status.tiers.vram);
            assert_eq!(
                fixture.spill_files().len(),
                usize::from(status.tiers.mapped > 0)
            );
            assert_eq!(fixture.free_all().freed_bytes, status.tiers.vram);
            fixture.assert_served("m", M);
            fixture.finish();
        }
    }
}

#[test]
fn a_failed_synchronisation_before_an_offload_moves_nothing() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.driver.fail("cuCtxSynchronize", 1, 1, 999);
    assert!(
        fixture
            .engine
            .free_memory(None, MemoryRequest::Full)
            .is_err()
    );
    assert_eq!(fixture.engine.status().tiers.vram, 4 * MIB);
    fixture.finish();
}

#[test]
fn out_of_memory_at_the_nth_block_of_a_reload_is_rolled_back() {
    for threshold in [TO_RAM, TO_FILES] {
        for nth in 1..=3 {
            let fixture = Fixture::new(8 * MIB, threshold);
            fixture.load("m", M);
            fixture.free_all();
            let before = fixture.engine.status();
            // Nobody else has memory to give, so the request fails at once when it has none of its own.
            fixture.driver.fail("cuMemAlloc", nth, u64::MAX, 2);
            for attempt in [
                fixture.engine.make_resident("m").err(),
                fixture.engine.request("m", 0, &mut |_| Ok(())).err(),
            ] {
                assert_eq!(attempt.unwrap().kind(), ErrorKind::DeviceOom);
                let after = fixture.engine.status();
                assert_eq!(fixture.driver.used_bytes(), 0);
                assert_eq!(after.tiers, before.tiers);
                assert_eq!(after.written_bytes, before.written_bytes);
            }
            fixture.driver.stop_failing();
            fixture.assert_served("m", M);
            fixture.finish();
        }
    }
}

#[test]
fn persistent_out_of_memory_ends_in_a_bounded_number_of_tries() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.load("n", M);
    fixture.driver.fail("cuMemAlloc", 1, u64::MAX, 2);
    let before = fixture.driver.calls("cuMemAlloc");
    let error = fixture
        .engine
        .request("m", MIB, &mut |_| Ok(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceOom);
    assert!(fixture.driver.calls("cuMemAlloc") - before <= 7);
    fixture.driver.stop_failing();
    fixture.assert_served("m", M);
    fixture.finish();
}

#[test]
fn a_failed_copy_to_the_device_is_rolled_back() {
    for threshold in [TO_RAM, TO_FILES] {
        for nth in 1..=4 {
            let fixture = Fixture::new(8 * MIB, threshold);
            fixture.load("m", M);
            fixture.free_all();
            fixture.driver.fail("cuMemcpyHtoDAsync", nth, nth, 999);
            let error = fixture.engine.request("m", 0, &mut |_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeviceError);
            assert_eq!(fixture.driver.used_bytes(), 0);
            fixture.assert_served("m", M);
            fixture.finish();
        }
    }
}

#[test]
fn a_failed_load_leaves_no_model() {
    for call in ["cuMemAlloc", "cuMemcpyHtoDAsync", "cuStreamSynchronize"] {
        let fixture = Fixture::new(8 * MIB, TO_FILES);
        fixture.driver.fail(call, 2, 2, 999);
        let source = ModelSource::Manifest(manifest(M));
        assert!(fixture.engine.load("m", source).is_err());
        assert_eq!(fixture.driver.used_bytes(), 0);
        assert!(fixture.engine.status().models.is_empty());
        fixture.load("m", M);
        fixture.finish();
    }
}

#[test]
fn a_refused_free_is_an_error_and_the_memory_comes_back_later() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.driver.fail("cuMemFree", 1, 1, 999);
    let error = fixture
        .engine
        .free_memory(None, MemoryRequest::Full)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceError);
    assert_eq!(fixture.engine.status().unreleased_bytes, MIB);
    assert_eq!(fixture.free_all().freed_bytes, 3 * MIB);
    assert_eq!(fixture.driver.used_bytes(), 0);
    assert_eq!(fixture.engine.status().unreleased_bytes, 0);
    fixture.assert_served("m", M);
    fixture.finish();
}

#[test]
fn memory_info_that_fails_or_lies_does_not_keep_a_request_from_its_end() {
    let fixture = Fixture::new(5 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.load("n", M);
    fixture.driver.fail("cuMemGetInfo", 1, u64::MAX, 999);
    fixture.assert_served("m", M);
    fixture.assert_served("n", M);
    fixture.finish();
}

#[test]
fn slots_that_cannot_be_pinned_are_noted_and_serve() {
    let driver = FakeDriver::new(8 * MIB);
    driver.fail("cuMemHostRegister", 1, u64::MAX, 2);
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::builder()
        .directory(directory.path())
        .tmpfs(TmpfsPolicy::CountAsRam)
        .threshold(TO_FILES)
        .io_threads(3)
        .build()
        .unwrap();
    let engine = Engine::open_on(driver.context(), settings).unwrap();
    assert_eq!(
        engine.status().notes.len(),
        6,
        "three threads for each direction"
    );
    let fixture = Fixture {
        driver,
        directory,
        engine,
    };
    fixture.load("m", M);
    fixture.free_all();
    fixture.assert_served("m", M);
    fixture.finish();
}

#[test]
fn an_engine_that_cannot_be_opened_leaves_nothing() {
    let driver = FakeDriver::new(8 * MIB);
    let context = driver.context();
    driver.fail("cuStreamCreate", 2, 2, 999);
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::builder()
        .directory(directory.path())
        .tmpfs(TmpfsPolicy::CountAsRam)
        .io_threads(3)
        .build()
        .unwrap();
    let error = Engine::open_on(context, settings).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceError);
    assert_eq!((driver.registered(), driver.streams()), (0, 0));
    assert_eq!(driver.calls("cuDevicePrimaryCtxRelease"), 1);
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_lost_device_still_gives_files_and_copies_back() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture
        .engine
        .free_memory(None, MemoryRequest::AtLeast(1))
        .unwrap();
    fixture.driver.fail("cuMemcpyDtoHAsync", 1, 1, 700);
    let error = fixture
        .engine
        .free_memory(None, MemoryRequest::Full)
        .unwrap_err();
    assert!(error.to_string().contains("700"), "{error}");
    let view = fixture.engine.map("m", "c").unwrap();
    assert!(
        read(&view) == contents(M)["c"],
        "what is on disk stays valid"
    );
    drop(view);
    assert!(fixture.engine.make_resident("m").is_err());
    fixture.engine.drop_model("m").unwrap();
    let Fixture {
        directory, engine, ..
    } = fixture;
    drop(engine);
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_write_that_fails_or_panics_half_way_leaves_the_old_contents() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.free_all();
    let mut half = |offset: u64, out: &mut [u8]| {
        out.fill(1);
        if offset > 0 {
            return Err(Error::Cancelled("the write"));
        }
        Ok(())
    };
    let error = fixture
        .engine
        .write_tensor("m", "a", &mut half)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    fixture.assert_served("m", M);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut panics = |_: u64, _: &mut [u8]| -> Result<(), Error> { panic!("in the contents") };
        fixture.engine.write_tensor("m", "a", &mut panics)
    }));
    assert!(panicked.is_err());
    fixture.assert_served("m", M);
    fixture.finish();
}
