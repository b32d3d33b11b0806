//! RAM or disk that is short: what counts against which limit, and what is served nevertheless.
use super::*;
use crate::ErrorKind;

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
