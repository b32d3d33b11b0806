//! The catalogue of cases: one module per family, each pure data over the harness's case model.

pub mod absence;
pub mod bench;
#[cfg(test)]
mod catalogue;
pub mod concurrency;
pub mod counts;
pub mod crash;
pub mod crash_points;
pub mod data;
pub mod disk;
pub mod gds;
pub mod hunt;
pub mod limits;
pub mod mapped;
pub mod minimal;
pub mod models;
pub mod oom;
pub mod pairs;
pub mod real;
pub mod repeat;
pub mod replay;
pub mod reruns;
pub mod search;
pub mod steps;
pub mod suite;
pub mod summary;
pub mod sweep;
pub mod sweep_trials;
pub mod world_steps;

use spillproof_harness::{case::Case, model_file::ModelFileError};

/// Every case, in the order of families and then of definition.
///
/// # Errors
/// `SPILLPROOF_MODEL` names a file that cannot be used.
pub fn catalogue() -> Result<Vec<Case>, ModelFileError> {
    Ok([
        oom::cases(),
        repeat::cases(),
        absence::cases(),
        data::cases(),
        mapped::cases(),
        concurrency::cases(),
        disk::cases(),
        limits::cases(),
        pairs::cases(),
        crash::cases(),
        sweep::cases(),
        gds::cases(),
        real::cases()?,
    ]
    .concat())
}
