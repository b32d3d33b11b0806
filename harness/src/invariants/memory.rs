//! `rss`: the peak of anonymous and shared memory within each step, and what is left at the end.
//!
//! Limit: baseline + declared staging + the case's slack + what the case's settings send to RAM;
//! never the size of the model. File-backed pages do not count: the kernel may drop them at any
//! time. Peaks come from the kernel's resettable high-water mark; `probe::PeakReading` says what is
//! certain about them.

use crate::{
    observation::{Reading, Run},
    probe::{PeakVerdict, ProcessReading},
};

/// One mebibyte, for messages.
const MIB: f64 = 1048576.0;

/// What the process may hold at any time, bytes.
pub(crate) fn limit_bytes(run: &Run, baseline: &ProcessReading) -> u64 {
    let limits = &run.case.limits;
    anon_shared_bytes(baseline) + run.staging_bytes + limits.slack_bytes + limits.ram_tier_bytes
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
