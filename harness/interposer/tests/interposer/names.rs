//! Names that lead elsewhere than they say, and descriptors that are another file's than before: what is remembered of names must not make
//! a call count that is not in the scope, or leave one out that is.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use spillproof_faults::Kind;

use crate::stage::{Stage, text};
use crate::trial;

/// What a role does, and how many calls of `fstat` in the scope it makes.
type Role = (&'static str, u64, fn(&Path));

const ROLES: [Role; 15] = [
    ("a_name_that_leads_to_itself", 3, |scope| {
        (0..3).for_each(|_| look(&open(&scope.join("file"))));
    }),
    ("a_name_outside", 0, |scope| {
        (0..3).for_each(|_| look(&open(&beside(scope, "file"))));
    }),
    ("a_link_out_of_the_scope", 0, |scope| {
        let link = scope.join("link");
        symlink(beside(scope, "file"), &link).unwrap();
        (0..3).for_each(|_| look(&open(&link)));
    }),
    ("a_link_into_the_scope", 3, |scope| {
        let link = beside(scope, "link");
        symlink(scope.join("file"), &link).unwrap();
        (0..3).for_each(|_| look(&open(&link)));
    }),
    ("a_folder_that_is_a_link_out_of_the_scope", 0, |scope| {
        let link = scope.join("folder");
        symlink(beside(scope, ""), &link).unwrap();
        (0..3).for_each(|_| look(&open(&link.join("file"))));
    }),
    ("a_link_in_place_of_a_file", 2, |scope| {
        look_and_change(scope, |name| {
            fs::remove_file(name).unwrap();
            symlink(beside(scope, "file"), name).unwrap();
        });
    }),
    ("a_link_in_place_of_a_file_by_number", 2, |scope| {
        look_and_change(scope, |name| {
            fs::remove_file(name).unwrap();
            let (target, name) = (c_text(&beside(scope, "file")), c_text(name));
            let (number, here) = (libc::SYS_symlinkat, libc::AT_FDCWD);
            // SAFETY: terminated names.
            let made = unsafe { libc::syscall(number, target.as_ptr(), here, name.as_ptr()) };
            assert_eq!(made, 0);
        });
    }),
    ("a_link_renamed_to_a_file", 2, |scope| {
        symlink(beside(scope, "file"), scope.join("link")).unwrap();
        look_and_change(scope, |name| fs::rename(scope.join("link"), name).unwrap());
    }),
    ("a_second_name_for_a_link", 2, |scope| {
        symlink(beside(scope, "file"), scope.join("link")).unwrap();
        look_and_change(scope, |name| {
            fs::remove_file(name).unwrap();
            fs::hard_link(scope.join("link"), name).unwrap();
        });
    }),
    ("a_link_in_place_of_a_folder", 2, |scope| {
        let folder = scope.join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), b"inside").unwrap();
        let name = folder.join("file");
        (0..2).for_each(|_| look(&open(&name)));
        fs::rename(&folder, scope.join("away")).unwrap();
        symlink(beside(scope, ""), &folder).unwrap();
        (0..2).for_each(|_| look(&open(&name)));
    }),
    ("a_file_in_place_of_a_link", 2, |scope| {
        let link = scope.join("link");
        symlink(beside(scope, "file"), &link).unwrap();
        (0..2).for_each(|_| look(&open(&link)));
        fs::rename(scope.join("file"), &link).unwrap();
        (0..2).for_each(|_| look(&open(&link)));
    }),
    (
        "a_file_that_leaves_the_scope_before_it_is_used",
        2,
        |scope| {
            let name = scope.join("file");
            (0..2).for_each(|_| look(&open(&name)));
            let file = open(&name);
            fs::rename(&name, beside(scope, "gone")).unwrap();
            look(&file);
        },
    ),
    ("a_number_that_libc_opens_again_by_itself", 2, |scope| {
        let name = scope.join("file");
        (0..2).for_each(|_| look(&open(&name)));
        let number = open(&name).as_raw_fd();
        let outside = c_text(&beside(scope, "file"));
        // SAFETY: a terminated name; the stream is left open.
        unsafe {
            let stream = libc::fopen(outside.as_ptr(), c"r".as_ptr());
            assert_eq!(libc::fileno(stream), number);
        }
        look_at(number);
    }),
    ("a_copy_over_a_descriptor", 2, |scope| {
        let name = scope.join("file");
        (0..2).for_each(|_| look(&open(&name)));
        let (inside, outside) = (open(&name), open(&beside(scope, "file")));
        // SAFETY: descriptors of this function's own.
        let copied = unsafe { libc::dup2(outside.as_raw_fd(), inside.as_raw_fd()) };
        assert_eq!(copied, inside.as_raw_fd());
        look(&inside);
    }),
    ("a_number_given_anew_after_close_range", 2, |scope| {
        let name = scope.join("file");
        (0..2).for_each(|_| look(&open(&name)));
        let number = open(&name).into_raw_fd();
        // SAFETY: as above.
        let closed = unsafe { libc::close_range(number as u32, number as u32, 0) };
        assert_eq!(closed, 0);
        let outside = open(&beside(scope, "file"));
        assert_eq!(outside.as_raw_fd(), number);
        look(&outside);
    }),
];

pub(crate) fn tests() -> Vec<Trial> {
    let counted = ROLES.iter().map(|(name, calls, _)| {
        trial(format!("names::{name}"), || {
            let stage = staged();
            stage.play(&["names", name, text(&stage.scope())]);
            assert_eq!(stage.calls("fstat"), *calls);
        })
    });
    let others = [
        trial("names::a_link_made_by_a_stranger_is_noticed", stranger),
        trial(
            "names::a_mapping_has_the_name_of_its_file_as_it_is_mapped",
            mapped,
        ),
    ];
    counted.chain(others).collect()
}

pub(crate) fn play(what: &str, scope: &Path) {
    match what {
        "stranger" => play_stranger(scope),
        "mapped" => play_mapped(scope),
        _ => {
            let role = ROLES.iter().find(|(name, ..)| *name == what).unwrap();
            role.2(scope);
        }
    }
}

pub(crate) fn staged() -> Stage {
    filled(Stage::new(""))
}

/// With a file inside and one of the same name outside.
pub(crate) fn filled(stage: Stage) -> Stage {
    fs::write(stage.scope().join("file"), b"inside").unwrap();
    fs::write(stage.outside().join("file"), b"outside").unwrap();
    stage
}

pub(crate) fn beside(scope: &Path, name: &str) -> std::path::PathBuf {
    scope.parent().unwrap().join(name)
}

pub(crate) fn c_text(path: &Path) -> CString {
    CString::new(text(path)).unwrap()
}

/// Without the standard library, which would ask for more.
pub(crate) struct Open(RawFd);

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this value's own.
        unsafe { libc::close(self.0) };
    }
}

impl AsRawFd for Open {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl IntoRawFd for Open {
    fn into_raw_fd(self) -> RawFd {
        std::mem::ManuallyDrop::new(self).0
    }
}

pub(crate) fn open(path: &Path) -> Open {
    open_name(&c_text(path))
}

fn open_name(name: &CStr) -> Open {
    // SAFETY: a terminated name.
    let number = unsafe { libc::open(name.as_ptr(), libc::O_RDWR) };
    assert!(number >= 0, "{name:?}");
    Open(number)
}

fn look(file: &impl AsRawFd) {
    look_at(file.as_raw_fd());
}

pub(crate) fn look_at(number: RawFd) {
    // SAFETY: room for the answer.
    let result = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::fstat(number, &raw mut stat)
    };
    assert_eq!(result, 0);
}

/// Looks at a file twice before its name leads out of the scope, and twice after.
fn look_and_change(scope: &Path, change: impl Fn(&Path)) {
    let name = scope.join("file");
    (0..2).for_each(|_| look(&open(&name)));
    change(&name);
    (0..2).for_each(|_| look(&open(&name)));
}

fn stranger() {
    let stage = staged();
    stage.play(&["names", "stranger", text(&stage.scope())]);
    // Of the calls just behind the change some may have counted, of those after the moment none.
    assert_eq!((stage.calls("lseek"), stage.calls("fdatasync")), (1, 0));
}

fn play_stranger(scope: &Path) {
    let name = scope.join("file");
    let seek = |file: &Open| {
        // SAFETY: a number, and no memory.
        unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_SET) }
    };
    look(&open(&name));
    assert_eq!(seek(&open(&name)), 0);
    let (target, scope) = (beside(scope, "file"), text(scope));
    let words = ["-sf", text(&target), &format!("{scope}/file")];
    let mut stranger = Command::new("ln");
    let status = stranger.args(words).env_remove("LD_PRELOAD").status();
    assert!(status.unwrap().success());
    // Uses of the name do not make the moment longer.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(200) {
        look(&open(&name));
    }
    // SAFETY: a number, and no memory.
    assert_eq!(unsafe { libc::fdatasync(open(&name).as_raw_fd()) }, 0);
}

fn mapped() {
    let stage = staged();
    let said = stage.play(&["names", "mapped", text(&stage.scope())]);
    assert_eq!(said, "done");
    let rows = stage.ledger();
    let mappings = rows.iter().filter(|row| row.kind == Kind::FileMapping);
    let names: Vec<&str> = mappings.map(|row| row.path.as_str()).collect();
    assert_eq!(names, ["file", "file", "other", "other", "last", "last"]);
}

fn play_mapped(scope: &Path) {
    let (name, other) = (scope.join("file"), scope.join("other"));
    let map = |file: &Open| {
        // SAFETY: a fresh mapping, which nobody uses.
        let address = unsafe {
            let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                read,
                shared,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(address, libc::MAP_FAILED);
    };
    let file = open(&name);
    map(&file);
    map(&file);
    fs::rename(&name, &other).unwrap();
    // Another file by the name that opened the one that is mapped.
    fs::write(&name, b"another").unwrap();
    look(&open(&name));
    map(&file);
    map(&file);
    fs::rename(&other, scope.join("last")).unwrap();
    File::open(scope.join("last")).unwrap();
    map(&file);
    fs::remove_file(scope.join("last")).unwrap();
    map(&file);
    print!("done");
}
