//! Running a process with the interposer preloaded, and looking at it from outside.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use spillproof_board::{BOARD_VARIABLE, Board, BoardConfig, BoardDevice};
use spillproof_faults::{FAULTS_VARIABLE, LedgerEntry, Options, Plan, Shared, SiteId};
use tempfile::TempDir;

/// A library that cargo leaves beside the test executable.
pub(crate) fn library(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap().with_file_name(name);
    assert!(
        path.exists(),
        "{} is missing: a dev-dependency of this package should have built it",
        path.display()
    );
    path
}

/// A harness: memory with a plan, and a directory that is the scope.
pub(crate) struct Stage {
    pub(crate) shared: Shared,
    file: OwnedFd,
    directory: TempDir,
    board: Board,
}

impl Stage {
    /// With a plan; an empty text is none.
    pub(crate) fn new(plan: &str) -> Stage {
        Stage::with(plan, false)
    }

    /// As [`Stage::new`], and calls are recorded.
    pub(crate) fn recording(plan: &str) -> Stage {
        Stage::with(plan, true)
    }

    fn with(plan: &str, is_recording: bool) -> Stage {
        let plan = match plan {
            "" => Plan::default(),
            plan => plan
                .parse::<Plan>()
                .unwrap_or_else(|error| panic!("{plan}: {error}")),
        };
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let scope = fs::canonicalize(directory.path()).unwrap().join("scope");
        fs::create_dir(&scope).unwrap();
        let options = Options {
            scopes: vec![scope],
            is_recording,
            ..Options::default()
        };
        let (shared, file) = Shared::create(&plan, &options).unwrap();
        let device = BoardDevice {
            capacity_bytes: 64 << 20,
            name: "Test Device".to_owned(),
        };
        let board = Board::create(&BoardConfig {
            devices: vec![device],
        })
        .unwrap();
        Stage {
            shared,
            file,
            directory,
            board,
        }
    }

    /// The directory whose calls count.
    pub(crate) fn scope(&self) -> PathBuf {
        fs::canonicalize(self.directory.path())
            .unwrap()
            .join("scope")
    }

    /// A directory beside it.
    pub(crate) fn outside(&self) -> PathBuf {
        fs::canonicalize(self.directory.path()).unwrap()
    }

    /// Where the memory is to be found.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// A program with the library preloaded.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("LD_PRELOAD", library("libspillproof_interposer.so"))
            .env(FAULTS_VARIABLE, self.path())
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::null());
        command
    }

    /// This executable in a role, with the library preloaded and, on request, an emulated GPU to be found.
    pub(crate) fn role(&self, words: &[&str]) -> Command {
        let mut command = self.command(std::env::current_exe().unwrap());
        command.arg("play").args(words);
        command
    }

    /// The folder of libraries in which an emulated driver and cuFile are found.
    pub(crate) fn emulated(&self, command: &mut Command) {
        let folder = self.outside().join("lib");
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            for name in ["libcuda.so.1", "libcufile.so.0"] {
                symlink(library("libcuda_emulator.so"), folder.join(name)).unwrap();
            }
        }
        command
            .env("LD_LIBRARY_PATH", folder)
            .env(BOARD_VARIABLE, self.board.path())
            .current_dir(self.outside());
    }

    /// What the role says.
    pub(crate) fn play(&self, words: &[&str]) -> String {
        said(&mut self.role(words))
    }

    /// What the role says on a machine with an emulated GPU.
    pub(crate) fn play_emulated(&self, words: &[&str]) -> String {
        let mut command = self.role(words);
        self.emulated(&mut command);
        said(&mut command)
    }

    /// Calls of a site in the scope.
    pub(crate) fn calls(&self, site: &str) -> u64 {
        self.shared.calls(SiteId::find(site).unwrap())
    }

    /// What is left in the ledger.
    pub(crate) fn ledger(&self) -> Vec<LedgerEntry> {
        let view = self.shared.ledger();
        assert_eq!((view.lost, view.unreadable), (0, 0));
        view.entries
    }
}

/// What a command that succeeds says.
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", describe(command, &output));
    String::from_utf8(output.stdout).unwrap()
}

/// Command, status and both streams.
pub(crate) fn describe(command: &Command, output: &Output) -> String {
    format!(
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
