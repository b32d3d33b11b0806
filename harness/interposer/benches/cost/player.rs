//! A process that makes calls when it is asked to. All of them are there at the same time and take turns, batch by batch, so that a busy
//! moment does not fall on one alone.
#![allow(unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A process that waits to be asked.
pub(crate) struct Player {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Player {
    pub(crate) fn start(command: &mut Command) -> Player {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let questions = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Player {
            child,
            questions,
            answers,
        }
    }

    /// Nanoseconds of each call of a sort, in one batch.
    pub(crate) fn batch_ns(&mut self, sort: usize) -> f64 {
        writeln!(self.questions.as_ref().unwrap(), "{sort}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let ns = answer.trim().parse();
        ns.unwrap_or_else(|_| panic!("{:?} said {answer:?}", self.child))
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // It ends when nobody can ask any more.
        self.questions = None;
        let _ = self.child.wait();
    }
}

/// Keeps this process and all that it starts on the processor on which it runs.
pub(crate) fn stay_on_one_processor() {
    // SAFETY: a set of processors is plain data, and the calls look at no more than its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut set);
        let result = libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        assert_eq!(result, 0);
    }
}
