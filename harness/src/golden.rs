//! A run as text that must be the same on every machine: steps, destinations, error kinds, digests.
//!
//! A digest that had to come back is shown as the golden's own algorithm makes it, whichever the subject uses; any other one as it came.
//!
//! Left out, because machines differ: times, memory, the number of recoveries, paths, messages; and, once device memory
//! ran short, what exactly was resident: drivers differ in how much they keep for themselves. After lanes, where everything is.

use crate::{
    case::{Action, CuFile, Expect, Gpu},
    contents,
    lanes::Lane,
    observation::{Outcome, Run, StepRecord},
    sweep::Recording,
};
use spillproof_protocol::{Digest, DigestAlgorithm, FreeMemoryReply, Tier};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// What goldens are written in: it does not change with what is the fastest.
const ALGORITHM: DigestAlgorithm = DigestAlgorithm::Sha256;

/// Models of more tensors than this are shown by one digest over all of theirs.
const LISTED_TENSORS: usize = 24;

/// Renders a run.
#[must_use]
pub fn render(run: &Run) -> String {
    let first = run.lives().next().unwrap_or(run);
    let shown = Shown::of(run);
    let mut text = format!("{}\nopen: {}\n", run.case.id(), shown.outcome(&first.open));
    let mut listed = Vec::new();
    // What is free in a cgroup depends on what else the process took; and a machine's own cuFile serves what it likes.
    let mut short = run.case.world.memory_bytes.is_some() || goes_its_own_way(run);
    let mut raced = false;
    for step in run.lives().flat_map(Run::judged_steps) {
        let came_back = match (&step.expect, &step.outcome) {
            (Expect::OkOrError(kind), _) => format!("ok or error {kind}"),
            // What was where is a matter of who came first.
            (Expect::Ok | Expect::Error(_), Outcome::Freed(_) | Outcome::ReadBack(_)) if raced => {
                "ok".into()
            }
            (Expect::Ok | Expect::Error(_), Outcome::Freed(reply)) if short => {
                freed_after_shortage(reply)
            }
            (Expect::Ok | Expect::Error(_), other) => shown.outcome(other),
        };
        let _ = writeln!(text, "{}: {came_back}", step.action.label());
        if let Action::Together(lanes) = &step.action {
            text.push_str(&abreast(lanes));
            raced = true;
        }
        short |= ran_short(step) || matches!(step.expect, Expect::OkOrError(_));
        // Which of both outcomes came is left open.
        let settled = match step.expect {
            Expect::Ok | Expect::Error(_) => !raced || is_request(step),
            Expect::OkOrError(_) => false,
        };
        if let Some(digests) = digests(step).filter(|_| settled).map(|all| shown.all(all))
            && !listed.contains(&digests)
        {
            if digests.len() <= LISTED_TENSORS {
                for (tensor, digest) in &digests {
                    let _ = writeln!(text, "  {tensor} {digest:.16}");
                }
            }
            listed.push(digests);
        }
    }
    let faults = run.case.faults.as_ref();
    if faults.is_some_and(|faults| faults.records) {
        text.push_str(&Recording::of(run).text());
    }
    text
}

fn is_request(step: &StepRecord) -> bool {
    matches!(step.action, Action::Request { .. })
}

/// What lanes had to do; what came back from each depends on the order in which they were served.
fn abreast(lanes: &[Lane]) -> String {
    let mut text = String::new();
    for (index, lane) in lanes.iter().enumerate() {
        let mut steps = lane.steps.iter().peekable();
        while let Some(step) = steps.next() {
            let mut times = 1;
            while steps.next_if(|next| *next == step).is_some() {
                times += 1;
            }
            let allowed = match &step.expect {
                Expect::Ok => "ok".to_owned(),
                Expect::Error(kind) => format!("error {kind}"),
                Expect::OkOrError(kind) => format!("ok or error {kind}"),
            };
            let label = step.action.label();
            let _ = writeln!(text, "  lane {index}: {times} × {label}: {allowed}");
        }
    }
    text
}

/// A golden in the words of a case that goes its own way: of what left the device, only whereto.
///
/// ```
/// use spillproof_harness::golden::coarse;
///
/// let golden = "load a: ok\nfree all 1e30: full, 96 bytes; 2 to mapped by cufile (t1 to t0), 96 written\n";
/// assert_eq!(coarse(golden), "load a: ok\nfree all 1e30: full, what was resident to mapped\n");
/// ```
#[must_use]
pub fn coarse(golden: &str) -> String {
    let lines = golden.lines().map(|line| {
        let moved = line
            .split_once(": ")
            .filter(|(label, _)| label.starts_with("free "))
            .and_then(|(label, outcome)| Some((label, outcome.split_once(" bytes; ")?)));
        let Some((label, (amount, moves))) = moved else {
            return format!("{line}\n");
        };
        let extent = amount.split_once(", ").map_or(amount, |(extent, _)| extent);
        let tiers: BTreeSet<&str> = moves
            .split("; ")
            .filter_map(|one| one.split_once(" to ")?.1.split(' ').next())
            .collect();
        let tiers: Vec<&str> = tiers.into_iter().collect();
        format!(
            "{label}: {extent}, what was resident to {}\n",
            tiers.join(" and ")
        )
    });
    lines.collect()
}

/// Whether what was found is what a golden says, in its words or, line by line, in the words of a case that goes its own way.
///
/// ```
/// use spillproof_harness::golden::is_of;
///
/// let golden = "free all 1e30: full, 96 bytes; 2 to ram by staged (t1 to t0), 0 written\nload a: ok";
/// assert!(is_of(golden, golden));
/// assert!(is_of(golden, "free all 1e30: full, what was resident to ram\nload a: ok"));
/// assert!(!is_of(golden, "free all 1e30: full, what was resident to file\nload a: ok"));
/// assert!(!is_of(golden, "free all 1e30: full, what was resident to ram"));
/// ```
#[must_use]
pub fn is_of(golden: &str, found: &str) -> bool {
    let own_way = coarse(golden);
    let mut expected = golden.lines().zip(own_way.lines());
    let is_expected = |line| {
        let next = expected.next();
        next.is_some_and(|(exact, coarse)| line == exact || line == coarse)
    };
    found.lines().all(is_expected) && expected.next().is_none()
}

/// Whether it is left open by which way bytes go, where there is more than one.
fn goes_its_own_way(run: &Run) -> bool {
    match run.case.gpu {
        Gpu::Absent
        | Gpu::Present {
            cufile: CuFile::Absent,
            ..
        } => false,
        Gpu::Present { .. } => run.case.path.is_none(),
    }
}

/// Whether the step let something go that the case had not asked to go.
fn ran_short(step: &StepRecord) -> bool {
    match (&step.action, &step.outcome) {
        (Action::Request { .. }, Outcome::Served(reply)) => reply.recoveries > 0,
        (Action::Load { model }, _) => step.status_after.iter().any(|status| {
            let others = status
                .models
                .iter()
                .zip(step.status_before.iter().flat_map(|s| &s.models));
            let pushed_out = others
                .into_iter()
                .any(|(after, before)| after.device_bytes < before.device_bytes);
            let loaded = status.models.iter().filter(|found| found.name == *model);
            let mut tensors = loaded.flat_map(|found| &found.tensors);
            pushed_out || tensors.any(|tensor| tensor.tier != Tier::Vram)
        }),
        _ => false,
    }
}

fn freed_after_shortage(reply: &FreeMemoryReply) -> String {
    let tiers: BTreeSet<&str> = reply.moves.iter().map(|one| one.to.name()).collect();
    let tiers: Vec<&str> = tiers.into_iter().collect();
    format!(
        "{}, what was resident to {}",
        reply.extent,
        tiers.join(" and ")
    )
}

fn digests(step: &StepRecord) -> Option<&BTreeMap<String, Digest>> {
    match &step.outcome {
        Outcome::Served(reply) => Some(&reply.digests),
        Outcome::ReadBack(digests) => Some(digests),
        Outcome::Done
        | Outcome::Freed(_)
        | Outcome::Held(_)
        | Outcome::Viewed(_)
        | Outcome::Killed(_)
        | Outcome::Together(_)
        | Outcome::Failed(_)
        | Outcome::Misbehaved(_)
        | Outcome::NotRun => None,
    }
}

/// How digests are shown, by how they came.
struct Shown<'r>(BTreeMap<&'r Digest, Digest>);

impl<'r> Shown<'r> {
    fn of(run: &'r Run) -> Self {
        let (came, contents): (Vec<_>, Vec<_>) =
            run.lives().flat_map(|life| &life.contents).unzip();
        // What cannot be digested never had to come back.
        let digests = contents::digests(&contents, ALGORITHM).unwrap_or_default();
        Self(came.into_iter().zip(digests).collect())
    }

    fn one(&self, digest: &Digest) -> Digest {
        self.0.get(digest).unwrap_or(digest).clone()
    }

    fn all(&self, digests: &BTreeMap<String, Digest>) -> BTreeMap<String, Digest> {
        let shown = digests.iter();
        shown
            .map(|(tensor, digest)| (tensor.clone(), self.one(digest)))
            .collect()
    }

    fn outcome(&self, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Done => "ok".into(),
            Outcome::Freed(reply) => freed(reply),
            Outcome::Served(reply) => format!("ok, {}", over_all(&self.all(&reply.digests))),
            Outcome::ReadBack(digests) => format!("ok, {}", over_all(&self.all(digests))),
            Outcome::Held(_) => "ok, held".into(),
            Outcome::Viewed(digest) => format!("ok, {:.16}", self.one(digest)),
            Outcome::Killed(_) => "ended".into(),
            Outcome::Together(_) => "all answered".into(),
            Outcome::Failed(error) => format!("error {}", error.kind),
            Outcome::Misbehaved(_) => "misbehaved".into(),
            Outcome::NotRun => "not run".into(),
        }
    }
}

/// One digest over the names and digests of all tensors.
fn over_all(digests: &BTreeMap<String, Digest>) -> String {
    let joined: String = digests
        .iter()
        .map(|(tensor, digest)| format!("{tensor} {digest}\n"))
        .collect();
    format!(
        "{} tensors {:.16}",
        digests.len(),
        ALGORITHM.digest(joined.as_bytes())
    )
}

/// The names of tensors that moved as one: all of a few, the outermost of many.
fn as_one(tensors: &[String]) -> String {
    match tensors {
        [first, .., last] if tensors.len() > LISTED_TENSORS => {
            format!("{first} … {last}, {} in one", tensors.len())
        }
        few => few.join("="),
    }
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
            as_one(&first.tensors)
        } else {
            format!("{} to {}", as_one(&first.tensors), as_one(&last.tensors))
        };
        let _ = write!(
            text,
            "; {count} to {} by {} ({names}), {written} written",
            first.to, first.path
        );
    }
    text
}

#[cfg(test)]
mod tests {
    //! How moves are put into words.
    use super::*;

    #[test]
    fn of_many_tensors_in_one_move_the_outermost_are_named() {
        let names = |count: usize| (0..count).map(|at| format!("t{at}")).collect::<Vec<_>>();
        assert_eq!(as_one(&names(1)), "t0");
        assert_eq!(as_one(&names(3)), "t0=t1=t2");
        assert_eq!(as_one(&names(25)), "t0 … t24, 25 in one");
    }
}
