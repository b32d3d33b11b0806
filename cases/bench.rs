//! Where the programs of a run are: resolved when it runs, so that an archive of the tests works on
//! a machine without a toolchain.

use crate::replay::quoted;
use spillproof_harness::{run::Bench, subject::SubjectCommand};
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Another engine to judge: a program with its arguments, split at spaces.
pub const SUBJECT_VARIABLE: &str = "SPILLPROOF_SUBJECT";

/// A specimen of the museum to judge in place of the engine.
pub const SPECIMEN_VARIABLE: &str = "SPILLPROOF_SPECIMEN";

/// Where sandboxes are made; must not be a tmpfs.
pub const DIRECTORY_VARIABLE: &str = "SPILLPROOF_DIR";

/// Who is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The engine of this repository.
    Engine,
    /// A specimen of the museum; `healthy` has no defect.
    Specimen(String),
    /// Any other program that speaks the subject protocol.
    Other(Vec<OsString>),
}

impl Judged {
    /// What the environment asks for.
    #[must_use]
    pub fn from_environment() -> Self {
        if let Some(command) = env::var_os(SUBJECT_VARIABLE) {
            let words: Vec<OsString> = command
                .to_string_lossy()
                .split_whitespace()
                .map(OsString::from)
                .collect();
            if !words.is_empty() {
                return Self::Other(words);
            }
        }
        match env::var(SPECIMEN_VARIABLE) {
            Ok(specimen) if !specimen.is_empty() => Self::Specimen(specimen),
            Ok(_) | Err(_) => Self::Engine,
        }
    }

    /// What must stand before the command that shows a result again.
    #[must_use]
    pub fn prefix(&self) -> String {
        match self {
            Self::Engine => String::new(),
            Self::Specimen(id) => format!("{SPECIMEN_VARIABLE}={} ", quoted(id)),
            Self::Other(words) => {
                let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
                format!("{SUBJECT_VARIABLE}={} ", quoted(&words.join(" ")))
            }
        }
    }
}

/// Finds everything that runs of `judged` need.
///
/// # Errors
/// A sentence naming what is missing and the remedy.
pub fn bench(judged: &Judged) -> Result<Bench, String> {
    let command = |program: PathBuf| SubjectCommand {
        program,
        args: Vec::new(),
        env: Vec::new(),
    };
    let subject = match judged {
        Judged::Engine => command(program("subject")?),
        Judged::Specimen(id) => {
            let mut specimen = command(program("specimen")?);
            specimen.env.push((SPECIMEN_VARIABLE.into(), id.into()));
            specimen
        }
        Judged::Other(words) => {
            let [name, args @ ..] = words.as_slice() else {
                return Err(format!("{SUBJECT_VARIABLE} is empty"));
            };
            let program = PathBuf::from(name);
            // Subjects run in directories of their own.
            let program = if name.to_string_lossy().contains('/') {
                program.canonicalize().map_err(|error| {
                    format!("{SUBJECT_VARIABLE}: {}: {error}", program.display())
                })?
            } else {
                program
            };
            SubjectCommand {
                program,
                args: args.to_vec(),
                env: Vec::new(),
            }
        }
    };
    let work_dir = match env::var_os(DIRECTORY_VARIABLE) {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        Some(_) | None => build_dir()?.join("sandboxes"),
    };
    Ok(Bench {
        subject,
        ballast: program("ballast")?,
        interposer: library("libspillproof_interposer.so", "spillproof-interposer")?,
        keeps_ledger: true,
        emulator: library("libcuda_emulator.so", "spillproof-cuda-emulator")?,
        work_dir,
    })
}

/// Where the goldens of a family are.
#[must_use]
pub fn golden_directory(family: &str) -> PathBuf {
    let root = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    root.join("golden").join(family)
}

/// A directory below `fixtures`: in the tree, or in a pack beside its programs.
#[must_use]
pub fn fixtures(name: &str) -> PathBuf {
    let packed = executable_dir().map(|directory| directory.join("fixtures").join(name));
    match packed {
        Ok(packed) if packed.is_dir() => packed,
        Ok(_) | Err(_) => {
            let root = env::var_os("CARGO_MANIFEST_DIR")
                .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
            root.join("fixtures").join(name)
        }
    }
}

/// A binary of this package: named by the test runner, or beside the directory of the test executable.
///
/// # Errors
/// A sentence naming what is missing and the remedy.
pub fn program(name: &str) -> Result<PathBuf, String> {
    for runner in ["NEXTEST_BIN_EXE", "CARGO_BIN_EXE"] {
        if let Some(path) = env::var_os(format!("{runner}_{name}")).map(PathBuf::from)
            && path.is_file()
        {
            return Ok(path);
        }
    }
    let path = build_dir()?.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing; build it with `cargo build --bins`",
        path.display()
    ))
}

/// A library of this workspace: cargo puts a cdylib dev-dependency beside the test executable.
fn library(name: &str, package: &str) -> Result<PathBuf, String> {
    let places = [
        executable_dir()?.join(name),
        build_dir()?.join(name),
        build_dir()?.join("deps").join(name),
    ];
    // A build of the tests leaves it elsewhere than one of its own: the newest counts.
    let built = |path: &&PathBuf| path.metadata().and_then(|found| found.modified()).ok();
    let found = places.iter().filter(|path| path.is_file());
    found.max_by_key(built).cloned().ok_or_else(|| {
        format!(
            "{name} is neither in {} nor above it; build it with `cargo build -p {package}`",
            places[0].display()
        )
    })
}

fn executable_dir() -> Result<PathBuf, String> {
    let executable = env::current_exe()
        .map_err(|error| format!("cannot find the running executable: {error}"))?;
    Ok(executable.parent().map(Path::to_owned).unwrap_or_default())
}

/// `target/debug` or the like: test executables lie in its `deps`.
fn build_dir() -> Result<PathBuf, String> {
    let directory = executable_dir()?;
    let is_deps = directory.file_name().is_some_and(|name| name == "deps");
    Ok(if is_deps {
        directory.parent().map(Path::to_owned).unwrap_or_default()
    } else {
        directory
    })
}
