//! Which processes the interposer is in, from start to end: nobody shall believe that calls were counted where they were not.
//!
//! A process joins when the loader has bound the interposer, and its end is written down where it passes the interposer: the end of
//! `main`, `exit`, `_exit`. A process that became a program without the interposer has joined, and no end of it is seen. A process that
//! was started from one that joined is expected; where it never joins, it ran without the interposer.

use std::collections::BTreeMap;

use rustix::process::getpid;

use super::attached::Attached;
use super::harness::Shared;
use super::layout::{ATTACHMENTS, MAX_ATTACHMENTS, attachment, header, state};
use super::process::start_ticks;
use super::words::Words;

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It joined, and ended by itself with the interposer in it.
    Whole,
    /// It joined, and no end of it was seen: it lives, was killed, or became a program without the interposer.
    Open,
    /// It was started by a process that joined, and did not join.
    Missing,
}

/// A process of the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Where the interposer was.
    pub presence: Presence,
}

impl Attached {
    /// Writes down that the calling process is attached: once after [`Attached::open`], and once in each forked child.
    pub fn attach(&self) {
        write(&self.words, own_pid(), start_ticks(), 0);
    }

    /// A process that was just started, and that is to attach itself. Nothing where it is known already.
    pub fn expect(&self, pid: u32) {
        if last(&self.words, pid).is_none() {
            write(&self.words, pid, 0, attachment::IS_EXPECTED);
        }
    }

    /// The calling process is about to become another program. Only one that shares its parent's memory (`vfork`) is not known here.
    pub fn expect_self(&self) {
        self.expect(own_pid());
    }

    /// The calling process ends.
    pub fn leave(&self) {
        if let Some(start) = last(&self.words, own_pid()) {
            let how = self.words.get(start + attachment::HOW);
            self.words
                .set(start + attachment::HOW, how | attachment::HAS_ENDED);
        }
    }
}

impl Shared {
    /// The processes of the subject, in the order in which they were first heard of.
    pub fn processes(&self) -> Vec<Process> {
        let mut order = Vec::new();
        let mut known = BTreeMap::new();
        for start in rows(&self.words) {
            let pid = self.words.get(start + attachment::PID) as u32;
            let how = self.words.get(start + attachment::HOW);
            let is_expected = how & attachment::IS_EXPECTED != 0;
            let presence = match how & attachment::HAS_ENDED != 0 {
                true => Presence::Whole,
                false if is_expected => Presence::Missing,
                false => Presence::Open,
            };
            match known.get(&pid) {
                None => order.push(pid),
                // Who started it may say so after it has joined.
                Some(_) if is_expected => continue,
                Some(_) => {}
            }
            known.insert(pid, presence);
        }
        let process = |pid: u32| {
            Some(Process {
                pid,
                presence: *known.get(&pid)?,
            })
        };
        order.into_iter().filter_map(process).collect()
    }
}

fn own_pid() -> u32 {
    getpid().as_raw_pid() as u32
}

fn write(words: &Words, pid: u32, start_ticks: u64, how: u64) {
    let Some(row) = words.take_row(header::NEXT_ATTACHMENT, MAX_ATTACHMENTS) else {
        return;
    };
    let start = ATTACHMENTS + row * attachment::WORDS;
    words.set(start + attachment::PID, u64::from(pid));
    words.set(start + attachment::START_TICKS, start_ticks);
    words.set(start + attachment::HOW, how);
    words.set(start + attachment::SERIAL, words.next_serial());
    words.set(start + attachment::STATE, state::WHOLE);
}

/// Where the rows that are complete start.
pub(super) fn rows(words: &Words) -> impl DoubleEndedIterator<Item = usize> {
    let taken = words.get(header::NEXT_ATTACHMENT);
    let rows = taken.min(MAX_ATTACHMENTS as u64) as usize;
    let starts = (0..rows).map(|row| ATTACHMENTS + row * attachment::WORDS);
    starts.filter(|start| words.get(start + attachment::STATE) == state::WHOLE)
}

/// The newest row of a process.
fn last(words: &Words, pid: u32) -> Option<usize> {
    rows(words).rfind(|start| words.get(start + attachment::PID) == u64::from(pid))
}

#[cfg(test)]
mod tests {
    //! Processes that end, become others, or never join.
    use super::*;
    use crate::plan::Plan;
    use crate::shared::Options;

    fn both() -> (Shared, Attached) {
        let (shared, file) = Shared::create(&Plan::default(), &Options::default()).unwrap();
        let attached = Attached::map(&file).unwrap();
        (shared, attached)
    }

    #[test]
    fn a_process_is_whole_once_its_end_is_seen() {
        let (shared, attached) = both();
        let presence = || shared.processes()[0].presence;
        attached.attach();
        assert_eq!(presence(), Presence::Open);
        attached.leave();
        assert_eq!(presence(), Presence::Whole);
        // It became another program, in which its end is not seen.
        attached.attach();
        assert_eq!(presence(), Presence::Open);
        assert_eq!(shared.processes().len(), 1);
    }

    #[test]
    fn an_expected_process_is_missing_until_it_joins() {
        let (shared, attached) = both();
        attached.expect(1);
        attached.expect(1);
        attached.expect_self();
        let told: Vec<_> = shared
            .processes()
            .iter()
            .map(|one| (one.pid, one.presence))
            .collect();
        let own = own_pid();
        assert_eq!(told, [(1, Presence::Missing), (own, Presence::Missing)]);
        assert_eq!(shared.attachments(), []);
        attached.attach();
        // Told late by who started it.
        write(&attached.words, own, 0, attachment::IS_EXPECTED);
        let told: Vec<_> = shared
            .processes()
            .iter()
            .map(|one| (one.pid, one.presence))
            .collect();
        assert_eq!(told, [(1, Presence::Missing), (own, Presence::Open)]);
        assert_eq!(shared.attachments().len(), 1);
    }

    #[test]
    fn a_child_in_its_parents_memory_that_becomes_nothing_is_whole() {
        let (shared, attached) = both();
        attached.expect_self();
        attached.leave();
        assert_eq!(shared.processes()[0].presence, Presence::Whole);
    }
}
