//! The shared memory from both sides: what a subject writes is what the harness reads, whatever the subject does to it and
//! whenever it dies.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use spillproof_faults::{
    AttachError, Attached, Call, Entering, Facts, Kind, MAX_RECEIPTS, Named, Options, Plan,
    Recorded, Shared, SharedError, SiteId, SpellingId,
};

const PWRITE: SiteId = SiteId::named("pwrite");
const ALLOC: SiteId = SiteId::named("cuMemAlloc");

fn small() -> Options {
    Options {
        scopes: vec!["/tmp/case/".into(), "/srv/other".into()],
        ledger_rows: 64,
        trace_rows: 8,
        is_recording: true,
    }
}

fn path_of(file: &OwnedFd) -> CString {
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    CString::new(path).expect("no 0 in it")
}

fn both(text: &str, options: &Options) -> (Shared, OwnedFd, Attached) {
    let plan: Plan = text.parse().expect("the plan is right");
    let (shared, file) = Shared::create(&plan, options).expect("the memory can be made");
    let attached = Attached::open(&path_of(&file)).expect("it can be attached");
    (shared, file, attached)
}

struct NoFacts;

impl Facts for NoFacts {
    fn paths(&mut self) -> [Option<&[u8]>; 2] {
        [None, None]
    }

    fn caller(&mut self) -> &[u8] {
        b""
    }
}

fn thing(key: u64) -> Entering<'static> {
    Entering {
        kind: Kind::DeviceMemory,
        key,
        bytes: key * 10,
        site: ALLOC,
        nth: key,
        path: Named::Path(b""),
        caller: b"libtorch.so",
    }
}

fn call(nth: u64) -> Recorded<'static> {
    Recorded {
        site: PWRITE,
        nth,
        size: 4096,
        offset: Some(nth * 4096),
        path: b"spill/7.block",
        caller: b"subject",
    }
}

#[test]
fn a_subject_attaches_and_leaves_no_descriptor() {
    let (shared, file, attached) = both("pwrite:error=EIO", &small());
    attached.attach();
    let file = File::from(file);
    let inode = file.metadata().unwrap().ino();
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let same = open.filter(|entry| {
        let target = entry.as_ref().unwrap().path();
        std::fs::metadata(target).is_ok_and(|found| found.ino() == inode)
    });
    assert_eq!(same.count(), 1);
    let attachments = shared.attachments();
    assert_eq!(attachments.len(), 1);
    assert_eq!(attachments[0].pid, std::process::id());
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let start = fields.split_whitespace().nth(19).unwrap();
    assert_eq!(attachments[0].start_ticks.to_string(), start);
}

#[test]
fn only_whole_components_lie_in_the_scope() {
    let (_shared, _file, attached) = both("pwrite:error=EIO", &small());
    let relative = |path: &str| {
        let found = attached.scope(path.as_bytes())?;
        Some((
            found.scope,
            String::from_utf8_lossy(found.relative).into_owned(),
        ))
    };
    assert_eq!(relative("/tmp/case"), Some((0, String::new())));
    assert_eq!(relative("/tmp/case/a/b"), Some((0, "a/b".into())));
    assert_eq!(relative("/srv/other/x"), Some((1, "x".into())));
    assert_eq!(relative("/tmp/cases/a"), None);
    assert_eq!(relative("/tmp"), None);
    assert_eq!(relative(""), None);
    assert_eq!(
        attached.scopes().collect::<Vec<_>>(),
        [&b"/tmp/case"[..], b"/srv/other"]
    );
}

#[test]
fn calls_are_counted_by_site_and_by_spelling() {
    let (shared, _file, attached) = both("pwrite:error=EIO", &small());
    let plain = SpellingId::named("pwrite");
    let large = SpellingId::named("pwrite64");
    assert_eq!(attached.count(plain), 1);
    assert_eq!(attached.count(large), 2);
    assert_eq!(attached.count(large), 3);
    assert_eq!(shared.calls(PWRITE), 3);
    assert_eq!(shared.calls_by(large), 2);
    shared.restart_counts();
    assert_eq!(shared.calls(PWRITE), 0);
    assert_eq!(attached.count(large), 1);
}

#[test]
fn the_trace_keeps_what_fits_and_counts_the_rest() {
    let (shared, _file, attached) = both("pwrite:error=EIO", &small());
    assert!(attached.is_recording());
    for nth in 1..=10 {
        attached.record(&call(nth));
    }
    let trace = shared.trace();
    assert_eq!(
        (trace.entries.len(), trace.lost, trace.unreadable),
        (8, 2, 0)
    );
    let entry = &trace.entries[2];
    assert_eq!((entry.site, entry.nth, entry.size), (PWRITE, 3, 4096));
    assert_eq!(entry.offset, Some(3 * 4096));
    assert_eq!(
        (entry.path.as_str(), entry.caller.as_str()),
        ("spill/7.block", "subject")
    );
    assert_eq!(entry.pid, std::process::id());
    assert_ne!(entry.tid, 0);
    shared.restart_counts();
    shared.record(false);
    assert!(!attached.is_recording());
    let long = [b"x".repeat(300), b"the-end".to_vec()].concat();
    let without_offset = Recorded {
        offset: None,
        path: &long,
        ..call(1)
    };
    attached.record(&without_offset);
    let trace = shared.trace();
    assert_eq!((trace.entries.len(), trace.lost), (1, 0));
    assert_eq!(trace.entries[0].offset, None);
    assert_eq!(trace.entries[0].path.len(), 128);
    assert!(trace.entries[0].path.ends_with("the-end"));
}

#[test]
fn counts_of_many_threads_are_complete() {
    let (shared, _file, attached) = both("pwrite:error=EIO", &small());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    attached.count(SpellingId::named("cuMemAlloc_v2"));
                }
            });
        }
    });
    assert_eq!(shared.calls(ALLOC), 3000);
}

/// Every kind of change, over and over; what runs in the child of a fork must not allocate.
fn work(attached: &Attached) {
    let call_now = Call {
        site: PWRITE,
        is_in_scope: true,
        size: 4096,
    };
    for key in 0.. {
        attached.enter(&thing(key % 40));
        attached.record(&call(key));
        attached.count(SpellingId::named("pwrite"));
        attached.decide(call_now, attached.rules(PWRITE), &mut NoFacts);
        if let Some(taken) = attached.take(Kind::DeviceMemory, key % 40) {
            attached.end(taken);
        }
    }
}

#[test]
fn a_process_killed_at_any_instruction_blocks_nobody() {
    for _ in 0..20 {
        let (shared, _file, attached) = both("pwrite:error=EIO", &small());
        // SAFETY: the child only writes to the shared mapping, until it is killed.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            work(&attached);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while shared.calls(PWRITE) < 20 {
            assert!(Instant::now() < deadline, "the child does not get on");
            std::thread::yield_now();
        }
        // SAFETY: the child is ours and not yet waited for.
        let status = unsafe {
            libc::kill(child, libc::SIGKILL);
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            status
        };
        assert!(libc::WIFSIGNALED(status));
        let counts = shared.rule_counts()[0];
        assert!(counts.counted >= 19 && counts.counted - counts.fired <= 1);
        let ledger = shared.ledger();
        assert!(ledger.entries.len() + ledger.unreadable <= 1, "{ledger:?}");
        assert!(ledger.entries.iter().all(|entry| entry.pid == child as u32));
        assert!(shared.trace().unreadable <= 1);
        assert!(shared.receipts().len() as u64 <= counts.fired);
        for key in 0..50 {
            assert!(attached.enter(&thing(key)));
        }
        let own = std::process::id();
        let ledger = shared.ledger().entries;
        assert_eq!(ledger.iter().filter(|entry| entry.pid == own).count(), 50);
    }
}

#[test]
fn receipts_start_anew_with_a_plan_and_their_count_is_complete() {
    let (mut shared, _file, attached) = both("pwrite:error=EIO", &small());
    let call_now = Call {
        site: PWRITE,
        is_in_scope: true,
        size: 1,
    };
    let times = MAX_RECEIPTS + 10;
    for _ in 0..times {
        attached.decide(call_now, attached.rules(PWRITE), &mut NoFacts);
    }
    assert_eq!(shared.receipts().len(), MAX_RECEIPTS);
    assert_eq!(shared.rule_counts()[0].fired, times as u64);
    let next: Plan = "fsync:error=EIO;pwrite:error=ENOSPC:when=2"
        .parse()
        .unwrap();
    shared.load(&next).unwrap();
    assert!(shared.receipts().is_empty());
    for _ in 0..3 {
        attached.decide(call_now, attached.rules(PWRITE), &mut NoFacts);
    }
    let receipts = shared.receipts();
    assert_eq!(receipts.len(), 1);
    let receipt = &receipts[0];
    assert_eq!((receipt.rule, receipt.nth, receipt.site), (1, 2, PWRITE));
    assert_eq!(receipt.pid, std::process::id());
    let counts = shared.rule_counts();
    assert_eq!(
        (counts[0].counted, counts[1].counted, counts[1].fired),
        (0, 3, 1)
    );
}

#[test]
fn what_is_no_shared_memory_is_refused() {
    let refused = |path: &str| Attached::open(&CString::new(path).unwrap()).unwrap_err();
    let missing = refused("/nonexistent/faults");
    assert!(
        matches!(
            missing,
            AttachError::Io {
                operation: "open",
                ..
            }
        ),
        "{missing}"
    );
    assert_eq!(refused("/dev/null"), AttachError::NotShared);
    assert!(matches!(refused("/proc/self"), AttachError::Io { .. }));
    // SAFETY: the name is a string that ends in 0.
    let unsealed = unsafe { libc::memfd_create(c"unsealed".as_ptr(), libc::MFD_ALLOW_SEALING) };
    assert!(unsealed >= 0);

    let plan: Plan = "pwrite:error=EIO".parse().unwrap();
    // The very bytes of a good one, which somebody could cut while it is mapped.
    let (_shared, good) = Shared::create(&plan, &small()).unwrap();
    let good = std::fs::read(path_of(&good).to_str().unwrap()).unwrap();
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let copy = File::from(unsafe { OwnedFd::from_raw_fd(unsealed) });
    copy.write_all_at(&good, 0).unwrap();
    assert_eq!(
        refused(&format!("/proc/self/fd/{unsealed}")),
        AttachError::NotShared
    );
    let with = |offset: u64, value: u64| {
        let (_shared, file) = Shared::create(&plan, &small()).unwrap();
        let path = path_of(&file);
        let file = File::from(file);
        file.write_all_at(&value.to_le_bytes(), offset).unwrap();
        Attached::open(&path).map(|attached| {
            attached.scope(b"/tmp/case/x");
        })
    };
    assert_eq!(with(48, 0), Ok(()));
    // The length of the first directory of the scope lies behind the header.
    assert_eq!(with(64 * 8, u64::MAX), Ok(()));
    assert_eq!(with(0, 7), Err(AttachError::NotShared));
    assert_eq!(with(8, 99), Err(AttachError::OtherBuild { found: 99 }));
    assert!(matches!(with(16, 99), Err(AttachError::OtherBuild { .. })));
    for offset in [24, 32] {
        for rows in [0, 1 << 20, u64::MAX] {
            assert_eq!(
                with(offset, rows),
                Err(AttachError::NotShared),
                "{rows} at {offset}"
            );
        }
    }
}

#[test]
fn what_cannot_be_laid_out_is_refused() {
    let plan: Plan = "pwrite:error=EIO".parse().unwrap();
    let refused = |options: Options| Shared::create(&plan, &options).unwrap_err();
    let scopes = |paths: &[&str]| Options {
        scopes: paths.iter().map(Into::into).collect(),
        ..small()
    };
    for path in ["relative", "/tmp/../etc", "/", ""] {
        let error = refused(scopes(&[path]));
        assert!(
            matches!(error, SharedError::ScopeNotResolved { .. }),
            "{path}: {error}"
        );
    }
    assert_eq!(
        refused(scopes(&["some/folder"])).to_string(),
        "the scope some/folder is not an absolute path without . and ..; resolve it first"
    );
    let long = format!("/{}", "x".repeat(600));
    assert!(matches!(
        refused(scopes(&[&long])),
        SharedError::ScopeTooLong { bytes: 601, .. }
    ));
    assert_eq!(
        refused(scopes(&["/a"; 5])),
        SharedError::TooManyScopes { scopes: 5 }
    );
    let rows = Options {
        trace_rows: 0,
        ..small()
    };
    assert_eq!(refused(rows), SharedError::Rows { rows: 0 });
    let mut wrong = plan.clone();
    wrong.rules[0].when.first = 0;
    let error = Shared::create(&wrong, &small()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rule 1: calls are counted from 1, so none is the call 0; write when=1"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A subject may write anything anywhere; neither side panics or reads outside.
    #[test]
    fn scribbling_over_the_memory_harms_only_the_results(
        writes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u64>(), 0..20u64, Just(u64::MAX)]), 1..200),
        fill in prop_oneof![Just(None), any::<u8>().prop_map(Some), Just(Some(255))],
    ) {
        let (mut shared, file, attached) = both("pwrite:error=EIO:path=*x;pwrite:delay=1ms:caller=y*", &small());
        let file = File::from(file);
        let bytes = file.metadata().unwrap().len();
        if let Some(fill) = fill {
            file.write_all_at(&vec![fill; bytes as usize], 0).unwrap();
        }
        for (index, value) in &writes {
            let word = index.index(bytes as usize / 8) as u64;
            file.write_all_at(&value.to_le_bytes(), word * 8).unwrap();
        }
        attached.attach();
        for key in 0..70 {
            attached.enter(&thing(key));
            attached.record(&call(key));
            if let Some(taken) = attached.take(Kind::DeviceMemory, key) {
                attached.end(taken);
            }
        }
        for site in SiteId::all() {
            let call = Call { site, is_in_scope: true, size: 5 };
            attached.decide(call, attached.rules(site), &mut NoFacts);
        }
        for row in 0..spillproof_faults::SPELLING_COUNT {
            attached.count(SpellingId(row as u16));
        }
        shared.attachments();
        shared.processes();
        shared.receipts();
        shared.rule_counts();
        shared.trace();
        shared.ledger();
        shared.restart_counts();
        let next: Plan = "fsync:error=EIO".parse().unwrap();
        shared.load(&next).unwrap();
        shared.receipts();
    }
}
