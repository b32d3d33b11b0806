//! Cases on devices: which trials there are, how one is run, judged and put into words.

use crate::{bench::Judged, gds};
use spillproof_harness::{
    case::{Action, Case, Gpu, MIB, Step},
    device::{DeviceKind, Discovered},
    invariants::{self, Check, InvariantId},
    observation::Run,
    report,
    run::{Bench, run_case},
    verdict::Verdict,
    world::{self, Event, LimitedResource, Volume},
};
use spillproof_protocol::Capability;

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

/// Every case on every device, for a subject that can do this; `None` when that is not known. `indirect` says why nothing is
/// transferred directly where the cases' directories are ([`world::out_of_direct_reach`]).
#[must_use]
pub fn plan(
    cases: Vec<Case>,
    devices: &[Discovered],
    abilities: Option<&[Capability]>,
    indirect: Option<&str>,
) -> Vec<Planned> {
    let on = |case: &Case| -> Vec<Planned> {
        let planned = |found: &Discovered| {
            let skip = found
                .unavailable
                .clone()
                .or_else(|| unfit(case, &found.kind))
                .or_else(|| too_small(case, found))
                .or_else(|| unable(case, abilities))
                .or_else(|| {
                    let wanted = found.kind == DeviceKind::Emulated && transfers_directly(case);
                    indirect.filter(|_| wanted).map(str::to_owned)
                })
                .or_else(|| world::unavailable(&case.world));
            let case = match found.kind {
                DeviceKind::Emulated => case.clone(),
                DeviceKind::Cuda { .. } => gds::on_a_real_device(case.clone()),
            };
            Planned {
                case,
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
        (DeviceKind::Cuda { .. }, _) if case.family == "sweep" => {
            Some("calls are enumerated on the emulated device, a thousand runs at a time".into())
        }
        (DeviceKind::Cuda { .. }, Gpu::Absent) => Some("a real driver cannot be taken away".into()),
        (DeviceKind::Cuda { .. }, gpu) if gpu.is_emulated_only() => Some(
            "a real driver cannot be made to refuse, or to lack symbols; nor a real cuFile".into(),
        ),
        (DeviceKind::Cuda { .. }, _) => confined(case),
        (DeviceKind::Emulated, _) => None,
    }
}

/// Limits that a real driver, which reserves address space and host memory for itself, does not live under.
fn confined(case: &Case) -> Option<String> {
    let limits_address_space = |step: &Step| {
        matches!(
            step.action,
            Action::World(Event::Limit {
                resource: LimitedResource::AddressSpace,
                ..
            })
        )
    };
    if case.steps.iter().any(limits_address_space) {
        return Some("a real driver takes address space as it likes".into());
    }
    case.world
        .memory_bytes
        .map(|_| "a real driver takes more host memory than the group has".into())
}

/// The setting by which an engine goes past the page cache.
pub(crate) const FILE_IO: &str = "OFFLOAD_FILE_IO";

fn sets(case: &Case, variable: &str, value: &str) -> bool {
    let mut settings = case.settings.iter();
    settings.any(|(name, set)| *name == variable && set == value)
}

/// Whether direct I/O, or an emulated cuFile, would transfer directly to the disk on which the case's directory lies.
fn transfers_directly(case: &Case) -> bool {
    if sets(case, FILE_IO, "direct") {
        return true;
    }
    let is_off = |(name, value): &(_, String)| *name == "OFFLOAD_CUFILE" && value == "off";
    match (&case.gpu, case.world.volume) {
        (Gpu::Present { cufile, .. }, Volume::Disk) => {
            cufile.transfers_directly() && !case.settings.iter().any(is_off)
        }
        (
            Gpu::Absent | Gpu::Present { .. },
            Volume::Disk | Volume::SmallDisk { .. } | Volume::SmallMemory { .. } | Volume::Memory,
        ) => false,
    }
}

/// A model that no such device holds.
fn too_small(case: &Case, device: &Discovered) -> Option<String> {
    let (Gpu::Present { vram_bytes, .. }, Some(total_bytes)) = (&case.gpu, device.total_bytes)
    else {
        return None;
    };
    (*vram_bytes > total_bytes).then(|| {
        format!(
            "needs a device of {} MiB, this one has {} MiB",
            vram_bytes / MIB,
            total_bytes / MIB
        )
    })
}

/// What the subject did not say that it can do.
fn unable(case: &Case, abilities: Option<&[Capability]>) -> Option<String> {
    let abilities = abilities?;
    let missing = case
        .requires
        .iter()
        .find(|needed| !abilities.contains(needed))?;
    Some(format!("the subject lacks the capability {missing}"))
}

/// A run with its judgement.
#[derive(Debug)]
pub struct Judgement {
    /// What was seen.
    pub run: Run,
    /// What it is worth.
    pub verdict: Verdict,
}

impl Judgement {
    /// Whether nothing is wrong but that rules of the plan never fired.
    #[must_use]
    pub fn is_only_idle(&self) -> bool {
        let idle = self.run.rules.iter().filter(|rule| rule.fired == 0).count();
        // A signal that no rule raised was sent all the same, too late.
        let late = usize::from(self.run.signals() == [false]);
        match &self.verdict {
            Verdict::Inconclusive(doubts) => doubts.len() == idle + late,
            Verdict::Pass | Verdict::Fail(_) | Verdict::Skipped(_) | Verdict::Infrastructure(_) => {
                false
            }
        }
    }
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

/// What a verdict is worth for whom it was given: our own engine has every capability, so that a case which passes it over
/// while it runs has measured nothing.
#[must_use]
pub fn verdict_of(judged: &Judged, verdict: Verdict) -> Verdict {
    match (judged, verdict) {
        (Judged::Engine, Verdict::Skipped(reason)) => {
            Verdict::Inconclusive(vec![format!("skipped while it ran: {reason}")])
        }
        (Judged::Engine | Judged::Specimen(_) | Judged::Other(_), verdict) => verdict,
    }
}

#[cfg(test)]
mod tests {
    //! What is passed over before anything runs, and for which reason.
    use super::*;
    use crate::steps::{CaseWords as _, case};

    fn skip(
        case: Case,
        total_bytes: Option<u64>,
        abilities: Option<&[Capability]>,
    ) -> Option<String> {
        let device = Discovered {
            kind: DeviceKind::Cuda { ordinal: 0 },
            description: String::new(),
            total_bytes,
            unavailable: None,
        };
        plan(vec![case], &[device], abilities, None).remove(0).skip
    }

    #[test]
    fn a_model_larger_than_the_device_is_passed_over() {
        let case = || case("repeat", "large", 12 << 10, Vec::new());
        let reason = skip(case(), Some(8192 * MIB), None).unwrap();
        assert_eq!(reason, "needs a device of 12288 MiB, this one has 8192 MiB");
        assert_eq!(skip(case(), Some(12288 * MIB), None), None);
        assert_eq!(skip(case(), None, None), None);
    }

    #[test]
    fn what_a_subject_cannot_do_is_passed_over_where_that_is_known() {
        let case = || case("data", "views", 16, Vec::new()).needs(Capability::Views);
        let reason = skip(case(), None, Some(&[Capability::Modify])).unwrap();
        assert_eq!(reason, "the subject lacks the capability views");
        assert_eq!(skip(case(), None, Some(&[Capability::Views])), None);
        assert_eq!(skip(case(), None, None), None);
    }

    #[test]
    fn what_transfers_directly_is_passed_over_where_nothing_can() {
        let emulated = Discovered {
            kind: DeviceKind::Emulated,
            description: String::new(),
            total_bytes: None,
            unavailable: None,
        };
        let cases = crate::gds::cases();
        let planned = plan(cases, &[emulated], None, Some("it is btrfs"));
        let skipped: Vec<_> = planned
            .iter()
            .filter(|one| one.skip.as_deref() == Some("it is btrfs"))
            .map(|one| one.case.name.as_str())
            .collect();
        for direct in ["direct", "auto_direct", "short_transfers", "as_found_on"] {
            assert!(skipped.contains(&direct), "{direct}: {skipped:?}");
        }
        for other in [
            "compat",
            "absent",
            "off",
            "as_found_off",
            "open_hangs",
            "handles_refused_5008",
            "disk_full",
            "directory_on_tmpfs",
        ] {
            assert!(planned.iter().any(|one| one.case.name == other), "{other}");
            assert!(!skipped.contains(&other), "{other}");
        }
    }

    #[test]
    fn only_our_own_engine_may_not_lack_a_capability() {
        let skipped = || Verdict::Skipped("the subject lacks the capability views".into());
        let ours = verdict_of(&Judged::Engine, skipped());
        assert!(!ours.is_green(), "{ours:?}");
        let theirs = Judged::Other(vec!["engine".into()]);
        assert_eq!(verdict_of(&theirs, skipped()), skipped());
        assert_eq!(verdict_of(&Judged::Engine, Verdict::Pass), Verdict::Pass);
    }

    #[test]
    fn a_real_machines_own_cufile_goes_its_own_way_and_may_hold_buffers() {
        let devices =
            [DeviceKind::Emulated, DeviceKind::Cuda { ordinal: 0 }].map(|kind| Discovered {
                kind,
                description: String::new(),
                total_bytes: None,
                unavailable: None,
            });
        let planned = plan(gds::cases(), &devices, None, None);
        let of = |name: &str| -> Vec<&Planned> {
            planned.iter().filter(|one| one.case.name == name).collect()
        };
        let healthy = of("odd_sizes_through_file");
        let [emulated, real] = healthy[..] else {
            panic!("{} trials", healthy.len());
        };
        assert_eq!((&emulated.skip, &real.skip), (&None, &None));
        assert!(emulated.case.path.is_some() && real.case.path.is_none());
        let slack = |one: &Planned| one.case.limits.slack_bytes;
        assert_eq!(slack(real) - slack(emulated), 64 * MIB);
        assert!(of("short_transfers")[1].skip.is_some());
    }
}
