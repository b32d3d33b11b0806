//! The command as a user runs it. `spillproof inject` with whole programs, unchanged: what they say with and without a plan, and what is said where no
//! fault can reach them. `spillproof bench` with small sizes.
// Clippy does not see that a target with its own `main` is a test.
#![allow(clippy::unwrap_used)]

mod bench;
mod c_program;
mod python;
mod refusals;
mod stage;
mod torch;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let trials = [
        bench::tests(),
        c_program::tests(),
        python::tests(),
        refusals::tests(),
        torch::tests(),
    ];
    let trials = trials.into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test, which fails by panicking; listed as ignored, with the reason told, where it cannot run.
fn trial(name: &str, impediment: Option<&str>, body: fn()) -> Trial {
    if let Some(reason) = impediment {
        eprintln!("SKIP  {name}: {reason}");
    }
    let run = move || {
        body();
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(impediment.is_some())
}
