//! E1 to E6, E9 and E10 over generated inputs, each stated by itself and without the planner's own words.

use super::*;
use proptest::{collection::vec, prelude::*};

/// Small numbers, so that borders are met, and some huge ones.
fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..64, 4 => 0u64..40_000, 1 => (u64::MAX - 64)..=u64::MAX]
}

fn blocks() -> impl Strategy<Value = Vec<BlockFacts>> {
    let copy = prop_oneof![
        3 => Just(HostCopy::None),
        1 => Just(HostCopy::Ram),
        1 => Just(HostCopy::File),
    ];
    vec(
        (1u64..48, copy).prop_map(|(bytes, copy)| BlockFacts {
            bytes,
            file_bytes: bytes.next_multiple_of(16),
            copy,
        }),
        0..12,
    )
}

fn tiers() -> impl Strategy<Value = TierFacts> {
    (amount(), amount(), any::<bool>()).prop_map(|(ram_bytes, disk_bytes, files_count_as_ram)| {
        TierFacts {
            ram_bytes,
            disk_bytes,
            files_count_as_ram,
        }
    })
}

fn threshold() -> impl Strategy<Value = Threshold> {
    prop_oneof![1 => Just(Threshold::Off), 3 => amount().prop_map(Threshold::Below)]
}

/// Tiers that hold anything, so that every plan succeeds.
const ENDLESS: TierFacts = TierFacts {
    ram_bytes: u64::MAX,
    disk_bytes: u64::MAX,
    files_count_as_ram: false,
};

fn indices(plan: &Plan) -> Vec<usize> {
    plan.moves.iter().map(|moved| moved.index).collect()
}

fn sum(blocks: &[BlockFacts]) -> u64 {
    blocks.iter().map(|block| block.bytes).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn e1_e2_at_least_the_loaded_bytes_unload_everything(
        loaded in blocks(), above in amount(), tiers in tiers(), threshold in threshold()
    ) {
        let request = MemoryRequest::AtLeast(sum(&loaded).saturating_add(above).max(1));
        for request in [request, MemoryRequest::Full] {
            if let Ok(plan) = plan(request, &loaded, tiers, threshold) {
                prop_assert_eq!(indices(&plan), (0..loaded.len()).collect::<Vec<_>>());
                prop_assert_eq!(plan.extent == Extent::Full, !loaded.is_empty());
            }
        }
    }

    #[test]
    fn e2_e9_a_request_for_nothing_moves_nothing(
        loaded in blocks(), tiers in tiers(), threshold in threshold()
    ) {
        let plan = plan(MemoryRequest::AtLeast(0), &loaded, tiers, threshold).unwrap();
        prop_assert_eq!(plan, Plan { extent: Extent::Nothing, moves: vec![], freed_bytes: 0 });
    }

    #[test]
    fn e3_a_partial_unload_reaches_the_request_and_needs_its_last_block(
        loaded in blocks(), share in 0.0..1.0f64, threshold in threshold()
    ) {
        prop_assume!(!loaded.is_empty());
        let request = ((sum(&loaded) as f64 * share) as u64).max(1);
        let plan = plan(MemoryRequest::AtLeast(request), &loaded, ENDLESS, threshold).unwrap();
        let last = loaded[plan.moves.last().unwrap().index].bytes;
        prop_assert!(plan.freed_bytes >= request);
        prop_assert!(plan.freed_bytes - last < request);
        prop_assert_eq!(plan.extent == Extent::Full, plan.moves.len() == loaded.len());
    }

    #[test]
    fn e4_a_plan_reaches_the_request_or_takes_everything_or_says_what_is_short(
        loaded in blocks(), request in amount(), tiers in tiers(), threshold in threshold()
    ) {
        match plan(MemoryRequest::AtLeast(request), &loaded, tiers, threshold) {
            Ok(plan) => prop_assert!(
                plan.freed_bytes >= request || plan.moves.len() == loaded.len()
            ),
            Err(short) => {
                prop_assert!(short.wanted > short.available);
                let has = match short.tier {
                    ShortTier::Ram => tiers.ram_bytes,
                    ShortTier::Disk => tiers.disk_bytes,
                };
                prop_assert_eq!(short.available, has);
            }
        }
    }

    #[test]
    fn e5_memory_never_changes_what_leaves(
        loaded in blocks(), request in amount(), one in tiers(), other in tiers(), threshold in threshold()
    ) {
        let request = MemoryRequest::AtLeast(request);
        let free = plan(request, &loaded, ENDLESS, threshold).unwrap();
        for tiers in [one, other] {
            if let Ok(plan) = plan(request, &loaded, tiers, threshold) {
                prop_assert_eq!(indices(&plan), indices(&free));
                prop_assert_eq!(plan.freed_bytes, free.freed_bytes);
                prop_assert_eq!(plan.extent, free.extent);
            }
        }
    }

    #[test]
    fn e6_a_block_is_in_a_file_exactly_when_less_than_the_threshold_would_remain(
        loaded in blocks(), tiers in tiers(), threshold in threshold()
    ) {
        let Ok(plan) = plan(MemoryRequest::Full, &loaded, tiers, threshold) else {
            return Ok(());
        };
        // Signed and wide: no saturation to hide behind.
        let mut available = i128::from(tiers.ram_bytes);
        for moved in &plan.moves {
            let block = loaded[moved.index];
            let remains = available - i128::from(block.bytes);
            match moved.destination {
                Destination::Release => prop_assert_ne!(block.copy, HostCopy::None),
                Destination::File => {
                    let Threshold::Below(threshold) = threshold else {
                        return Err(TestCaseError::fail("a file although files are off"));
                    };
                    prop_assert!(remains < i128::from(threshold));
                    if tiers.files_count_as_ram {
                        available -= i128::from(block.file_bytes);
                    }
                }
                Destination::Ram => {
                    if let Threshold::Below(threshold @ 1..) = threshold {
                        prop_assert!(remains >= i128::from(threshold));
                    }
                    available = remains;
                }
            }
        }
        prop_assert!(available >= 0, "more memory was given away than there is");
    }

    #[test]
    fn e4_nothing_that_fits_is_refused(
        loaded in blocks(), request in amount(), tiers in tiers(), threshold in threshold()
    ) {
        let request = MemoryRequest::AtLeast(request);
        if let Err(short) = plan(request, &loaded, tiers, threshold) {
            // The same plan with only that tier made endless is not short of that tier any more.
            let wider = match short.tier {
                ShortTier::Disk => TierFacts { disk_bytes: u64::MAX, ..tiers },
                ShortTier::Ram => TierFacts { ram_bytes: u64::MAX, ..tiers },
            };
            if let Err(next) = plan(request, &loaded, wider, threshold) {
                prop_assert_ne!(next.tier, short.tier);
            }
        }
    }

    #[test]
    fn e10_a_block_is_released_exactly_when_a_current_copy_exists(
        loaded in blocks(), request in amount(), threshold in threshold()
    ) {
        let plan = plan(MemoryRequest::AtLeast(request), &loaded, ENDLESS, threshold).unwrap();
        for moved in plan.moves {
            let clean = loaded[moved.index].copy != HostCopy::None;
            prop_assert_eq!(moved.destination == Destination::Release, clean);
        }
    }
}
