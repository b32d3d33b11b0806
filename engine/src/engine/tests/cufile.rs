//! Journeys with a libcufile that can be told to fail: the path of each block is told as it was.
use super::*;
use crate::{
    CuFileUse, ErrorKind, TransferPath,
    cufile::fake::{FakeCuFile, Fault},
};

const M: &[(&str, u64)] = &[("a", 2 * MIB), ("b", MIB + 1), ("small", 100), ("c", MIB)];
const PAGED: [(&str, TransferPath); 4] = [
    ("a", TransferPath::CuFile),
    ("b", TransferPath::CuFile),
    ("small", TransferPath::Staged),
    ("c", TransferPath::CuFile),
];

fn with(set: impl FnOnce(&FakeCuFile)) -> (Fixture, FakeCuFile) {
    let driver = FakeDriver::new(8 * MIB);
    let library = FakeCuFile::new(&driver);
    set(&library);
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::builder()
        .directory(directory.path())
        .tmpfs(TmpfsPolicy::CountAsRam)
        .staging_bytes(2 * MIB)
        .io_threads(2)
        .threshold(TO_FILES)
        .cufile(CuFileUse::On)
        .build()
        .unwrap();
    let cufile = Some(library.driver());
    let engine = Engine::open_with(driver.context(), settings, cufile).unwrap();
    let fixture = Fixture {
        driver,
        directory,
        engine,
    };
    (fixture, library)
}

/// How each tensor travelled last, by the status.
fn paths(fixture: &Fixture) -> Vec<(String, Option<TransferPath>)> {
    let status = fixture.engine.status();
    let tensors = status.models.into_iter().flat_map(|model| model.tensors);
    tensors.map(|tensor| (tensor.name, tensor.path)).collect()
}

fn expected(paths: &[(&str, TransferPath)]) -> Vec<(String, Option<TransferPath>)> {
    let named = paths
        .iter()
        .map(|(name, path)| ((*name).to_owned(), Some(*path)));
    named.collect()
}

fn finish(fixture: Fixture, library: &FakeCuFile) {
    fixture.finish();
    assert_eq!((library.handles(), library.buffers()), (0, 0));
    assert_eq!(library.violations(), Vec::<String>::new());
}

#[test]
fn blocks_go_and_come_by_cufile_and_the_rest_is_staged() {
    let (fixture, library) = with(|_| {});
    assert_eq!(fixture.engine.status().notes, Vec::<String>::new());
    assert_eq!(fixture.engine.status().written_bytes, 0);
    fixture.load("m", M);
    for moved in fixture.free_all().moves {
        let tensor = moved.tensors[0].as_str();
        let path = PAGED.iter().find(|(name, _)| *name == tensor).unwrap().1;
        assert_eq!(moved.path, path, "{tensor}");
        assert_eq!(moved.written_bytes, moved.bytes.next_multiple_of(4096));
    }
    assert_eq!(paths(&fixture), expected(&PAGED));
    fixture.assert_mapped("m", M);
    assert_eq!(library.handles(), 1);
    fixture.assert_served("m", M);
    assert_eq!(paths(&fixture), expected(&PAGED));
    assert_eq!(fixture.engine.status().read_bytes, 4 * MIB + 101);
    fixture.engine.drop_model("m").unwrap();
    assert_eq!(library.handles(), 0);
    finish(fixture, &library);
}

#[test]
fn a_block_that_cufile_fails_on_is_staged_and_its_neighbours_are_not() {
    let (fixture, library) = with(|_| {});
    fixture.load("m", M);
    // The last tensor leaves first.
    library.fail("cuFileWrite", 2, 2, Fault::Returns(-1, libc::EPERM));
    fixture.free_all();
    let mut paths_then = PAGED;
    paths_then[1].1 = TransferPath::Staged;
    assert_eq!(paths(&fixture), expected(&paths_then));
    library.fail("cuFileRead", 1, 1, Fault::Code(5011));
    fixture.assert_served("m", M);
    let mut paths_then = PAGED;
    paths_then[0].1 = TransferPath::Staged;
    assert_eq!(paths(&fixture), expected(&paths_then));
    let notes = fixture.engine.status().notes.join("\n");
    assert!(notes.contains("EPERM") && notes.contains("5011"), "{notes}");
    finish(fixture, &library);
}

#[test]
fn an_engine_without_a_usable_cufile_opens_serves_staged_and_says_why() {
    for (call, code) in [
        ("cuFileDriverOpen", 5033),
        ("cuFileHandleRegister", 5027),
        ("cuFileWrite", 5030),
    ] {
        let (fixture, library) = with(|library| {
            library.fail(call, 1, u64::MAX, Fault::Code(code));
        });
        let notes = fixture.engine.status().notes;
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with("cuFile is not used: "), "{notes:?}");
        assert!(notes[0].contains(&code.to_string()), "{notes:?}");
        fixture.load("m", M);
        let before = library.calls(call);
        fixture.free_all();
        fixture.assert_served("m", M);
        assert!(
            paths(&fixture)
                .iter()
                .all(|(_, path)| *path == Some(TransferPath::Staged))
        );
        assert_eq!(library.calls(call), before, "asked once");
        finish(fixture, &library);
    }
}

#[test]
fn a_disk_that_is_full_under_cufile_keeps_the_block_on_the_device() {
    let (fixture, library) = with(|_| {});
    fixture.load("m", M);
    library.fail("cuFileWrite", 1, 1, Fault::Returns(-1, libc::ENOSPC));
    let error = fixture
        .engine
        .free_memory(None, MemoryRequest::Full)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    assert_eq!(fixture.engine.status().tiers.vram, 4 * MIB + 101);
    assert_eq!(fixture.spill_files().len(), 0);
    assert_eq!(library.handles(), 0, "it goes with the file");
    fixture.free_all();
    assert_eq!(paths(&fixture), expected(&PAGED));
    fixture.assert_served("m", M);
    finish(fixture, &library);
}

#[test]
fn both_ways_failing_is_a_typed_error_and_nothing_is_lost() {
    let (fixture, library) = with(|_| {});
    fixture.load("m", M);
    fixture.free_all();
    library.fail("cuFileRead", 1, 1, Fault::Returns(-1, libc::EPERM));
    fixture.driver.fail("cuMemcpyHtoDAsync", 1, 1, 999);
    let error = fixture.engine.make_resident("m").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceError);
    let text = error.to_string();
    assert!(
        text.contains("999") && text.contains("cuFileRead"),
        "{text}"
    );
    assert_eq!(fixture.driver.used_bytes(), 0);
    fixture.assert_served("m", M);
    finish(fixture, &library);
}

#[test]
fn a_view_keeps_the_handle_with_the_file_and_takes_both_away() {
    let (fixture, library) = with(|_| {});
    fixture.load("m", M);
    fixture.free_all();
    let view = fixture.engine.map("m", "b").unwrap();
    fixture.engine.drop_model("m").unwrap();
    assert_eq!(library.handles(), 1);
    assert!(read(&view) == contents(M)["b"]);
    let Fixture {
        engine,
        directory,
        driver,
    } = fixture;
    engine.close().unwrap();
    assert!(read(&view) == contents(M)["b"]);
    drop(view);
    assert_eq!(library.handles(), 0);
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    assert_eq!(library.violations(), Vec::<String>::new());
    drop(driver);
}

#[test]
fn cycles_leave_as_many_descriptors_as_there_were() {
    let (fixture, library) = with(|_| {});
    let mut counts = Vec::new();
    for _ in 0..5 {
        fixture.load("m", M);
        fixture.free_all();
        fixture.assert_served("m", M);
        fixture.engine.drop_model("m").unwrap();
        counts.push((library.handles(), library.buffers()));
    }
    assert_eq!(counts, [(0, 0); 5]);
    assert_eq!(
        library.calls("cuFileHandleRegister"),
        library.calls("cuFileHandleDeregister")
    );
    finish(fixture, &library);
}
