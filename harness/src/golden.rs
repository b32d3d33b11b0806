//! A run as text that must be the same on every machine: steps, destinations, error kinds, digests.
//!
//! Left out, because machines differ: times, memory, the number of recoveries, paths, messages.

use crate::observation::{Outcome, Run, StepRecord};
use spillproof_protocol::{Digest, FreeMemoryReply};
use std::{collections::BTreeMap, fmt::Write as _};

/// Models of more tensors than this are shown by one digest over all of theirs.
const LISTED_TENSORS: usize = 24;

/// Renders a run.
#[must_use]
pub fn render(run: &Run) -> String {
    let mut text = format!("{}\nopen: {}\n", run.case.id(), outcome(&run.open));
    let mut listed = Vec::new();
    for step in run
        .steps
        .iter()
        .filter(|step| step.phase != crate::observation::Phase::WarmUp)
    {
        let _ = writeln!(text, "{}: {}", step.action.label(), outcome(&step.outcome));
        if let Some(digests) = digests(step)
            && !listed.contains(&digests)
        {
            listed.push(digests);
            if digests.len() <= LISTED_TENSORS {
                for (tensor, digest) in digests {
                    let _ = writeln!(text, "  {tensor} {digest:.16}");
                }
            }
        }
    }
    text
}

fn digests(step: &StepRecord) -> Option<&BTreeMap<String, Digest>> {
    match &step.outcome {
        Outcome::Served(reply) => Some(&reply.digests),
        Outcome::ReadBack(digests) => Some(digests),
        Outcome::Done
        | Outcome::Freed(_)
        | Outcome::Failed(_)
        | Outcome::Misbehaved(_)
        | Outcome::NotRun => None,
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "ok".into(),
        Outcome::Freed(reply) => freed(reply),
        Outcome::Served(reply) => format!("ok, {}", all(&reply.digests)),
        Outcome::ReadBack(digests) => format!("ok, {}", all(digests)),
        Outcome::Failed(error) => format!("error {}", error.kind),
        Outcome::Misbehaved(_) => "misbehaved".into(),
        Outcome::NotRun => "not run".into(),
    }
}

/// One digest over the names and digests of all tensors.
fn all(digests: &BTreeMap<String, Digest>) -> String {
    let joined: String = digests
        .iter()
        .map(|(tensor, digest)| format!("{tensor} {digest}\n"))
        .collect();
    format!(
        "{} tensors {:.16}",
        digests.len(),
        Digest::of(joined.as_bytes())
    )
}

/// Runs of neighbouring moves to the same tier are shown as one.
fn freed(reply: &FreeMemoryReply) -> String {
    let mut text = format!("{}, {} bytes", reply.extent, reply.freed_bytes);
    let mut moves = reply.moves.iter().peekable();
    while let Some(first) = moves.next() {
        let (mut count, mut written, mut last) = (1, first.written_bytes, first);
        while let Some(next) = moves.next_if(|next| (next.to, next.path) == (first.to, first.path))
        {
            (count, written, last) = (count + 1, written + next.written_bytes, next);
        }
        let names = if count == 1 {
            first.tensors.join("=")
        } else {
            format!("{} to {}", first.tensors.join("="), last.tensors.join("="))
        };
        let _ = write!(
            text,
            "; {count} to {} by {} ({names}), {written} written",
            first.to, first.path
        );
    }
    text
}
