//! The command line.

mod inject;
mod report;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Fault injection for GPU memory offload engines, and for any other program.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Runs any program, unchanged, under a fault plan.
    Inject(inject::Inject),
}

fn main() -> ExitCode {
    match Arguments::parse().mode {
        Mode::Inject(inject) => inject.run(),
    }
}
