//! Starting a program and waiting for it, out of the way: it gets the signals that are meant for it.
#![allow(unsafe_code)]

use super::ProgramError;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitStatus},
};

/// Signals that people and supervisors send to end, wake or tell a program something.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// Runs a command to its end; its process and its status.
pub(super) fn run(mut command: Command) -> Result<(u32, ExitStatus), ProgramError> {
    let watched: SigSet = PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect();
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&watched), Some(&mut before))
        .map_err(system("pthread_sigmask"))?;
    let result = run_blocked(&mut command, &watched, before);
    // What was not read is delivered now: a signal that came too late for the program is for this process.
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)
        .map_err(system("pthread_sigmask"))?;
    result
}

fn run_blocked(
    command: &mut Command,
    watched: &SigSet,
    before: SigSet,
) -> Result<(u32, ExitStatus), ProgramError> {
    let signals = SignalFd::new(watched).map_err(system("signalfd"))?;
    let program = PathBuf::from(command.get_program());
    let start = |source| ProgramError::Start { program, source };
    // SAFETY: between fork and exec it makes one system call, which is safe there.
    unsafe {
        command.pre_exec(move || {
            pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(start)?;
    let pid = child.id();
    loop {
        let status = child.try_wait().map_err(system("waitpid"))?;
        if let Some(status) = status {
            return Ok((pid, status));
        }
        let Some(read) = signals.read_signal().map_err(system("signalfd"))? else {
            continue;
        };
        let number = read.ssi_signo as i32;
        // The terminal's own reach the program without help: it is in the same group.
        let is_sent = read.ssi_code <= 0;
        if let Ok(signal) = Signal::try_from(number)
            && signal != Signal::SIGCHLD
            && is_sent
        {
            // The child is not waited for yet, so the number is still its own; where it is dead, nobody hears it.
            let _ = kill(Pid::from_raw(pid as i32), signal);
        }
    }
}

fn system<E: Into<std::io::Error>>(call: &'static str) -> impl FnOnce(E) -> ProgramError {
    move |source| ProgramError::System {
        call,
        source: source.into(),
    }
}
