//! What is judged of steps that a fault plan reached.

use super::*;
use crate::faults::{Fired, RuleAccount};
use spillproof_faults::{FaultError, SiteId};

pub(super) fn fired(site: &str, error: &str) -> Fired {
    Fired {
        site: SiteId::find(site).unwrap(),
        nth: 1,
        error: Some(FaultError::named(error).unwrap()),
        after: false,
        key: 0,
        serial: 1,
        path: SPILL.into(),
    }
}

/// What trips when the step `index` of the clean run meets these errors and ends so.
pub(super) fn met(index: usize, errors: &[Fired], outcome: Option<Outcome>) -> Vec<InvariantId> {
    tripped(|run| {
        run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
        let step = &mut run.steps[index];
        step.fired = errors.to_vec();
        if let Some(outcome) = outcome {
            if matches!(outcome, Outcome::Failed(_)) && index == 1 {
                // Nothing left the device.
                let before = step.before.clone();
                step.after = before;
                step.status_after = step.status_before.clone();
            }
            step.outcome = outcome;
        }
    })
}

#[test]
fn an_error_surfaces_when_a_call_failed_and_only_then() {
    let enospc = [fired("pwrite", "ENOSPC")];
    let full = || Some(failure(ErrorKind::DiskFull));
    assert_eq!(met(1, &enospc, full()), []);
    assert_eq!(met(1, &enospc, None), [InvariantId::Truth]);
    assert_eq!(met(1, &[], full()), [InvariantId::Truth]);
    assert_eq!(met(0, &[], full()), [InvariantId::Progress]);
    assert_eq!(met(0, &[], None), []);
}

#[test]
fn an_error_is_of_a_kind_that_fits_the_call_that_failed() {
    let kind = |site: &str, error: &str, kind| met(1, &[fired(site, error)], Some(failure(kind)));
    for (site, error, fits) in [
        ("pwrite", "EIO", ErrorKind::Io),
        ("pwrite", "EDQUOT", ErrorKind::DiskFull),
        (
            "cuMemAlloc",
            "CUDA_ERROR_OUT_OF_MEMORY",
            ErrorKind::DeviceOom,
        ),
        (
            "cuMemcpyDtoHAsync",
            "CUDA_ERROR_INVALID_VALUE",
            ErrorKind::DeviceError,
        ),
    ] {
        assert_eq!(kind(site, error, fits), [], "{site} {error}");
        let other = kind(site, error, ErrorKind::Corrupt);
        assert_eq!(other, [InvariantId::Typed], "{site} {error}");
    }
}

#[test]
fn what_another_try_or_another_way_makes_good_may_be_masked() {
    for (site, error) in [
        ("pwrite", "EINTR"),
        ("fallocate", "EOPNOTSUPP"),
        ("openat", "EINVAL"),
        ("mmap", "ENOMEM"),
        ("unlinkat", "EIO"),
        ("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuFileWrite", "EIO"),
    ] {
        assert_eq!(met(1, &[fired(site, error)], None), [], "{site} {error}");
    }
    for (site, error) in [
        ("fallocate", "ENOSPC"),
        ("openat", "EMFILE"),
        ("pread", "EIO"),
        ("cuMemcpyDtoHAsync", "CUDA_ERROR_INVALID_VALUE"),
    ] {
        let swallowed = met(1, &[fired(site, error)], None);
        assert_eq!(swallowed, [InvariantId::Truth], "{site} {error}");
    }
}

#[test]
fn a_write_that_failed_may_have_changed_its_file() {
    let changed = |errors: &'static [(&str, &str)], outcome: Option<Outcome>| {
        tripped(move |run| {
            run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
            let mut next = request(b"right");
            next.before = run.steps[1].after.clone();
            next.after = next.before.clone();
            let files = &mut next.after.offload_files.entries;
            files.get_mut(Path::new(SPILL)).unwrap().modified_ns += 1;
            let errors = errors.iter();
            next.fired = errors.map(|(site, error)| fired(site, error)).collect();
            if let Some(outcome) = outcome {
                next.outcome = outcome;
            }
            run.steps.push(next);
        })
    };
    let full = &[("pwrite", "ENOSPC")];
    assert_eq!(changed(full, Some(failure(ErrorKind::DiskFull))), []);
    // Success reports its writes.
    let unreported = changed(&[("mmap", "ENOMEM")], None);
    assert_eq!(unreported, [InvariantId::Policy]);
}

#[test]
fn what_the_case_foresees_is_right_whatever_calls_do() {
    let trips = |expect: Expect| {
        tripped(|run| {
            run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
            run.steps[0].expect = expect;
            run.steps[0].outcome = failure(ErrorKind::DeviceOom);
        })
    };
    assert_eq!(trips(Expect::Error(ErrorKind::DeviceOom)), []);
    assert_eq!(trips(Expect::OkOrError(ErrorKind::DeviceOom)), []);
    assert_eq!(trips(Expect::Error(ErrorKind::Io)), [InvariantId::Progress]);
    let succeeds = |met: Vec<Fired>| {
        tripped(|run| {
            run.case.faults = Some("pwrite:error=EINTR".parse().unwrap());
            run.steps[0].fired = met;
            run.steps[0].expect = Expect::Error(ErrorKind::DeviceOom);
        })
    };
    assert_eq!(succeeds(Vec::new()), [InvariantId::Truth]);
    // The reason for it may be gone.
    assert_eq!(succeeds(vec![fired("mmap", "ENOMEM")]), []);
}

#[test]
fn a_rule_that_never_fired_is_a_doubt() {
    let mut run = clean();
    let doubts = |run: &Run| {
        run.all_doubts()
            .iter()
            .filter(|doubt| doubt.contains("never happened"))
            .count()
    };
    run.rules = vec![RuleAccount {
        rule: "pwrite:error=ENOSPC:when=9".into(),
        counted: 8,
        fired: 0,
    }];
    assert_eq!(doubts(&run), 1);
    run.rules[0].fired = 1;
    assert_eq!(doubts(&run), 0);
}

#[test]
fn what_another_try_or_another_way_makes_good_must_not_fail_a_step() {
    let io = || Some(failure(ErrorKind::Io));
    for (site, error) in [("pwrite", "EINTR"), ("fallocate", "EOPNOTSUPP")] {
        let alone = met(1, &[fired(site, error)], io());
        assert_eq!(alone, [InvariantId::Progress], "{site} {error}");
        let with_another = met(1, &[fired(site, error), fired("pwrite", "EIO")], io());
        assert_eq!(with_another, [], "{site} {error}");
    }
    // Nobody has to try for good.
    assert_eq!(met(1, &vec![fired("pwrite", "EINTR"); 17], io()), []);
    let refused = [fired("cuMemHostRegister", "CUDA_ERROR_OUT_OF_MEMORY")];
    let memory = || Some(failure(ErrorKind::HostMemory));
    assert_eq!(met(1, &refused, memory()), [InvariantId::Progress]);
    let map = [fired("mmap", "ENOMEM")];
    assert_eq!(met(1, &map, memory()), [InvariantId::Progress]);
}

#[test]
fn what_fails_while_a_subject_quits_is_told_then() {
    let quits = |site, error, times, outcome: Option<Outcome>| {
        tripped(|run| {
            run.fired_at_end = vec![fired(site, error); times];
            run.asides
                .extend(outcome.clone().map(|outcome| ("quit", outcome)));
        })
    };
    let destroy = |outcome| quits("cuStreamDestroy", "CUDA_ERROR_UNKNOWN", 1, outcome);
    assert_eq!(destroy(None), [InvariantId::Truth]);
    assert_eq!(destroy(Some(failure(ErrorKind::DeviceError))), []);
    let other = destroy(Some(failure(ErrorKind::Corrupt)));
    assert_eq!(other, [InvariantId::Typed]);
    // Tried again it may have gone well; not where it failed again.
    assert_eq!(quits("munmap", "ENOMEM", 1, None), []);
    assert_eq!(quits("munmap", "ENOMEM", 2, None), [InvariantId::Truth]);
}

#[test]
fn only_an_error_that_lasts_takes_the_reason_for_a_foreseen_one_away() {
    let missing = |met: Fired| {
        tripped(|run| {
            run.case.faults = Some("pwrite:error=ENOSPC".parse().unwrap());
            run.steps[0].expect = Expect::Error(ErrorKind::DeviceOom);
            run.steps[0].fired = vec![met];
        })
    };
    let short_or_late = Fired {
        error: None,
        ..fired("pwrite", "EIO")
    };
    assert_eq!(missing(short_or_late), [InvariantId::Truth]);
    assert_eq!(missing(fired("pwrite", "EINTR")), [InvariantId::Truth]);
    assert_eq!(missing(fired("mmap", "ENOMEM")), []);
}
