//! An emulated GPU: a board, and a directory in which a subject finds the emulated driver as `libcuda.so.1`.

use super::{absence, reading::BoardReading, withheld::withhold};
use crate::error::HarnessError;
use spillproof_board::{BOARD_VARIABLE, Board, BoardConfig, Snapshot};
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// The names under which programs look for the driver.
pub(super) const LIBRARY_NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// The names under which programs look for GPUDirect Storage.
pub(super) const CUFILE_NAMES: [&str; 2] = ["libcufile.so.0", "libcufile.so"];

/// What differs from a healthy, current driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmulatorOptions {
    /// What `cuInit` returns instead of success.
    pub cuinit_result: Option<u32>,
    /// Symbols that are missing, as in an older driver.
    pub withheld: Vec<String>,
    /// How its cuFile behaves, in the words of `CUDA_EMULATOR_CUFILE`; absent when nothing is said.
    pub cufile: Option<String>,
}

/// A board with its driver. The board lives as long as this.
#[derive(Debug)]
pub struct EmulatedGpu {
    board: Board,
    libraries: PathBuf,
    options: EmulatorOptions,
}

impl EmulatedGpu {
    /// Makes a board and, in the directory `into`, links to the emulated driver `library`; with withheld symbols a changed copy of it.
    ///
    /// # Errors
    /// The library is missing or lacks a symbol that is to be withheld, or the directory cannot be written.
    pub fn create(
        config: &BoardConfig,
        library: &Path,
        into: &Path,
        options: EmulatorOptions,
    ) -> Result<Self, HarnessError> {
        let board =
            Board::create(config).map_err(|error| HarnessError::Board(error.to_string()))?;
        let library = fs::canonicalize(library).map_err(|error| HarnessError::Library {
            path: library.to_owned(),
            reason: format!("{error}; build the emulated driver first"),
        })?;
        fs::create_dir_all(into).map_err(HarnessError::path("create", into))?;
        let target = if options.withheld.is_empty() {
            library
        } else {
            let copy = into.join("libcuda-withheld.so");
            let bytes = fs::read(&library).map_err(HarnessError::path("read", &library))?;
            let patched =
                withhold(bytes, &options.withheld).map_err(|error| HarnessError::Library {
                    path: library,
                    reason: error.to_string(),
                })?;
            fs::write(&copy, patched).map_err(HarnessError::path("write", &copy))?;
            copy
        };
        for name in LIBRARY_NAMES {
            let link = into.join(name);
            symlink(&target, &link).map_err(HarnessError::path("link", &link))?;
        }
        if options.cufile.is_some() {
            // The same file: both libraries are one, and share what they know.
            for name in CUFILE_NAMES {
                let link = into.join(name);
                symlink(&target, &link).map_err(HarnessError::path("link", &link))?;
            }
        } else {
            absence::block(into, &CUFILE_NAMES)?;
        }
        Ok(Self {
            board,
            libraries: into.to_owned(),
            options,
        })
    }

    /// The board, for a process that holds device memory beside the subject.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Takes host memory for the first `bytes` of the first device's addresses, so that it does not count for the subject.
    ///
    /// # Errors
    /// There is not so much.
    pub fn populate(&self, bytes: u64) -> Result<(), HarnessError> {
        let populated = self.board.populate(0, bytes);
        populated.map_err(|error| {
            HarnessError::Board(format!("{bytes} bytes of device memory: {error}"))
        })
    }

    /// What a process needs to find the driver and the board.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut environment = vec![
            ("LD_LIBRARY_PATH".into(), self.libraries.clone().into()),
            (BOARD_VARIABLE.into(), self.board.path().into()),
        ];
        if let Some(result) = self.options.cuinit_result {
            environment.push(("CUDA_EMULATOR_CUINIT".into(), result.to_string().into()));
        }
        if !self.options.withheld.is_empty() {
            let names = self.options.withheld.join(",");
            environment.push(("CUDA_EMULATOR_WITHHOLD".into(), names.into()));
        }
        if let Some(words) = &self.options.cufile {
            environment.push(("CUDA_EMULATOR_CUFILE".into(), words.into()));
        }
        environment
    }

    /// The whole board, all devices and processes.
    ///
    /// # Errors
    /// The board cannot be locked.
    pub fn snapshot(&self) -> Result<Snapshot, HarnessError> {
        self.board
            .snapshot()
            .map_err(|error| HarnessError::Board(error.to_string()))
    }

    /// The board as it concerns the processes `pids`.
    ///
    /// # Errors
    /// The board cannot be locked.
    pub fn reading(&self, pids: &[u32]) -> Result<BoardReading, HarnessError> {
        Ok(BoardReading::of(&self.snapshot()?, pids))
    }
}
