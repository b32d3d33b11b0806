//! What stays behind when only a part goes: the space that a view keeps, the moves before an error, the files of a
//! directory that somebody removed.
use super::*;
use crate::ErrorKind;
use std::{fs, os::unix::fs::MetadataExt};

const M: &[(&str, u64)] = &[("a", 2 * MIB), ("b", MIB), ("c", MIB), ("d", MIB)];

fn offloaded() -> Fixture {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.free_all();
    fixture
}

#[test]
fn the_file_of_a_dropped_model_keeps_the_space_of_what_views_hold_and_no_more() {
    let fixture = offloaded();
    let path = fixture.spill_files().remove(0);
    let allocated = || fs::metadata(&path).unwrap().blocks() * 512;
    assert!(allocated() >= 5 * MIB);
    let b = fixture.engine.map("m", "b").unwrap();
    let d = fixture.engine.map("m", "d").unwrap();
    fixture.engine.drop_model("m").unwrap();
    assert!((2 * MIB..3 * MIB).contains(&allocated()), "{}", allocated());
    drop(b);
    assert!((MIB..2 * MIB).contains(&allocated()), "{}", allocated());
    assert!(read(&d) == contents(M)["d"]);
    drop(d);
    assert!(!path.exists());
    fixture.finish();
}

#[test]
fn an_older_generation_that_a_view_keeps_gives_its_space_back_too() {
    let fixture = offloaded();
    let view = fixture.engine.map("m", "b").unwrap();
    overwrite(&fixture.engine, "m", "b", 5);
    fixture.free_all();
    let paths = fixture.spill_files();
    assert_eq!(paths.len(), 2);
    fixture.engine.drop_model("m").unwrap();
    let left = fixture.spill_files();
    assert_eq!(left.len(), 1);
    let allocated = fs::metadata(&left[0]).unwrap().blocks() * 512;
    assert!((MIB..2 * MIB).contains(&allocated), "{allocated}");
    assert!(read(&view) == contents(M)["b"]);
    drop(view);
    fixture.finish();
}

#[test]
fn freeing_that_fails_half_way_tells_what_has_left() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    // The last one leaves first: one copy each for "d" and "c", then the first of "b" fails.
    fixture.driver.fail("cuMemcpyDtoHAsync", 3, 3, 999);
    let error = fixture
        .engine
        .free_memory(None, MemoryRequest::Full)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceError, "{error}");
    let Error::FreedLess { cause, report } = &error else {
        panic!("{error:?}");
    };
    assert!(matches!(**cause, Error::Cuda { .. }));
    assert_eq!(
        (report.freed_bytes, report.extent),
        (2 * MIB, crate::Extent::Partial)
    );
    let moved: Vec<_> = report.moves.iter().flat_map(|each| &each.tensors).collect();
    assert_eq!(moved, ["d", "c"]);
    assert!(
        error.to_string().contains(&(2 * MIB).to_string()),
        "{error}"
    );
    assert_eq!(fixture.engine.status().tiers.vram, 3 * MIB);
    fixture.driver.fail("cuMemcpyDtoHAsync", 1, 1, 999);
    let error = fixture
        .engine
        .free_memory(None, MemoryRequest::Full)
        .unwrap_err();
    assert!(
        matches!(error, Error::Cuda { .. }),
        "nothing had left: {error}"
    );
    fixture.assert_served("m", M);
    fixture.finish();
}

#[test]
fn a_removed_directory_costs_nothing_that_was_in_it() {
    let fixture = offloaded();
    let view = fixture.engine.map("m", "a").unwrap();
    fs::remove_dir_all(fixture.engine.directory()).unwrap();
    assert!(read(&view) == contents(M)["a"]);
    fixture.assert_served("m", M);
    // The view keeps the old contents, so the new ones go to another file.
    overwrite(&fixture.engine, "m", "a", 5);
    fixture.free_all();
    assert_eq!(fixture.spill_files().len(), 1);
    assert!(read(&view) == contents(M)["a"]);
    let new = fixture.engine.map("m", "a").unwrap();
    assert!(read(&new).iter().all(|byte| *byte == 5));
    drop((view, new));
    fixture.finish();
}
