//! What is judged of lanes, of views and of files under attack.

use super::*;
use crate::{attack::Attack, lanes::Lane, observation::LaneStep};

/// The clean run with its steps done in two lanes.
fn in_lanes(run: &mut Run) -> &mut Vec<LaneStep> {
    let steps = std::mem::take(&mut run.steps);
    let lane = |(lane, step): (usize, StepRecord)| LaneStep {
        lane,
        number: 1,
        action: step.action,
        expect: step.expect,
        outcome: step.outcome,
        wall: step.wall,
        expected: step.expected,
        landed: None,
    };
    let done = steps.into_iter().enumerate().map(lane).collect();
    let lanes = vec![Lane { steps: Vec::new() }; 2];
    let (action, outcome) = (Action::Together(lanes), Outcome::Together(done));
    run.steps = vec![step(action, outcome, MODEL_BYTES, MODEL_BYTES)];
    match &mut run.steps[0].outcome {
        Outcome::Together(done) => done,
        other => panic!("{other:?}"),
    }
}

/// What a change of the run in lanes trips.
fn tripped_in_lanes(change: impl FnOnce(&mut Vec<LaneStep>)) -> Vec<InvariantId> {
    tripped(|run| change(in_lanes(run)))
}

#[test]
fn answers_in_lanes_are_judged_as_others_are() {
    assert_eq!(tripped_in_lanes(|_| ()), []);
    let wrong = |done: &mut Vec<LaneStep>| done[0].outcome = request(b"wrong").outcome;
    assert_eq!(tripped_in_lanes(wrong), [InvariantId::Data]);
    let failed = |done: &mut Vec<LaneStep>| done[0].outcome = failure(ErrorKind::Io);
    assert_eq!(tripped_in_lanes(failed), [InvariantId::Progress]);
    let refused = |done: &mut Vec<LaneStep>| done[1].outcome = failure(ErrorKind::Io);
    assert_eq!(tripped_in_lanes(refused), [InvariantId::Truth]);
    let cancelled = |kind| {
        move |done: &mut Vec<LaneStep>| {
            done[0].expect = Expect::OkOrError(ErrorKind::Cancelled);
            done[0].outcome = failure(kind);
        }
    };
    assert_eq!(tripped_in_lanes(cancelled(ErrorKind::Cancelled)), []);
    assert_eq!(
        tripped_in_lanes(cancelled(ErrorKind::Io)),
        [InvariantId::Typed]
    );
}

#[test]
fn amounts_that_do_not_add_up_in_a_lane_trip_policy() {
    for change in [
        |reply: &mut FreeMemoryReply| reply.freed_bytes -= 1,
        |reply: &mut FreeMemoryReply| reply.extent = Extent::Nothing,
        |reply: &mut FreeMemoryReply| reply.moves[0].to = Tier::Ram,
    ] {
        let wrong = |done: &mut Vec<LaneStep>| match &mut done[1].outcome {
            Outcome::Freed(reply) => change(reply),
            other => panic!("{other:?}"),
        };
        assert_eq!(tripped_in_lanes(wrong), [InvariantId::Policy]);
    }
}

#[test]
fn a_view_of_other_bytes_trips_data_and_a_handle_given_twice_truth() {
    let view = || "v".to_owned();
    let read = |contents: &[u8]| {
        let outcome = Outcome::Viewed(digest_of(contents));
        step(Action::ReadHeld { view: view() }, outcome, 0, 0)
    };
    assert_eq!(tripped(|run| run.steps.push(read(b"right"))), []);
    let wrong = tripped(|run| run.steps.push(read(b"wrong")));
    assert_eq!(wrong, [InvariantId::Data]);
    let hold = |handle| {
        let action = Action::Hold {
            model: "m".into(),
            tensor: "t".into(),
            view: view(),
        };
        step(action, Outcome::Held(handle), 0, 0)
    };
    assert_eq!(tripped(|run| run.steps.extend([hold(1), hold(2)])), []);
    let twice = tripped(|run| run.steps.extend([hold(1), hold(1)]));
    assert_eq!(twice, [InvariantId::Truth]);
}

#[test]
fn what_an_attack_did_to_files_is_not_the_subjects_doing() {
    let changed = |action: Action| {
        move |run: &mut Run| {
            let mut changed = step(action, Outcome::Done, 0, 0);
            changed.number = 3;
            changed.before = run.steps[1].after.clone();
            changed.after = changed.before.clone();
            let entries = &mut changed.after.offload_files.entries;
            entries.get_mut(Path::new(SPILL)).unwrap().modified_ns += 1;
            run.steps.push(changed);
        }
    };
    let load = Action::Load { model: "m".into() };
    assert_eq!(tripped(changed(load)), [InvariantId::Policy]);
    assert_eq!(tripped(changed(Action::Attack(Attack::Grow))), []);
}

#[test]
fn a_descriptor_that_an_attack_left_without_a_name_is_the_one_of_before() {
    let nameless = |attack: Attack| {
        move |run: &mut Run| {
            let baseline = run.baseline.as_mut().unwrap().process.as_mut().unwrap();
            baseline.descriptors.insert("/offload/d".into(), 1);
            let descriptors = &mut settled_process(run).descriptors;
            descriptors.insert("/offload/d (deleted)".into(), 1);
            run.steps
                .push(step(Action::Attack(attack), Outcome::Done, 0, 0));
        }
    };
    assert_eq!(tripped(nameless(Attack::RemoveDirectories)), []);
    assert_eq!(tripped(nameless(Attack::Grow)), [InvariantId::Fd]);
}

#[test]
fn cancellations_that_all_came_late_are_a_doubt() {
    let mut run = clean();
    let done = in_lanes(&mut run);
    done[1].action = Action::Cancel { lane: 0 };
    done[1].outcome = Outcome::Done;
    let late = |run: &Run| {
        let doubts = run.all_doubts();
        doubts.iter().any(|doubt| doubt.contains("cancellations"))
    };
    assert!(late(&run));
    let Outcome::Together(done) = &mut run.steps[0].outcome else {
        panic!("lanes");
    };
    done[0].outcome = failure(ErrorKind::Cancelled);
    assert!(!late(&run));
}

/// A run in which the same lanes were tried several times; each time something was done to them, in time or not.
fn tried(landed: &[Option<bool>]) -> Run {
    let mut run = clean();
    let number = run.steps.len();
    for (index, landed) in landed.iter().enumerate() {
        let done = LaneStep {
            lane: 1,
            number: 2,
            action: Action::Attack(Attack::Grow),
            expect: Expect::Ok,
            outcome: Outcome::Done,
            wall: Duration::ZERO,
            expected: BTreeMap::new(),
            landed: *landed,
        };
        let lanes = Action::Together(vec![Lane { steps: Vec::new() }; 2]);
        let outcome = Outcome::Together(vec![done]);
        let mut record = step(lanes, outcome, MODEL_BYTES, MODEL_BYTES);
        record.number = number + index + 1;
        run.steps.push(record);
    }
    run
}

#[test]
fn a_moment_in_lanes_that_was_missed_in_every_try_is_a_doubt() {
    let doubts = |landed: &[Option<bool>]| {
        let doubts = tried(landed).all_doubts().into_iter();
        doubts
            .filter(|doubt| doubt.contains("its moment never came"))
            .collect::<Vec<_>>()
    };
    let missed = doubts(&[Some(false), Some(false)]);
    assert_eq!(missed.len(), 1, "{missed:?}");
    assert!(missed[0].contains("in 2 tries"), "{missed:?}");
    assert!(missed[0].contains("lane 1, 2"), "{missed:?}");
    assert_eq!(doubts(&[Some(false)]).len(), 1);
    assert_eq!(doubts(&[Some(false), Some(true)]), [""; 0]);
    // By the clock, or nothing that is done to others.
    assert_eq!(doubts(&[None, None]), [""; 0]);
}

#[test]
fn moments_in_lanes_are_counted() {
    let run = tried(&[Some(true), None, Some(false)]);
    assert_eq!(run.moments(), [true, false]);
    let line = crate::report::line(&run, "f::n", &crate::verdict::Verdict::Pass);
    assert!(line.contains("moments 1 of 2 in time"), "{line}");
}
