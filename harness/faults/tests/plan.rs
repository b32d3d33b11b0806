//! What plans say and how they are refused: the grammar, the canonical form, every error with its place.

use std::time::Duration;

use proptest::prelude::*;
use spillproof_faults::{
    Action, After, FaultError, Glob, Plan, Rule, SITES, Short, Signal, SiteId, When, names,
};

fn plan(text: &str) -> Plan {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    match text.parse::<Plan>() {
        Ok(plan) => panic!("{text} was read as {plan}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_plan_says_what_is_written() {
    let read = plan(
        "pwrite64,write : error=ENOSPC : when=3..7+2 : path=/tmp/*/a\\:b.block ; fsync:error=EIO:after\ncuMemAlloc:delay=5ms:caller=libtorch*;\n",
    );
    let write = Rule {
        sites: vec![SiteId::named("pwrite"), SiteId::named("write")],
        action: Action::Error(names::ENOSPC),
        after: false,
        when: When {
            first: 3,
            last: Some(7),
            step: 2,
        },
        path: Some("/tmp/*/a\\:b.block".parse().unwrap()),
        caller: None,
    };
    let sync = Rule {
        after: true,
        ..Rule::new(SiteId::named("fsync"), Action::Error(names::EIO))
    };
    let allocation = Rule {
        caller: Some("libtorch*".parse().unwrap()),
        ..Rule::new(
            SiteId::named("cuMemAlloc"),
            Action::Delay(Duration::from_millis(5)),
        )
    };
    assert_eq!(read.rules, [write, sync, allocation]);
    assert_eq!(
        read.to_string(),
        "pwrite,write:error=ENOSPC:when=3..7+2:path=/tmp/*/a\\:b.block;fsync:error=EIO:after;cuMemAlloc:delay=5ms:caller=libtorch*"
    );
}

#[test]
fn values_have_units() {
    let action = |text: &str| plan(text).rules[0].action;
    let short = |bytes| Action::Short { bytes };
    let delay = Action::Delay;
    assert_eq!(action("pread:short=4096"), short(4096));
    assert_eq!(action("pread:short=4KiB"), short(4096));
    assert_eq!(action("pread:short=3MiB"), short(3 << 20));
    assert_eq!(action("pread:short=1GiB"), short(1 << 30));
    assert_eq!(action("pread:short=0"), short(0));
    assert_eq!(action("pread:delay=10us"), delay(Duration::from_micros(10)));
    assert_eq!(action("pread:delay=7ns"), delay(Duration::from_nanos(7)));
    assert_eq!(action("pread:delay=1s"), delay(Duration::from_secs(1)));
    assert_eq!(action("pread:signal=KILL"), Action::Signal(Signal::KILL));
    assert_eq!(action("pread:signal=SIGTERM"), Action::Signal(Signal::TERM));
    assert_eq!(plan("pread:short=0").to_string(), "pread:short=0");
    assert_eq!(plan("pread:delay=0ms").to_string(), "pread:delay=0s");
    assert_eq!(plan("pread:short=4096").to_string(), "pread:short=4KiB");
    assert_eq!(
        plan("pread:signal=TERM").to_string(),
        "pread:signal=SIGTERM"
    );
    assert_eq!(
        plan("fallocate:error=ENOTSUP").to_string(),
        "fallocate:error=EOPNOTSUPP"
    );
}

#[test]
fn a_choice_of_calls_is_as_written() {
    let chosen = |text: &str| {
        let when = plan(&format!("pwrite:error=EIO{text}")).rules[0].when;
        (1..=9)
            .filter(|nth| when.contains(*nth))
            .collect::<Vec<u64>>()
    };
    assert_eq!(chosen(""), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(chosen(":when=3"), [3]);
    assert_eq!(chosen(":when=3+"), [3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(chosen(":when=3..5"), [3, 4, 5]);
    assert_eq!(chosen(":when=3..5+"), [3, 4, 5]);
    assert_eq!(chosen(":when=3+2"), [3, 5, 7, 9]);
    assert_eq!(chosen(":when=3..7+3"), [3, 6]);
    let edge = When::only(u64::MAX);
    assert!(edge.contains(u64::MAX) && !edge.contains(1));
    assert!(When::from(2).contains(u64::MAX));
}

#[test]
fn an_error_names_place_and_remedy() {
    let table: &[(&str, &str)] = &[
        (
            "",
            "line 1, column 1: the plan is empty; write a rule such as pwrite:error=ENOSPC:when=3",
        ),
        (
            " ;\n;",
            "line 1, column 1: the plan is empty; write a rule such as pwrite:error=ENOSPC:when=3",
        ),
        (
            "pwirte:error=EIO",
            "line 1, column 1: \"pwirte\" is no site; did you mean pwrite?",
        ),
        (
            "read, frobnicate:error=EIO",
            "line 1, column 7: \"frobnicate\" is no site",
        ),
        (
            "read,:error=EIO",
            "line 1, column 6: a site is missing; a rule starts with the name of a call, such as pwrite",
        ),
        (
            ":error=EIO",
            "line 1, column 1: a site is missing; a rule starts with the name of a call, such as pwrite",
        ),
        (
            "read,pread,read:error=EIO",
            "line 1, column 12: read is named twice; name it once",
        ),
        (
            "read,__read_chk:error=EIO",
            "line 1, column 6: read is named twice; name it once",
        ),
        (
            "syscall:delay=1s",
            "line 1, column 1: a raw syscall counts as the call that it makes; name that one, such as pwrite",
        ),
        (
            "read",
            "line 1, column 1: the rule does nothing; add one of error=NAME, short=BYTES, delay=TIME, signal=NAME",
        ),
        (
            "read:when=3",
            "line 1, column 1: the rule does nothing; add one of error=NAME, short=BYTES, delay=TIME, signal=NAME",
        ),
        (
            "read:eror=EIO",
            "line 1, column 6: \"eror\" is no key; did you mean error?; known are error, short, delay, signal, after, when, path, caller",
        ),
        (
            "read:error=EIO:",
            "line 1, column 16: \"\" is no key; known are error, short, delay, signal, after, when, path, caller",
        ),
        (
            "read:error",
            "line 1, column 6: error needs a value: error=ENOSPC",
        ),
        (
            "read:error=EIO:when=",
            "line 1, column 16: when needs a value: when=3",
        ),
        (
            "read:error=EIO:error=EIO",
            "line 1, column 16: error is given twice; give it once",
        ),
        (
            "read:error=EIO:when=1:when=2",
            "line 1, column 23: when is given twice; give it once",
        ),
        (
            "fsync:error=EIO:after:after",
            "line 1, column 23: after is given twice; give it once",
        ),
        (
            "read:error=EIO:short=1",
            "line 1, column 16: the rule already says error; a rule does one thing, write a second rule for short",
        ),
        (
            "fsync:error=EIO:after=1",
            "line 1, column 23: after takes no value; write after alone",
        ),
        (
            "read:error=EOI",
            "line 1, column 12: \"EOI\" is no error; did you mean EIO?",
        ),
        (
            "posix_fallocate:error=EROFS",
            "line 1, column 23: posix_fallocate cannot return EROFS; it can return ENOSPC, EOPNOTSUPP, EINTR, EFBIG, ENODEV, ESPIPE, EINVAL, EBADF",
        ),
        (
            "write,munmap:error=EIO",
            "line 1, column 20: munmap cannot return EIO; it can return ENOMEM, EINVAL",
        ),
        (
            "cuFileHandleDeregister:error=EIO",
            "line 1, column 30: cuFileHandleDeregister returns nothing and cannot fail; it can be given a delay or a signal",
        ),
        (
            "cuMemAlloc:error=CUDA_ERROR_OUT_OF_MEMORY:after",
            "line 1, column 43: cuMemAlloc cannot be reported as failed after it was done: nobody could give back what it made; leave out after",
        ),
        (
            "fsync:short=1",
            "line 1, column 13: fsync returns no count of bytes; leave out short, or name a read or a write",
        ),
        (
            "write:after:short=1",
            "line 1, column 7: a short count is part of the call; leave out after",
        ),
        (
            "write:short=1KB",
            "line 1, column 13: \"1KB\" is no number of bytes; write 4096, 4KiB or 1MiB",
        ),
        (
            "write:short=-1",
            "line 1, column 13: \"-1\" is no number of bytes; write 4096, 4KiB or 1MiB",
        ),
        (
            "write:short=99999999999999999999GiB",
            "line 1, column 13: \"99999999999999999999GiB\" is no number of bytes; write 4096, 4KiB or 1MiB",
        ),
        (
            "write:short=17179869184GiB",
            "line 1, column 13: \"17179869184GiB\" is no number of bytes; write 4096, 4KiB or 1MiB",
        ),
        (
            "write:delay=5",
            "line 1, column 13: \"5\" is no time; write 10us, 5ms or 1s",
        ),
        (
            "write:delay=3601s",
            "line 1, column 13: a delay is at most an hour; write less",
        ),
        (
            "write:signal=KIL",
            "line 1, column 14: \"KIL\" is no signal; did you mean KILL?",
        ),
        (
            "write:error=EIO:when=0",
            "line 1, column 22: calls are counted from 1, so none is the call 0; write when=1",
        ),
        (
            "write:error=EIO:when=1+0",
            "line 1, column 22: a step of 0 chooses no call; write 1 or more",
        ),
        (
            "write:error=EIO:when=7..3",
            "line 1, column 22: no call lies between 7 and 3; write when=3..7",
        ),
        (
            "write:error=EIO:when=x",
            "line 1, column 22: \"x\" is no choice of calls; write 3, 3+, 3..7, 3+2 or 3..7+2",
        ),
        (
            "cuInit:path=*:error=CUDA_ERROR_NO_DEVICE",
            "line 1, column 13: cuInit names no file; leave out path",
        ),
        (
            "write:error=EIO:path=a\\",
            "line 1, column 22: the pattern ends in a bare \\; write \\\\",
        ),
        (
            "read:error=EIO\n  pwrite:error=EIO;fsnyc:error=EIO",
            "line 2, column 20: \"fsnyc\" is no site; did you mean fsync?",
        ),
        (
            "write:error=EIO:path=éé;é:error=EIO",
            "line 1, column 25: \"é\" is no site",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in table {
        let found = refusal(text);
        if found != *expected {
            wrong.push(format!("{text}\n  {found}\n  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_error_stands_below_its_place() {
    let underlined = |plan: &str| plan.parse::<Plan>().unwrap_err().underlined(plan);
    assert_eq!(
        underlined("pwrite:error=EIO;pwirte:error=EIO"),
        "pwrite:error=EIO;pwirte:error=EIO\n                 ^ \"pwirte\" is no site; did you mean pwrite?"
    );
    assert_eq!(
        underlined("fsync:error=EIO\n\tread:error=EIO:path=é:when=0"),
        "\tread:error=EIO:path=é:when=0\n\t                           ^ calls are counted from 1, so none is the call 0; write when=1"
    );
    assert_eq!(
        underlined(""),
        "\n^ the plan is empty; write a rule such as pwrite:error=ENOSPC:when=3"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let long = format!("write:error=EIO:path={}", "x".repeat(193));
    assert!(refusal(&long).contains("193 bytes; at most 192 fit"));
    let many = vec!["write:error=EIO"; 65].join(";");
    assert!(refusal(&many).contains("65 rules; at most 64 fit"));
    assert_eq!(
        plan(&vec!["write:error=EIO"; 64].join("\n")).rules.len(),
        64
    );
}

#[test]
fn every_error_of_every_site_can_be_planned() {
    for site in SITES.iter().filter(|site| site.is_plannable()) {
        for error in site.errors {
            let text = format!("{}:error={error}:when=2", site.name);
            assert_eq!(plan(&text).to_string(), text);
        }
        for spelling in site.spellings {
            let text = format!("{spelling}:delay=1ms");
            assert_eq!(plan(&text).to_string(), format!("{}:delay=1ms", site.name));
        }
    }
}

fn any_site() -> impl Strategy<Value = SiteId> {
    let plannable = SiteId::all().filter(|id| id.site().is_plannable());
    prop::sample::select(plannable.collect::<Vec<_>>())
}

fn any_action(id: SiteId) -> impl Strategy<Value = (Action, bool)> {
    let site = id.site();
    let mut kinds = vec![
        (0..3_600_000_000_000u64)
            .prop_map(|delay| Action::Delay(Duration::from_nanos(delay)))
            .boxed(),
        (1..1000u64)
            .prop_map(|delay| Action::Delay(Duration::from_millis(delay)))
            .boxed(),
        (1..32u64)
            .prop_filter_map("no signal", Signal::checked)
            .prop_map(Action::Signal)
            .boxed(),
    ];
    if !site.errors.is_empty() {
        let errors: Vec<FaultError> = site.errors.to_vec();
        kinds.push(prop::sample::select(errors).prop_map(Action::Error).boxed());
    }
    if site.short != Short::None {
        kinds.push(
            any::<u64>()
                .prop_map(|bytes| Action::Short { bytes })
                .boxed(),
        );
        let shifted = (0..1024u64, 0..31u32).prop_map(|(bytes, shift)| bytes << shift);
        kinds.push(shifted.prop_map(|bytes| Action::Short { bytes }).boxed());
    }
    let kinds = prop::strategy::Union::new(kinds);
    (kinds, any::<bool>()).prop_map(move |(action, after)| {
        let is_legal = match action {
            Action::Error(_) => site.after != After::Never,
            Action::Short { .. } => false,
            Action::Delay(_) | Action::Signal(_) => true,
        };
        (action, after && is_legal)
    })
}

fn any_when() -> impl Strategy<Value = When> {
    let first = prop_oneof![1..10u64, 1..=u64::MAX];
    (first, prop::option::of(0..1000u64), 1..5u64).prop_map(|(first, more, step)| {
        let last = more.map(|more| first.saturating_add(more));
        let step = if last == Some(first) { 1 } else { step };
        When { first, last, step }
    })
}

fn any_glob() -> impl Strategy<Value = Option<Glob>> {
    let literal = "[a-z/:;,\\\\*?\\[é ]{1,20}"
        .prop_filter_map("no pattern", |text| Glob::literal(&text).ok());
    prop::option::of(literal)
}

fn any_rule() -> impl Strategy<Value = Rule> {
    any_site().prop_flat_map(|id| {
        let parts = (any_action(id), any_when(), any_glob(), any_glob());
        parts.prop_map(move |((action, after), when, path, caller)| {
            let takes_path = id.site().library == spillproof_faults::Library::Libc;
            Rule {
                after,
                when,
                path: path.filter(|_| takes_path),
                caller: caller.filter(|glob| glob.as_str().len() <= 64),
                ..Rule::new(id, action)
            }
        })
    })
}

proptest! {
    #[test]
    fn a_plan_prints_and_parses_to_itself(rules in prop::collection::vec(any_rule(), 1..6)) {
        let plan = Plan { rules };
        let text = plan.to_string();
        prop_assert_eq!(text.parse::<Plan>(), Ok(plan), "{}", text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = text.parse::<Plan>();
    }

    #[test]
    fn no_text_of_its_own_words_makes_the_reader_panic(
        text in "(pwrite|cuMemAlloc|é|error|short|when|path|after|=|:|;|,|\n|\\\\| |[+]|[.][.]|[0-9]{1,20}|KiB|EIO){0,30}"
    ) {
        match text.parse::<Plan>() {
            Ok(plan) => prop_assert_eq!(plan.to_string().parse::<Plan>(), Ok(plan)),
            Err(error) => {
                let line = text.split('\n').nth(error.line - 1);
                let characters = line.map(|line| line.chars().count());
                prop_assert!(characters.is_some_and(|count| error.column <= count + 1), "{}", error);
            }
        }
    }
}
