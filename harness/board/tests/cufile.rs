//! What the board tells of cuFile transfers: per process, path and direction, for longer than anything that is open.

#![allow(clippy::unwrap_used)]

use spillproof_board::{
    Board, BoardConfig, CufileCount, CufileDirection, CufileFault, CufileFaults, CufilePath,
    CufileUse, MAX_CUFILE_USERS, Owner,
};

use CufileDirection::{Read, Write};
use CufilePath::{Compat, Direct};

fn board() -> Board {
    Board::create(&BoardConfig {
        devices: Vec::new(),
    })
    .unwrap()
}

/// A process that ran some time ago.
fn gone(number: u32) -> Owner {
    Owner {
        pid: u32::MAX - number,
        start_ticks: 1,
    }
}

fn count(board: &Board, owner: Owner, path: CufilePath, direction: CufileDirection, bytes: u64) {
    let mut locked = board.lock().unwrap();
    locked.count_cufile(owner, path, direction, bytes).unwrap();
}

#[test]
fn transfers_are_counted_by_process_path_and_direction() {
    let board = board();
    let this = Owner::current();
    for (path, direction, bytes) in [
        (Direct, Write, 1),
        (Direct, Read, 20),
        (Direct, Read, 30),
        (Compat, Write, 400),
        (Compat, Read, 5000),
    ] {
        count(&board, this, path, direction, bytes);
    }
    count(&board, gone(0), Compat, Write, 7);
    let told = |transfers, bytes| CufileCount { transfers, bytes };
    let expected = CufileUse {
        pid: this.pid,
        direct_writes: told(1, 1),
        direct_reads: told(2, 50),
        compat_writes: told(1, 400),
        compat_reads: told(1, 5000),
        faults: CufileFaults::default(),
    };
    let seen = board.snapshot().unwrap().cufile;
    assert_eq!(seen[0], expected);
    assert_eq!((seen[0].written_bytes(), seen[0].read_bytes()), (401, 5050));
    assert_eq!((seen[1].pid, seen[1].written_bytes()), (gone(0).pid, 7));
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_dead_process_keeps_its_counts_until_the_row_is_needed_and_a_live_one_always() {
    let board = board();
    count(&board, Owner::current(), Direct, Write, 9);
    for number in 1..MAX_CUFILE_USERS as u32 {
        count(&board, gone(number), Direct, Write, 1);
    }
    assert_eq!(board.snapshot().unwrap().cufile.len(), MAX_CUFILE_USERS);
    count(&board, gone(0), Direct, Read, 3);
    let seen = board.snapshot().unwrap().cufile;
    assert_eq!(seen.len(), MAX_CUFILE_USERS);
    let find = |pid: u32| seen.iter().find(|user| user.pid == pid).copied().unwrap();
    assert_eq!(find(std::process::id()).written_bytes(), 9);
    let new = find(gone(0).pid);
    assert_eq!((new.written_bytes(), new.read_bytes()), (0, 3));
}

#[test]
fn a_later_process_with_the_same_number_starts_at_nothing() {
    let board = board();
    let first = gone(0);
    let second = Owner {
        start_ticks: 2,
        ..first
    };
    count(&board, first, Direct, Write, 5);
    count(&board, second, Direct, Write, 6);
    let seen = board.snapshot().unwrap().cufile;
    let bytes: Vec<u64> = seen.iter().map(CufileUse::written_bytes).collect();
    assert_eq!(bytes, [5, 6]);
}

#[test]
fn faults_are_counted_by_process_and_kind_and_not_handed_on_with_a_row() {
    let faults = [
        CufileFault::OpenRefused,
        CufileFault::OpenHung,
        CufileFault::HandleRefused,
        CufileFault::BufferRefused,
        CufileFault::CutShort,
        CufileFault::Closed,
    ];
    let board = board();
    let this = Owner::current();
    let met = |owner, fault| {
        let mut locked = board.lock().unwrap();
        locked.count_cufile_fault(owner, fault).unwrap();
    };
    for (times, fault) in (1..).zip(faults) {
        (0..times).for_each(|_| met(this, fault));
    }
    met(gone(1), CufileFault::Closed);
    let seen = board.snapshot().unwrap().cufile;
    for (times, fault) in (1..).zip(faults) {
        assert_eq!(seen[0].faults.met(fault), times, "{fault:?}");
    }
    assert_eq!(seen[0].faults.total(), 21);
    assert_eq!((seen[0].written_bytes(), seen[1].faults.total()), (0, 1));
    // Its row goes to another process once every other one is taken.
    for number in 2..=MAX_CUFILE_USERS as u32 {
        count(&board, gone(number), Direct, Write, 1);
    }
    let seen = board.snapshot().unwrap().cufile;
    let others = seen.iter().filter(|user| user.pid != this.pid);
    assert_eq!(others.map(|user| user.faults.total()).max(), Some(0));
}
