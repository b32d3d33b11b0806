//! Cases on devices: which trials there are, how one is run, judged and put into words.

use crate::bench::Judged;
use spillproof_harness::{
    case::{Case, Gpu},
    device::{DeviceKind, discover},
    invariants::{self, Check, InvariantId},
    observation::Run,
    report,
    run::{Bench, run_case},
    verdict::Verdict,
};

/// A case on a device.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The case.
    pub case: Case,
    /// The device.
    pub device: DeviceKind,
    /// Why it cannot run here; decided when trials are listed, never later.
    pub skip: Option<String>,
}

impl Planned {
    /// `family::case[device]`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}[{}]", self.case.id(), self.device)
    }
}

/// Every case on every device found, without touching CUDA.
#[must_use]
pub fn plan(cases: Vec<Case>) -> Vec<Planned> {
    let devices = discover();
    let on = |case: &Case| -> Vec<Planned> {
        let planned = |found: &spillproof_harness::device::Discovered| {
            let skip = found
                .unavailable
                .clone()
                .or_else(|| unfit(case, &found.kind));
            Planned {
                case: case.clone(),
                device: found.kind,
                skip,
            }
        };
        devices.iter().map(planned).collect()
    };
    cases.iter().flat_map(on).collect()
}

/// What a real driver cannot be made to look like.
fn unfit(case: &Case, device: &DeviceKind) -> Option<String> {
    match (device, &case.gpu) {
        (DeviceKind::Cuda { .. }, Gpu::Absent) => Some("a real driver cannot be taken away".into()),
        (DeviceKind::Cuda { .. }, gpu) if gpu.is_emulated_only() => {
            Some("a real driver cannot be made to refuse, or to lack symbols".into())
        }
        (DeviceKind::Cuda { .. } | DeviceKind::Emulated, _) => None,
    }
}

/// A run with its judgement.
#[derive(Debug)]
pub struct Judgement {
    /// What was seen.
    pub run: Run,
    /// What it is worth.
    pub verdict: Verdict,
}

/// Runs a case and judges it by all invariants.
#[must_use]
pub fn judge(case: &Case, device: &DeviceKind, bench: &Bench) -> Judgement {
    judge_by(case, device, bench, invariants::ALL)
}

/// Runs a case and judges it by these invariants.
#[must_use]
pub fn judge_by(
    case: &Case,
    device: &DeviceKind,
    bench: &Bench,
    by: &[(InvariantId, Check)],
) -> Judgement {
    let run = run_case(case, device, bench);
    let violations = invariants::check(&run, by);
    let verdict = report::judge(&run, violations);
    Judgement { run, verdict }
}

/// The command that shows one trial again.
#[must_use]
pub fn show_again(name: &str, judged: &Judged) -> String {
    format!(
        "{}cargo test --test fault_suite -- --exact '{name}' --nocapture",
        judged.prefix()
    )
}
