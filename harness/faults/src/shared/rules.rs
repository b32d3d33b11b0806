//! Rules as they lie in the shared memory.

use std::time::Duration;

use super::layout::{RULES, header, rule, site};
use super::words::Words;
use crate::error::FaultError;
use crate::plan::{Action, MAX_CALLER_GLOB_BYTES, MAX_PATH_GLOB_BYTES, Plan, Rule, When};
use crate::signal::Signal;
use crate::site::SiteId;

const ERROR: u64 = 1;
const SHORT: u64 = 2;
const DELAY: u64 = 3;
const SIGNAL: u64 = 4;

/// A pattern, copied out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern<const BYTES: usize> {
    bytes: [u8; BYTES],
    length: usize,
}

impl<const BYTES: usize> Pattern<BYTES> {
    pub(super) fn as_bytes(&self) -> Option<&[u8]> {
        (self.length > 0).then(|| &self.bytes[..self.length])
    }
}

/// Takes all rules out of force, puts the plan's in their place and into force, with their counts at 0.
pub(super) fn store(words: &Words, plan: &Plan) {
    arm(words, 0);
    words.add(header::GENERATION, 1);
    for of in SiteId::all() {
        words.set(site::rules(of), 0);
    }
    let (mut by_path, mut by_caller) = (0u64, 0u64);
    for (index, rule) in plan.rules.iter().enumerate() {
        store_rule(words, index, rule);
        for of in &rule.sites {
            let place = site::rules(*of);
            words.set(place, words.get(place) | 1 << index);
        }
        by_path |= u64::from(rule.path.is_some()) << index;
        by_caller |= u64::from(rule.caller.is_some()) << index;
    }
    words.set(header::BY_PATH, by_path);
    words.set(header::BY_CALLER, by_caller);
    arm(words, all(plan.rules.len()));
}

/// The bits of so many rules.
pub(super) fn all(rules: usize) -> u64 {
    (0..rules).fold(0, |bits, index| bits | 1 << index)
}

fn place(index: usize) -> usize {
    RULES + index * rule::WORDS
}

fn store_rule(words: &Words, index: usize, stored: &Rule) {
    let start = place(index);
    let (action, domain, value) = match stored.action {
        Action::Error(error) => (ERROR, error.domain as u64, error.code as u64),
        Action::Short { bytes } => (SHORT, 0, bytes),
        Action::Delay(delay) => (DELAY, 0, delay.as_nanos() as u64),
        Action::Signal(signal) => (SIGNAL, 0, signal.number() as u64),
    };
    words.set(start + rule::ACTION, action);
    words.set(start + rule::DOMAIN, domain);
    words.set(start + rule::VALUE, value);
    words.set(start + rule::AFTER, u64::from(stored.after));
    words.set(start + rule::FIRST, stored.when.first);
    words.set(start + rule::LAST, stored.when.last.unwrap_or(u64::MAX));
    words.set(start + rule::STEP, stored.when.step);
    words.set(start + rule::COUNTED, 0);
    words.set(start + rule::FIRED, 0);
    let text = |glob: &Option<crate::plan::Glob>| {
        glob.as_ref().map_or("", |glob| glob.as_str()).to_owned()
    };
    let path = text(&stored.path);
    words.set(start + rule::PATH_BYTES, path.len() as u64);
    words.set_bytes(start + rule::PATH, MAX_PATH_GLOB_BYTES / 8, path.as_bytes());
    let caller = text(&stored.caller);
    words.set(start + rule::CALLER_BYTES, caller.len() as u64);
    words.set_bytes(
        start + rule::CALLER,
        MAX_CALLER_GLOB_BYTES / 8,
        caller.as_bytes(),
    );
}

/// Puts these rules into force, and no others.
pub(super) fn arm(words: &Words, bits: u64) {
    listen(words, bits, words.get(header::RECORDING));
    words.set(header::ARMED, bits);
}

/// Switches the trace.
pub(super) fn record(words: &Words, is_recording: bool) {
    let recording = u64::from(is_recording);
    listen(words, words.get(header::ARMED), recording);
    words.set(header::RECORDING, recording);
}

/// Says at each site whether there is more to its calls than to count them.
fn listen(words: &Words, armed: u64, recording: u64) {
    for of in SiteId::all() {
        let is_heard = words.get(site::rules(of)) & armed != 0 || recording == 1;
        words.set(site::heard(of), u64::from(is_heard));
    }
}

/// What a rule does, unless the words make no sense.
pub(super) fn action(words: &Words, index: usize) -> Option<Action> {
    let start = place(index);
    let value = words.get(start + rule::VALUE);
    match words.get(start + rule::ACTION) {
        ERROR => {
            let domain = words.get(start + rule::DOMAIN);
            FaultError::checked(domain, value).map(Action::Error)
        }
        SHORT => Some(Action::Short { bytes: value }),
        DELAY => Some(Action::Delay(Duration::from_nanos(value))),
        SIGNAL => Signal::checked(value).map(Action::Signal),
        _ => None,
    }
}

/// Whether a rule acts after the call.
pub(super) fn is_after(words: &Words, index: usize) -> bool {
    words.get(place(index) + rule::AFTER) == 1
}

/// Which calls a rule means.
pub(super) fn when(words: &Words, index: usize) -> When {
    let start = place(index);
    let last = words.get(start + rule::LAST);
    When {
        first: words.get(start + rule::FIRST),
        last: (last != u64::MAX).then_some(last),
        step: words.get(start + rule::STEP),
    }
}

/// The pattern of a rule's paths.
pub(super) fn path(words: &Words, index: usize) -> Pattern<MAX_PATH_GLOB_BYTES> {
    let start = place(index);
    pattern(words, start + rule::PATH_BYTES, start + rule::PATH)
}

/// The pattern of a rule's callers.
pub(super) fn caller(words: &Words, index: usize) -> Pattern<MAX_CALLER_GLOB_BYTES> {
    let start = place(index);
    pattern(words, start + rule::CALLER_BYTES, start + rule::CALLER)
}

fn pattern<const BYTES: usize>(words: &Words, length: usize, text: usize) -> Pattern<BYTES> {
    let length = words.get(length).min(BYTES as u64) as usize;
    let mut bytes = [0; BYTES];
    words.bytes(text, &mut bytes[..length.next_multiple_of(8)]);
    Pattern { bytes, length }
}

/// Counts a call for a rule; its number, from 1.
pub(super) fn count(words: &Words, index: usize) -> u64 {
    words.add(place(index) + rule::COUNTED, 1).wrapping_add(1)
}

/// Counts that a rule fired.
pub(super) fn fire(words: &Words, index: usize) {
    words.add(place(index) + rule::FIRED, 1);
}

/// Calls counted for a rule, and how often it fired.
pub(super) fn counts(words: &Words, index: usize) -> (u64, u64) {
    let start = place(index);
    let counted = words.get(start + rule::COUNTED);
    (counted, words.get(start + rule::FIRED))
}
