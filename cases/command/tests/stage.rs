//! A directory with programs in it, and the command to run them under.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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

/// The command of this build: a directory above the test executable, or beside it where both were packed.
fn command() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let folders = executable.ancestors().skip(1).take(2);
    let mut places = folders.map(|folder| folder.join("spillproof"));
    let found = places.find(|path| path.is_file());
    found.expect("cargo builds the command for its tests")
}

/// Where stages are made: where cargo says, or, on a machine that did not build this, where temporary files are.
pub(crate) fn work_dir() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    match built.is_dir() {
        true => built,
        false => std::env::temp_dir(),
    }
}

/// The interposer of this build.
pub(crate) fn interposer() -> PathBuf {
    library("libspillproof_interposer.so")
}

/// A program of the fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    root.join("fixtures/programs").join(name)
}

/// Whether a program of this name can be run.
pub(crate) fn has(program: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// What a program said, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Whether a line of the report says just that.
    #[track_caller]
    pub(crate) fn reports(&self, line: &str) {
        let line = format!("spillproof: {line}");
        assert!(
            self.stderr.lines().any(|told| told == line),
            "{line:?} is not in {self:#?}"
        );
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A directory of its own, with an empty one in it that is the scope.
pub(crate) struct Stage {
    directory: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        let directory = tempfile::tempdir_in(work_dir()).unwrap();
        let stage = Stage { directory };
        fs::create_dir(stage.scope()).unwrap();
        stage
    }

    /// The directory whose calls count.
    pub(crate) fn scope(&self) -> PathBuf {
        self.outside().join("scope")
    }

    /// The directory around it.
    pub(crate) fn outside(&self) -> PathBuf {
        fs::canonicalize(self.directory.path()).unwrap()
    }

    /// Compiles a fixture. Who links Rust has the C compiler's driver.
    pub(crate) fn compile(&self, source: &str, name: &str, arguments: &[&str]) -> PathBuf {
        let program = self.outside().join(name);
        let mut command = Command::new("cc");
        command
            .arg("-O1")
            .arg("-o")
            .arg(&program)
            .arg(fixture(source))
            .args(arguments);
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("cc: {error}; install a C compiler"));
        assert!(output.status.success(), "{command:?}: {output:#?}");
        program
    }

    /// A program as it runs by itself, where an emulated driver is found.
    pub(crate) fn plain(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.surround(&mut command);
        command
    }

    /// `spillproof inject` with these options and this scope, up to the program.
    pub(crate) fn inject(&self, options: &[&str]) -> Command {
        let mut command = self.bare(options);
        command.arg("--scope").arg(self.scope()).arg("--");
        command
    }

    /// As [`Stage::inject`], without a scope and open for further options.
    pub(crate) fn bare(&self, options: &[&str]) -> Command {
        let mut command = Command::new(command());
        command.arg("inject").args(options);
        if !options.contains(&"--interposer") {
            command.arg("--interposer").arg(interposer());
        }
        self.surround(&mut command);
        command
    }

    /// `spillproof bench` with nothing of the caller's settings, in this directory.
    pub(crate) fn bench(&self) -> Command {
        let mut command = Command::new(command());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SPILLPROOF_") {
                command.env_remove(name);
            }
        }
        command
            .arg("bench")
            .env("SPILLPROOF_DIR", self.sandboxes())
            .current_dir(self.outside())
            .stdin(Stdio::null());
        command
    }

    /// Where runs of a benchmark have their directories.
    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.outside().join("sandboxes")
    }

    fn surround(&self, command: &mut Command) {
        let folder = self.outside().join("lib");
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            symlink(library("libcuda_emulator.so"), folder.join("libcuda.so.1")).unwrap();
        }
        command
            .env("LD_LIBRARY_PATH", folder)
            .env_remove("LD_PRELOAD")
            .current_dir(self.outside())
            .stdin(Stdio::null());
    }
}

/// Runs a command to its end.
pub(crate) fn ran(command: &mut Command) -> Ran {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
        .into()
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
