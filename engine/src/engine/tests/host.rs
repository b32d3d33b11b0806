//! What the host sees: views outlive everything, show what they showed, and never wrong bytes.
use super::*;
use crate::{ErrorKind, FileTier};
use std::os::unix::fs::FileExt;

const M: &[(&str, u64)] = &[("a", 2 * MIB + 3), ("b", 100)];

#[test]
fn a_tensor_that_only_the_device_holds_has_no_view() {
    let fixture = Fixture::new(8 * MIB, TO_RAM);
    fixture.load("m", M);
    let kind_of = |name, tensor| fixture.engine.map(name, tensor).err().unwrap().kind();
    assert_eq!(kind_of("m", "a"), ErrorKind::InvalidArgument);
    assert_eq!(kind_of("m", "c"), ErrorKind::UnknownTensor);
    assert_eq!(kind_of("n", "a"), ErrorKind::UnknownModel);
    fixture.finish();
}

#[test]
fn a_view_shows_the_old_bytes_after_reload_rewrite_drop_and_close() {
    for (threshold, file_tier) in [
        (TO_RAM, FileTier::Mapped),
        (TO_FILES, FileTier::Mapped),
        (TO_FILES, FileTier::Closed),
    ] {
        let fixture = Fixture::with(8 * MIB, |builder| {
            builder.threshold(threshold).file_tier(file_tier)
        });
        fixture.load("m", M);
        fixture.free_all();
        let view = fixture.engine.map("m", "a").unwrap();
        let old = contents(M).remove("a").unwrap();
        let assert_old = || assert!(read(&view) == old);
        assert_old();
        fixture.engine.make_resident("m").unwrap();
        assert_old();
        overwrite(&fixture.engine, "m", "a", 5);
        assert_old();
        fixture.free_all();
        assert_old();
        let new = fixture.engine.map("m", "a").unwrap();
        assert!(read(&new).iter().all(|byte| *byte == 5));
        drop(new);
        let files = usize::from(threshold == TO_FILES);
        assert_eq!(
            fixture.spill_files().len(),
            2 * files,
            "a file a generation"
        );
        fixture.engine.drop_model("m").unwrap();
        assert_eq!(fixture.spill_files().len(), files);
        assert_eq!(fixture.engine.status().files.len(), files);
        assert_old();
        let Fixture {
            driver,
            directory,
            engine,
        } = fixture;
        engine.close().unwrap();
        assert_old();
        drop(view);
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        assert_eq!(driver.used_bytes(), 0);
    }
}

#[test]
fn any_window_of_a_view_equals_the_same_window_of_the_whole() {
    for file_tier in [FileTier::Mapped, FileTier::Closed] {
        let fixture = Fixture::with(32 * MIB, |builder| {
            builder.threshold(TO_FILES).file_tier(file_tier)
        });
        let model = &[("a", 9 * MIB + 1)];
        fixture.load("m", model);
        fixture.free_all();
        let view = fixture.engine.map("m", "a").unwrap();
        let whole = contents(model).remove("a").unwrap();
        for (start, len) in [
            (0, 0),
            (0, 1),
            (MIB - 1, 2),
            (4 * MIB - 1, 4 * MIB + 2),
            (9 * MIB, 1),
            (9 * MIB + 1, 0),
        ] {
            let mut out = vec![0; len as usize];
            view.read_at(start, &mut out).unwrap();
            assert!(
                out == whole[start as usize..(start + len) as usize],
                "{start}+{len}"
            );
        }
        for (start, len) in [(9 * MIB + 1, 1), (0, 9 * MIB + 2), (u64::MAX, 1)] {
            let error = view.read_at(start, &mut vec![0; len as usize]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        drop(view);
        fixture.finish();
    }
}

#[test]
fn a_flipped_bit_and_a_cut_are_noticed_by_views_and_reloads() {
    type Damage = fn(&std::fs::File);
    let flip: Damage = |file| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, MIB + 7).unwrap();
        file.write_all_at(&[byte[0] ^ 4], MIB + 7).unwrap();
    };
    let cut: Damage = |file| file.set_len(MIB).unwrap();
    let cut_in_last_page: Damage = |file| {
        let length = file.metadata().unwrap().len();
        file.set_len(length - 1).unwrap();
    };
    for damage in [flip, cut, cut_in_last_page] {
        for file_tier in [FileTier::Mapped, FileTier::Closed] {
            let fixture = Fixture::with(8 * MIB, |builder| {
                builder.threshold(TO_FILES).file_tier(file_tier)
            });
            fixture.load("m", M);
            fixture.free_all();
            let path = fixture.spill_files().remove(0);
            let file = std::fs::File::options().read(true).write(true).open(path);
            damage(&file.unwrap());
            let view = fixture.engine.map("m", "a").unwrap();
            let mut out = vec![0; view.span_bytes() as usize];
            let error = view.read_at(0, &mut out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            let error = fixture.engine.make_resident("m").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert_eq!(fixture.driver.used_bytes(), 0);
            drop(view);
            fixture.engine.drop_model("m").unwrap();
            fixture.finish();
        }
    }
}

#[test]
fn padding_is_zero_and_payloads_start_at_pages() {
    let fixture = Fixture::new(8 * MIB, TO_FILES);
    fixture.load("m", M);
    fixture.free_all();
    let bytes = std::fs::read(fixture.spill_files().remove(0)).unwrap();
    let padded = (2 * MIB + 4096) as usize;
    assert_eq!(bytes.len(), padded + 4096);
    let (a, b) = bytes.split_at(padded);
    let contents = contents(M);
    assert!(a.starts_with(&contents["a"]) && b.starts_with(&contents["b"]));
    assert!(a[contents["a"].len()..].iter().all(|byte| *byte == 0));
    assert!(b[contents["b"].len()..].iter().all(|byte| *byte == 0));
    fixture.finish();
}
