//! What cannot work is refused before anything starts, and a program that no fault can reach is never taken for one that withstood it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use libtest_mimic::Trial;

use crate::stage::{Ran, Stage, interposer, ran, text, work_dir};
use crate::trial;

pub(crate) fn tests() -> Vec<Trial> {
    let run = |name, body| trial(name, None, body);
    vec![
        run("refusals::a_malformed_plan_is_shown_with_its_place", plans),
        run("refusals::a_scope_that_is_none", scopes),
        run("refusals::a_relative_scope_is_resolved", relative),
        run("refusals::an_interposer_that_is_missing", missing),
        run("refusals::an_interposer_that_does_not_load", unloadable),
        run("refusals::a_program_that_cannot_be_started", programs),
        run("refusals::a_rule_that_never_fired", unfired),
        run("refusals::a_static_program", statically),
        trial("refusals::a_set_uid_program", set_uid_impediment(), set_uid),
        run("refusals::a_program_that_drops_the_preload", dropped),
        run("refusals::a_program_that_drops_the_way_to_the_memory", lost),
    ]
}

/// An error before anything was started.
#[track_caller]
fn refused(under: Ran, status: i32, error: &str) {
    let expected = Ran {
        status: Some(status),
        stdout: String::new(),
        stderr: format!("Error: {error}\n"),
    };
    assert_eq!(under, expected);
}

fn echo(stage: &Stage, options: &[&str]) -> Ran {
    ran(stage.inject(options).args(["echo", "it ran"]))
}

fn plans() {
    let stage = Stage::new();
    let plan = |plan: &str| echo(&stage, &["--plan", plan]);
    refused(
        plan("pwrite:error=EIO;pwirte:error=EIO"),
        2,
        "--plan is no plan, line 1:\n  pwrite:error=EIO;pwirte:error=EIO\n                   ^ \"pwirte\" is no site; did you mean pwrite?",
    );
    refused(
        plan("munmap:error=ENOSPC"),
        2,
        "--plan is no plan, line 1:\n  munmap:error=ENOSPC\n               ^ munmap cannot return ENOSPC; it can return ENOMEM, EINVAL",
    );
    refused(
        plan("fsync:error=EIO\n fsync:error"),
        2,
        "--plan is no plan, line 2:\n   fsync:error\n         ^ error needs a value: error=ENOSPC",
    );
    refused(
        ran(stage
            .bare(&["--plan", "write:error=EIO"])
            .args(["--", "echo", "it ran"])),
        2,
        "write counts calls on files inside the scope, and there is none; name a directory with --scope, or add path=GLOB to the rule",
    );
    let usage = ran(&mut stage.bare(&["--plam", "x"]));
    assert_eq!(usage.status, Some(2));
    assert!(
        usage.stderr.contains("unexpected argument '--plam'"),
        "{usage:#?}"
    );
}

fn scopes() {
    let stage = Stage::new();
    let scope = |scope: &Path| {
        let options = ["--scope", text(scope), "--", "echo", "it ran"];
        ran(stage.bare(&[]).args(options))
    };
    refused(
        scope("nowhere".as_ref()),
        2,
        "the scope nowhere cannot be resolved: No such file or directory (os error 2); name a directory that exists",
    );
    refused(
        scope("/".as_ref()),
        2,
        "the scope / is the root of everything; name the directory whose files are meant",
    );
    let file = stage.outside().join("file");
    fs::write(&file, "").unwrap();
    refused(
        scope(&file),
        2,
        &format!(
            "the scope {} is no directory; name the directory whose files are meant",
            file.display()
        ),
    );
    let mut five = stage.bare(&[]);
    for name in ["a", "b", "c", "d", "e"] {
        fs::create_dir(stage.outside().join(name)).unwrap();
        five.args(["--scope", name]);
    }
    refused(
        ran(five.args(["--", "echo", "it ran"])),
        2,
        "the scope has 5 directories; at most 4 fit",
    );
}

fn relative() {
    let stage = Stage::new();
    let script = "echo x > scope/file || echo refused";
    let options = ["--scope", "lib/../scope/.", "--plan", "write:error=ENOSPC"];
    let under = ran(stage.bare(&options).args(["--", "sh", "-c", script]));
    assert_eq!(under.stdout, "refused\n", "{under:#?}");
    under.reports("write:error=ENOSPC: 1 of 1 calls");
}

fn missing() {
    let stage = Stage::new();
    refused(
        echo(&stage, &["--interposer", "/nowhere/interposer.so"]),
        96,
        "the interposer /nowhere/interposer.so cannot be used: No such file or directory (os error 2); build it with `cargo build -p spillproof-interposer`",
    );
}

fn unloadable() {
    let stage = Stage::new();
    let refuses = |name: &str, bytes: &[u8], reason: &str| {
        let path = stage.outside().join(name);
        fs::write(&path, bytes).unwrap();
        let under = echo(&stage, &["--interposer", text(&path)]);
        let error = format!(
            "the interposer {} cannot be loaded: {reason}",
            path.display()
        );
        refused(under, 96, &error);
    };
    let good = fs::read(interposer()).unwrap();
    refuses(
        "garbage.so",
        b"garbage",
        "it is no ELF library; build it anew",
    );
    refuses("empty.so", b"", "it is no ELF library; build it anew");
    let mut narrow = good.clone();
    narrow[4] = 1;
    refuses(
        "narrow.so",
        &narrow,
        "it is of 32 bits, and programs here are of 64; build it for this machine",
    );
    refuses(
        "with blank.so",
        &good,
        "LD_PRELOAD cannot carry a path with a blank or a colon; put the library elsewhere",
    );
    // Only the loader sees that; its reason depends on its version.
    let cut = stage.outside().join("cut.so");
    fs::write(&cut, &good[..100]).unwrap();
    let under = echo(&stage, &["--interposer", text(&cut)]);
    assert_eq!(
        (under.status, under.stdout.as_str()),
        (Some(96), ""),
        "{under:#?}"
    );
    let start = format!(
        "Error: the interposer {0} cannot be loaded: ERROR: ld.so: object '{0}' from LD_PRELOAD cannot be preloaded (",
        cut.display()
    );
    assert!(under.stderr.starts_with(&start), "{under:#?}");
    // A library that loads, and is no interposer.
    let other = stage.compile("late.c", "other.so", &["-shared", "-fPIC"]);
    let under = echo(&stage, &["--interposer", text(&other)]);
    refused(
        under,
        96,
        &format!(
            "the interposer {} cannot be loaded: /proc/self/exe ran without it, and the loader does not say why; is it an interposer?",
            other.display()
        ),
    );
}

fn programs() {
    let stage = Stage::new();
    refused(
        ran(stage.inject(&[]).arg("nobody-calls-a-program-so")),
        127,
        "cannot start nobody-calls-a-program-so: No such file or directory (os error 2)",
    );
    let file = stage.outside().join("file");
    fs::write(&file, "").unwrap();
    refused(
        ran(stage.inject(&[]).arg(&file)),
        126,
        &format!(
            "cannot start {}: Permission denied (os error 13)",
            file.display()
        ),
    );
}

fn unfired() {
    let stage = Stage::new();
    let plan = "write:error=ENOSPC:when=3;fsync:error=EIO;write:short=9";
    let under =
        ran(stage
            .inject(&["--plan", plan])
            .args(["sh", "-c", "echo x > scope/file; exit 5"]));
    assert_eq!(under.status, Some(98), "{under:#?}");
    let scope = stage.scope();
    let expected = format!(
        "spillproof: write:error=ENOSPC:when=3: 0 of 1 calls\n\
         spillproof: fsync:error=EIO: 0 of 0 calls\n\
         spillproof: write:short=9: 0 of 1 calls\n\
         spillproof: inconclusive: write:error=ENOSPC:when=3 never fired: of 1 such calls it chooses none\n\
         spillproof: inconclusive: fsync:error=EIO never fired: no such call was made in the scope {scope}\n\
         spillproof: inconclusive: write:short=9 never fired: of 1 such calls it chooses none, or none that moves more bytes\n\
         spillproof: the program itself ended with exit status: 5\n",
        scope = scope.display()
    );
    assert_eq!(under.stderr, expected);
}

/// A program that ran, and that no fault reached.
#[track_caller]
fn out_of_reach(under: &Ran, stdout: &str, reason: &str) {
    assert_eq!(
        (under.status, under.stdout.as_str()),
        (Some(97), stdout),
        "{under:#?}"
    );
    under.reports(reason);
}

fn statically() {
    let stage = Stage::new();
    let program = stage.compile(
        "static.c",
        "static",
        &["-static", "-nostdlib", "-fno-stack-protector"],
    );
    let reason = format!(
        "no fault reached the program: {} is statically linked, so no loader takes the interposer; link it dynamically",
        program.display()
    );
    out_of_reach(&ran(stage.inject(&[]).arg(&program)), "static\n", &reason);
    let under = ran(stage.inject(&["--plan", "write:error=EIO"]).arg(&program));
    out_of_reach(&under, "static\n", &reason);
}

/// `nobody`.
const OTHER_USER: u32 = 65534;

fn set_uid_impediment() -> Option<&'static str> {
    // The owner of a process's directory in /proc is its user.
    let own = fs::metadata("/proc/self").map(|found| found.uid());
    if own.ok() != Some(0) {
        return Some("only root can give a program to another user");
    }
    let options = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = work_dir();
    // The last mount that holds the directory.
    let mount = options
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            place
                .starts_with(fields.get(4)?)
                .then_some((fields[4].len(), fields[5].contains("nosuid")))
        })
        .max();
    matches!(mount, Some((_, true))).then_some("the directory for tests is mounted nosuid")
}

fn set_uid() {
    let stage = Stage::new();
    let program = stage.outside().join("echo");
    fs::copy("/bin/echo", &program).unwrap();
    chown(&program, Some(OTHER_USER), None).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let under = ran(stage.inject(&[]).arg(&program).arg("it ran"));
    let reason = format!(
        "no fault reached the program: {} is set-uid or set-gid, and the loader ignores LD_PRELOAD; run a copy without that bit",
        program.display()
    );
    out_of_reach(&under, "it ran\n", &reason);
}

fn dropped() {
    let stage = Stage::new();
    let reason = "no fault reached the program's end: it took LD_PRELOAD out of its environment and became another program, became a \
                  static or set-uid one, or ended by a raw system call";
    let script = "echo x > scope/file; echo it ran";
    let words = ["env", "-u", "LD_PRELOAD", "sh", "-c", script];
    out_of_reach(&ran(stage.inject(&[]).args(words)), "it ran\n", reason);
    let under = ran(stage.inject(&["--plan", "write:error=EIO"]).args(words));
    out_of_reach(&under, "it ran\n", reason);
    // Becoming another program is fine as long as the preload stays.
    let under = ran(stage.inject(&[]).args(["env", "A=1", "sh", "-c", script]));
    assert_eq!(under.status, Some(0), "{under:#?}");
}

/// The interposer ends what cannot join; the command says that this is not the program's own status.
fn lost() {
    let stage = Stage::new();
    let under = ran(stage
        .inject(&[])
        .args(["env", "-u", "SPILLPROOF_FAULTS", "echo", "it ran"]));
    out_of_reach(
        &under,
        "",
        "no fault reached the program's end: it took LD_PRELOAD out of its environment and became another program, became a static or \
         set-uid one, or ended by a raw system call",
    );
    let said = "spillproof: the interposer cannot join the harness by SPILLPROOF_FAULTS: it is not set; start the process through the \
                harness, or without this library in LD_PRELOAD\n";
    assert!(under.stderr.starts_with(said), "{under:#?}");
}
