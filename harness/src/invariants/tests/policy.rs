//! Every lie about what was freed, kept and written, and where it is.

use super::*;

#[test]
fn every_lie_about_what_was_freed_trips_policy() {
    let changes: [fn(&mut Run); 7] = [
        |run| freed(run).freed_bytes -= 1,
        |run| freed(run).extent = Extent::Partial,
        |run| freed(run).moves[0].to = Tier::Ram,
        |run| run.steps[1].status_after = Some(status(1)),
        |run| run.steps[1].after.device = board(MODEL_BYTES / 2),
        |run| run.steps[1].after.written_bytes = MODEL_BYTES + 2 * MIB,
        |run| {
            run.steps[1].action = Action::Free {
                bytes: Amount::whole(0),
                model: None,
                to: Destinations::Any,
            };
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let trips = tripped(change);
        assert!(trips.contains(&InvariantId::Policy), "{index}: {trips:?}");
    }
}

#[test]
fn destinations_that_nothing_bears_out_trip_policy() {
    let changes: [fn(&mut Run); 5] = [
        // Said to be mapped, and no map is there.
        |run| {
            let process = run.steps[1].after.process.as_mut().unwrap();
            process.file_maps.remove(Path::new("/offload/m.spill"));
        },
        // Said to be in files, and the files are empty.
        |run| {
            let files = &mut run.steps[1].after.offload_files.entries;
            files.get_mut(Path::new(SPILL)).unwrap().allocated_bytes = 0;
        },
        // Said to be in RAM, and it is in a file.
        |run| {
            freed(run).moves[0].to = Tier::Ram;
            run.steps[1].action = free_to(Destinations::Any);
        },
        // Said to be in RAM, where only files will do.
        |run| {
            freed(run).moves[0].to = Tier::Ram;
            run.steps[1].after.process.as_mut().unwrap().rss_anon_bytes += MODEL_BYTES;
            run.steps[1].after.offload_files.entries.clear();
            run.steps[1].action = free_to(Destinations::Files);
        },
        // Files are turned off, and there is one.
        |run| {
            run.case.settings = vec![("MMAP_MEM_THRESHOLD_GB", "0".into())];
            run.steps[1].action = free_to(Destinations::Any);
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert_eq!(tripped(change), [InvariantId::Policy], "{index}");
    }
}

fn free_to(to: Destinations) -> Action {
    Action::Free {
        bytes: Amount::Unsaid,
        model: None,
        to,
    }
}

#[test]
fn the_share_of_ram_is_counted_to_the_byte() {
    let split = |ram_bytes| {
        move |run: &mut Run| {
            let rest = Tier::Mapped;
            run.steps[1].action = free_to(Destinations::Split { ram_bytes, rest });
        }
    };
    assert_eq!(tripped(split(0)), []);
    assert_eq!(tripped(split(1)), [InvariantId::Policy]);
}

#[test]
fn a_file_that_changes_without_a_reported_write_trips_policy() {
    let again = |change: fn(&mut FileEntry)| {
        move |run: &mut Run| {
            let mut next = request(b"right");
            next.before = run.steps[1].after.clone();
            next.after = run.steps[1].after.clone();
            next.after.device = next.before.device.clone();
            let files = &mut next.after.offload_files.entries;
            change(files.get_mut(Path::new(SPILL)).unwrap());
            run.steps.push(next);
        }
    };
    assert_eq!(tripped(again(|_| ())), []);
    let rewritten = again(|entry| entry.modified_ns += 1);
    assert_eq!(tripped(rewritten), [InvariantId::Policy]);
    let given_back = again(|entry| {
        entry.modified_ns += 1;
        entry.allocated_bytes -= 4096;
    });
    assert_eq!(tripped(given_back), []);
    let reported = |run: &mut Run| {
        let status = run.steps[1].status_after.as_mut().unwrap();
        status.written_bytes = MODEL_BYTES + 2 * MIB;
    };
    assert_eq!(tripped(reported), [InvariantId::Policy]);
}

#[test]
fn a_refused_request_that_frees_trips_policy() {
    let trips = tripped(|run| {
        run.steps[1].expect = Expect::Error(ErrorKind::InvalidArgument);
        run.steps[1].outcome = failure(ErrorKind::InvalidArgument);
        run.steps[1].after.offload_files.entries.clear();
    });
    assert_eq!(trips, [InvariantId::Policy]);
}

#[test]
fn what_leaves_the_device_before_a_failure_is_on_the_host() {
    let failed = |to_host: u64| {
        move |run: &mut Run| {
            run.steps[1].expect = Expect::OkOrError(ErrorKind::Io);
            run.steps[1].outcome = failure(ErrorKind::Io);
            run.steps[1].after.offload_files.entries.clear();
            let after = run.steps[1].status_after.as_mut().unwrap();
            after.tiers.mapped = to_host;
        }
    };
    assert_eq!(tripped(failed(MODEL_BYTES)), []);
    assert_eq!(tripped(failed(0)), [InvariantId::Policy]);
}

#[test]
fn numbers_too_large_to_add_are_lies_and_not_the_end_of_the_judge() {
    let trips = tripped(|run| {
        let moved = freed(run).moves[0].clone();
        freed(run).moves = vec![
            Move {
                bytes: u64::MAX,
                ..moved
            };
            2
        ];
        let model = status(u64::MAX).models.remove(0);
        let before = run.steps[1].status_before.as_mut().unwrap();
        before.models = vec![model; 2];
        let after = run.steps[1].status_after.as_mut().unwrap();
        after.tiers.ram = u64::MAX;
        after.tiers.mapped = u64::MAX;
    });
    assert_eq!(trips, [InvariantId::Policy]);
}
