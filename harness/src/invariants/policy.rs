//! `policy`: what was freed, kept and written is what was asked for (engine.md, E1 to E12).
//!
//! Amounts are compared with the device's own account, destinations with what the case's settings
//! ask for and with what is seen of files, maps and memory (`places.rs`), and written bytes with what the kernel counted
//! for the process. Not checked here: which tensors leave first, as long as a partial request frees no tensor too many
//! (E3); `read_bytes`, `reaped_orphans` and `recoveries` in replies.

use super::{excuse, places, shortage};
use crate::{
    case::{Action, Amount, Destinations, Expect},
    device::DeviceReading,
    observation::{Outcome, Run, StepRecord, total},
};
use spillproof_protocol::{ErrorKind, Extent, FreeMemoryReply, RequestedBytes, StatusReply, Tier};

/// Bytes by which one release may differ from the device's account: the allocation units of the
/// emulated and of the real driver.
fn rounding_bytes(device: &DeviceReading) -> u64 {
    match device {
        DeviceReading::Absent => 0,
        DeviceReading::Board(_) => 512,
        DeviceReading::Nvml(_) => 2 << 20,
    }
}

/// Writes that are no offload: logs, replies, lock files.
const OTHER_WRITES_BYTES: u64 = 1 << 20;

/// What a request for memory means once it is compared with what is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Everything,
    AtLeast(u64),
}

/// Every request for memory was answered as asked, and nothing was written without need.
pub(super) fn policy(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    for step in run.judged_steps() {
        if let (
            Action::Free { bytes, model, to },
            Expect::Ok | Expect::OkOrError(_),
            Outcome::Freed(reply),
        ) = (&step.action, &step.expect, &step.outcome)
        {
            let found = freed(run, step, *bytes, model.as_deref(), to, reply);
            wrong.extend(
                found
                    .into_iter()
                    .map(|message| format!("{}: {message}", step.place())),
            );
        }
        // Host memory cannot be reserved: some may have left before it was short.
        if let (Action::Free { model, .. }, Expect::Error(kind)) = (&step.action, &step.expect)
            && *kind != ErrorKind::HostMemory
            && let Some((before, after)) = step.loaded_bytes(model.as_deref())
            && before != after
        {
            wrong.push(format!(
                "{}: {before} bytes were loaded before a refused request, {after} after",
                step.place()
            ));
        }
    }
    let lost = |step| lost_in_a_failure(run, step);
    wrong.extend(run.judged_steps().filter_map(lost));
    wrong.extend(freed_in_lanes(run));
    wrong.extend(unjustified_writes(run));
    wrong.extend(unjustified_reports(run));
    wrong.extend(places::rewritten_in_place(run));
    wrong.extend(places::files_although_off(run));
    wrong.extend(shortage::written_before_refused(run));
    wrong
}

/// Where a request may fail on its way, what left the device before it failed is on the host. Which bytes are there is for
/// requests that follow to show.
fn lost_in_a_failure(run: &Run, step: &StepRecord) -> Option<String> {
    let (Action::Free { .. }, Outcome::Failed(error)) = (&step.action, &step.outcome) else {
        return None;
    };
    let may_fail_midway = match step.expect {
        Expect::OkOrError(_) => true,
        Expect::Ok | Expect::Error(_) => run.case.faults.is_some(),
    };
    if !may_fail_midway {
        return None;
    }
    let released = step
        .before
        .device
        .held_bytes()?
        .saturating_sub(step.after.device.held_bytes()?);
    let on_host = |status: &Option<StatusReply>| {
        let tiers = &status.as_ref()?.tiers;
        Some(total([tiers.ram, tiers.mapped, tiers.file].into_iter()))
    };
    let arrived = on_host(&step.status_after)?.saturating_sub(on_host(&step.status_before)?);
    let blocks = step.status_before.iter().flat_map(|status| &status.models);
    let blocks = blocks.map(|model| model.tensors.len() as u64).sum::<u64>();
    let rounding = rounding_bytes(&step.after.device) * (blocks + 1);
    (released > arrived.saturating_add(rounding)).then(|| {
        format!(
            "{}: the device got {released} bytes back before the error {}, only {arrived} arrived on the host",
            step.place(),
            error.kind
        )
    })
}

/// In lanes only the answer itself can be judged: what is loaded before and after belongs to all of them.
fn freed_in_lanes(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    for act in run.acts().filter(|act| act.lane.is_some()) {
        let (Action::Free { to, .. }, Outcome::Freed(reply)) = (act.action, act.outcome) else {
            continue;
        };
        let (freed, moved) = (
            reply.freed_bytes,
            total(reply.moves.iter().map(|one| one.bytes)),
        );
        if moved != freed {
            wrong.push(format!(
                "{}: freed_bytes is {freed}, its moves add up to {moved}",
                act.place()
            ));
        }
        if (reply.extent == Extent::Nothing) != (freed == 0) {
            wrong.push(format!(
                "{}: extent is {}, but {freed} bytes were freed",
                act.place(),
                reply.extent
            ));
        }
        let elsewhere = destinations(to, reply, act.step).into_iter();
        wrong.extend(elsewhere.map(|message| format!("{}: {message}", act.place())));
    }
    wrong
}

fn freed(
    run: &Run,
    step: &StepRecord,
    amount: Amount,
    scope: Option<&str>,
    to: &Destinations,
    reply: &FreeMemoryReply,
) -> Vec<String> {
    let Some((before, after)) = step.loaded_bytes(scope) else {
        return vec!["no status before or after".into()];
    };
    let mut wrong = Vec::new();
    let mut claim = |holds: bool, message: String| {
        if !holds {
            wrong.push(message);
        }
    };
    let freed = reply.freed_bytes;
    let moved = total(reply.moves.iter().map(|one| one.bytes));
    claim(
        moved == freed,
        format!("freed_bytes is {freed}, its moves add up to {moved}"),
    );
    claim(
        before.checked_sub(after) == Some(freed),
        format!("freed_bytes is {freed}, loaded went from {before} to {after}"),
    );
    match wanted(amount, before) {
        Wanted::Everything => {
            claim(
                after == 0,
                format!("everything was asked for, {after} of {before} bytes are still loaded"),
            );
        }
        Wanted::AtLeast(wanted) => {
            claim(
                freed >= wanted,
                format!("{wanted} bytes were asked for, {freed} were freed"),
            );
            let last = reply.moves.last().map_or(0, |one| one.bytes);
            claim(
                freed == 0 || freed - last.min(freed) < wanted,
                format!(
                    "{wanted} bytes were asked for, {} would have done, {freed} were freed",
                    freed - last.min(freed)
                ),
            );
        }
    }
    let extent = match (freed, after) {
        (0, _) => Extent::Nothing,
        (_, 0) => Extent::Full,
        _ => Extent::Partial,
    };
    claim(
        reply.extent == extent,
        format!(
            "extent is {}, but {freed} of {before} bytes were freed: {extent}",
            reply.extent
        ),
    );
    let held = (
        step.before.device.held_bytes(),
        step.after.device.held_bytes(),
    );
    if let (Some(before), Some(after)) = held {
        let released = before.saturating_sub(after);
        let rounding = rounding_bytes(&step.after.device) * reply.moves.len() as u64;
        // What was refused before is given back with it.
        let late = excuse::given_back_late_bytes(run, step);
        claim(
            (freed..=freed + late).contains(&released)
                || released.abs_diff(freed) <= rounding
                || released.abs_diff(freed + late) <= rounding,
            format!("{freed} bytes reported as freed, the device got {released} back"),
        );
    }
    wrong.extend(destinations(to, reply, step));
    wrong.extend(places::contradicted(run, step, reply));
    wrong
}

fn wanted(amount: Amount, loaded: u64) -> Wanted {
    let at_least = |bytes| {
        if bytes >= loaded {
            Wanted::Everything
        } else {
            Wanted::AtLeast(bytes)
        }
    };
    match amount {
        Amount::Unsaid | Amount::Loaded => Wanted::Everything,
        Amount::LoadedButOne => Wanted::AtLeast(loaded.saturating_sub(1)),
        Amount::Of(RequestedBytes::Whole(bytes)) => at_least(bytes),
        // Saturates: 1e30 and infinity are more than any device holds.
        Amount::Of(RequestedBytes::Float(bytes)) => at_least(bytes.ceil() as u64),
    }
}

fn destinations(to: &Destinations, reply: &FreeMemoryReply, step: &StepRecord) -> Vec<String> {
    let is_map_refused = excuse::is_map_refused(step);
    let is_among = |allowed: &[Tier], tier: Tier| {
        allowed.contains(&tier)
            || is_map_refused && tier == Tier::File && allowed.contains(&Tier::Mapped)
    };
    let bytes_in = |tier: Tier| {
        let moves = reply.moves.iter().filter(|one| one.to == tier);
        total(moves.map(|one| one.bytes))
    };
    let elsewhere = |allowed: &[Tier]| {
        let found = reply.moves.iter().filter(|one| !is_among(allowed, one.to));
        found
            .map(|one| {
                format!(
                    "{} went to {}, expected {allowed:?}",
                    one.tensors.join(" = "),
                    one.to
                )
            })
            .collect()
    };
    match to {
        Destinations::Any => Vec::new(),
        Destinations::All(tier) => elsewhere(&[*tier]),
        Destinations::Files => elsewhere(&[Tier::Mapped, Tier::File]),
        Destinations::Split { ram_bytes, rest } => {
            let mut wrong: Vec<String> = elsewhere(&[Tier::Ram, *rest]);
            let found = bytes_in(Tier::Ram);
            if found != *ram_bytes {
                wrong.push(format!(
                    "{found} bytes went to RAM, the threshold allows exactly {ram_bytes}"
                ));
            }
            wrong
        }
    }
}

/// By the subject's own account, too, it wrote no more than loads and modifications justify.
fn unjustified_reports(run: &Run) -> Option<String> {
    let allowed = OTHER_WRITES_BYTES + run.case.limits.rewritten_bytes;
    let start = run
        .judged_steps()
        .find_map(|step| step.status_before.as_ref())?
        .written_bytes;
    run.judged_steps().find_map(|step| {
        let reported = step.status_after.as_ref()?.written_bytes.saturating_sub(start);
        (reported > step.justified_bytes + allowed).then(|| {
            format!(
                "{}: {reported} written bytes are reported so far, loads and modifications justify {}",
                step.place(),
                step.justified_bytes
            )
        })
    })
}

/// Loads and modifications each justify one write of what they touched; nothing else justifies any.
fn unjustified_writes(run: &Run) -> Vec<String> {
    let Some(baseline) = &run.baseline else {
        return Vec::new();
    };
    let allowed = OTHER_WRITES_BYTES + run.case.limits.rewritten_bytes;
    let excess = run.judged_steps().find_map(|step| {
        let written = step.after.written_bytes.saturating_sub(baseline.written_bytes);
        (written > step.justified_bytes + allowed).then(|| {
            format!(
                "{}: the process has written {written} bytes so far, loads and modifications justify {}",
                step.place(),
                step.justified_bytes
            )
        })
    });
    excess.into_iter().collect()
}
