//! The processes that a subject started, and their end.
//!
//! The harness is a subreaper: whoever loses its parent becomes the harness's child. A stray is known as
//! a subject's by its session or process group, by its parent, by having been seen below the subject
//! before, or by the mark in its environment. One that shed all four before it was ever seen would escape.
//!
//! Only processes known in one of these ways are waited for, each by its own pid: no exit status of another case's subject, or
//! of a child that other code of this process started, is ever taken.

use super::{command::TREE_VARIABLE, finding::LeftProcess};
use crate::settle::settle;
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use procfs::process::{Process, Stat};
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
            for child in children(pid) {
                if let Ok(stat) = Process::new(child.cast_signed()).and_then(|child| child.stat())
                    && self.seen.insert((child, stat.starttime))
                {
                    pending.push(child);
                }
            }
        }
    }

    /// Everyone of the tree but the subject itself; zombies too.
    fn members(&mut self) -> Vec<Stat> {
        let harness = std::process::id().cast_signed();
        let others = subjects().clone();
        let mut stats: BTreeMap<i32, Stat> = procfs::process::all_processes()
            .into_iter()
            .flatten()
            .filter_map(|process| process.ok()?.stat().ok())
            .filter(|stat| stat.pid != harness && !others.contains(&stat.pid.cast_unsigned()))
            .map(|stat| (stat.pid, stat))
            .collect();
        let subject = self.subject.cast_signed();
        let mut members: Vec<Stat> = Vec::new();
        let mut parents = BTreeSet::from([subject]);
        loop {
            let found: Vec<i32> = stats
                .values()
                .filter(|stat| {
                    stat.session == subject
                        || stat.pgrp == subject
                        || parents.contains(&stat.ppid)
                        || self
                            .seen
                            .contains(&(stat.pid.cast_unsigned(), stat.starttime))
                        || (stat.ppid == harness && carries(stat.pid, &self.mark))
                })
                .map(|stat| stat.pid)
                .collect();
            if found.is_empty() {
                return members;
            }
            for pid in found {
                if let Some(stat) = stats.remove(&pid) {
                    self.seen.insert((stat.pid.cast_unsigned(), stat.starttime));
                    parents.insert(pid);
                    members.push(stat);
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
            left.retain(|stat| !dead(stat));
            left.is_empty().then_some(())
        });
        left.iter()
            .map(|stat| LeftProcess {
                pid: stat.pid.cast_unsigned(),
                command: command(stat),
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
            for stat in &members {
                let pid = Pid::from_raw(stat.pid);
                if !dead(stat) {
                    // Not by number alone: the process was read a moment ago and its number is not given out again so soon.
                    let _ = kill(pid, Signal::SIGKILL);
                } else if stat.ppid == harness {
                    let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
                }
            }
            members.is_empty().then_some(())
        });
        ended.is_some()
    }
}

fn dead(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X' | 'x')
}

/// The children of all threads of a process; none where the kernel does not list them.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|line| {
            line.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn carries(pid: i32, mark: &OsStr) -> bool {
    let line = [TREE_VARIABLE.as_bytes(), b"=", mark.as_encoded_bytes()].concat();
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|&byte| byte == 0).any(|entry| entry == line))
}

fn command(stat: &Stat) -> String {
    let words = fs::read(format!("/proc/{}/cmdline", stat.pid)).unwrap_or_default();
    let text = String::from_utf8_lossy(&words).replace('\0', " ");
    let text = text.trim_end();
    if text.is_empty() {
        format!("[{}]", stat.comm)
    } else {
        text.into()
    }
}
