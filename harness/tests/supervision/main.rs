//! Supervision and probes, tried on real processes.
//!
//! The executable is five things: without a role it runs the tests; as `rogue BEHAVIOUR` it is a subject that behaves in that way; as
//! `scripted NAMED/USED` one that serves whole cases with digests of one algorithm or the other; as
//! `harness DIRECTORY` it is a harness with one subject, to be killed; as `holder DIRECTORY` one that holds all that a harness can.
// Clippy does not see that a target with its own `main` is a test.
#![allow(clippy::unwrap_used)]

mod bench;
mod digests;
mod findings;
mod isolation;
mod peaks;
mod probes;
mod reaping;
mod rogue;
mod scripted;
mod trees;
mod withheld;

use libtest_mimic::{Arguments, Trial};
use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("rogue"), Some(behaviour)) => rogue::run(&behaviour),
        (Some("scripted"), Some(parts)) => scripted::run(&parts),
        (Some("harness"), Some(directory)) => isolation::run_harness(directory.as_ref()),
        (Some("holder"), Some(directory)) => reaping::hold(directory.as_ref()),
        _ => {
            let trials = [
                findings::tests(),
                trees::tests(),
                isolation::tests(),
                probes::tests(),
                peaks::tests(),
                reaping::tests(),
                withheld::tests(),
                digests::tests(),
            ];
            let trials = trials.into_iter().flatten().collect();
            libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
        }
    }
}

/// A test, which fails by panicking.
fn trial(name: &'static str, body: fn()) -> Trial {
    Trial::test(name, move || {
        body();
        Ok(())
    })
}
