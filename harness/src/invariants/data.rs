//! `data`: every digest equals the one that the harness computes from the seed.
//!
//! A digest covers a tensor's logical contents, byte for byte. Not checked here: bytes of a storage
//! that no tensor refers to.

use crate::{
    case::{Action, Expect},
    observation::{Act, Outcome, Run},
};
use spillproof_protocol::{Digest, Tier};
use std::collections::BTreeMap;

/// Every digest that came back is right, and none is missing.
pub(super) fn data(run: &Run) -> Vec<String> {
    run.acts().flat_map(of_act).collect()
}

fn of_act(act: Act<'_>) -> Vec<String> {
    match act.expect {
        Expect::Ok | Expect::OkOrError(_) => {}
        Expect::Error(_) => return Vec::new(),
    }
    match (act.done(), act.outcome) {
        (Action::Request { .. }, Outcome::Served(reply)) => compare(&act, &reply.digests, |_| true),
        (Action::ReadBack { model }, Outcome::ReadBack(digests)) => {
            compare(&act, digests, |tensor| {
                !may_be_on_device(&act, model, tensor)
            })
        }
        (Action::ReadHeld { .. }, Outcome::Viewed(digest)) => {
            let wrong = act
                .expected
                .iter()
                .filter(|(_, expected)| digest != *expected);
            let wrong = wrong.map(|(tensor, expected)| {
                format!(
                    "{}: the view of {tensor} has digest {digest:.16}, expected {expected:.16}",
                    act.place()
                )
            });
            wrong.collect()
        }
        _ => Vec::new(),
    }
}

/// By the subject's own account: a tensor that it claims to hold on the device need not be read back. In a lane, others may have
/// brought any tensor there.
fn may_be_on_device(act: &Act<'_>, model: &str, tensor: &str) -> bool {
    let Some(status) = &act.step.status_before else {
        return false;
    };
    let models = status.models.iter().filter(|found| found.name == model);
    let mut tensors = models.flat_map(|model| &model.tensors);
    act.lane.is_some() || tensors.any(|found| found.name == tensor && found.tier == Tier::Vram)
}

fn compare(
    act: &Act<'_>,
    digests: &BTreeMap<String, Digest>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (tensor, expected) in act.expected {
        match digests.get(tensor) {
            Some(digest) if digest == expected => {}
            Some(digest) => {
                wrong.push(format!(
                    "{}: {tensor} has digest {digest:.16}, expected {expected:.16}",
                    act.place()
                ));
            }
            None if wanted(tensor) => wrong.push(format!("{}: no digest of {tensor}", act.place())),
            None => {}
        }
    }
    let unknown = digests
        .keys()
        .filter(|tensor| !act.expected.contains_key(*tensor));
    wrong.extend(unknown.map(|tensor| {
        format!(
            "{}: digest of {tensor:?}, which the model lacks",
            act.place()
        )
    }));
    wrong
}
