//! `spillproof inject`: any program under a fault plan.

use crate::report;
use clap::Args;
use spillproof_harness::{
    faults::Plan,
    program::{Experiment, ProgramError, Reach},
};
use std::{
    env,
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
};

/// The command line, a scope or the plan is wrong.
const USAGE_STATUS: u8 = 2;
/// The interposer is missing, or does not load.
const INTERPOSER_STATUS: u8 = 96;
/// The program ran, or went on, without the interposer. The interposer ends processes that cannot join with this status, too.
const OUT_OF_REACH_STATUS: u8 = 97;
/// A rule never fired.
const INCONCLUSIVE_STATUS: u8 = 98;
/// As `env` and `timeout` say it.
const FAILED_STATUS: u8 = 125;
const NOT_EXECUTABLE_STATUS: u8 = 126;
const NOT_FOUND_STATUS: u8 = 127;

const AFTER: &str = "\
PLAN is rules with ; between them, each SITE[,SITE…]:error=NAME|short=BYTES|delay=TIME|signal=NAME[:after][:when=FIRST[..LAST][+[STEP]]][:path=GLOB][:caller=LIB]:
  pwrite:error=ENOSPC:when=3                the third pwrite in the scope fails
  cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY every allocation of device memory fails
Calls that libc makes inside itself are out of reach: those of fopen, fwrite and printf, which neither fail nor are counted.
Without a plan, calls are counted and nothing fails. What happened is told on standard error when the program has ended.

Exit status: the program's own, 128+N where signal N ended it, and
  2    wrong usage, plan or scope; nothing was started
  96   the interposer is missing or cannot be loaded; nothing was started
  97   no fault could reach the program, or not to its end: it is static or set-uid, or LD_PRELOAD was taken from its environment
  98   inconclusive: a rule never fired
  125  a system call failed; 126, 127: PROGRAM cannot be started, or is not found";

/// Arguments of the mode.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Inject {
    /// What fails, how and when
    #[arg(
        long,
        env = "SPILLPROOF_PLAN",
        default_value = "",
        hide_default_value = true
    )]
    plan: String,
    /// Directory in which calls on files count; may be given up to four times
    #[arg(long, value_name = "DIR", env = "SPILLPROOF_SCOPE")]
    scope: Vec<PathBuf>,
    /// Lists every call with its number, size, offset, path and caller
    #[arg(long, env = "SPILLPROOF_RECORD")]
    record: bool,
    /// The interposer; by default the one beside this command
    #[arg(long, value_name = "FILE", env = "SPILLPROOF_INTERPOSER")]
    interposer: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl Inject {
    /// Runs it; the status of the whole command.
    pub(crate) fn run(self) -> ExitCode {
        let plan = match read(&self.plan) {
            Ok(plan) => plan,
            Err(text) => return fail(USAGE_STATUS, &text),
        };
        match self.inject(plan) {
            Ok(status) => status,
            Err(error) => fail(status_of(&error), &error.to_string()),
        }
    }

    fn inject(self, plan: Plan) -> Result<ExitCode, ProgramError> {
        let (is_recording, has_plan) = (self.record, !plan.rules.is_empty());
        let experiment = Experiment {
            plan,
            scopes: self.scope,
            is_recording,
        };
        let interposer = self.interposer.unwrap_or_else(beside);
        let mut probe = Command::new("/proc/self/exe");
        probe.arg("--version");
        let prepared = experiment.prepare(&interposer, probe)?;
        let mut words = self.program.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        let (status, account) = prepared.run(command)?;
        eprint!("{}", report::text(&account, is_recording || !has_plan));
        let code = match account.reach {
            Reach::Never { .. } | Reach::Lost => ExitCode::from(OUT_OF_REACH_STATUS),
            Reach::Whole if account.unfired().next().is_some() => {
                ExitCode::from(INCONCLUSIVE_STATUS)
            }
            Reach::Whole => return Ok(own(status)),
        };
        eprintln!("spillproof: the program itself ended with {status}");
        Ok(code)
    }
}

/// The plan; none where the text is empty.
fn read(text: &str) -> Result<Plan, String> {
    match text {
        "" => Ok(Plan::default()),
        text => text.parse::<Plan>().map_err(|error| {
            let shown = error.underlined(text).replace('\n', "\n  ");
            format!("--plan is no plan, line {}:\n  {shown}", error.line)
        }),
    }
}

/// Where builds leave the interposer: beside this command, or, by a build of the tests, in `deps`. The newest one counts.
fn beside() -> PathBuf {
    const NAME: &str = "libspillproof_interposer.so";
    let command = env::current_exe().unwrap_or_default();
    let places = [
        command.with_file_name(NAME),
        command.with_file_name("deps").join(NAME),
    ];
    let built = |path: &PathBuf| path.metadata().and_then(|found| found.modified()).ok();
    let [first, _] = &places;
    let newest = places
        .iter()
        .filter(|path| path.is_file())
        .max_by_key(|path| built(path));
    newest.unwrap_or(first).clone()
}

fn fail(status: u8, text: &str) -> ExitCode {
    eprintln!("Error: {text}");
    ExitCode::from(status)
}

fn status_of(error: &ProgramError) -> u8 {
    match error {
        ProgramError::NoScope { .. }
        | ProgramError::Scope { .. }
        | ProgramError::ScopeUnfit { .. }
        | ProgramError::Shared(_) => USAGE_STATUS,
        ProgramError::InterposerMissing { .. } | ProgramError::InterposerUnloadable { .. } => {
            INTERPOSER_STATUS
        }
        ProgramError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            NOT_FOUND_STATUS
        }
        ProgramError::Start { .. } => NOT_EXECUTABLE_STATUS,
        ProgramError::System { .. } => FAILED_STATUS,
    }
}

/// The program's own status, as a shell tells it.
fn own(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    ExitCode::from(u8::try_from(code).unwrap_or(FAILED_STATUS))
}
