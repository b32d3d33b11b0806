//! This test executable as a process of its own: for deaths and limits that belong to a whole process.

use super::open;
use crate::error::Error;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigHandler, Signal, signal},
};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

const ROLE: &str = "SPILLPROOF_ENGINE_TEST_ROLE";
const DIRECTORY: &str = "SPILLPROOF_ENGINE_TEST_DIRECTORY";

/// A child that has done what its role says and waits for its standard input to end.
pub(super) struct Waiting {
    pub(super) process: Child,
    _input: Option<ChildStdin>,
}

impl Waiting {
    /// Starts the child and waits until it says that it is ready; it ends when `self` does.
    pub(super) fn start(role: &str, directory: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "spill::tests::child::plays_its_role",
                "--nocapture",
            ])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = output.any(|line| line.unwrap().ends_with("ready"));
        assert!(ready, "the child ended early: {:?}", process.wait());
        Self {
            process,
            _input: input,
        }
    }

    pub(super) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Already waited for, or about to see its input end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child's main function; in the test run itself there is no role to play.
#[test]
fn plays_its_role() {
    let (Ok(role), Some(directory)) = (std::env::var(ROLE), std::env::var_os(DIRECTORY)) else {
        return;
    };
    let directory = open(Path::new(&directory)).unwrap();
    match role.as_str() {
        "hold" => {
            let file = directory.create("m1-g0.spill", 1 << 20).unwrap();
            file.write_all_at(&[7; 5000], 4096).unwrap();
            let second = directory.create("m2-g0.spill", 4096).unwrap();
            wait_for_the_end_of_input();
            drop((file, second));
        }
        "limit" => {
            let file = directory.create("m1-g0.spill", 1 << 20).unwrap();
            let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
            setrlimit(Resource::RLIMIT_FSIZE, 8192, hard).unwrap();
            // Above the limit: refused without the signal that would kill.
            let error = directory.create("m2-g0.spill", 8193).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::DiskFull {
                        operation: "create",
                        available: Some(8192),
                        ..
                    }
                ),
                "{error}"
            );
            assert!(directory.create("m2-g0.spill", 8192).is_ok());
            // Lowered since the file was made: what ends above it is refused before anything is written.
            file.reserve(0, 8192).unwrap();
            let error = file.reserve(4096, 8192).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::DiskFull {
                        operation: "reserve",
                        wanted: 12_288,
                        available: Some(8192),
                        ..
                    }
                ),
                "{error}"
            );
            // Across the limit: a short write first, then EFBIG.
            #[allow(unsafe_code)]
            // SAFETY: ignoring a signal runs no code.
            unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
            let error = file.write_all_at(&[7; 5000], 4096).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::DiskFull {
                        operation: "pwrite",
                        wanted: 5000,
                        ..
                    }
                ),
                "{error}"
            );
            let mut short = [0; 4097];
            file.read_exact_at(&mut short, 4096).unwrap();
            assert_eq!(
                short[4095..],
                [7, 0],
                "the write reached the limit and no further"
            );
            wait_for_the_end_of_input();
        }
        other => panic!("{other} is no role"),
    }
}

fn wait_for_the_end_of_input() {
    println!("\nready");
    io::stdout().flush().unwrap();
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_size_limit_is_a_full_disk_and_kills_nobody() {
    let base = tempfile::tempdir().unwrap();
    drop(Waiting::start("limit", base.path()));
}
