//! The processes that a subject started, and their end.
//!
//! The harness is a subreaper: whoever loses its parent becomes the harness's child. A stray is known as
//! a subject's by its session or process group, by its parent, by having been seen below the subject
//! before, or by the mark in its environment. One that shed all four before it was ever seen would escape.
//!
//! Only processes known in one of these ways are waited for, each by its own pid: no exit status of another case's subject, or
//! of a child that other code of this process started, is ever taken.

use super::{
    command::TREE_VARIABLE,
    finding::LeftProcess,
    kin::{self, Kin},
};
use crate::settle::settle;
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs, io,
    process::Child,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Subjects that are not reaped yet: their exit statuses belong to those who started them.
static SUBJECTS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn subjects() -> MutexGuard<'static, BTreeSet<u32>> {
    SUBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a process; nobody looks for strays between its fork and its being known.
pub(super) fn register(spawn: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
    let mut subjects = subjects();
    let child = spawn()?;
    subjects.insert(child.id());
    Ok(child)
}

/// Forgets a subject that was reaped.
pub(super) fn unregister(pid: u32) {
    subjects().remove(&pid);
}

/// The tree below one subject.
#[derive(Debug)]
pub(super) struct Tree {
    subject: u32,
    mark: OsString,
    /// Pid and start time, in clock ticks since boot: together they name a process for good.
    seen: BTreeSet<(u32, u64)>,
    /// The subject had ended, and nobody was there to start anybody.
    is_empty_for_good: bool,
}

impl Tree {
    pub(super) fn new(subject: u32, mark: OsString) -> Self {
        Self {
            subject,
            mark,
            seen: BTreeSet::new(),
            is_empty_for_good: false,
        }
    }

    /// Remembers who is below the subject now, for when a later daemon has cut all ties.
    pub(super) fn look(&mut self) {
        let mut pending = vec![self.subject];
        while let Some(pid) = pending.pop() {
            for child in kin::children(pid) {
                if let Some(found) = Kin::of(child.cast_signed())
                    && self.seen.insert((child, found.start_ticks))
                {
                    pending.push(child);
                }
            }
        }
    }

    /// Everyone of the tree but the subject itself; zombies too.
    fn members(&mut self) -> Vec<Kin> {
        let harness = std::process::id().cast_signed();
        let others = subjects().clone();
        let mut strangers: BTreeMap<i32, Kin> = kin::all()
            .into_iter()
            .filter(|one| one.pid != harness && !others.contains(&one.pid.cast_unsigned()))
            .map(|one| (one.pid, one))
            .collect();
        let subject = self.subject.cast_signed();
        let mut members: Vec<Kin> = Vec::new();
        let mut parents = BTreeSet::from([subject]);
        loop {
            let found: Vec<i32> = strangers
                .values()
                .filter(|one| {
                    one.session == subject
                        || one.group == subject
                        || parents.contains(&one.parent)
                        || self
                            .seen
                            .contains(&(one.pid.cast_unsigned(), one.start_ticks))
                        || (one.parent == harness && carries(one.pid, &self.mark))
                })
                .map(|one| one.pid)
                .collect();
            if found.is_empty() {
                return members;
            }
            for pid in found {
                if let Some(one) = strangers.remove(&pid) {
                    self.seen.insert((one.pid.cast_unsigned(), one.start_ticks));
                    parents.insert(pid);
                    members.push(one);
                }
            }
        }
    }

    /// Who is still running of a subject that has ended, after `grace` for those that are about to end.
    pub(super) fn left(&mut self, grace: Duration) -> Vec<LeftProcess> {
        let mut left = Vec::new();
        settle(grace, || {
            left = self.members();
            self.is_empty_for_good = left.is_empty();
            left.retain(|one| !one.is_dead());
            left.is_empty().then_some(())
        });
        left.iter()
            .map(|one| LeftProcess {
                pid: one.pid.cast_unsigned(),
                command: command(one),
            })
            .collect()
    }

    /// Kills and reaps everyone but the subject itself; true when nobody is left.
    pub(super) fn end(&mut self, deadline: Duration) -> bool {
        if self.is_empty_for_good {
            return true;
        }
        let harness = std::process::id().cast_signed();
        let ended = settle(deadline, || {
            let members = self.members();
            for one in &members {
                let pid = Pid::from_raw(one.pid);
                if !one.is_dead() {
                    // Not by number alone: the process was read a moment ago and its number is not given out again so soon.
                    let _ = kill(pid, Signal::SIGKILL);
                } else if one.parent == harness {
                    let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
                }
            }
            members.is_empty().then_some(())
        });
        ended.is_some()
    }
}

fn carries(pid: i32, mark: &OsStr) -> bool {
    let line = [TREE_VARIABLE.as_bytes(), b"=", mark.as_encoded_bytes()].concat();
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|&byte| byte == 0).any(|entry| entry == line))
}

fn command(one: &Kin) -> String {
    let words = fs::read(format!("/proc/{}/cmdline", one.pid)).unwrap_or_default();
    let text = String::from_utf8_lossy(&words).replace('\0', " ");
    let text = text.trim_end();
    if text.is_empty() {
        format!("[{}]", one.name)
    } else {
        text.into()
    }
}
