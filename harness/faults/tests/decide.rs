//! What a call comes to under a plan: which calls a rule counts, when it fires, and how rules add up.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use spillproof_faults::{
    Attached, Call, Decision, Facts, Options, Outcome, Plan, Shared, Signal, SiteId, names,
};

struct Bench {
    shared: Shared,
    _file: OwnedFd,
    attached: Attached,
}

/// Facts that are known, and how often they were asked for.
#[derive(Default)]
struct Known {
    paths: Vec<&'static str>,
    caller: &'static str,
    asked_paths: usize,
    asked_caller: usize,
}

impl Facts for Known {
    fn paths(&mut self) -> [Option<&[u8]>; 2] {
        self.asked_paths += 1;
        [0, 1].map(|index| self.paths.get(index).map(|path| path.as_bytes()))
    }

    fn caller(&mut self) -> &[u8] {
        self.asked_caller += 1;
        self.caller.as_bytes()
    }
}

impl Bench {
    fn new(plan: &str) -> Bench {
        let plan: Plan = plan.parse().expect("the plan is right");
        let options = Options {
            ledger_rows: 8,
            trace_rows: 8,
            ..Options::default()
        };
        let (shared, file) = Shared::create(&plan, &options).expect("the memory can be made");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = CString::new(path).expect("no 0 in it");
        let attached = Attached::open(&path).expect("it can be attached");
        Bench {
            shared,
            _file: file,
            attached,
        }
    }

    fn decide(&self, site: &str, is_in_scope: bool, size: u64, facts: &mut Known) -> Decision {
        let site = SiteId::named(site);
        let rules = self.attached.rules(site);
        let call = Call {
            site,
            is_in_scope,
            size,
        };
        self.attached.decide(call, rules, facts)
    }

    fn outcome(&self, site: &str) -> Outcome {
        self.decide(site, true, 4096, &mut Known::default()).outcome
    }

    fn fired(&self) -> Vec<u64> {
        let counts = self.shared.rule_counts();
        counts.iter().map(|count| count.fired).collect()
    }
}

#[test]
fn a_rule_counts_all_its_sites_together_and_no_others() {
    let bench = Bench::new("pwrite,write:error=ENOSPC:when=3");
    assert_eq!(bench.outcome("pwrite"), Outcome::Proceed);
    assert_eq!(bench.outcome("fsync"), Outcome::Proceed);
    assert_eq!(bench.outcome("write"), Outcome::Proceed);
    assert_eq!(bench.outcome("pwrite"), Outcome::Fail(names::ENOSPC));
    assert_eq!(bench.outcome("pwrite"), Outcome::Proceed);
    let receipts = bench.shared.receipts();
    assert_eq!(receipts.len(), 1);
    let receipt = &receipts[0];
    assert_eq!(
        (receipt.rule, receipt.nth, receipt.site),
        (0, 3, SiteId::named("pwrite"))
    );
    assert_eq!((receipt.size, receipt.key, &*receipt.path), (4096, 0, ""));
    assert!(bench.attached.rules(SiteId::named("fsync")).is_empty());
}

#[test]
fn calls_outside_the_scope_count_only_for_rules_with_a_path() {
    let bench = Bench::new("pwrite:error=ENOSPC;pwrite:error=EIO:path=/etc/*");
    let mut etc = Known {
        paths: vec!["/etc/x"],
        ..Known::default()
    };
    let mut elsewhere = Known {
        paths: vec!["/var/x"],
        ..Known::default()
    };
    let outcome =
        |is_in_scope, facts: &mut Known| bench.decide("pwrite", is_in_scope, 1, facts).outcome;
    assert_eq!(outcome(false, &mut elsewhere), Outcome::Proceed);
    assert_eq!(outcome(false, &mut etc), Outcome::Fail(names::EIO));
    assert_eq!(outcome(true, &mut elsewhere), Outcome::Fail(names::ENOSPC));
    assert_eq!(outcome(true, &mut etc), Outcome::Fail(names::ENOSPC));
    assert_eq!(bench.fired(), [2, 1]);
    let counted: Vec<u64> = bench
        .shared
        .rule_counts()
        .iter()
        .map(|count| count.counted)
        .collect();
    assert_eq!(counted, [2, 2]);
}

#[test]
fn either_path_of_a_rename_is_enough() {
    let bench = Bench::new("rename:error=EACCES:path=b.block");
    let mut facts = Known {
        paths: vec!["/tmp/a.block", "/tmp/b.block"],
        ..Known::default()
    };
    assert_eq!(
        bench.decide("rename", false, 0, &mut facts).outcome,
        Outcome::Fail(names::EACCES)
    );
    assert_eq!(
        bench
            .decide("rename", true, 0, &mut Known::default())
            .outcome,
        Outcome::Proceed
    );
}

#[test]
fn a_rule_with_a_caller_counts_calls_from_there() {
    let bench = Bench::new("pwrite:error=ENOSPC:caller=libcufile.so*:when=2");
    let outcome = |caller| {
        let mut facts = Known {
            caller,
            ..Known::default()
        };
        bench.decide("pwrite", true, 1, &mut facts).outcome
    };
    assert_eq!(outcome("libcufile.so.0"), Outcome::Proceed);
    assert_eq!(outcome("subject"), Outcome::Proceed);
    assert_eq!(outcome("libcufile.so.0"), Outcome::Fail(names::ENOSPC));
}

#[test]
fn facts_are_asked_for_only_when_a_rule_or_a_receipt_needs_them() {
    let bench =
        Bench::new("pwrite:error=ENOSPC:when=2;fsync:error=EIO:path=*;fsync:error=EIO:caller=*");
    let mut facts = Known::default();
    bench.decide("pwrite", true, 1, &mut facts);
    assert_eq!((facts.asked_paths, facts.asked_caller), (0, 0));
    // It fires, and the receipt tells the path.
    bench.decide("pwrite", true, 1, &mut facts);
    assert_eq!((facts.asked_paths, facts.asked_caller), (1, 0));
    let mut facts = Known::default();
    bench.decide("fsync", true, 1, &mut facts);
    assert!(facts.asked_paths > 0 && facts.asked_caller == 1);
    let rules = |site| bench.attached.rules(SiteId::named(site));
    assert!(!rules("pwrite").need_path() && !rules("pwrite").need_caller());
    assert!(rules("fsync").need_path() && rules("fsync").need_caller());
}

#[test]
fn the_first_error_or_short_count_happens_and_the_others_do_not_fire() {
    let bench =
        Bench::new("pwrite:error=ENOSPC:when=2;pwrite:short=100:when=1+;pwrite:error=EIO:when=2");
    assert_eq!(bench.outcome("pwrite"), Outcome::Short { bytes: 100 });
    assert_eq!(bench.outcome("pwrite"), Outcome::Fail(names::ENOSPC));
    assert_eq!(bench.outcome("pwrite"), Outcome::Short { bytes: 100 });
    assert_eq!(bench.fired(), [1, 2, 0]);
}

#[test]
fn a_short_count_that_is_no_shorter_does_not_fire() {
    let bench = Bench::new("pread:short=100");
    let outcome = |size| {
        bench
            .decide("pread", true, size, &mut Known::default())
            .outcome
    };
    assert_eq!(outcome(100), Outcome::Proceed);
    assert_eq!(outcome(0), Outcome::Proceed);
    assert_eq!(bench.fired(), [0]);
    assert_eq!(outcome(101), Outcome::Short { bytes: 100 });
    assert_eq!(bench.fired(), [1]);
}

#[test]
fn delays_and_signals_add_up_beside_an_error() {
    let bench = Bench::new(
        "fsync:delay=2ms;fsync:delay=3ms;fsync:error=EIO;fsync:delay=1s:after;fsync:signal=USR1;fsync:signal=KILL;fsync:signal=USR2;fsync:signal=TERM:after",
    );
    let decision = bench.decide("fsync", true, 0, &mut Known::default());
    assert_eq!(decision.delay_before, Duration::from_millis(5));
    assert_eq!(decision.delay_after, Duration::from_secs(1));
    assert_eq!(decision.outcome, Outcome::Fail(names::EIO));
    let names = |signals: spillproof_faults::Signals| {
        signals
            .iter()
            .map(|signal| signal.to_string())
            .collect::<Vec<_>>()
    };
    // What ends the process comes last, or the others would never be raised.
    assert_eq!(
        names(decision.signals_before),
        ["SIGUSR1", "SIGUSR2", "SIGKILL"]
    );
    assert_eq!(
        decision.signals_after.iter().collect::<Vec<_>>(),
        [Signal::TERM]
    );
    assert_eq!(bench.fired(), [1; 8]);
}

#[test]
fn an_error_after_the_call_and_one_that_is_always_after() {
    let bench = Bench::new("fsync:error=EIO:after;close:error=EIO;write:error=EIO");
    assert_eq!(bench.outcome("fsync"), Outcome::FailAfter(names::EIO));
    assert_eq!(bench.outcome("close"), Outcome::FailAfter(names::EIO));
    assert_eq!(bench.outcome("write"), Outcome::Fail(names::EIO));
}

#[test]
fn a_plan_out_of_force_neither_counts_nor_fires() {
    let bench = Bench::new("fsync:error=EIO:when=2");
    assert_eq!(bench.outcome("fsync"), Outcome::Proceed);
    bench.shared.disarm();
    assert!(bench.attached.rules(SiteId::named("fsync")).is_empty());
    assert_eq!(bench.outcome("fsync"), Outcome::Proceed);
    bench.shared.arm();
    assert_eq!(bench.outcome("fsync"), Outcome::Fail(names::EIO));
    assert_eq!(bench.shared.rule_counts()[0].counted, 2);
}

#[test]
fn the_last_of_the_most_rules_fires() {
    let mut rules = vec!["fsync:error=EIO:when=9"; 63];
    rules.push("fsync:error=ENOSPC:when=1");
    let bench = Bench::new(&rules.join(";"));
    assert_eq!(bench.outcome("fsync"), Outcome::Fail(names::ENOSPC));
    assert_eq!(bench.shared.receipts()[0].rule, 63);
}

#[test]
fn a_plan_without_rules_is_a_recording() {
    let options = Options {
        ledger_rows: 8,
        trace_rows: 8,
        is_recording: true,
        ..Options::default()
    };
    let (shared, file) = Shared::create(&Plan::default(), &options).unwrap();
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let attached = Attached::open(&path).unwrap();
    assert!(SiteId::all().all(|site| attached.rules(site).is_empty()));
    assert!(shared.rule_counts().is_empty());
}

#[test]
fn every_error_comes_out_as_it_was_planned() {
    let every = SiteId::all().flat_map(|id| id.site().errors.iter().map(move |error| (id, *error)));
    let mut bench = Bench::new("fsync:error=EIO");
    for (id, error) in every {
        let plan: Plan = format!("{}:error={error}", id.site().name).parse().unwrap();
        bench.shared.load(&plan).unwrap();
        match bench.outcome(id.site().name) {
            Outcome::Fail(found) | Outcome::FailAfter(found) => assert_eq!(found, error),
            Outcome::Proceed | Outcome::Short { .. } => panic!("{plan} did not fire"),
        }
    }
}
