//! Ending a subject by a signal at a moment seen from outside.
//!
//! While a verb is worked on the subject stands still at every system call until somebody has looked: whatever the machine's
//! load, the signal comes before it does anything more.

use super::{
    Broken, ExitReport, Finding, Subject,
    slices::Slices,
    trace::{Next, Traced, Whom},
};
use crate::crash::Deadly;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use spillproof_protocol::Request;
use std::{
    os::fd::OwnedFd,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// How a subject that was sent a signal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    /// Whether the signal came while the verb was worked on.
    pub landed: bool,
    /// How the process ended; nothing when it lives on.
    pub exit: Option<ExitReport>,
    /// How long its end took from the signal on.
    pub wall: Duration,
}

impl Subject {
    /// Sends a request and, once `due` says so, the signal; then waits for the end, at most `deadline`. A request that is answered
    /// before is followed by the signal all the same. Nothing but [`Subject::finish`] can be done afterwards.
    ///
    /// # Errors
    /// What the subject did wrong before the signal.
    pub fn kill_during(
        &mut self,
        request: &Request,
        deadline: Duration,
        deadly: Deadly,
        due: impl FnMut() -> bool + Send,
    ) -> Result<Killed, Finding> {
        if let Some(finding) = &self.broken {
            return Err(finding.clone());
        }
        let answered = AtomicBool::new(false);
        let (client, process) = (&mut self.client, &self.process);
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let answers = client.answers();
        // What has come already was sent before the signal, which is late then.
        let is_late = || answered.load(Ordering::Acquire) || answers.have_come();
        let (tell, ready) = mpsc::channel();
        let (result, sent) = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let traced = Traced::stop(pid);
                // The other side waits for this.
                let _ = tell.send(());
                watch(pid, process, traced, deadly, due, &is_late)
            });
            let _ = ready.recv();
            let result = client.call(request, deadline, process);
            answered.store(true, Ordering::Release);
            (result, watch.join().unwrap_or(None))
        });
        if let (Err(Broken::Found(finding)), None) = (&result, sent) {
            self.broken = Some(finding.clone());
            self.findings.push(finding.clone());
            return Err(finding.clone());
        }
        let landed = match deadly {
            // An answer that came all the same was on its way.
            Deadly::Kill => sent.is_some() && result.is_err(),
            Deadly::Terminate => sent.is_some(),
        };
        let killed = self.end_by(deadly, sent, deadline);
        Ok(Killed { landed, ..killed })
    }

    /// Sends a request in which the process sends itself the signal, and waits for the end, at most `deadline`. `came` says
    /// whether it did; where it did not, the signal follows all the same. Nothing but [`Subject::finish`] can be done afterwards.
    ///
    /// # Errors
    /// What the subject did wrong without the signal.
    pub fn end_during(
        &mut self,
        request: &Request,
        deadline: Duration,
        deadly: Deadly,
        came: impl FnOnce() -> bool,
    ) -> Result<Killed, Finding> {
        let began = Instant::now();
        let result = self.client.call(request, deadline, &self.process);
        let landed = came();
        if let (Err(Broken::Found(finding)), false) = (&result, landed) {
            self.broken = Some(finding.clone());
            self.findings.push(finding.clone());
            return Err(finding.clone());
        }
        let killed = self.end_by(deadly, landed.then_some(began), deadline);
        Ok(Killed { landed, ..killed })
    }

    /// Sends the signal while nothing is asked of the subject, and waits for its end.
    pub fn kill_idle(&mut self, deadline: Duration, deadly: Deadly) -> Killed {
        let killed = self.end_by(deadly, None, deadline);
        Killed {
            landed: true,
            ..killed
        }
    }

    fn end_by(&mut self, deadly: Deadly, sent: Option<Instant>, deadline: Duration) -> Killed {
        let sent = sent.unwrap_or_else(|| {
            let pid = Pid::from_raw(self.child.id().cast_signed());
            // Fails only for a process that is gone already, which its exit tells.
            let _ = kill(pid, deadly.signal());
            Instant::now()
        });
        self.tree.look();
        self.wait(deadline);
        let wall = sent.elapsed();
        // How it ended is the case's to judge.
        self.killed = true;
        Killed {
            landed: false,
            exit: self.exit(),
            wall,
        }
    }
}

/// Lets the process run until the moment has come or the call has ended: from system call to system call, or slice by slice where
/// the kernel permits no tracing. When the signal was sent, if it was.
fn watch(
    pid: Pid,
    process: &OwnedFd,
    traced: Result<Traced, Errno>,
    deadly: Deadly,
    mut due: impl FnMut() -> bool,
    is_late: &dyn Fn() -> bool,
) -> Option<Instant> {
    // The process is not reaped before this returns, so that its number is its own: signals fail only once it has ended.
    let send = |signal: Signal| kill(pid, signal).is_ok();
    let mut sent = None;
    let mut look = || {
        if is_late() {
            return Next::Over;
        }
        if due() {
            sent = send(deadly.signal()).then(Instant::now);
            return Next::Over;
        }
        Next::GoOn
    };
    match traced {
        Ok(mut traced) => {
            traced.run(Whom::All, look, |_| is_late());
        }
        Err(_) => {
            let slices = Slices::stop(pid, process);
            while look() == Next::GoOn && slices.run_one() {}
        }
    }
    sent
}
