//! Bytes past the page cache: the same ones, told as such, and only where that is said to be so.
use super::*;
use crate::FileIo;

/// Neither whole pages nor whole slots.
const M: &[(&str, u64)] = &[("a", 3 * MIB + 5), ("b", 1), ("c", MIB), ("d", 4097)];

fn fixture(file_io: FileIo) -> Fixture {
    let fixture = Fixture::with(16 * MIB, |builder| {
        builder.threshold(TO_FILES).file_io(file_io)
    });
    fixture.load("m", M);
    fixture
}

fn direct_bytes(fixture: &Fixture) -> (u64, u64) {
    let status = fixture.engine.status();
    (status.direct_written_bytes, status.direct_read_bytes)
}

fn padded_bytes() -> u64 {
    let padded = M.iter().map(|(_, bytes)| bytes.next_multiple_of(4096));
    padded.sum()
}

#[test]
fn what_goes_and_comes_past_the_page_cache_is_the_same() {
    let fixture = fixture(FileIo::Direct);
    let in_memory = fixture.engine.directory.counts_as_ram();
    for round in 1..=2 {
        fixture.free_all();
        let (written, read) = direct_bytes(&fixture);
        assert_eq!(written, padded_bytes(), "once, in round {round}");
        fixture.assert_served("m", M);
        let came = direct_bytes(&fixture).1 - read;
        // A filesystem in memory has every page there.
        assert_eq!(came, if in_memory { 0 } else { padded_bytes() });
        assert_eq!(fixture.engine.status().written_bytes, padded_bytes());
    }
    fixture.finish();
}

#[test]
fn what_the_page_cache_holds_is_read_from_there() {
    for is_late in [false, true] {
        let fixture = fixture(FileIo::Direct);
        fixture.free_all();
        fixture.assert_mapped("m", M);
        if is_late {
            fixture.driver.be_late();
        }
        fixture.engine.make_resident("m").unwrap();
        assert_eq!(
            fixture.driver.queued(),
            0,
            "it is said too early to be there"
        );
        fixture.assert_served("m", M);
        assert_eq!(direct_bytes(&fixture), (padded_bytes(), 0));
        assert_eq!(
            fixture.engine.status().read_bytes,
            M.iter().map(|each| each.1).sum::<u64>()
        );
        fixture.finish();
    }
}

#[test]
fn small_files_go_through_the_page_cache_unless_it_is_told_otherwise() {
    for file_io in [FileIo::Auto, FileIo::Cached] {
        let fixture = fixture(file_io);
        fixture.free_all();
        fixture.assert_served("m", M);
        assert_eq!(direct_bytes(&fixture), (0, 0), "{file_io:?}");
        fixture.finish();
    }
}

#[test]
fn a_changed_byte_is_noticed_wherever_it_is_read_from() {
    for in_cache in [false, true] {
        notices_a_changed_byte(in_cache);
    }
}

fn notices_a_changed_byte(in_cache: bool) {
    let fixture = fixture(FileIo::Direct);
    fixture.free_all();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fixture.spill_files()[0])
        .unwrap();
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 77).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[byte[0] ^ 1], 77).unwrap();
    file.sync_all().unwrap();
    if in_cache {
        std::fs::read(&fixture.spill_files()[0]).unwrap();
    }
    let error = fixture.engine.make_resident("m").unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
    fixture.finish();
}

#[test]
fn a_file_that_was_cut_is_corrupt_past_the_page_cache_too() {
    let fixture = fixture(FileIo::Direct);
    fixture.free_all();
    let path = &fixture.spill_files()[0];
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(4096))
        .unwrap();
    let error = fixture.engine.make_resident("m").unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
    fixture.finish();
}
