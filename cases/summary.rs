//! What is printed when all is done: which devices there were, what was passed over and why, and the counts.

use crate::suite::Planned;
use spillproof_harness::device::{DeviceKind, Discovered};
use std::collections::BTreeMap;

/// What was planned, as far as the closing lines tell it.
#[derive(Clone, Debug)]
pub struct Summary {
    devices: Vec<String>,
    /// By device and reason.
    skipped: BTreeMap<(DeviceKind, String), usize>,
    on_gpus: usize,
    /// Why there is no ledger of the subject's calls.
    no_ledger: Option<String>,
}

impl Summary {
    /// Of these trials on these devices; `no_ledger` says why the subject's calls are not followed.
    #[must_use]
    pub fn of(planned: &[Planned], devices: &[Discovered], no_ledger: Option<String>) -> Self {
        let mut skipped = BTreeMap::new();
        for one in planned {
            if let Some(reason) = &one.skip {
                *skipped.entry((one.device, reason.clone())).or_default() += 1;
            }
        }
        let described = |device: &Discovered| match &device.unavailable {
            None => format!("{}: {}", device.kind, device.description),
            Some(reason) => format!(
                "{}: {}, not usable: {reason}",
                device.kind, device.description
            ),
        };
        Self {
            devices: devices.iter().map(described).collect(),
            skipped,
            on_gpus: planned
                .iter()
                .filter(|one| is_gpu(&one.device) && one.skip.is_none())
                .count(),
            no_ledger,
        }
    }

    /// The closing lines; `verdicts` are those of the trials that ran, by name.
    #[must_use]
    pub fn text(&self, verdicts: &[(String, &'static str)]) -> String {
        let count = |word: &str| verdicts.iter().filter(|(_, found)| *found == word).count();
        let gpu = verdicts
            .iter()
            .filter(|(name, _)| name.contains("[cuda:"))
            .count();
        let mut text = self.devices.join(" · ");
        for ((device, reason), cases) in &self.skipped {
            text += &format!("\nSKIP  {cases} on {device}: {reason}");
        }
        if let Some(reason) = &self.no_ledger {
            text += &format!(
                "\nno ledger of calls: the subject does not start with the interposer, so no call of it can be made to fail either: {reason}"
            );
            if self.on_gpus > 0 {
                text += "\nNVML shows bytes of device memory only: on a real GPU nothing was judged of pinned memory, streams, events and cuFile's handles";
            }
        }
        text += &format!(
            "\n{} cases: {} pass, {} fail, {} inconclusive, {} infrastructure, {} skipped at run time · gpu ran {gpu}/{}",
            verdicts.len(),
            count("PASS"),
            count("FAIL"),
            count("????"),
            count("INFR"),
            count("SKIP"),
            self.on_gpus,
        );
        // Of an engine that is not ours.
        match count("NONE") {
            0 => {}
            not_called => text += &format!(" · {not_called} not called"),
        }
        text
    }
}

fn is_gpu(device: &DeviceKind) -> bool {
    match device {
        DeviceKind::Cuda { .. } => true,
        DeviceKind::Emulated => false,
    }
}

#[cfg(test)]
mod tests {
    //! What the closing lines say of what was not seen.
    use super::*;

    fn text(on_gpus: usize, no_ledger: Option<&str>) -> String {
        let summary = Summary {
            no_ledger: no_ledger.map(str::to_owned),
            devices: Vec::new(),
            skipped: BTreeMap::new(),
            on_gpus,
        };
        summary.text(&[("oom::forced[cuda:0]".to_owned(), "PASS")])
    }

    #[test]
    fn what_nothing_shows_without_a_ledger_is_said() {
        let lines = |text: String| text.lines().filter(|line| line.contains("NVML")).count();
        let refused = Some("exit status 127");
        let told = [text(3, None), text(0, refused), text(3, refused)].map(lines);
        assert_eq!(told, [0, 0, 1]);
        assert!(!text(3, None).contains("ledger"));
        let told = text(3, refused);
        for said in ["exit status 127", "pinned memory", "streams", "handles"] {
            assert!(told.contains(said), "{told}");
        }
    }
}
