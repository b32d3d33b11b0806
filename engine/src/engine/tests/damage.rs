//! Files that somebody cut or changed behind the engine's back: no good bytes are lost to them, no wrong ones handed out.
use super::*;
use crate::{Cancellation, FileTier};
use std::{
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

const M: &[(&str, u64)] = &[("a", 2 * MIB), ("b", MIB), ("c", MIB)];

fn to_files(file_tier: FileTier) -> Fixture {
    Fixture::with(8 * MIB, |builder| {
        builder.threshold(TO_FILES).file_tier(file_tier)
    })
}

fn cut(path: std::path::PathBuf) {
    set_len(path, MIB);
}

fn set_len(path: std::path::PathBuf, bytes: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

#[test]
fn blocks_whose_file_was_cut_are_written_again_before_they_leave() {
    for file_tier in [FileTier::Mapped, FileTier::Closed] {
        let fixture = to_files(file_tier);
        fixture.load("m", M);
        fixture.free_all();
        fixture.assert_served("m", M);
        cut(fixture.spill_files().remove(0));
        assert_eq!(fixture.free_all().freed_bytes, 4 * MIB);
        fixture.assert_served("m", M);
        fixture.finish();
    }
}

#[test]
fn a_block_written_after_its_file_was_cut_keeps_its_new_bytes() {
    let fixture = to_files(FileTier::Mapped);
    fixture.load("m", M);
    fixture.free_all();
    overwrite(&fixture.engine, "m", "a", 9);
    cut(fixture.spill_files().remove(0));
    let freed = fixture
        .engine
        .free_memory(Some("m"), MemoryRequest::Full)
        .unwrap();
    assert_eq!(freed.freed_bytes, 2 * MIB);
    let mut seen = Vec::new();
    // What only the cut file had is lost; "a" comes before it.
    let outcome = fixture.engine.request("m", 0, &mut |tensor| {
        if tensor.name() == "a" {
            seen = vec![0; tensor.span_bytes() as usize];
            tensor.read_at(0, &mut seen)?;
        }
        Ok(())
    });
    assert_eq!(outcome.unwrap_err().kind(), crate::ErrorKind::Corrupt);
    assert!(!seen.is_empty() && seen.iter().all(|byte| *byte == 9));
    fixture.finish();
}

#[test]
fn a_view_notices_a_bit_that_flipped_after_it_had_read_the_same_bytes() {
    for file_tier in [FileTier::Mapped, FileTier::Closed] {
        let fixture = to_files(file_tier);
        fixture.load("m", M);
        fixture.free_all();
        let view = fixture.engine.map("m", "a").unwrap();
        let mut out = read(&view);
        let path = fixture.spill_files().remove(0);
        let file = std::fs::File::options().read(true).write(true).open(path);
        let file = file.unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 7).unwrap();
        file.write_all_at(&[byte[0] ^ 4], 7).unwrap();
        let error = view.read_at(0, &mut out).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
        assert!(out.iter().all(|byte| *byte == 0), "nothing was handed out");
        drop(view);
        fixture.finish();
    }
}

/// Cuts every file that is there and puts it right again, over and over, while `look` runs in another thread; how often the
/// look was right and how often not. All files that the model has in its life have the same contents.
fn while_it_is_cut(fixture: &Fixture, look: &(dyn Fn() -> Result<(), Error> + Sync)) -> (u64, u64) {
    let good = std::fs::read(fixture.spill_files().remove(0)).unwrap();
    let over = AtomicBool::new(false);
    let (right, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
    let seen = || [&right, &wrong].map(|count| count.load(Ordering::Relaxed));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // At least one right, however the threads are scheduled.
            while !over.load(Ordering::Relaxed) || right.load(Ordering::Relaxed) == 0 {
                let count = match look() {
                    Ok(()) => &right,
                    Err(error) if error.kind() == crate::ErrorKind::Corrupt => &wrong,
                    Err(error) => panic!("{error}"),
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let deadline = Instant::now() + PATIENCE;
        let mut round = 0;
        while round < 300 || (seen()[1] == 0 && Instant::now() < deadline) {
            for path in fixture.spill_files() {
                // It may have gone since it was listed.
                let Ok(file) = std::fs::File::options().write(true).open(path) else {
                    continue;
                };
                file.set_len(round % 300 * 4096 + 7).unwrap();
                file.write_all_at(&good, 0).unwrap();
            }
            round += 1;
        }
        over.store(true, Ordering::Relaxed);
    });
    seen().into()
}

#[test]
fn a_view_read_while_its_file_is_cut_gives_the_bytes_or_corrupt_and_the_process_lives() {
    for file_tier in [FileTier::Mapped, FileTier::Closed] {
        let fixture = to_files(file_tier);
        fixture.load("m", M);
        fixture.free_all();
        let view = fixture.engine.map("m", "a").unwrap();
        let good = contents(M).remove("a").unwrap();
        let (_, wrong) = while_it_is_cut(&fixture, &|| {
            let mut out = vec![7; good.len()];
            let outcome = view.read_at(0, &mut out);
            match outcome {
                Ok(()) => assert!(out == good),
                Err(_) => assert!(out.iter().all(|byte| *byte == 0)),
            }
            outcome
        });
        assert!(wrong > 0);
        drop(view);
        fixture.finish();
    }
}

#[test]
fn a_reload_while_its_file_is_cut_gives_the_bytes_or_corrupt() {
    let fixture = to_files(FileTier::Mapped);
    fixture.load("m", M);
    fixture.free_all();
    let expected = contents(M);
    let (_, wrong) = while_it_is_cut(&fixture, &|| {
        let outcome = fixture.engine.request("m", 0, &mut |tensor| {
            let mut out = vec![0; tensor.span_bytes() as usize];
            tensor.read_at(0, &mut out)?;
            assert!(out == expected[tensor.name()]);
            Ok(())
        });
        if outcome.is_ok() {
            // What is on the device leaves again, to another file when this one is cut just now.
            fixture.engine.free_memory(None, MemoryRequest::Full)?;
        }
        outcome.map(|_| ())
    });
    assert!(wrong > 0);
    fixture.finish();
}

#[test]
fn a_refused_write_over_a_cut_file_keeps_the_good_bytes_on_the_device() {
    for length in [4096, 16 * MIB] {
        let fixture = to_files(FileTier::Mapped);
        fixture.load("m", M);
        fixture.free_all();
        fixture.assert_served("m", M);
        set_len(fixture.spill_files().remove(0), length);
        let refused = fixture
            .engine
            .write_tensor("m", "a", &mut |_, _| Err(Error::Caller("no".into())));
        assert!(refused.is_err());
        fixture.assert_served("m", M);
        fixture.finish();
    }
}

#[test]
fn a_write_cancelled_over_a_cut_file_leaves_the_old_bytes_or_the_new() {
    let fixture = to_files(FileTier::Mapped);
    fixture.load("m", M);
    fixture.free_all();
    fixture.assert_served("m", M);
    cut(fixture.spill_files().remove(0));
    let cancellation = Cancellation::new();
    let cancel = cancellation.clone();
    let outcome = fixture
        .engine
        .unless(&cancellation)
        .write_tensor("m", "a", &mut |_, out| {
            cancel.cancel();
            out.fill(5);
            Ok(())
        });
    // Only the device has the old bytes: a write that has begun goes through.
    outcome.unwrap();
    fixture.free_all();
    let view = fixture.engine.map("m", "a").unwrap();
    assert!(read(&view).iter().all(|byte| *byte == 5));
    drop(view);
    fixture.finish();
}

#[test]
fn a_write_whose_file_is_cut_under_it_takes_nothing_off_the_device() {
    let fixture = to_files(FileTier::Mapped);
    fixture.load("m", M);
    fixture.free_all();
    fixture.assert_served("m", M);
    let path = fixture.spill_files().remove(0);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fixture.engine.write_tensor("m", "a", &mut |offset, out| {
            out.fill(5);
            assert!(offset == 0, "in the second window");
            cut(path.clone());
            Ok(())
        })
    }));
    assert!(panicked.is_err());
    let mut seen = Vec::new();
    let mut look = |tensor: &DeviceTensor<'_>| {
        let mut out = vec![0; tensor.span_bytes() as usize];
        tensor.read_at(0, &mut out)?;
        seen.push(out);
        Ok(())
    };
    fixture.engine.request("m", 0, &mut look).unwrap();
    assert!(seen[0][..MIB as usize / 2].iter().all(|byte| *byte == 5));
    assert!(seen[1] == contents(M)["b"] && seen[2] == contents(M)["c"]);
    fixture.finish();
}

#[test]
fn a_block_off_the_device_keeps_its_copy_in_a_file_of_another_length() {
    let fixture = to_files(FileTier::Mapped);
    fixture.load("m", M);
    fixture.free_all();
    let path = fixture.spill_files().remove(0);
    set_len(path.clone(), 16 * MIB);
    let block = fixture.engine.state().find("m").unwrap().id(0);
    let error = fixture.engine.check_file_copy(block).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
    set_len(path, 4 * MIB);
    fixture.assert_served("m", M);
    fixture.finish();
}
