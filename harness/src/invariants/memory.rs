//! `rss`: the peak of anonymous and shared memory within each step, and what is left at the end.
//!
//! Limit: baseline + declared staging + the case's slack + what the case's settings send to RAM;
//! never the size of the model. A leak that is too small for any single step shows as a trend over the requests of a model.
//! File-backed pages do not count: the kernel may drop them at any
//! time. Peaks come from the kernel's resettable high-water mark; `probe::PeakReading` says what is
//! certain about them.

use crate::{
    case::Action,
    device::DeviceReading,
    observation::{Reading, Run},
    probe::{PeakVerdict, ProcessReading},
};
use std::collections::BTreeMap;

/// One mebibyte, for messages.
const MIB: f64 = 1048576.0;

/// What the process may hold at any time, bytes. Staging that was resident at the baseline is in it already.
pub(crate) fn limit_bytes(run: &Run, baseline: &ProcessReading) -> u64 {
    let limits = &run.case.limits;
    let resident_staging = match run.baseline.as_ref().map(|reading| &reading.device) {
        Some(DeviceReading::Board(board)) => board.pinned_bytes + board.registered_bytes,
        // What is pinned on a real device cannot be read: staging may count twice.
        Some(DeviceReading::Absent | DeviceReading::Nvml(_)) | None => 0,
    };
    let staging = run.staging_bytes.saturating_sub(resident_staging);
    anon_shared_bytes(baseline) + staging + limits.slack_bytes + limits.ram_tier_bytes
}

pub(crate) fn anon_shared_bytes(process: &ProcessReading) -> u64 {
    process.rss_anon_bytes + process.rss_shmem_bytes
}

/// No step's peak exceeds the limit, and in the end all but staging is given back.
pub(super) fn rss(run: &Run) -> Vec<String> {
    let Some(baseline) = run
        .baseline
        .as_ref()
        .and_then(|reading| reading.process.as_ref())
    else {
        return Vec::new();
    };
    let limit = limit_bytes(run, baseline);
    let mib = |bytes: u64| bytes as f64 / MIB;
    let base = anon_shared_bytes(baseline);
    let mut wrong = Vec::new();
    for step in run.judged_steps() {
        if let Some(peak) = &step.peak
            && peak.exceeds(limit) == PeakVerdict::Exceeded
        {
            let (lower, upper) = peak.anon_shared_bounds();
            wrong.push(format!(
                "{}: peak of anonymous + shared memory between {:+.1} and {:+.1} MiB over the baseline of {:.1} MiB (limit {:+.1})",
                step.place(),
                mib(lower) - mib(base),
                mib(upper) - mib(base),
                mib(base),
                mib(limit) - mib(base),
            ));
        }
    }
    wrong.extend(kept_after_reload(
        run,
        limit - run.case.limits.ram_tier_bytes,
    ));
    wrong.extend(trends(run));
    let settled = run
        .settled
        .as_ref()
        .and_then(|reading: &Reading| reading.process.as_ref());
    if let Some(settled) = settled {
        let left = anon_shared_bytes(settled);
        let limit = limit - run.case.limits.ram_tier_bytes;
        if left > limit {
            wrong.push(format!(
                "{:+.1} MiB of anonymous + shared memory over the baseline after everything was dropped (limit {:+.1})",
                mib(left) - mib(base),
                mib(limit) - mib(base),
            ));
        }
    }
    wrong
}

/// Once everything is on the device, no copy of it is left in RAM (E31).
fn kept_after_reload(run: &Run, limit: u64) -> Option<String> {
    run.judged_steps().find_map(|step| {
        let tiers = &step.status_after.as_ref()?.tiers;
        let process = step.after.process.as_ref()?;
        let all_on_device = tiers.vram > 0 && [tiers.ram, tiers.mapped, tiers.file] == [0; 3];
        let held = anon_shared_bytes(process);
        (all_on_device && held > limit).then(|| {
            format!(
                "{}: everything is on the device, yet {:.1} MiB of anonymous + shared memory are held (limit {:.1})",
                step.place(),
                held as f64 / MIB,
                limit as f64 / MIB
            )
        })
    })
}

/// Fewest requests of one model that make a trend; the first fifth of them is warm-up.
const TREND_REQUESTS: usize = 20;

/// Growth over the requests of one model that counts as a leak, bytes. Healthy engines show less than a tenth of it.
const TREND_BYTES: f64 = 2.0 * MIB;

/// Memory that grows request by request: a robust slope beyond the budget *and* medians that rise block by block.
fn trends(run: &Run) -> Vec<String> {
    let mut after: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for step in run.judged_steps() {
        if let (Action::Request { model, .. }, Some(process)) = (&step.action, &step.after.process)
        {
            let bytes = anon_shared_bytes(process) as f64;
            after.entry(model).or_default().push(bytes);
        }
    }
    let grown = after.iter().filter_map(|(model, bytes)| {
        let growth = growth_bytes(bytes)?;
        (growth > TREND_BYTES).then(|| {
            format!(
                "anonymous + shared memory grew by {:.1} MiB over {} requests of {model} (limit {:.1})",
                growth / MIB,
                bytes.len(),
                TREND_BYTES / MIB
            )
        })
    });
    grown.collect()
}

/// Growth by the Theil–Sen slope, where the medians of four blocks rise from each to the next.
fn growth_bytes(readings: &[f64]) -> Option<f64> {
    if readings.len() < TREND_REQUESTS {
        return None;
    }
    let steady = &readings[readings.len() / 5..];
    let mut slopes = Vec::new();
    for (early, from) in steady.iter().enumerate() {
        for (late, to) in steady.iter().enumerate().skip(early + 1) {
            slopes.push((to - from) / (late - early) as f64);
        }
    }
    let medians: Vec<f64> = steady
        .chunks(steady.len().div_ceil(4))
        .map(|block| median(block.to_vec()))
        .collect();
    let rises = medians.windows(2).all(|pair| pair[0] < pair[1]);
    rises.then(|| median(slopes) * (readings.len() - 1) as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
