//! What others do and believe while a call is under way: names that are about to mean another thing, and descriptors that become another
//! file's while the kernel is asked about them.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use libtest_mimic::Trial;
use spillproof_faults::Attached;

use crate::names::{beside, c_text, filled, look_at, open, staged};
use crate::stage::{Stage, text};
use crate::trial;

/// What a role does, and how often it says that names mean another thing.
type Role = (&'static str, u64, fn(&Path) -> c_int);

/// Behind a call only where it succeeded; before it always.
const ROLES: [Role; 7] = [
    ("rename", 2, |scope| rename(&scope.join("file"), scope)),
    ("rename_that_fails", 1, |scope| {
        rename(&scope.join("none"), scope)
    }),
    ("link", 2, |scope| link(&scope.join("file"), scope)),
    ("link_that_fails", 1, |scope| {
        link(&scope.join("none"), scope)
    }),
    ("symlink", 2, |scope| symlink(&scope.join("new"))),
    ("symlink_that_fails", 1, |scope| symlink(scope)),
    ("symlink_by_number", 2, |scope| {
        let (target, name) = (c_text(&beside(scope, "file")), c_text(&scope.join("new")));
        let (number, here) = (libc::SYS_symlinkat, libc::AT_FDCWD);
        // SAFETY: terminated names.
        unsafe { libc::syscall(number, target.as_ptr(), here, name.as_ptr()) as c_int }
    }),
];

pub(crate) fn tests() -> Vec<Trial> {
    let roads = [false, true];
    let announced = roads.into_iter().flat_map(|is_recorded| {
        let road = if is_recorded { "recorded" } else { "quiet" };
        ROLES.iter().map(move |(name, times, _)| {
            trial(format!("meanwhile::said_{road}::{name}"), move || {
                let stage = filled(match is_recorded {
                    true => Stage::recording(""),
                    false => Stage::new(""),
                });
                let path = CString::new(stage.path()).unwrap();
                let attached = Attached::open(&path).unwrap();
                let before = attached.names_given();
                stage.play(&["meanwhile", name, text(&stage.scope())]);
                assert_eq!(attached.names_given() - before, *times);
            })
        })
    });
    let changed = trial(
        "meanwhile::a_descriptor_that_changes_while_it_is_asked_about_is_not_remembered",
        || {
            let stage = staged();
            stage.play(&["meanwhile", "changed", text(&stage.scope())]);
            // The one whose question was answered before the change.
            assert_eq!(stage.calls("fstat"), 1);
        },
    );
    announced.chain([changed]).collect()
}

pub(crate) fn play(what: &str, scope: &Path) {
    if what == "changed" {
        return play_changed(scope);
    }
    let (name, _, make) = ROLES.iter().find(|(name, ..)| *name == what).unwrap();
    let expected = if name.ends_with("fails") { -1 } else { 0 };
    assert_eq!(make(scope), expected);
}

fn rename(from: &Path, scope: &Path) -> c_int {
    let (from, to) = (c_text(from), c_text(&scope.join("new")));
    // SAFETY: terminated names.
    unsafe { libc::rename(from.as_ptr(), to.as_ptr()) }
}

fn link(from: &Path, scope: &Path) -> c_int {
    let (from, to) = (c_text(from), c_text(&scope.join("new")));
    // SAFETY: terminated names.
    unsafe { libc::link(from.as_ptr(), to.as_ptr()) }
}

fn symlink(name: &Path) -> c_int {
    let name = c_text(name);
    // SAFETY: terminated names.
    unsafe { libc::symlink(c"file".as_ptr(), name.as_ptr()) }
}

/// A thread asks the kernel about a descriptor inside the scope. When it has the answer, and knows nothing of it yet, the number becomes
/// that of a file outside.
fn play_changed(scope: &Path) {
    let number = open(&scope.join("file")).into_raw_fd();
    let (sender, receiver) = mpsc::channel();
    let asker = thread::spawn(move || {
        sender.send(hold_questions()).unwrap();
        look_at(number);
    });
    let held: OwnedFd = receiver.recv().unwrap();
    // SAFETY: zeros are lawful, and asked for; room for the question.
    let question: libc::seccomp_notif = unsafe {
        let mut question = zeroed();
        let request = libc::SECCOMP_IOCTL_NOTIF_RECV;
        assert_eq!(libc::ioctl(held.as_raw_fd(), request, &raw mut question), 0);
        question
    };
    let link = CString::new(format!("/proc/self/fd/{number}")).unwrap();
    let [_, asked, room, room_bytes, ..] = question.data.args;
    // SAFETY: the asking thread's names and memory, which waits for the answer.
    let length = unsafe {
        assert_eq!(std::ffi::CStr::from_ptr(asked as *const _), &*link);
        libc::readlink(link.as_ptr(), room as *mut _, room_bytes as usize)
    };
    assert!(length > 0);
    // SAFETY: a descriptor of this function's own.
    assert_eq!(unsafe { libc::close(number) }, 0);
    assert_eq!(open(&beside(scope, "file")).into_raw_fd(), number);
    let mut answer = libc::seccomp_notif_resp {
        id: question.id,
        val: length as i64,
        error: 0,
        flags: 0,
    };
    let request = libc::SECCOMP_IOCTL_NOTIF_SEND;
    // SAFETY: an answer.
    let said = unsafe { libc::ioctl(held.as_raw_fd(), request, &raw mut answer) };
    assert_eq!(said, 0);
    asker.join().unwrap();
    look_at(number);
}

/// From now on, what the calling thread asks about links is answered by whoever has the descriptor.
fn hold_questions() -> OwnedFd {
    const READ_LINK: u32 = libc::SYS_readlinkat as u32;
    let step = |code: u32, jf, k| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let answer = libc::BPF_RET | libc::BPF_K;
    // The number of the call is the first word of what a filter looks at.
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, READ_LINK),
        step(answer, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(answer, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the filter outlives the call, which returns a descriptor of its own.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let (mode, flags) = (
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        );
        let held = libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) as RawFd;
        assert!(held >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(held)
    }
}
