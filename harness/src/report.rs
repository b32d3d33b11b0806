//! A judged run as text for people: one line when all is well, everything needed to act when not.

use crate::{
    case::MIB,
    invariants::Violation,
    observation::{Outcome, Run, StepRecord},
    verdict::Verdict,
    world::{Volume, World},
};
use std::fmt::Write as _;

/// Most violations that are printed in full.
const SHOWN_VIOLATIONS: usize = 20;

/// Judges a run.
#[must_use]
pub fn judge(run: &Run, violations: Vec<Violation>) -> Verdict {
    if !violations.is_empty() {
        return Verdict::Fail(violations);
    }
    if let Some(reason) = &run.skipped {
        return Verdict::Skipped(reason.clone());
    }
    if let Some(reason) = &run.infrastructure {
        return Verdict::Infrastructure(reason.clone());
    }
    let doubts = run.all_doubts();
    if doubts.is_empty() {
        Verdict::Pass
    } else {
        Verdict::Inconclusive(doubts)
    }
}

/// The line of a case: verdict, name, time, and the resources that matter most.
#[must_use]
pub fn line(run: &Run, name: &str, verdict: &Verdict) -> String {
    let wall: f64 = run.open_wall.as_secs_f64()
        + run
            .steps
            .iter()
            .map(|step| step.wall.as_secs_f64())
            .sum::<f64>();
    let mut text = format!("{}  {name:<48} {wall:>6.2} s", verdict.word());
    if let Some(over) = run.peak_over_baseline_bytes() {
        let _ = write!(text, "  peak {:+.1} MiB", over as f64 / MIB as f64);
    }
    for (what, landed) in [("signals", run.signals()), ("moments", run.moments())] {
        if !landed.is_empty() {
            let in_time = landed.iter().filter(|landed| **landed).count();
            let _ = write!(text, "  {what} {in_time} of {} in time", landed.len());
        }
    }
    if let (Some(baseline), Some(settled)) = (&run.baseline, &run.settled) {
        if let (Some(before), Some(after)) =
            (baseline.device.held_bytes(), settled.device.held_bytes())
        {
            let _ = write!(
                text,
                "  vram {:+}",
                after.cast_signed() - before.cast_signed()
            );
        }
        if let (Some(before), Some(after)) = (&baseline.process, &settled.process) {
            let count = |process: &crate::probe::ProcessReading| {
                process.descriptors.values().sum::<u64>().cast_signed()
            };
            let _ = write!(text, "  fd {:+}", count(after) - count(before));
        }
    }
    text
}

/// Everything needed to act on a case that is not green.
#[must_use]
pub fn details(run: &Run, verdict: &Verdict, show_again: &str) -> String {
    let mut text = String::new();
    match verdict {
        Verdict::Pass => {}
        Verdict::Skipped(reason) => {
            let _ = writeln!(text, "  skipped: {reason}");
        }
        Verdict::Infrastructure(reason) => {
            let _ = writeln!(text, "  infrastructure: {reason}");
        }
        Verdict::Inconclusive(reasons) => {
            for reason in reasons {
                let _ = writeln!(text, "  inconclusive: {reason}");
            }
        }
        Verdict::Fail(violations) => {
            for violation in violations.iter().take(SHOWN_VIOLATIONS) {
                let _ = writeln!(text, "  {:<9} {}", violation.invariant, violation.message);
            }
            if let Some(more) = violations
                .len()
                .checked_sub(SHOWN_VIOLATIONS)
                .filter(|more| *more > 0)
            {
                let _ = writeln!(text, "  and {more} more");
            }
        }
    }
    let settings: Vec<String> = run
        .case
        .settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let _ = writeln!(text, "  settings:  {}", settings.join(" "));
    let _ = writeln!(text, "  gpu:       {}", run.case.gpu);
    if run.case.world != World::default() {
        let _ = writeln!(text, "  world:     {}", in_words(&run.case.world));
    }
    if let Some(faults) = &run.case.faults {
        let _ = writeln!(text, "  faults:    {}", faults.plan);
        for rule in &run.rules {
            let _ = writeln!(text, "             {rule}");
        }
    }
    if let Some(account) = &run.group {
        let _ = writeln!(text, "  group:     {account}");
    }
    let first = run.lives().next().unwrap_or(run);
    let _ = writeln!(text, "  steps:     open: {}", came_back(&first.open));
    for step in run.lives().flat_map(|life| &life.steps) {
        let _ = writeln!(
            text,
            "             {:>3} {:<40} {}",
            step.number,
            step.action.label(),
            came_back(&step.outcome)
        );
        for failed in failed_in_lanes(&step.outcome) {
            let _ = writeln!(text, "                 {failed}");
        }
    }
    for ended in run.lives().filter_map(|life| life.ended.as_ref()) {
        let _ = writeln!(text, "  ended:     {}", ended.exit);
        for (stream, captured) in [("stderr", &ended.stderr), ("stdout", &ended.stdout)] {
            let captured = captured.to_string();
            if !captured.trim().is_empty() {
                let _ = writeln!(text, "  {stream}:\n{}", indented(&captured));
            }
        }
    }
    let _ = writeln!(text, "  again:     {show_again}");
    text
}

fn in_words(world: &World) -> String {
    let mib = |bytes: u64| format!("{} MiB", bytes as f64 / MIB as f64);
    let mut parts = vec![match world.volume {
        Volume::Disk => "the sandbox's own disk".to_owned(),
        Volume::SmallDisk { bytes } => format!("a disk of {}", mib(bytes)),
        Volume::SmallMemory { bytes } => format!("a tmpfs of {}", mib(bytes)),
        Volume::Memory => "the machine's tmpfs".to_owned(),
    }];
    let files = world.file_bytes.map(mib);
    parts.extend(files.map(|most| format!("files of at most {most}")));
    let memory = world.memory_bytes.map(mib);
    parts.extend(memory.map(|most| format!("at most {most} of host memory")));
    parts.join(", ")
}

/// Which of the lanes' steps did not succeed, and why.
fn failed_in_lanes(outcome: &Outcome) -> Vec<String> {
    let Outcome::Together(steps) = outcome else {
        return Vec::new();
    };
    let failed = steps.iter().filter(|step| !step.outcome.is_success());
    failed
        .map(|step| {
            format!(
                "lane {}, {} ({}): {}",
                step.lane,
                step.number,
                step.action.label(),
                came_back(&step.outcome)
            )
        })
        .collect()
}

fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| format!("    | {line}\n"));
    lines.collect::<String>().trim_end().to_owned()
}

fn came_back(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "ok".into(),
        Outcome::Freed(reply) => format!(
            "{}, {} bytes freed in {} moves",
            reply.extent,
            reply.freed_bytes,
            reply.moves.len()
        ),
        Outcome::Served(reply) => format!("ok, {} recoveries", reply.recoveries),
        Outcome::ReadBack(digests) => format!("ok, {} tensors", digests.len()),
        Outcome::Held(handle) => format!("ok, handle {handle}"),
        Outcome::Viewed(digest) => format!("ok, digest {digest:.16}"),
        Outcome::Killed(killed) => format!(
            "{}, {}, {:.0?} after the signal",
            if killed.landed {
                "in time"
            } else {
                "the verb had ended"
            },
            killed
                .exit
                .map_or_else(|| "it lives on".into(), |exit| exit.to_string()),
            killed.wall
        ),
        Outcome::Together(steps) => {
            let failed = steps.iter().filter(|step| !step.outcome.is_success());
            format!("{} answers, {} errors", steps.len(), failed.count())
        }
        Outcome::Failed(error) => format!("error {}: {}", error.kind, error.message),
        Outcome::Misbehaved(finding) => finding.to_string(),
        Outcome::NotRun => "not run".into(),
    }
}

/// The table of origin.md: per request, wall time and RSS and USS at start, at end and at their peak, MiB.
#[must_use]
pub fn request_table(run: &Run) -> String {
    let mut text = format!(
        "{}: RSS and USS in MiB, start / end / peak\n",
        run.case.id()
    );
    let _ = writeln!(
        text,
        "{:>4}  {:<36} {:>9}  {:>24}  {:>24}",
        "step", "what", "ms", "RSS", "USS"
    );
    for step in run.lives().flat_map(|life| &life.steps) {
        if let Some(row) = row(step) {
            let _ = writeln!(text, "{row}");
        }
    }
    text
}

fn row(step: &StepRecord) -> Option<String> {
    let peak = step.peak.as_ref()?;
    let before = step.before.process.as_ref()?;
    let after = step.after.process.as_ref()?;
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    let triple = |start: u64, end: u64, peak: u64| {
        format!(
            "{:>7.1}/{:>7.1}/{:>7.1}",
            mib(start),
            mib(end),
            mib(peak.max(start).max(end))
        )
    };
    Some(format!(
        "{:>4}  {:<36} {:>9.1}  {:>24}  {:>24}",
        step.number,
        step.action.label(),
        step.wall.as_secs_f64() * 1000.0,
        triple(before.rss_bytes(), after.rss_bytes(), peak.high_water_bytes),
        peak.uss.map_or_else(
            || "not measured".into(),
            |uss| triple(uss.start_bytes, uss.end_bytes, uss.peak_bytes)
        ),
    ))
}

#[cfg(test)]
mod tests {
    //! What is put into words for people.
    use super::*;
    use crate::{
        case::{Action, Expect},
        observation::LaneStep,
    };
    use spillproof_protocol::{ErrorKind, ErrorReply};
    use std::{collections::BTreeMap, time::Duration};

    #[test]
    fn a_world_is_told_in_words() {
        let small = World {
            volume: Volume::SmallDisk { bytes: 48 * MIB },
            file_bytes: Some(MIB / 2),
            memory_bytes: Some(256 * MIB),
        };
        let words = "a disk of 48 MiB, files of at most 0.5 MiB, at most 256 MiB of host memory";
        assert_eq!(in_words(&small), words);
    }

    #[test]
    fn of_lanes_it_is_told_which_answers_were_errors() {
        let lane = |lane, outcome| LaneStep {
            lane,
            number: 2,
            action: Action::Drop { model: "a".into() },
            expect: Expect::Ok,
            outcome,
            wall: Duration::ZERO,
            expected: BTreeMap::new(),
            landed: None,
        };
        let failed = Outcome::Failed(ErrorReply {
            kind: ErrorKind::Io,
            message: "no descriptor".into(),
        });
        let outcome = Outcome::Together(vec![lane(0, Outcome::Done), lane(1, failed)]);
        assert_eq!(
            failed_in_lanes(&outcome),
            ["lane 1, 2 (drop a): error io: no descriptor"]
        );
    }
}
