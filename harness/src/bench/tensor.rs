//! One tensor: from the device to its file, and back from a file that is nowhere but on the disk, and from one in the page cache.

use super::{failure::Failure, models, page_cache, plan::Loads, record::Run, served::Served};
use crate::probe::Uss;
use std::path::PathBuf;

/// Seed of its contents.
const SEED: u64 = 1;

/// Measures it once: storing, and of the loads what is wanted. With `verifies`, what comes back is compared each time, after the clock
/// was stopped.
pub(super) fn run(
    served: &mut Served<'_>,
    bytes: u64,
    wanted: Loads,
    verifies: bool,
) -> Result<Run, Failure> {
    let model = models::tensor("m", SEED, bytes);
    let load = served.load(&model, bytes)?;
    let store = served.free("store", "m", bytes)?;
    if store.written_bytes.is_none_or(|written| written < bytes) {
        let written = store.written_bytes.unwrap_or(0);
        let text = format!("{written} of {bytes} bytes were written to a file");
        return Err(Failure::Unlike(text));
    }
    let mut run = Run {
        is_verified: verifies,
        steps: vec![load, store],
        ..Run::default()
    };
    if wanted.cold {
        make_cold(&offload_files(served, bytes)?)?;
        let cold = served.request("load_cold", "m", bytes, Uss::Skipped)?;
        run.steps.push(cold);
        if verifies {
            served.verify(&model, "load_cold")?;
        }
        // It has not changed: this writes nothing.
        run.steps.push(served.free("free", "m", bytes)?);
    }
    if wanted.warm {
        let there = page_cache::make_warm(&offload_files(served, bytes)?)?;
        if there.resident_bytes == there.bytes {
            let warm = served.request("load_warm", "m", bytes, Uss::Skipped)?;
            run.steps.push(warm);
        } else {
            let reason = format!(
                "the page cache holds {} of {} bytes after the file was read again and again",
                there.resident_bytes, there.bytes
            );
            run.left_out.insert("load_warm".into(), reason);
        }
    }
    if verifies {
        // It comes back for that where no load was measured.
        served.verify(&model, if wanted.warm { "load_warm" } else { "store" })?;
    }
    served.drop_models(&[model])?;
    Ok(run)
}

fn offload_files(served: &Served<'_>, bytes: u64) -> Result<Vec<PathBuf>, Failure> {
    let files = served.files()?;
    let there = page_cache::residency(&files)?;
    if there.bytes < bytes {
        return Err(Failure::Unlike(format!(
            "the offload directory holds {} bytes of {bytes}: it cannot be made sure where they are",
            there.bytes
        )));
    }
    Ok(files)
}

/// Takes files out of the page cache and makes sure of it.
pub(super) fn make_cold(files: &[PathBuf]) -> Result<(), Failure> {
    let there = page_cache::make_cold(files)?;
    match there.resident_bytes {
        0 => Ok(()),
        resident => Err(Failure::Unlike(format!(
            "{resident} of {} bytes stay in the page cache, so that no load is cold; somebody has them mapped",
            there.bytes
        ))),
    }
}
