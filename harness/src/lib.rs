//! Test harness for GPU memory offload engines: supervision, probes, invariants, verdicts.

pub mod attack;
pub mod ballast;
pub mod case;
mod claim;
pub mod crash;
pub mod device;
pub mod error;
pub mod faults;
pub mod golden;
pub mod gpu;
pub mod invariants;
pub mod lanes;
mod lives;
pub mod minimise;
pub mod model_file;
pub mod observation;
pub mod probe;
pub mod program;
pub mod report;
pub mod run;
pub mod sandbox;
pub mod settle;
pub mod shadow;
pub mod subject;
pub mod sweep;
pub mod verdict;
pub mod world;
