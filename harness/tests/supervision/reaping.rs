//! What a killed harness leaves is taken away by the next one, and nothing of a living one's.

use crate::{bench::PATIENCE, trial};
use libtest_mimic::Trial;
use spillproof_harness::{
    sandbox::Sandbox,
    settle::settle,
    world::{MemoryGroup, Volume, World},
};
use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![trial("what_a_killed_harness_left_is_reaped", reaped)]
}

/// Holds a sandbox, one in memory, and a cgroup where that is permitted; prints where they are, and waits for the end of its input.
pub(crate) fn hold(directory: &Path) -> ExitCode {
    let in_memory = World {
        volume: Volume::Memory,
        ..World::default()
    };
    let sandbox = Sandbox::create(directory, "disk").unwrap();
    let memory = Sandbox::create_in(&in_memory, directory, "memory").unwrap();
    let group = MemoryGroup::create(64 << 20).ok();
    fs::write(memory.offload_dir().join("file"), "x").unwrap();
    let mut places = vec![sandbox.root().to_owned(), memory.root().to_owned()];
    places.push(memory.offload_dir());
    places.extend(group.iter().map(MemoryGroup::members));
    let places: Vec<String> = places.iter().map(|at| at.display().to_string()).collect();
    println!("{}", places.join("\t"));
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    ExitCode::SUCCESS
}

struct Holder {
    child: Child,
    places: Vec<PathBuf>,
}

impl Holder {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .arg("holder")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let places = line.trim_end().split('\t').map(PathBuf::from).collect();
        Self { child, places }
    }

    fn has_all(&self) -> bool {
        self.places.iter().all(|place| place.exists())
    }

    fn has_none(&self) -> bool {
        !self.places.iter().any(|place| place.exists())
    }

    fn end(mut self) -> Vec<PathBuf> {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        self.places
    }
}

fn reaped() {
    let directory = tempfile::tempdir().unwrap();
    let others = directory.path().join("models");
    fs::create_dir(&others).unwrap();
    let mut killed = Holder::start(directory.path());
    let living = Holder::start(directory.path());
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert!(killed.has_all(), "{:?}", killed.places);
    let next = Holder::start(directory.path());
    assert!(killed.has_none(), "{:?} are left", killed.places);
    assert!(living.has_all(), "{:?} are not all there", living.places);
    assert!(next.has_all() && others.is_dir());
    for place in [living.end(), next.end()].concat() {
        assert_eq!(
            settle(PATIENCE, || (!place.exists()).then_some(())),
            Some(())
        );
    }
}
