//! A process of the harness's own that is no subject: it holds something beside one.

use super::{command::on_spawner, tree};
use crate::error::HarnessError;
use std::{
    io,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus},
};

/// Such a process; dropping it ends it. It may outlive the thread that asked for it, and no subject's tree contains it.
#[derive(Debug)]
pub(crate) struct Helper(Child);

impl Helper {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(command: Command) -> Result<Self, HarnessError> {
        let program = PathBuf::from(command.get_program());
        let child = on_spawner(command)?;
        Ok(Self(child.map_err(HarnessError::path("start", &program))?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Its status cannot be had.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Its standard input and output, where they are piped and not taken yet.
    pub(crate) fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>) {
        (self.0.stdin.take(), self.0.stdout.take())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Already gone is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
        tree::unregister(self.0.id());
    }
}
