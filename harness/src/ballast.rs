//! Another process that holds device memory, so that running out is real.
//!
//! The program speaks lines: `leave BYTES`, `room BYTES`, `quit`; it answers `ok FREE_BYTES`, `ok FREE_BYTES exhausted` or
//! `error TEXT`, and ends when its standard input closes.

use crate::{error::HarnessError, subject::Helper};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

/// How long a ballast may take to hold what it was asked to.
const ANSWER_BOUND: Duration = Duration::from_secs(20);

/// What is free once the ballast has done what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Device memory that nobody holds, bytes.
    pub free_bytes: u64,
    /// Whether the driver gave out not a single byte more: what is free lies in remains of its units.
    pub exhausted: bool,
}

/// A running ballast; dropping it ends the process, which gives the memory back.
#[derive(Debug)]
pub struct Ballast {
    process: Helper,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    failed: bool,
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
        Self::start_with(program, &["--device", &ordinal.to_string()], env)
    }

    pub(crate) fn start_with(
        program: &Path,
        arguments: &[&str],
        env: &[(OsString, OsString)],
    ) -> Result<Self, HarnessError> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(env.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Helper::start(command)?;
        match process.pipes() {
            (Some(stdin), Some(stdout)) => Ok(Self {
                process,
                stdin,
                stdout: BufReader::new(stdout),
                failed: false,
            }),
            _ => Err(HarnessError::Ballast("it has no pipes".into())),
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it did not do what it was told: what it holds is not known then.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Whether it holds what it was told to hold. Nobody but the harness ends it.
    ///
    /// # Errors
    /// It has ended, or failed before.
    pub fn check(&mut self) -> Result<(), HarnessError> {
        let reason = match self.process.ended() {
            Ok(None) if !self.failed => return Ok(()),
            Ok(None) => "it did not do what it was told".into(),
            Ok(Some(status)) => format!("it ended while a case relied on it ({status})"),
            Err(error) => format!("it cannot be asked how it is: {error}"),
        };
        self.failed = true;
        Err(HarnessError::Ballast(reason))
    }

    /// Takes device memory, or gives it back, until `bytes` are free. Answers what is free then.
    ///
    /// # Errors
    /// It could not, or did not answer in time.
    pub fn leave(&mut self, bytes: u64) -> Result<Left, HarnessError> {
        self.ask(&format!("leave {bytes}"))
    }

    /// Gives back until `bytes` are free, or everything. Answers what is free then.
    ///
    /// # Errors
    /// It could not, or did not answer in time.
    pub fn make_room(&mut self, bytes: u64) -> Result<Left, HarnessError> {
        self.ask(&format!("room {bytes}"))
    }

    fn ask(&mut self, line: &str) -> Result<Left, HarnessError> {
        let answer = self.answer(line);
        self.failed |= answer.is_err();
        answer
    }

    fn answer(&mut self, line: &str) -> Result<Left, HarnessError> {
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
        parse(&answer).ok_or_else(|| ballast(format!("it answered {answer:?}")))
    }
}

fn parse(answer: &str) -> Option<Left> {
    let mut words = answer.split_ascii_whitespace();
    let (ok, free, more) = (words.next()?, words.next()?, words.next());
    let exhausted = match more {
        None => false,
        Some("exhausted") => true,
        Some(_) => return None,
    };
    let free_bytes = free.parse().ok()?;
    (ok == "ok" && words.next().is_none()).then_some(Left {
        free_bytes,
        exhausted,
    })
}

#[cfg(test)]
mod tests {
    //! What its answers mean, and what its end does.
    use super::*;
    use crate::settle::settle;

    #[test]
    fn a_ballast_that_ended_is_told_from_one_that_holds() {
        let script = "read -r line; echo ok 1; read -r line; exit 3";
        let program = Path::new("/bin/sh");
        let mut ballast = Ballast::start_with(program, &["-c", script], &[]).unwrap();
        ballast.make_room(1).unwrap();
        ballast.check().unwrap();
        assert!(!ballast.failed());
        writeln!(ballast.stdin, "end").unwrap();
        let ended = settle(ANSWER_BOUND, || ballast.check().err());
        let text = ended.unwrap().to_string();
        assert!(text.contains("exit status: 3"), "{text}");
        assert!(ballast.failed());
    }

    #[test]
    fn an_answer_tells_what_is_free_and_whether_it_can_be_had() {
        let left = |free_bytes, exhausted| {
            Some(Left {
                free_bytes,
                exhausted,
            })
        };
        assert_eq!(parse("ok 4096\n"), left(4096, false));
        assert_eq!(parse("ok 4784128 exhausted\n"), left(4_784_128, true));
        for odd in [
            "",
            "ok",
            "ok many",
            "error 4096",
            "ok 1 full",
            "ok 1 exhausted 2",
        ] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
