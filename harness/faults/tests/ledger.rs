//! The ledger: what exists, each with the call that made it, also when several threads or a dying one change it.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use spillproof_faults::{Attached, Entering, Kind, Named, Options, Plan, Shared, SiteId};

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
        path: Named::Path(b""),
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
    assert_eq!(attached.bytes(taken), 20);
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
            assert_eq!(attached.bytes(taken), key * 10, "another thing was taken");
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

/// Lets two threads do something at the same moment, over and over, with what comes between.
fn at_once(rounds: u64, between: impl Fn(u64), act: impl Fn(u64, u64) + Sync) {
    let (begun, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let wait = |counter: &AtomicU64, round: u64| {
        for step in 1u64.. {
            if counter.load(Ordering::Acquire) >= round {
                return;
            }
            if step % 5000 == 0 {
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                wait(&begun, round);
                act(round, 0);
                done.store(round, Ordering::Release);
            }
        });
        for round in 1..=rounds {
            between(round);
            begun.store(round, Ordering::Release);
            act(round, 1);
            wait(&done, round);
        }
    });
}

#[test]
fn of_two_threads_that_end_a_thing_at_once_one_does() {
    let (_shared, _file, attached) = both(1);
    let ended = AtomicUsize::new(0);
    let enter = |_| assert!(attached.enter(&thing(1)));
    at_once(5000, enter, |_, _| {
        if let Some(taken) = attached.take(Kind::DeviceMemory, 1) {
            ended.fetch_add(1, Ordering::Relaxed);
            attached.end(taken);
        }
    });
    assert_eq!(ended.into_inner(), 5000);
}

#[test]
fn what_two_threads_enter_at_once_is_both_there() {
    let (shared, _file, attached) = both(2);
    let missing = AtomicUsize::new(0);
    // Keys that differ from round to round: those of some rounds start their search at the same row.
    let clear = |round| {
        for thread in 0..2 {
            match attached.take(Kind::DeviceMemory, (round - 1) * 2 + thread) {
                Some(taken) => attached.end(taken),
                None => _ = missing.fetch_add(1, Ordering::Relaxed),
            }
        }
    };
    // Before the first round nothing is there.
    at_once(5000, clear, |round, thread| {
        attached.enter(&thing(round * 2 + thread));
    });
    assert_eq!(missing.into_inner(), 2);
    assert_eq!(shared.ledger().lost, 0);
}
