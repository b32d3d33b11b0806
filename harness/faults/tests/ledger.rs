//! The ledger: what exists, each with the call that made it, also when several threads or a dying one change it.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use spillproof_faults::{Attached, Entering, Kind, Options, Plan, Shared, SiteId};

const ALLOC: SiteId = SiteId::named("cuMemAlloc");

fn both(ledger_rows: usize) -> (Shared, OwnedFd, Attached) {
    let options = Options {
        ledger_rows,
        trace_rows: 1,
        ..Options::default()
    };
    let (shared, file) =
        Shared::create(&Plan::default(), &options).expect("the memory can be made");
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("no 0 in it");
    let attached = Attached::open(&path).expect("it can be attached");
    (shared, file, attached)
}

fn thing(key: u64) -> Entering<'static> {
    Entering {
        kind: Kind::DeviceMemory,
        key,
        bytes: key * 10,
        site: ALLOC,
        nth: key,
        path: b"",
        caller: b"libtorch.so",
    }
}

#[test]
fn the_ledger_names_what_exists() {
    let (shared, _file, attached) = both(64);
    for key in 1..=3 {
        assert!(attached.enter(&thing(key)));
    }
    let taken = attached.take(Kind::DeviceMemory, 2).unwrap();
    assert_eq!(taken.bytes, 20);
    assert!(attached.take(Kind::DeviceMemory, 2).is_none());
    assert!(shared.ledger().entries[1].is_ending);
    attached.end(taken);
    let taken = attached.take(Kind::DeviceMemory, 3).unwrap();
    attached.restore(taken);
    assert!(attached.take(Kind::Stream, 3).is_none());
    assert!(attached.take(Kind::DeviceMemory, 9).is_none());
    let ledger = shared.ledger();
    let keys: Vec<u64> = ledger.entries.iter().map(|entry| entry.key).collect();
    assert_eq!((keys, ledger.lost, ledger.unreadable), (vec![1, 3], 0, 0));
    let entry = &ledger.entries[1];
    assert_eq!(
        (entry.kind, entry.bytes, entry.site, entry.nth),
        (Kind::DeviceMemory, 30, ALLOC, 3)
    );
    assert_eq!(
        (entry.caller.as_str(), entry.is_ending),
        ("libtorch.so", false)
    );
    assert_eq!(entry.pid, std::process::id());
}

#[test]
fn a_full_ledger_says_what_it_lost_and_rows_are_used_again() {
    let (shared, _file, attached) = both(64);
    let entered = (1..=70).filter(|key| attached.enter(&thing(*key))).count();
    assert_eq!(entered, 64);
    assert_eq!(
        (shared.ledger().entries.len(), shared.ledger().lost),
        (64, 6)
    );
    for key in 1..=64 {
        let taken = attached.take(Kind::DeviceMemory, key).unwrap();
        attached.end(taken);
    }
    assert!(shared.ledger().entries.is_empty());
    for round in 0..1000 {
        assert!(attached.enter(&thing(round)));
        let taken = attached.take(Kind::DeviceMemory, round).unwrap();
        attached.end(taken);
    }
    assert_eq!(shared.ledger().lost, 6);
    // A context can be retained twice: two rows, each ended once.
    assert!(attached.enter(&thing(5)) && attached.enter(&thing(5)));
    for _ in 0..2 {
        let taken = attached.take(Kind::DeviceMemory, 5).unwrap();
        attached.end(taken);
    }
    assert!(attached.take(Kind::DeviceMemory, 5).is_none());
}

#[test]
fn of_many_threads_that_end_one_thing_one_does() {
    let (shared, _file, attached) = both(1);
    let is_over = AtomicBool::new(false);
    let ended = AtomicUsize::new(0);
    let end = |key| {
        if let Some(taken) = attached.take(Kind::DeviceMemory, key) {
            assert_eq!(taken.bytes, key * 10, "another thing was taken");
            ended.fetch_add(1, Ordering::Relaxed);
            attached.end(taken);
        } else {
            std::thread::yield_now();
        }
    };
    let mut entered = 0;
    std::thread::scope(|scope| {
        for key in [1, 1, 2] {
            let (is_over, end) = (&is_over, &end);
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    end(key);
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while entered < 20_000 && Instant::now() < deadline {
            // Both kinds of thing in the one row that there is.
            match attached.enter(&thing(1 + entered as u64 % 2)) {
                true => entered += 1,
                false => std::thread::yield_now(),
            }
        }
        is_over.store(true, Ordering::Release);
    });
    end(1);
    end(2);
    assert_eq!(ended.load(Ordering::Relaxed), entered);
    assert!(shared.ledger().entries.is_empty());
    assert!(entered > 1000, "only {entered} things could be entered");
}

#[test]
fn of_two_threads_that_end_a_thing_at_once_one_does() {
    let (_shared, _file, attached) = both(1);
    let (round, done, ended) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let rounds = 5000;
    let spin = |until: &dyn Fn() -> bool| {
        for step in 0u64.. {
            if until() {
                return;
            }
            if step % 500 == 499 {
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for this in 1..=rounds {
                    spin(&|| round.load(Ordering::Acquire) >= this);
                    if let Some(taken) = attached.take(Kind::DeviceMemory, 1) {
                        ended.fetch_add(1, Ordering::Relaxed);
                        attached.end(taken);
                    }
                    done.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        for this in 1..=rounds {
            assert!(attached.enter(&thing(1)));
            round.store(this, Ordering::Release);
            spin(&|| done.load(Ordering::Acquire) == 2 * this);
        }
    });
    assert_eq!(ended.into_inner(), rounds);
}
