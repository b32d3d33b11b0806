//! The command line.

mod bench;
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
    /// Measures what offloading costs, beside the machine's ceilings and PyTorch.
    Bench(Box<bench::Arguments>),
    /// Runs any program, unchanged, under a fault plan.
    Inject(inject::Inject),
}

fn main() -> ExitCode {
    match Arguments::parse().mode {
        Mode::Bench(bench) => bench.run(),
        Mode::Inject(inject) => inject.run(),
    }
}
