//! What processes see of a shared board: capacity, addresses, rows, violations, and what a dead process leaves.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};
use spillproof_board::{
    Board, BoardConfig, BoardDevice, BoardError, NewObject, ObjectKind, Owner, device_of,
    rounded_bytes,
};

const CAPACITY_BYTES: u64 = 1 << 20;

fn board(devices: usize) -> Board {
    let devices = (0..devices)
        .map(|index| BoardDevice {
            capacity_bytes: CAPACITY_BYTES,
            name: format!("device {index}"),
        })
        .collect();
    Board::create(&BoardConfig { devices }).unwrap()
}

fn memory(address: u64, bytes: u64) -> NewObject<'static> {
    NewObject {
        kind: ObjectKind::DeviceMemory,
        device: 0,
        bytes,
        address,
        call: "cuMemAlloc_v2",
        serial: 7,
    }
}

#[test]
fn a_device_hands_out_its_exact_capacity_and_not_a_unit_more() {
    let board = board(1);
    let mut locked = board.lock().unwrap();
    let address = locked.take_address(0, CAPACITY_BYTES).unwrap();
    let row = locked
        .insert(Owner::current(), memory(address, CAPACITY_BYTES))
        .unwrap();
    let second = locked.take_address(0, 512).unwrap();
    let refused = locked.insert(Owner::current(), memory(second, 512));
    assert!(matches!(
        refused,
        Err(BoardError::OutOfMemory {
            free_bytes: 0,
            wanted_bytes: 512,
            ..
        })
    ));
    locked.remove(row);
    assert_eq!(locked.free_bytes(0), CAPACITY_BYTES);
    locked
        .insert(Owner::current(), memory(second, 512))
        .unwrap();
    assert_eq!(locked.used_bytes(0), 512);
}

#[test]
fn handles_and_host_memory_take_no_capacity() {
    let board = board(1);
    let mut locked = board.lock().unwrap();
    for kind in ObjectKind::ALL {
        if !kind.takes_capacity() {
            let object = NewObject {
                kind,
                bytes: 4 * CAPACITY_BYTES,
                ..memory(0, 0)
            };
            locked.insert(Owner::current(), object).unwrap();
        }
    }
    assert_eq!(locked.used_bytes(0), 0);
}

#[test]
fn addresses_are_never_handed_out_twice_and_have_gaps() {
    let board = board(2);
    let mut locked = board.lock().unwrap();
    let first = locked.take_address(1, 100).unwrap();
    let second = locked.take_address(1, 100).unwrap();
    assert!(second >= first + 100 + 4096, "{first:#x} {second:#x}");
    assert_eq!(device_of(first), Some(1));
    assert_eq!(device_of(locked.take_address(0, 1).unwrap()), Some(0));
}

#[test]
fn a_snapshot_tells_each_object_by_its_call() {
    let board = board(1);
    let mut locked = board.lock().unwrap();
    let address = locked.take_address(0, 4096).unwrap();
    let row = locked
        .insert(Owner::current(), memory(address, 4096))
        .unwrap();
    drop(locked);
    let snapshot = board.snapshot().unwrap();
    assert_eq!(snapshot.devices[0].used_bytes, 4096);
    let object = &snapshot.objects[0];
    assert_eq!(
        (object.call.as_str(), object.serial, object.bytes),
        ("cuMemAlloc_v2", 7, 4096)
    );
    assert_eq!(object.pid, std::process::id());
    board.lock().unwrap().remove(row);
    let snapshot = board.snapshot().unwrap();
    assert_eq!(
        (snapshot.objects.len(), snapshot.devices[0].used_bytes),
        (0, 0)
    );
}

#[test]
fn bytes_come_back_and_freed_pages_read_as_zeros() {
    let board = board(1);
    let mut locked = board.lock().unwrap();
    let address = locked.take_address(0, CAPACITY_BYTES).unwrap();
    let row = locked
        .insert(Owner::current(), memory(address, CAPACITY_BYTES))
        .unwrap();
    board
        .fill_device(address, CAPACITY_BYTES, &[1, 2, 3, 4])
        .unwrap();
    let mut out = vec![0u8; CAPACITY_BYTES as usize];
    board.read_device(address, &mut out).unwrap();
    assert!(out.chunks(4).all(|chunk| chunk == [1, 2, 3, 4]));
    locked.remove(row);
    board.read_device(address, &mut out).unwrap();
    assert!(out.iter().all(|byte| *byte == 0));
}

#[test]
fn overlapping_device_copies_behave_like_memmove() {
    let board = board(1);
    let address = board
        .lock()
        .unwrap()
        .take_address(0, CAPACITY_BYTES)
        .unwrap();
    let contents: Vec<u8> = (0..700_000u32).map(|at| ((at * 31) >> 3) as u8).collect();
    for (from, to) in [(0, 1000), (1000, 0)] {
        board.write_device(address + from, &contents).unwrap();
        board
            .copy_device(address + to, address + from, contents.len() as u64)
            .unwrap();
        let mut out = vec![0u8; contents.len()];
        board.read_device(address + to, &mut out).unwrap();
        assert!(out == contents, "copy from {from} to {to}");
    }
}

#[test]
fn a_pool_row_grows_only_into_free_memory() {
    let board = board(1);
    let mut locked = board.lock().unwrap();
    let pool = NewObject {
        kind: ObjectKind::PoolMemory,
        ..memory(0, 0)
    };
    let row = locked.insert(Owner::current(), pool).unwrap();
    locked.resize(row, CAPACITY_BYTES).unwrap();
    assert!(locked.resize(row, CAPACITY_BYTES + 512).is_err());
    assert_eq!(locked.used_bytes(0), CAPACITY_BYTES);
    locked.resize(row, 512).unwrap();
    assert_eq!(locked.free_bytes(0), CAPACITY_BYTES - 512);
}

#[test]
fn violations_keep_their_order_and_are_counted_past_the_end_of_the_log() {
    let board = board(1);
    for index in 0..spillproof_board::MAX_VIOLATIONS + 3 {
        board
            .lock()
            .unwrap()
            .report(42, "cuMemFree_v2", &format!("double free {index}"));
    }
    let snapshot = board.snapshot().unwrap();
    assert_eq!(snapshot.violations.len(), spillproof_board::MAX_VIOLATIONS);
    assert_eq!(snapshot.violations[1].text, "double free 1");
    assert_eq!(snapshot.violations[1].pid, 42);
    assert_eq!(snapshot.uncounted_violations, 3);
}

#[test]
fn a_dead_owners_memory_is_reclaimed_when_it_is_needed_and_by_a_snapshot() {
    let board = board(1);
    let mut dead = Owner::current();
    dead.start_ticks += 1;
    for by_snapshot in [false, true] {
        let mut locked = board.lock().unwrap();
        let address = locked.take_address(0, CAPACITY_BYTES).unwrap();
        locked
            .insert(dead, memory(address, CAPACITY_BYTES))
            .unwrap();
        if by_snapshot {
            drop(locked);
            assert_eq!(board.snapshot().unwrap().devices[0].used_bytes, 0);
        } else {
            let address = locked.take_address(0, 512).unwrap();
            let row = locked
                .insert(Owner::current(), memory(address, 512))
                .unwrap();
            locked.remove(row);
        }
    }
}

#[test]
fn a_file_that_is_no_board_is_refused() {
    let error = Board::open(Path::new("/proc/self/exe")).unwrap_err();
    assert!(
        matches!(error, BoardError::NotABoard { .. } | BoardError::Io { .. }),
        "{error}"
    );
    let error = Board::open(Path::new("/nonexistent")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
}

#[test]
fn too_many_and_too_large_devices_are_refused() {
    let device = |capacity_bytes| BoardDevice {
        capacity_bytes,
        name: String::new(),
    };
    let many = BoardConfig {
        devices: vec![device(1); spillproof_board::MAX_DEVICES + 1],
    };
    assert!(matches!(
        Board::create(&many),
        Err(BoardError::TooManyDevices { .. })
    ));
    let large = BoardConfig {
        devices: vec![device(u64::MAX)],
    };
    assert!(matches!(
        Board::create(&large),
        Err(BoardError::DeviceTooLarge { .. })
    ));
    assert_eq!(rounded_bytes(1), 512);
}

/// Run as a child by the tests below: opens the board and does what `BOARD_TEST_ROLE` says.
#[test]
fn child() {
    let Ok(role) = std::env::var("BOARD_TEST_ROLE") else {
        return;
    };
    let path = std::env::var("BOARD_TEST_PATH").unwrap();
    let board = Board::open(Path::new(&path)).unwrap();
    match role.as_str() {
        "hold" => {
            let mut locked = board.lock().unwrap();
            let address = locked.take_address(0, 512).unwrap();
            locked
                .insert(Owner::current(), memory(address, 512))
                .unwrap();
            drop(locked);
            println!("holding");
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        "die locked" => {
            let mut locked = board.lock().unwrap();
            let address = locked.take_address(0, 512).unwrap();
            locked
                .insert(Owner::current(), memory(address, 512))
                .unwrap();
            std::process::abort();
        }
        "lock" => {
            let locked = board.lock().unwrap();
            assert_eq!(locked.used_bytes(0), 512);
        }
        "churn" => {
            for _ in 0..300 {
                let mut locked = board.lock().unwrap();
                let address = locked.take_address(0, 512).unwrap();
                let row = locked
                    .insert(Owner::current(), memory(address, 512))
                    .unwrap();
                drop(locked);
                board
                    .write_device(address, &[role.len() as u8; 512])
                    .unwrap();
                board.lock().unwrap().remove(row);
            }
        }
        "write under a limit" => {
            let limit = Rlimit {
                current: Some(4096),
                maximum: Some(4096),
            };
            setrlimit(Resource::Fsize, limit).unwrap();
            let address = board
                .lock()
                .unwrap()
                .take_address(0, CAPACITY_BYTES)
                .unwrap();
            let contents: Vec<u8> = (0..300_007u32).map(|at| (at * 7) as u8).collect();
            board.write_device(address + 5001, &contents).unwrap();
            let mut out = vec![0; contents.len()];
            board.read_device(address + 5001, &mut out).unwrap();
            assert!(out == contents);
            out.fill(0);
            board
                .copy_host(
                    std::process::id(),
                    out[..].as_mut().into(),
                    contents[..].into(),
                )
                .unwrap();
            assert!(out == contents);
        }
        other => panic!("unknown role {other}"),
    }
}

fn child_command(board: &Board, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["child", "--exact", "--nocapture"])
        .env("BOARD_TEST_ROLE", role)
        .env("BOARD_TEST_PATH", board.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

#[test]
fn a_killed_process_gives_its_memory_back() {
    use std::io::{BufRead, BufReader};
    let board = board(1);
    let mut child = child_command(&board, "hold").spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap().contains("holding")));
    let snapshot = board.snapshot().unwrap();
    assert_eq!(
        (snapshot.objects[0].pid, snapshot.devices[0].used_bytes),
        (child.id(), 512)
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let snapshot = board.snapshot().unwrap();
    assert_eq!(
        (snapshot.objects.len(), snapshot.devices[0].used_bytes),
        (0, 0)
    );
}

#[test]
fn a_process_that_dies_with_the_lock_blocks_nobody() {
    let board = board(1);
    let status = child_command(&board, "die locked").status().unwrap();
    assert!(!status.success());
    assert_eq!(board.snapshot().unwrap().devices[0].used_bytes, 0);
}

#[test]
fn a_limit_on_the_size_of_files_does_not_stop_device_writes() {
    let board = board(1);
    let output = child_command(&board, "write under a limit")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
}

#[test]
fn memory_that_is_taken_beforehand_serves_the_first_addresses_and_goes_with_them() {
    let board = board(1);
    let pages_bytes = || std::fs::metadata(board.path()).unwrap().blocks() * 512;
    let before_bytes = pages_bytes();
    board.populate(0, CAPACITY_BYTES).unwrap();
    assert_eq!(pages_bytes(), before_bytes + CAPACITY_BYTES);
    let address = board.lock().unwrap().take_address(0, CAPACITY_BYTES);
    let address = address.unwrap();
    board.write_device(address, &[7; 4096]).unwrap();
    assert_eq!(pages_bytes(), before_bytes + CAPACITY_BYTES);
    board.discard(address, CAPACITY_BYTES);
    assert_eq!(pages_bytes(), before_bytes);
}

#[test]
fn a_process_waits_for_the_lock_of_another() {
    let board = board(1);
    let mut locked = board.lock().unwrap();
    let mut child = child_command(&board, "lock").spawn().unwrap();
    let is_waiting = || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let pid = child.id().to_string();
        let mut waiting = locks.lines().filter(|line| line.contains("->"));
        waiting.any(|line| line.split_whitespace().any(|field| field == pid))
    };
    let waited = (0..5000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        is_waiting()
    });
    assert!(waited, "the child never waited for the lock");
    let address = locked.take_address(0, 512).unwrap();
    locked
        .insert(Owner::current(), memory(address, 512))
        .unwrap();
    drop(locked);
    assert!(child.wait().unwrap().success());
}

#[test]
fn processes_changing_one_board_at_once_lose_nothing() {
    let board = board(1);
    let children: Vec<_> = (0..3)
        .map(|_| child_command(&board, "churn").spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut locked = board.lock().unwrap();
    assert_eq!(locked.used_bytes(0), 0);
    let next = locked.take_address(0, 512).unwrap();
    drop(locked);
    let fresh = self::board(1);
    let first = fresh.lock().unwrap().take_address(0, 512).unwrap();
    let second = fresh.lock().unwrap().take_address(0, 512).unwrap();
    assert_eq!(next, first + 900 * (second - first));
}
