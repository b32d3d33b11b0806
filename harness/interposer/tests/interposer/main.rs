//! The interposer in real processes.
//!
//! The executable is two things: without a role it runs the tests; as `play ROLE …` it is a process with the library preloaded, which
//! says on standard output what it saw.
// Clippy does not see that a target with its own `main` is a test.
#![allow(clippy::unwrap_used)]

mod calls;
mod cost;
mod cuda_rows;
mod leaving;
mod libc_rows;
mod meanwhile;
mod names;
mod programs;
mod roads;
mod rows;
mod scope;
mod stage;
mod start;

use libtest_mimic::{Arguments, Trial};
use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    if words.next().as_deref() == Some("play") {
        play(&words.collect::<Vec<String>>());
        return ExitCode::SUCCESS;
    }
    let trials = [
        start::tests(),
        rows::tests(),
        scope::tests(),
        roads::tests(),
        programs::tests(),
        leaving::tests(),
        names::tests(),
        meanwhile::tests(),
        cost::tests(),
    ];
    let trials = trials.into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn play(words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["row", spelling, directory, rounds] => rows::play(spelling, directory.as_ref(), rounds),
        ["road", road] => roads::play(road),
        ["scope", what, directory] => scope::play(what, directory.as_ref()),
        ["leaving", what, directory] => leaving::play(what, directory.as_ref()),
        ["names", what, directory] => names::play(what, directory.as_ref()),
        ["meanwhile", what, directory] => meanwhile::play(what, directory.as_ref()),
        ["program", what, directory] => programs::play(what, directory.as_ref()),
        ["cost"] => cost::play(),
        _ => panic!("nobody plays {words:?}"),
    }
}

/// A test, which fails by panicking.
fn trial(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        body();
        Ok(())
    })
}
