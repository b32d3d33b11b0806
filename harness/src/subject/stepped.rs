//! A subject that somebody else lets run, from moment to moment: between two of them all of its threads stand still.
//!
//! Only the thread that began to trace a process can go on with it, so one thread does that and is told what to wait for.

use super::{
    Subject,
    client::Answers,
    slices::{STOP_BOUND, Slices},
    trace::{Next, Ran, Traced, Whom},
};
use nix::unistd::Pid;
use std::{
    io,
    os::fd::OwnedFd,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{Builder, Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

/// How often it is looked whether a subject that stands still was killed.
const LOOK_FOR_DEATH: Duration = Duration::from_millis(20);

/// What is quiet for less than this is no longer told apart from what makes system calls.
const SHORTEST_QUIET: Duration = Duration::from_micros(50);

/// Until when the subject runs, unless something is answered before.
pub(crate) enum Until<'a> {
    /// This has come; asked at each of its system calls.
    Come(Box<dyn FnMut() -> bool + Send + 'a>),
    /// It has taken up what it was asked, and has made no system call for so long: it is in the middle of something.
    Quiet(Duration),
    /// It has answered what can be answered while the thread stands still for which it came last.
    Answered,
}

/// What is to be done next.
struct Order<'a> {
    until: Until<'a>,
    at_the_latest: Instant,
}

/// A subject that runs only when it is told to; dropped, it goes on by itself.
pub(crate) struct Stepped<'scope> {
    orders: Option<Sender<Order<'scope>>>,
    halted: Receiver<()>,
    tracer: Option<ScopedJoinHandle<'scope, ()>>,
}

impl Subject {
    /// Has the subject stand still.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn step<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
    ) -> io::Result<Stepped<'scope>> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        Stepped::start(scope, pid, self.process.try_clone()?, self.client.answers())
    }
}

impl<'scope> Stepped<'scope> {
    fn start(
        scope: &'scope Scope<'scope, '_>,
        pid: Pid,
        process: OwnedFd,
        answers: Answers,
    ) -> io::Result<Self> {
        let (orders, taken) = mpsc::channel();
        let (tell, halted) = mpsc::channel();
        let tracer = Builder::new().name("tracer".into());
        let tracer = tracer.spawn_scoped(scope, move || {
            serve(pid, &process, &answers, &taken, &tell);
        })?;
        let stepped = Self {
            orders: Some(orders),
            halted,
            tracer: Some(tracer),
        };
        // Nothing comes for a process that has ended, which the next order tells.
        let _ = stepped.halted.recv();
        Ok(stepped)
    }

    /// Lets the subject run, and returns when it stands still again; false when it cannot any more: it has ended, or closed its socket.
    pub(crate) fn run(&self, until: Until<'scope>, at_the_latest: Instant) -> bool {
        let order = Order {
            until,
            at_the_latest,
        };
        let orders = self.orders.as_ref();
        orders.is_some_and(|orders| orders.send(order).is_ok()) && self.halted.recv().is_ok()
    }
}

impl Drop for Stepped<'_> {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(tracer) = self.tracer.take() {
            // A tracer that panicked has let go.
            let _ = tracer.join();
        }
    }
}

/// From system call to system call, or slice by slice where the kernel permits no tracing.
enum Steps<'a> {
    Calls(Traced),
    Slices(Slices<'a>),
}

fn serve(
    pid: Pid,
    process: &OwnedFd,
    answers: &Answers,
    orders: &Receiver<Order<'_>>,
    halted: &Sender<()>,
) {
    let mut steps = match Traced::stop(pid) {
        Ok(mut traced) => {
            traced.halt(STOP_BOUND);
            Steps::Calls(traced)
        }
        Err(_) => Steps::Slices(Slices::stop(pid, process)),
    };
    if halted.send(()).is_err() {
        return;
    }
    loop {
        match orders.recv_timeout(LOOK_FOR_DEATH) {
            Ok(order) => {
                if !steps.run(order, answers) || answers.are_over() || halted.send(()).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if steps.has_ended() {
                    return;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Steps<'_> {
    /// False when the process has ended.
    fn run(&mut self, order: Order<'_>, answers: &Answers) -> bool {
        let Order {
            mut until,
            at_the_latest,
        } = order;
        let is_over = || answers.have_come() || Instant::now() >= at_the_latest;
        match self {
            Self::Calls(traced) => {
                let whom = match until {
                    Until::Come(_) | Until::Quiet(_) => Whom::All,
                    Until::Answered => Whom::Others,
                };
                let bound = match until {
                    Until::Quiet(bound) => bound,
                    Until::Come(_) | Until::Answered => Duration::MAX,
                };
                let look = || {
                    let came = match &mut until {
                        Until::Come(come) => come(),
                        Until::Quiet(bound) => *bound < SHORTEST_QUIET && answers.has_taken_all(),
                        Until::Answered => false,
                    };
                    if came {
                        Next::Stay
                    } else if is_over() {
                        Next::Over
                    } else {
                        Next::GoOn
                    }
                };
                let over = |quiet: Option<Duration>| {
                    quiet.is_some_and(|quiet| quiet >= bound) && answers.has_taken_all()
                        || is_over()
                };
                let ran = traced.run(whom, look, over);
                if ran != Ran::Ended {
                    traced.halt(STOP_BOUND);
                }
                ran != Ran::Ended
            }
            Self::Slices(slices) => loop {
                if !slices.run_one() {
                    return false;
                }
                let came = match &mut until {
                    Until::Come(come) => come(),
                    Until::Quiet(_) => answers.has_taken_all(),
                    Until::Answered => false,
                };
                if came || is_over() {
                    return true;
                }
            },
        }
    }

    fn has_ended(&mut self) -> bool {
        match self {
            Self::Calls(traced) => traced.has_ended(),
            Self::Slices(slices) => slices.has_ended(),
        }
    }
}

#[cfg(test)]
mod tests {
    //! What lets a subject run, and what makes it stand still again.
    use super::{
        super::{pidfd::pidfd, trace::tests::Writers},
        *,
    };
    use std::{io::Write as _, os::unix::net::UnixStream, thread};

    const BOUND: Duration = Duration::from_secs(20);

    /// Runs a test with writers that stand still, and the end of the socket where they would answer.
    fn with_writers(test: impl FnOnce(&Writers, Stepped<'_>, UnixStream)) {
        let writers = Writers::start();
        let process = pidfd(writers.pid().as_raw().cast_unsigned()).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let answers = Answers(Ok(ours));
            let stepped = Stepped::start(scope, writers.pid(), process, answers).unwrap();
            test(&writers, stepped, theirs);
        });
    }

    fn stands_still(writers: &Writers) -> bool {
        let (standing, all) = writers.standing();
        standing == all
    }

    #[test]
    fn a_subject_runs_until_its_moment_and_goes_on_when_nobody_steps_it() {
        with_writers(|writers, stepped, _theirs| {
            assert!(stands_still(writers));
            let total = writers.total();
            let more = writers.more_than(total + 5);
            assert!(stepped.run(Until::Come(Box::new(more)), Instant::now() + BOUND));
            assert!(stands_still(writers));
            let total = writers.total();
            drop(stepped);
            assert_eq!(writers.standing().0, 0);
            assert!(writers.write_more_than(total));
        });
    }

    #[test]
    fn an_answer_or_the_end_of_its_time_makes_a_subject_stand_still() {
        with_writers(|writers, stepped, mut theirs| {
            let never = || Until::Come(Box::new(|| false));
            let end = Instant::now() + Duration::from_millis(30);
            assert!(stepped.run(never(), end));
            assert!(Instant::now() >= end);
            assert!(stands_still(writers));
            theirs.write_all(b"answer").unwrap();
            let end = Instant::now() + BOUND;
            assert!(stepped.run(never(), end));
            assert!(Instant::now() < end);
            assert!(stands_still(writers));
        });
    }

    #[test]
    fn a_subject_that_closed_its_socket_is_let_go() {
        with_writers(|writers, stepped, theirs| {
            drop(theirs);
            let never = Until::Come(Box::new(|| false));
            assert!(!stepped.run(never, Instant::now() + BOUND));
            drop(stepped);
            assert_eq!(writers.standing().0, 0);
        });
    }

    #[test]
    fn who_waits_for_quiet_has_been_quiet_for_so_long() {
        with_writers(|writers, stepped, _theirs| {
            // They write all the time.
            let end = Instant::now() + Duration::from_millis(50);
            assert!(stepped.run(Until::Quiet(BOUND), end));
            assert!(Instant::now() >= end);
            assert!(stepped.run(Until::Quiet(SHORTEST_QUIET / 2), Instant::now() + BOUND));
            assert!(stands_still(writers));
        });
    }
}
