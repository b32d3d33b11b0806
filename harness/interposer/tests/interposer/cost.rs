//! What a call costs that no rule is about.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Instant;

use libtest_mimic::Trial;

use crate::stage::{Stage, said};
use crate::trial;

const CALLS: u32 = 2000;
const BATCHES: u32 = 30;
/// Generous: builds for tests are barely optimised, and machines busy. The benchmark is elsewhere.
const BOUND_NS: u64 = 5000;

pub(crate) fn tests() -> Vec<Trial> {
    vec![trial("cost::a_call_without_a_rule_costs_little_more", cost)]
}

fn cost() {
    let stage = Stage::new("");
    let path = stage.scope().join("file");
    std::fs::write(&path, [0; 4096]).unwrap();
    let words = ["play", "cost"];
    let executable = std::env::current_exe().unwrap();
    let read = |said: String| -> BTreeMap<String, u64> {
        let lines = said.lines().map(|line| line.rsplit_once(' ').unwrap());
        lines
            .map(|(name, ns)| (name.to_owned(), ns.parse().unwrap()))
            .collect()
    };
    let bare = read(said(
        Command::new(&executable)
            .args(words)
            .current_dir(stage.scope()),
    ));
    let wrapped = read(said(
        stage
            .command(&executable)
            .args(words)
            .current_dir(stage.scope()),
    ));
    assert_eq!(stage.calls("lseek"), u64::from(CALLS * BATCHES));
    for (name, bare_ns) in bare {
        let wrapped_ns = wrapped[&name];
        let more_ns = wrapped_ns.saturating_sub(bare_ns);
        eprintln!("{name}: bare {bare_ns} ns, wrapped {wrapped_ns} ns, {more_ns} ns more");
        assert!(more_ns < BOUND_NS, "{name}");
    }
}

pub(crate) fn play() {
    let path = std::env::current_dir().unwrap().join("file");
    let file = File::open(&path).unwrap();
    let outside = File::open("/dev/zero").unwrap();
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let (inside, outside) = (file.as_raw_fd(), outside.as_raw_fd());
    let mut byte = 0u8;
    let to = (&raw mut byte).cast();
    // SAFETY: descriptors, a name and a byte that live to the end of the function.
    unsafe {
        measure("lseek in the scope", || {
            libc::lseek(inside, 0, libc::SEEK_SET) as isize
        });
        measure("pread of 1 byte in the scope", || {
            libc::pread(inside, to, 1, 0)
        });
        measure("read of 1 byte outside", || libc::read(outside, to, 1));
        measure("access by path in the scope (stat)", || {
            let mut stat: libc::stat = std::mem::zeroed();
            libc::stat(name.as_ptr(), &raw mut stat) as isize
        });
        measure("close of nothing", || libc::close(-1) as isize);
    }
}

/// Prints the time of a call in the quickest batch.
fn measure(name: &str, call: impl Fn() -> isize) {
    let batch = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(call());
        }
        start.elapsed() / CALLS
    };
    let best = (0..BATCHES).map(|_| batch()).min().unwrap();
    println!("{name} {}", best.as_nanos());
}
