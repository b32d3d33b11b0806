//! Every boundary with given numbers, by a second, plain statement of what must leave and where to.

use super::*;

const KIB: u64 = 1 << 10;

fn block(bytes: u64) -> BlockFacts {
    BlockFacts {
        bytes,
        file_bytes: bytes.checked_next_multiple_of(4096).unwrap_or(u64::MAX),
        copy: HostCopy::None,
    }
}

fn with_copy(bytes: u64, copy: HostCopy) -> BlockFacts {
    BlockFacts {
        copy,
        ..block(bytes)
    }
}

const PLENTY: TierFacts = TierFacts {
    ram_bytes: 1 << 50,
    disk_bytes: 1 << 50,
    files_count_as_ram: false,
};

fn ram(ram_bytes: u64) -> TierFacts {
    TierFacts {
        ram_bytes,
        ..PLENTY
    }
}

fn destinations(plan: &Plan) -> Vec<Destination> {
    plan.moves.iter().map(|moved| moved.destination).collect()
}

use Destination::{File, Ram, Release};

#[test]
fn the_request_alone_decides_how_many_leave() {
    // (request, blocks that leave, extent); loaded are 10, 20 and 30 bytes.
    let table = [
        (MemoryRequest::AtLeast(0), 0, Extent::Nothing),
        (MemoryRequest::AtLeast(1), 1, Extent::Partial),
        (MemoryRequest::AtLeast(9), 1, Extent::Partial),
        (MemoryRequest::AtLeast(10), 1, Extent::Partial),
        (MemoryRequest::AtLeast(11), 2, Extent::Partial),
        (MemoryRequest::AtLeast(29), 2, Extent::Partial),
        (MemoryRequest::AtLeast(30), 2, Extent::Partial),
        (MemoryRequest::AtLeast(31), 3, Extent::Full),
        (MemoryRequest::AtLeast(59), 3, Extent::Full),
        (MemoryRequest::AtLeast(60), 3, Extent::Full),
        (MemoryRequest::AtLeast(61), 3, Extent::Full),
        (MemoryRequest::AtLeast(u64::MAX - 1), 3, Extent::Full),
        (MemoryRequest::AtLeast(u64::MAX), 3, Extent::Full),
        (MemoryRequest::Full, 3, Extent::Full),
    ];
    let loaded = [block(10), block(20), block(30)];
    let freed = [0, 10, 30, 60];
    for (request, leaving, extent) in table {
        for (tiers, threshold) in [
            (PLENTY, Threshold::Off),
            (PLENTY, Threshold::Below(1)),
            (ram(0), Threshold::Below(1)),
            (ram(0), Threshold::Below(u64::MAX)),
            (ram(25), Threshold::Below(5)),
            (PLENTY, Threshold::Below(u64::MAX)),
        ] {
            let plan = plan(request, &loaded, tiers, threshold).unwrap();
            let indices: Vec<usize> = plan.moves.iter().map(|moved| moved.index).collect();
            let given = format!("{request:?} {tiers:?} {threshold:?}");
            assert_eq!(indices, (0..leaving).collect::<Vec<_>>(), "{given}");
            assert_eq!(plan.extent, extent, "{given}");
            assert_eq!(plan.freed_bytes, freed[leaving], "{given}");
        }
    }
}

#[test]
fn nothing_loaded_means_nothing_leaves() {
    for request in [MemoryRequest::Full, MemoryRequest::AtLeast(u64::MAX)] {
        let plan = plan(request, &[], ram(0), Threshold::Below(1)).unwrap();
        assert_eq!(plan.extent, Extent::Nothing);
        assert!(plan.moves.is_empty());
        assert_eq!(plan.freed_bytes, 0);
    }
}

#[test]
fn a_block_goes_to_its_file_exactly_when_less_than_the_threshold_would_remain() {
    let (bytes, limit) = (100 * KIB, 7 * KIB);
    for (available, destination) in [
        (0, File),
        (bytes - 1, File),
        (bytes, File),
        (bytes + 1, File),
        (bytes + limit - 1, File),
        (bytes + limit, Ram),
        (bytes + limit + 1, Ram),
        (u64::MAX, Ram),
    ] {
        let plan = plan(
            MemoryRequest::Full,
            &[block(bytes)],
            ram(available),
            Threshold::Below(limit),
        );
        assert_eq!(
            destinations(&plan.unwrap()),
            [destination],
            "available {available}"
        );
    }
}

#[test]
fn a_threshold_of_one_byte_and_of_all_bytes_are_no_special_cases() {
    for (available, threshold, destination) in [
        (10, 1, File),
        (11, 1, Ram),
        (u64::MAX, u64::MAX, File),
        (u64::MAX, u64::MAX - 9, File),
        (u64::MAX, u64::MAX - 10, Ram),
    ] {
        let plan = plan(
            MemoryRequest::Full,
            &[block(10)],
            ram(available),
            Threshold::Below(threshold),
        );
        assert_eq!(
            destinations(&plan.unwrap()),
            [destination],
            "available {available}, threshold {threshold}"
        );
    }
}

#[test]
fn what_went_to_ram_is_no_longer_available_for_the_next_block() {
    let loaded = [block(10), block(10), block(10), block(4)];
    for (available, expected) in [
        (14, [File, File, File, Ram]),
        (15, [Ram, File, File, File]),
        (24, [Ram, File, File, Ram]),
        (25, [Ram, Ram, File, File]),
        (29, [Ram, Ram, File, Ram]),
        (34, [Ram, Ram, File, Ram]),
        (35, [Ram, Ram, Ram, File]),
        (39, [Ram, Ram, Ram, Ram]),
    ] {
        // 14 − 10 < 5 sends the first to its file, 15 − 10 = 5 does not, and so on.
        let tiers = ram(available);
        let plan = plan(MemoryRequest::Full, &loaded, tiers, Threshold::Below(5)).unwrap();
        assert_eq!(destinations(&plan), expected, "available {available}");
    }
}

#[test]
fn files_in_memory_shrink_what_is_available() {
    // The first block's file takes 4096 bytes of memory; the second block is 6 bytes.
    let loaded = [block(1000), block(6)];
    let after_first = |available: u64, files_count_as_ram| {
        let tiers = TierFacts {
            files_count_as_ram,
            ..ram(available)
        };
        let threshold = Threshold::Below(available - 999);
        plan(MemoryRequest::Full, &loaded, tiers, threshold)
    };
    let plan = after_first(10_000, false).unwrap();
    assert_eq!(destinations(&plan), [File, Ram]);
    let plan = after_first(10_000, true).unwrap();
    assert_eq!(destinations(&plan), [File, File]);
    assert_eq!(
        after_first(8191, true),
        Err(Shortfall {
            tier: ShortTier::Ram,
            wanted: 8192,
            available: 8191
        })
    );
    assert!(after_first(8192, true).is_ok());
}

#[test]
fn a_current_copy_is_released_and_takes_no_room() {
    let loaded = [
        with_copy(10, HostCopy::Ram),
        block(10),
        with_copy(u64::MAX / 2, HostCopy::File),
        block(10),
    ];
    for threshold in [Threshold::Off, Threshold::Below(0)] {
        let plan = plan(MemoryRequest::Full, &loaded, ram(20), threshold).unwrap();
        assert_eq!(destinations(&plan), [Release, Ram, Release, Ram]);
    }
    let no_room = TierFacts {
        ram_bytes: 0,
        disk_bytes: 0,
        files_count_as_ram: false,
    };
    let clean = [with_copy(10, HostCopy::Ram), with_copy(10, HostCopy::File)];
    for threshold in [Threshold::Off, Threshold::Below(1)] {
        let plan = plan(MemoryRequest::Full, &clean, no_room, threshold).unwrap();
        assert_eq!(plan.freed_bytes, 20);
        assert_eq!(destinations(&plan), [Release, Release]);
    }
}

#[test]
fn with_files_off_what_ram_does_not_hold_is_a_shortfall() {
    let loaded = [block(10), block(10)];
    let full = |ram_bytes| plan(MemoryRequest::Full, &loaded, ram(ram_bytes), Threshold::Off);
    assert!(full(20).is_ok());
    for (ram_bytes, wanted) in [(19, 20), (10, 20), (9, 10), (0, 10)] {
        assert_eq!(
            full(ram_bytes),
            Err(Shortfall {
                tier: ShortTier::Ram,
                wanted,
                available: ram_bytes
            })
        );
    }
    // A request that takes only what fits is served.
    assert!(plan(MemoryRequest::AtLeast(10), &loaded, ram(10), Threshold::Off).is_ok());
}

#[test]
fn what_the_disk_does_not_hold_is_a_shortfall_with_padding_counted() {
    let loaded = [block(1), block(4097)];
    let full = |disk_bytes| {
        let tiers = TierFacts {
            disk_bytes,
            ..ram(0)
        };
        plan(MemoryRequest::Full, &loaded, tiers, Threshold::Below(1))
    };
    assert_eq!(destinations(&full(3 * 4096).unwrap()), [File, File]);
    for (disk_bytes, wanted) in [(3 * 4096 - 1, 3 * 4096), (4096, 3 * 4096), (4095, 4096)] {
        assert_eq!(
            full(disk_bytes),
            Err(Shortfall {
                tier: ShortTier::Disk,
                wanted,
                available: disk_bytes
            })
        );
    }
}

#[test]
fn sums_beyond_64_bits_saturate() {
    let loaded = [
        with_copy(u64::MAX, HostCopy::File),
        with_copy(u64::MAX, HostCopy::File),
    ];
    let tiers = ram(0);
    let full = plan(
        MemoryRequest::AtLeast(u64::MAX),
        &loaded,
        tiers,
        Threshold::Off,
    )
    .unwrap();
    assert_eq!((full.extent, full.freed_bytes), (Extent::Full, u64::MAX));
    let part = MemoryRequest::AtLeast(u64::MAX - 1);
    let part = plan(part, &loaded, tiers, Threshold::Off).unwrap();
    assert_eq!((part.extent, part.moves.len()), (Extent::Partial, 1));
    let huge = BlockFacts {
        bytes: u64::MAX - 2,
        file_bytes: u64::MAX,
        copy: HostCopy::None,
    };
    let loaded = [block(5), huge];
    assert_eq!(
        plan(MemoryRequest::Full, &loaded, ram(4095), Threshold::Off),
        Err(Shortfall {
            tier: ShortTier::Ram,
            wanted: u64::MAX,
            available: 4095
        })
    );
}

#[test]
fn numbers_of_bytes_become_requests() {
    for (bytes, request) in [
        (0.0, MemoryRequest::AtLeast(0)),
        (-0.0, MemoryRequest::AtLeast(0)),
        (f64::MIN_POSITIVE, MemoryRequest::AtLeast(1)),
        (0.5, MemoryRequest::AtLeast(1)),
        (1.0, MemoryRequest::AtLeast(1)),
        (1.5, MemoryRequest::AtLeast(2)),
        (9_007_199_254_740_992.0, MemoryRequest::AtLeast(1 << 53)),
        (
            18_446_744_073_709_549_568.0,
            MemoryRequest::AtLeast(u64::MAX - 2047),
        ),
        (18_446_744_073_709_551_616.0, MemoryRequest::Full),
        (1e30, MemoryRequest::Full),
        (f64::MAX, MemoryRequest::Full),
        (f64::INFINITY, MemoryRequest::Full),
    ] {
        assert_eq!(MemoryRequest::from_f64(bytes).unwrap(), request, "{bytes}");
    }
    for bytes in [
        f64::NAN,
        -f64::NAN,
        -1.0,
        -f64::MIN_POSITIVE,
        f64::NEG_INFINITY,
        -1e30,
    ] {
        let error = MemoryRequest::from_f64(bytes).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument, "{bytes}");
    }
}
