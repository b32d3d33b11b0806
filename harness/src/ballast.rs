//! Another process that holds device memory, so that running out is real.
//!
//! The program speaks lines: `leave BYTES`, `release`, `quit`; it answers `ok FREE_BYTES` or
//! `error TEXT`, and ends when its standard input closes.

use crate::error::HarnessError;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

/// How long a ballast may take to hold what it was asked to.
const ANSWER_BOUND: Duration = Duration::from_secs(20);

/// A running ballast; dropping it ends the process, which gives the memory back.
#[derive(Debug)]
pub struct Ballast {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Ballast {
    /// Starts the program on device `ordinal` with the device's environment.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        program: &Path,
        ordinal: u32,
        env: &[(OsString, OsString)],
    ) -> Result<Self, HarnessError> {
        let mut command = Command::new(program);
        command
            .arg("--device")
            .arg(ordinal.to_string())
            .env_clear()
            .envs(env.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(HarnessError::path("start", program))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Self {
                child,
                stdin,
                stdout: BufReader::new(stdout),
            }),
            _ => Err(HarnessError::Ballast("it has no pipes".into())),
        }
    }

    /// Takes device memory until `bytes` are free. Answers what is free then, bytes.
    ///
    /// # Errors
    /// It could not, or did not answer in time.
    pub fn leave(&mut self, bytes: u64) -> Result<u64, HarnessError> {
        self.ask(&format!("leave {bytes}"))
    }

    /// Gives everything back. Answers what is free then, bytes.
    ///
    /// # Errors
    /// It could not, or did not answer in time.
    pub fn release(&mut self) -> Result<u64, HarnessError> {
        self.ask("release")
    }

    fn ask(&mut self, line: &str) -> Result<u64, HarnessError> {
        let ballast = |text: String| HarnessError::Ballast(format!("{line}: {text}"));
        writeln!(self.stdin, "{line}").map_err(|error| ballast(error.to_string()))?;
        let timeout = PollTimeout::try_from(ANSWER_BOUND).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(
            self.stdout.get_ref().as_fd(),
            PollFlags::POLLIN,
        )];
        loop {
            match poll(&mut fds, timeout) {
                Ok(0) => return Err(ballast(format!("no answer within {ANSWER_BOUND:?}"))),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(ballast(errno.to_string())),
            }
        }
        let mut answer = String::new();
        self.stdout
            .read_line(&mut answer)
            .map_err(|error| ballast(error.to_string()))?;
        let free = answer
            .trim()
            .strip_prefix("ok ")
            .and_then(|free| free.parse().ok());
        free.ok_or_else(|| ballast(format!("it answered {answer:?}")))
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // Already gone is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
