//! What happens to a call, by the rules in force.
//!
//! Each rule counts the calls that it is about: those of its sites, with its path (anywhere) or else inside the scope, and
//! from its caller. A rule whose turn has come fires, and leaves a receipt before anything happens. Delays and signals add
//! up; of errors and short counts, the first rule's happens, and a later one does not fire. A short count that is no
//! shorter than the call does not fire either.

use std::time::Duration;

use rustix::process::getpid;
use rustix::thread::gettid;

use super::attached::{Attached, Rules};
use super::layout::{MAX_RECEIPTS, PATH_BYTES, RECEIPTS, header, receipt, state};
use super::rules;
use super::trace::end_of;
use crate::error::FaultError;
use crate::glob::{matches, matches_path};
use crate::plan::Action;
use crate::signal::Signals;
use crate::site::{After, SiteId};

/// A call about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The site.
    pub site: SiteId,
    /// Whether it touches the scope, or has no file.
    pub is_in_scope: bool,
    /// Bytes that it is to move.
    pub size: u64,
}

/// What is costly to know of a call, asked for only when a rule needs it.
pub trait Facts {
    /// The absolute paths of the call's files, one or two.
    fn paths(&mut self) -> [Option<&[u8]>; 2];
    /// The file name of the library that called, such as `libcufile.so.0`.
    fn caller(&mut self) -> &[u8];
    /// What the call ends, by the key that the ledger has it under; of one that opens, its flags; else 0.
    fn key(&mut self) -> u64 {
        0
    }
}

/// What a call comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    /// What the real call returns.
    #[default]
    Proceed,
    /// An error, and no real call.
    Fail(FaultError),
    /// An error after the real call, unless that failed itself.
    FailAfter(FaultError),
    /// What the real call returns for so many bytes.
    Short {
        /// Bytes to move, fewer than the call asks for.
        bytes: u64,
    },
}

/// What happens to a call: delay, signals, outcome, delay, signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decision {
    /// To wait before the call.
    pub delay_before: Duration,
    /// To raise before the call, after the delay.
    pub signals_before: Signals,
    /// What the call comes to.
    pub outcome: Outcome,
    /// To wait after the call.
    pub delay_after: Duration,
    /// To raise after the call, after the delay.
    pub signals_after: Signals,
}

impl Attached {
    /// Decides about a call, counts it for its rules and writes the receipts.
    pub fn decide(&self, call: Call, rules: Rules, facts: &mut dyn Facts) -> Decision {
        let mut decision = Decision::default();
        let mut left = rules.bits;
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            if self.concerns(index, call, rules, facts) {
                let nth = rules::count(&self.words, index);
                if rules::when(&self.words, index).contains(nth) {
                    self.apply(index, nth, call, facts, &mut decision);
                }
            }
        }
        decision
    }

    fn concerns(&self, index: usize, call: Call, all: Rules, facts: &mut dyn Facts) -> bool {
        if all.has_path(index) {
            let pattern = rules::path(&self.words, index);
            let Some(pattern) = pattern.as_bytes() else {
                return false;
            };
            let paths = facts.paths();
            let mut paths = paths.iter().flatten();
            if !paths.any(|path| matches_path(pattern, path)) {
                return false;
            }
        } else if !call.is_in_scope {
            return false;
        }
        if !all.has_caller(index) {
            return true;
        }
        let pattern = rules::caller(&self.words, index);
        pattern
            .as_bytes()
            .is_some_and(|pattern| matches(pattern, facts.caller()))
    }

    fn apply(
        &self,
        index: usize,
        nth: u64,
        call: Call,
        facts: &mut dyn Facts,
        decision: &mut Decision,
    ) {
        let is_after = rules::is_after(&self.words, index);
        let Some(action) = rules::action(&self.words, index) else {
            return;
        };
        let is_decided = decision.outcome != Outcome::Proceed;
        match action {
            Action::Error(_) | Action::Short { .. } if is_decided => return,
            Action::Short { bytes } if bytes >= call.size => return,
            Action::Error(error) => {
                let is_after = is_after || call.site.site().after == After::Always;
                decision.outcome = if is_after {
                    Outcome::FailAfter(error)
                } else {
                    Outcome::Fail(error)
                };
            }
            Action::Short { bytes } => decision.outcome = Outcome::Short { bytes },
            Action::Delay(delay) if is_after => {
                decision.delay_after = decision.delay_after.saturating_add(delay);
            }
            Action::Delay(delay) => {
                decision.delay_before = decision.delay_before.saturating_add(delay);
            }
            Action::Signal(signal) if is_after => decision.signals_after.insert(signal),
            Action::Signal(signal) => decision.signals_before.insert(signal),
        }
        self.write_receipt(index, nth, call, facts);
    }

    fn write_receipt(&self, index: usize, nth: u64, call: Call, facts: &mut dyn Facts) {
        let words = &self.words;
        rules::fire(words, index);
        let Some(row) = words.take_row(header::NEXT_RECEIPT, MAX_RECEIPTS) else {
            return;
        };
        let start = RECEIPTS + row * receipt::WORDS;
        words.set(start + receipt::STATE, state::CLAIMED);
        words.set(start + receipt::RULE, index as u64);
        words.set(start + receipt::NTH, nth);
        words.set(start + receipt::SITE, u64::from(call.site.0));
        words.set(
            start + receipt::PID,
            u64::from(getpid().as_raw_pid() as u32),
        );
        words.set(
            start + receipt::TID,
            u64::from(gettid().as_raw_pid() as u32),
        );
        words.set(start + receipt::SIZE, call.size);
        words.set(start + receipt::KEY, facts.key());
        let path = facts.paths().into_iter().flatten().next();
        let path = path.map_or(&[][..], |path| {
            self.scope(path).map_or(path, |inside| inside.relative)
        });
        let path_words = PATH_BYTES / 8;
        words.set_bytes(start + receipt::PATH, path_words, end_of(path));
        words.set(start + receipt::SERIAL, words.next_serial());
        words.set(start + receipt::GENERATION, words.get(header::GENERATION));
        words.set(start + receipt::STATE, state::WHOLE);
    }
}
