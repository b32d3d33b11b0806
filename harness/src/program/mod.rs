//! Any program under a fault plan, unchanged: started with the interposer, and told what was counted, what fired, and where the interposer
//! was not. A program that no fault could reach is never taken for one that withstood it.

mod absence;
mod account;
mod interposer;
mod wait;

pub use account::{Account, Reach};

use crate::faults::Plan;
use spillproof_faults::{FAULTS_VARIABLE, Library, Options, Shared, SharedError};
use std::{
    env,
    ffi::OsString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

/// The loader's variable.
const PRELOAD_VARIABLE: &str = "LD_PRELOAD";

/// What is to be done to a program.
#[derive(Clone, Debug, Default)]
pub struct Experiment {
    /// What fails; nothing where it is empty.
    pub plan: Plan,
    /// Directories in which calls on files count; relative ones are resolved.
    pub scopes: Vec<PathBuf>,
    /// Whether each call is recorded.
    pub is_recording: bool,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// A rule counts calls on files, and nothing says which.
    #[error(
        "{site} counts calls on files inside the scope, and there is none; name a directory with --scope, or add path=GLOB to the rule"
    )]
    NoScope {
        /// The site.
        site: &'static str,
    },
    /// A directory of the scope cannot be found.
    #[error("the scope {} cannot be resolved: {source}; name a directory that exists", path.display())]
    Scope {
        /// As it was given.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// What was named as scope holds no files, or all of them.
    #[error("the scope {} {reason}; name the directory whose files are meant", path.display())]
    ScopeUnfit {
        /// Resolved.
        path: PathBuf,
        /// What it is.
        reason: &'static str,
    },
    /// The interposer is not there.
    #[error("the interposer {} cannot be used: {source}; build it with `cargo build -p spillproof-interposer`", path.display())]
    InterposerMissing {
        /// Where it should be.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The loader does not take the interposer into a program.
    #[error("the interposer {} cannot be loaded: {reason}", path.display())]
    InterposerUnloadable {
        /// The library.
        path: PathBuf,
        /// What the loader or the interposer says, or what is wrong with the file.
        reason: String,
    },
    /// The memory shared with the program cannot be made.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The program cannot be started.
    #[error("cannot start {}: {source}", program.display())]
    Start {
        /// As it was named.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A system call that waiting for the program rests on failed.
    #[error("{call} failed: {source}")]
    System {
        /// The call's name.
        call: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// An experiment with a program, ready to run once.
#[derive(Debug)]
pub struct Prepared {
    plan: Plan,
    scopes: Vec<PathBuf>,
    shared: Shared,
    file: OwnedFd,
    interposer: PathBuf,
}

impl Experiment {
    /// Makes the memory and tries the interposer on `probe`: a program of this machine that ends at once.
    ///
    /// # Errors
    /// The scope, the interposer or the plan cannot be used. Nothing was started but the probe.
    pub fn prepare(self, interposer: &Path, probe: Command) -> Result<Prepared, ProgramError> {
        let scopes: Vec<PathBuf> = self
            .scopes
            .iter()
            .map(|path| resolve(path))
            .collect::<Result<_, _>>()?;
        if scopes.is_empty() {
            check_without_scope(&self.plan)?;
        }
        let interposer = interposer::usable(interposer, probe)?;
        let options = Options {
            scopes: scopes.clone(),
            is_recording: self.is_recording,
            ..Options::default()
        };
        let (shared, file) = Shared::create(&self.plan, &options)?;
        Ok(Prepared {
            plan: self.plan,
            scopes,
            shared,
            file,
            interposer,
        })
    }
}

impl Prepared {
    /// Runs a program to its end; signals that this process is sent meanwhile are passed on to it. Programs that it leaves behind can
    /// start no others: the memory goes with this process.
    ///
    /// # Errors
    /// The program cannot be started or waited for.
    pub fn run(self, mut command: Command) -> Result<(ExitStatus, Account), ProgramError> {
        command.envs(environment(&self.interposer, &self.file));
        let program = PathBuf::from(command.get_program());
        let (pid, status) = wait::run(command)?;
        let account = account::of(
            &self.shared,
            &self.plan,
            &self.scopes,
            &program,
            pid,
            status,
        );
        Ok((status, account))
    }
}

/// What brings the interposer into a process, beside what is preloaded already.
fn environment(interposer: &Path, file: &OwnedFd) -> [(OsString, OsString); 2] {
    let mut preload = OsString::from(interposer);
    if let Some(others) = env::var_os(PRELOAD_VARIABLE).filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let memory = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    [
        (PRELOAD_VARIABLE.into(), preload),
        (FAULTS_VARIABLE.into(), memory.into()),
    ]
}

fn resolve(path: &Path) -> Result<PathBuf, ProgramError> {
    let resolved = path.canonicalize().map_err(|source| ProgramError::Scope {
        path: path.to_owned(),
        source,
    })?;
    let reason = match resolved.parent() {
        None => "is the root of everything",
        Some(_) if !resolved.is_dir() => "is no directory",
        Some(_) => return Ok(resolved),
    };
    Err(ProgramError::ScopeUnfit {
        path: resolved,
        reason,
    })
}

/// A rule that can count nothing would only be found out by never firing.
fn check_without_scope(plan: &Plan) -> Result<(), ProgramError> {
    let rules = plan.rules.iter().filter(|rule| rule.path.is_none());
    let mut sites = rules.flat_map(|rule| &rule.sites).map(|id| id.site());
    match sites.find(|site| site.library == Library::Libc) {
        Some(site) => Err(ProgramError::NoScope { site: site.name }),
        None => Ok(()),
    }
}
