//! A process that cannot join the harness ends at once, and says why.

use std::fs;
use std::io::Read;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::process::Command;

use libtest_mimic::Trial;
use spillproof_faults::{FAULTS_VARIABLE, NOT_ATTACHED_STATUS};

use crate::stage::{Stage, describe, library, said};
use crate::trial;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "start::without_the_variable_a_process_ends_at_start",
            || {
                refuses(
                    |command| command.env_remove(FAULTS_VARIABLE),
                    "it is not set",
                );
            },
        ),
        trial(
            "start::with_a_path_to_nothing_a_process_ends_at_start",
            || {
                refuses(
                    |command| command.env(FAULTS_VARIABLE, "/nowhere/to/be/found"),
                    "/nowhere/to/be/found: cannot open it",
                );
            },
        ),
        trial("start::with_another_file_a_process_ends_at_start", || {
            refuses(
                |command| command.env(FAULTS_VARIABLE, "/proc/self/exe"),
                "/proc/self/exe: cannot open it",
            );
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("file");
            std::fs::write(&file, [0; 4096]).unwrap();
            refuses(
                |command| command.env(FAULTS_VARIABLE, &file),
                "file: it is no memory of a harness for faults; pass the path that the harness made\n",
            );
            refuses(
                |command| command.env(FAULTS_VARIABLE, directory.path()),
                ": cannot open it: Is a directory (os error 21)\n",
            );
            refuses(
                |command| command.env(FAULTS_VARIABLE, too_small()),
                ": it is no memory of a harness for faults; pass the path that the harness made\n",
            );
        }),
        trial("start::with_a_second_copy_a_process_ends_at_start", twice),
        trial(
            "start::a_process_that_joins_is_attached_once_and_keeps_no_descriptor",
            joins,
        ),
    ]
}

/// Memory that nobody can shrink, and that was never as large as its beginning says.
fn too_small() -> String {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let stage = Stage::new("");
    let mut bytes = vec![0; 4096];
    fs::File::open(stage.path())
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    let memory = memfd_create(c"small", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, 4096).unwrap();
    let memory = fs::File::from(memory);
    memory.write_all_at(&bytes, 0).unwrap();
    fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
    // It stays open as long as this process runs.
    format!("/proc/{}/fd/{}", std::process::id(), memory.into_raw_fd())
}

fn refuses(change: impl FnOnce(&mut Command) -> &mut Command, reason: &str) {
    let stage = Stage::new("");
    let mut command = stage.command("/bin/echo");
    command.arg("it ran");
    change(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let what = describe(&command, &output);
    assert_eq!(output.status.code(), Some(NOT_ATTACHED_STATUS), "{what}");
    assert!(
        said.starts_with("spillproof: ") && said.contains(reason),
        "{what}"
    );
    assert_eq!(said.lines().count(), 1, "{what}");
    assert!(output.stdout.is_empty(), "{what}");
    assert_eq!(stage.shared.attachments(), []);
}

fn twice() {
    let stage = Stage::new("");
    let first = library("libspillproof_interposer.so");
    let second = stage.outside().join("another.so");
    fs::copy(&first, &second).unwrap();
    let preload = |text: String| {
        let mut command = stage.command("/bin/true");
        let output = command.env("LD_PRELOAD", text).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, said) = preload(format!("{}:{}", first.display(), second.display()));
    assert_eq!(
        said,
        "spillproof: the interposer cannot join the harness by SPILLPROOF_FAULTS: another copy of the interposer is in this process, and \
         each call would count twice; leave one of them in LD_PRELOAD\n"
    );
    assert_eq!(status, Some(NOT_ATTACHED_STATUS));
    // The same file twice is loaded once.
    let (status, said) = preload(format!("{0}:{0}", first.display()));
    assert_eq!((status, said.as_str()), (Some(0), ""));
}

fn joins() {
    let stage = Stage::new("");
    // Descriptors that this process was given go to both.
    let plain = said(Command::new("/bin/ls").arg("/proc/self/fd"));
    let joined = said(stage.command("/bin/ls").arg("/proc/self/fd"));
    assert_eq!(joined, plain);
    assert_eq!(stage.shared.attachments().len(), 1);
}
