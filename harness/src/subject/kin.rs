//! Who is whose child, group and session: the few fields of `/proc/PID/stat` that say it, read for every process of the machine at the
//! end of each subject. A general parser of that file takes several times as long, and thousands of subjects end in one sweep.

use nix::{
    dir::Dir,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd,
};
use std::{fs::File, io::Read, os::fd::AsFd};

/// More than the kernel writes there: 52 numbers and a name of at most 64 bytes.
const STAT_BYTES: usize = 2048;

/// A process among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kin {
    pub(super) pid: i32,
    pub(super) name: String,
    pub(super) state: char,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// Clock ticks since boot; with the pid it names a process for good.
    pub(super) start_ticks: u64,
}

impl Kin {
    /// The process of that number; none when it is gone.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let mut text = [0; STAT_BYTES];
        let length = File::open(format!("/proc/{pid}/stat"))
            .and_then(|mut stat| stat.read(&mut text))
            .ok()?;
        Self::parse(&text[..length])
    }

    /// The form is that of proc_pid_stat(5). A name may hold brackets and blanks, even a newline.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        let (pid, rest) = text.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?.chars().next()?;
        let mut number = || fields.next()?.parse().ok();
        let [parent, group, session] = [number()?, number()?, number()?];
        // The 22nd field; the session is the sixth.
        let start_ticks = fields.nth(15)?.parse().ok()?;
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            state,
            parent,
            group,
            session,
            start_ticks,
        })
    }

    /// Whether it has ended, and only its status is left.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Every process that can be seen.
pub(super) fn all() -> Vec<Kin> {
    numbers("/proc").into_iter().filter_map(Kin::of).collect()
}

/// The children of all threads of a process; none where the kernel does not list them.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let directory = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let tasks = format!("/proc/{pid}/task");
    let Ok(tasks) = nix::fcntl::open(tasks.as_str(), directory, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(threads) = tasks.try_clone() else {
        return Vec::new();
    };
    let mut children = Vec::new();
    let mut text = Vec::new();
    for thread in numbers_in(Dir::from_fd(threads)) {
        text.clear();
        if read_at(&tasks, &format!("{thread}/children"), &mut text).is_ok() {
            let text = String::from_utf8_lossy(&text);
            children.extend(
                text.split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    children
}

fn read_at(directory: impl AsFd, name: &str, text: &mut Vec<u8>) -> nix::Result<()> {
    let file = openat(
        directory,
        name,
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let mut part = [0; 512];
    loop {
        match unistd::read(&file, &mut part)? {
            0 => return Ok(()),
            length => text.extend_from_slice(&part[..length]),
        }
    }
}

fn numbers(directory: &str) -> Vec<i32> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    numbers_in(Dir::open(directory, flags, Mode::empty()))
}

/// The entries that are numbers: processes, threads.
fn numbers_in(directory: nix::Result<Dir>) -> Vec<i32> {
    let Ok(mut directory) = directory else {
        return Vec::new();
    };
    let entries = directory.iter().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    //! What is read is what a general parser reads, whatever a process is called.
    use super::*;
    use procfs::process::Process;
    use std::process::{Command, Stdio};

    #[test]
    fn the_fields_are_those_of_a_general_parser() {
        let expected = Process::myself().unwrap().stat().unwrap();
        let found = Kin::of(expected.pid).unwrap();
        assert_eq!(
            (found.parent, found.group, found.session),
            (expected.ppid, expected.pgrp, expected.session)
        );
        assert_eq!(found.start_ticks, expected.starttime);
        assert_eq!(found.name, expected.comm);
        assert!(all().contains(&Kin {
            state: all().iter().find(|one| one.pid == found.pid).unwrap().state,
            ..found
        }));
    }

    #[test]
    fn a_name_may_hold_brackets_and_blanks() {
        let zeros = "0 ".repeat(15);
        let text = format!("7 (a) R (b\n) Z 1 2 3 {zeros}99 0 0\n");
        let found = Kin::parse(text.as_bytes()).unwrap();
        assert_eq!((found.name.as_str(), found.state), ("a) R (b\n", 'Z'));
        assert_eq!((found.parent, found.group, found.session), (1, 2, 3));
        assert_eq!(found.start_ticks, 99);
        assert!(found.is_dead());
        assert_eq!(Kin::parse(b"7 (a) R 1 2"), None);
    }

    #[test]
    fn children_of_any_thread_are_found_until_they_are_reaped() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(std::process::id()).contains(&child.id()));
        assert_eq!(Kin::of(child.id().cast_signed()), None);
    }
}
