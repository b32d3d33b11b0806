//! Every way to misbehave is a finding of its own; behaving is none.

use crate::{
    bench::{Bench, PATIENCE, SHORT},
    trial,
};
use libtest_mimic::Trial;
use spillproof_harness::{
    probe,
    subject::{CallOutcome, ExitReport, Finding, Limits, Stream},
};
use spillproof_protocol::{NoArgs, Request};
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("a_subject_that_behaves_has_no_findings", behaves),
        trial("each_wrong_answer_is_its_own_finding", wrong_answers),
        trial(
            "a_second_reply_that_comes_later_is_found_at_the_next_call",
            second_reply_later,
        ),
        trial(
            "a_second_reply_that_comes_last_is_found_at_the_end",
            second_reply_last,
        ),
        trial("a_line_without_end_is_cut_at_the_limit", oversized),
        trial("a_hang_is_found_at_the_deadline_and_killed", hangs),
        trial("a_partial_line_is_not_a_hang", partial_line),
        trial("a_hello_that_never_comes_is_found", no_hello),
        trial("a_closed_socket_is_not_an_exit", closed_socket),
        trial("each_early_end_is_its_own_finding", early_ends),
        trial(
            "an_end_between_calls_is_found_at_the_next_one",
            end_between_calls,
        ),
        trial(
            "exit_statuses_after_quit_are_kept_and_judged",
            statuses_after_quit,
        ),
        trial("a_subject_that_stays_after_quit_lingers", lingers),
        trial("without_quit_a_subject_should_fail", without_quit),
        trial(
            "a_flood_on_a_standard_stream_neither_blocks_nor_fills_memory",
            floods,
        ),
        trial("a_broken_subject_is_not_spoken_to_again", broken),
        trial(
            "outstanding_requests_may_be_answered_in_any_order",
            answers_in_any_order,
        ),
        trial(
            "what_is_wrong_with_answers_to_outstanding_requests_is_found",
            wrong_answers_to_outstanding_requests,
        ),
        trial(
            "each_outstanding_request_has_a_deadline_of_its_own",
            deadlines_of_outstanding_requests,
        ),
    ]
}

fn behaves() {
    let mut bench = Bench::greeted("behaves");
    for _ in 0..50 {
        assert!(matches!(bench.status(PATIENCE), Ok(CallOutcome::Ok(_))));
    }
    bench.quit().unwrap();
    let ended = bench.finish();
    assert_eq!(ended.findings, []);
    assert_eq!(ended.exit, ExitReport::Exited(0));
    assert!(!ended.killed);
}

/// The finding of the call `status`, which must also be the only one of the whole life.
fn only_finding(behaviour: &str) -> Finding {
    let mut bench = Bench::greeted(behaviour);
    let finding = bench.status(PATIENCE).unwrap_err();
    let ended = bench.finish();
    assert_eq!(
        ended.findings,
        std::slice::from_ref(&finding),
        "{behaviour}"
    );
    finding
}

fn wrong_answers() {
    let verb = "status";
    assert_eq!(
        only_finding("speaks_garbage"),
        Finding::Garbage {
            verb,
            line: "Traceback (most recent call last):".into()
        }
    );
    assert_eq!(
        only_finding("answers_ok_and_error"),
        Finding::BothOkAndError { verb }
    );
    assert_eq!(
        only_finding("answers_neither"),
        Finding::NeitherOkNorError { verb }
    );
    assert!(matches!(
        only_finding("answers_with_an_unknown_field"),
        Finding::MalformedReply { reason, .. } if reason.contains("note")
    ));
    assert_eq!(
        only_finding("answers_an_unknown_error_kind"),
        Finding::UnknownErrorKind {
            verb,
            kind: "tired".into()
        }
    );
    assert_eq!(
        only_finding("answers_the_wrong_id"),
        Finding::WrongId {
            verb,
            expected: 2,
            got: 3
        }
    );
    assert!(matches!(
        only_finding("answers_twice"),
        Finding::SecondReply { after: "status", line } if line == r#"{"id":2,"ok":{}}"#
    ));
    let mut bench = Bench::new("speaks_another_version");
    let finding = bench.hello(PATIENCE).unwrap_err();
    assert_eq!(
        finding,
        Finding::WrongProtocol {
            expected: 1,
            got: "2".into()
        }
    );
    assert_eq!(bench.finish().findings, [finding]);
}

fn second_reply_later() {
    let mut bench = Bench::greeted("answers_twice_later");
    bench.status(PATIENCE).unwrap();
    // The subject answers no further call: what comes is the second reply.
    let finding = bench.status(PATIENCE).unwrap_err();
    assert!(
        matches!(
            finding,
            Finding::SecondReply {
                after: "status",
                ..
            }
        ),
        "{finding}"
    );
}

fn second_reply_last() {
    let mut bench = Bench::greeted("answers_twice_later");
    bench.status(PATIENCE).unwrap();
    std::thread::sleep(SHORT);
    let ended = bench.subject.finish(SHORT);
    assert!(
        matches!(
            ended.findings[0],
            Finding::SecondReply {
                after: "status",
                ..
            }
        ),
        "{:?}",
        ended.findings
    );
}

fn oversized() {
    let limits = Limits {
        line_bytes: 1 << 20,
        ..Limits::default()
    };
    let mut bench = Bench::with_limits("answers_without_end", limits);
    bench.hello(PATIENCE).unwrap();
    let finding = bench.status(PATIENCE).unwrap_err();
    assert_eq!(
        finding,
        Finding::Oversized {
            verb: "status",
            limit_bytes: 1 << 20
        }
    );
    assert_eq!(bench.finish().findings, [finding]);
}

fn hangs() {
    let mut bench = Bench::greeted("hangs");
    let start = Instant::now();
    let finding = bench.status(SHORT).unwrap_err();
    assert!(start.elapsed() >= SHORT);
    assert_eq!(
        finding,
        Finding::Hang {
            verb: "status",
            deadline: SHORT
        }
    );
    let pid = bench.subject.pid();
    let ended = bench.finish();
    assert_eq!(ended.findings, [finding]);
    assert!(ended.killed);
    assert!(matches!(
        ended.exit,
        ExitReport::Signalled { signal: 9, .. }
    ));
    assert!(matches!(
        probe::process(pid),
        Err(probe::ProbeError::Gone { .. })
    ));
}

fn partial_line() {
    let mut bench = Bench::greeted("stops_within_a_line");
    let finding = bench.status(SHORT).unwrap_err();
    assert_eq!(
        finding,
        Finding::PartialLine {
            verb: "status",
            bytes: 8,
            deadline: SHORT
        }
    );
    assert_eq!(bench.finish().findings, [finding]);
}

fn no_hello() {
    let mut bench = Bench::new("never_answers_hello");
    let finding = bench.hello(SHORT).unwrap_err();
    assert_eq!(
        finding,
        Finding::Hang {
            verb: "hello",
            deadline: SHORT
        }
    );
    assert_eq!(bench.finish().findings, [finding]);
}

fn closed_socket() {
    assert_eq!(
        only_finding("closes_its_socket"),
        Finding::SocketClosed { verb: "status" }
    );
}

fn early_ends() {
    let verb = "status";
    let exited = |status| Finding::ExitedEarly { verb, status };
    assert_eq!(only_finding("exits_zero_too_early"), exited(0));
    assert_eq!(only_finding("exits_with_status_3"), exited(3));
    for (behaviour, number, expected) in [
        ("dies_by_sigkill", 9, "SIGKILL"),
        ("dies_by_sigsegv", 11, "SIGSEGV"),
        ("aborts", 6, "SIGABRT"),
        // The first two belong to glibc, so that this is the kernel's 32nd and three more.
        ("dies_by_a_real_time_signal", 37, "signal 37"),
    ] {
        let Finding::Signalled {
            signal, name, core, ..
        } = only_finding(behaviour)
        else {
            panic!("{behaviour}: not by signal")
        };
        assert_eq!((signal, name.as_str(), core), (number, expected, false));
    }
    let mut bench = Bench::new("exits_before_hello");
    assert_eq!(
        bench.hello(PATIENCE),
        Err(Finding::ExitedEarly {
            verb: "hello",
            status: 0
        })
    );
}

fn end_between_calls() {
    let mut bench = Bench::greeted("answers_and_exits_with_status_3");
    bench.status(PATIENCE).unwrap();
    let finding = bench.status(PATIENCE).unwrap_err();
    assert_eq!(
        finding,
        Finding::ExitedEarly {
            verb: "status",
            status: 3
        }
    );
    let ended = bench.finish();
    assert_eq!(
        (ended.findings, ended.exit),
        (vec![finding], ExitReport::Exited(3))
    );
    // Nobody asks again: then the end itself tells.
    let mut bench = Bench::greeted("answers_and_exits_with_status_3");
    bench.status(PATIENCE).unwrap();
    spillproof_harness::settle::settle(PATIENCE, || bench.subject.exit()).unwrap();
    assert_eq!(
        bench.finish().findings,
        [Finding::ExitedEarly {
            verb: "no call",
            status: 3
        }]
    );
}

fn statuses_after_quit() {
    let mut bench = Bench::greeted("quits_with_status_5");
    bench.quit().unwrap();
    let ended = bench.finish();
    assert_eq!(ended.exit, ExitReport::Exited(5));
    assert_eq!(ended.findings, [Finding::ExitStatusAfterQuit { status: 5 }]);
}

fn lingers() {
    let mut bench = Bench::greeted("lingers_after_quit");
    bench.quit().unwrap();
    let ended = bench.subject.finish(SHORT);
    assert_eq!(
        ended.findings,
        [Finding::Lingers {
            quit: true,
            deadline: SHORT
        }]
    );
    assert!(ended.killed);
}

fn without_quit() {
    let ended = Bench::greeted("behaves").finish();
    assert_eq!(
        (ended.exit, ended.findings),
        (ExitReport::Exited(1), vec![])
    );
    let ended = Bench::greeted("exits_zero_when_the_socket_closes").finish();
    assert_eq!(ended.findings, [Finding::ExitStatusWithoutQuit]);
    let ended = Bench::greeted("ignores_the_closed_socket")
        .subject
        .finish(SHORT);
    assert_eq!(
        ended.findings,
        [Finding::Lingers {
            quit: false,
            deadline: SHORT
        }]
    );
}

fn floods() {
    for (behaviour, stream) in [
        ("floods_standard_error", Stream::Stderr),
        ("floods_standard_output", Stream::Stdout),
    ] {
        let mut bench = Bench::greeted(behaviour);
        bench.status(PATIENCE).unwrap();
        bench.quit().unwrap();
        let ended = bench.finish();
        let bytes = (32 << 20) + 12;
        assert_eq!(
            ended.findings,
            [Finding::Flood {
                stream,
                bytes,
                limit_bytes: Limits::default().stream_bytes
            }]
        );
        let captured = match stream {
            Stream::Stdout => ended.stdout,
            Stream::Stderr => ended.stderr,
        };
        assert_eq!(captured.bytes, bytes);
        let text = captured.to_string();
        assert!(text.ends_with("\nlast words\n"));
        assert!(text.len() < 1 << 20, "{} bytes kept", text.len());
    }
}

fn broken() {
    let mut bench = Bench::greeted("speaks_garbage");
    let finding = bench.status(PATIENCE).unwrap_err();
    let start = Instant::now();
    assert_eq!(bench.status(PATIENCE), Err(finding));
    assert!(start.elapsed() < PATIENCE / 2);
    assert_eq!(bench.finish().findings.len(), 1);
}

/// Asks twice without waiting; the ids, and the subject.
fn asked_twice(behaviour: &str, first: Duration, second: Duration) -> (Bench, [u64; 2]) {
    let mut bench = Bench::greeted(behaviour);
    let request = Request::Status(NoArgs {});
    let ids = [first, second].map(|deadline| bench.subject.begin(&request, deadline).unwrap());
    (bench, ids)
}

/// The next answer, or what is wrong instead.
fn answer(bench: &mut Bench) -> Result<(u64, CallOutcome), Finding> {
    loop {
        if let Some(answer) = bench.subject.answer(None)? {
            return Ok(answer);
        }
    }
}

fn answers_in_any_order() {
    let (mut bench, [first, second]) = asked_twice("answers_both_in_reverse", PATIENCE, PATIENCE);
    for id in [second, first] {
        let outcome = CallOutcome::Ok(serde_json::json!({ "to": id }));
        assert_eq!(answer(&mut bench), Ok((id, outcome)));
    }
    // Nothing is outstanding: nothing is waited for.
    assert_eq!(bench.subject.answer(None), Ok(None));
    bench.quit().unwrap();
    assert_eq!(bench.finish().findings, []);
}

fn wrong_answers_to_outstanding_requests() {
    let verb = "status";
    let (mut bench, [_, second]) = asked_twice("answers_one_of_both_twice", PATIENCE, PATIENCE);
    assert!(matches!(answer(&mut bench), Ok((id, _)) if id == second));
    let twice = answer(&mut bench).unwrap_err();
    assert!(
        matches!(twice, Finding::SecondReply { after, .. } if after == verb),
        "{twice}"
    );
    let behaviour = "answers_neither_of_both_but_another";
    let (mut bench, [first, second]) = asked_twice(behaviour, PATIENCE, PATIENCE);
    let (expected, got) = (first, second + 1);
    let unknown = Finding::WrongId {
        verb,
        expected,
        got,
    };
    assert_eq!(answer(&mut bench), Err(unknown));
}

fn deadlines_of_outstanding_requests() {
    let started = Instant::now();
    let (mut bench, [_, second]) = asked_twice("answers_only_the_second", SHORT, PATIENCE);
    assert!(matches!(answer(&mut bench), Ok((id, _)) if id == second));
    let hang = Finding::Hang {
        verb: "status",
        deadline: SHORT,
    };
    assert_eq!(answer(&mut bench), Err(hang));
    assert!((SHORT..PATIENCE).contains(&started.elapsed()));
}
