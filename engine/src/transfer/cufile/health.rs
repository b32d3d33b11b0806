//! What went wrong with cuFile in one engine, and when it is not asked any more.

use crate::cufile::Failure;
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// Failures in a row, over files and transfers, after which cuFile is not asked again: each costs a failing call before
/// the staged way is taken.
const MAX_FAILURES_IN_A_ROW: u32 = 3;

/// Different failures that are kept for people.
const MAX_NOTES: usize = 8;

fn staged_instead(failure: &Failure) -> String {
    format!("a block was staged instead: {failure}")
}

#[derive(Default)]
pub(super) struct Health {
    off: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    failures_in_a_row: u32,
    failures: u64,
    notes: Vec<String>,
}

impl Record {
    fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

impl Health {
    pub(super) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    pub(super) fn switch_off(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    pub(super) fn succeeded(&self) {
        self.record().failures_in_a_row = 0;
    }

    pub(super) fn failed(&self, failure: &Failure) {
        let mut record = self.record();
        record.failures += 1;
        record.failures_in_a_row += 1;
        if record.failures_in_a_row >= MAX_FAILURES_IN_A_ROW {
            self.switch_off();
        }
        record.note(staged_instead(failure));
    }

    /// A block was staged for a reason that is not cuFile's: it is told, and not held against it.
    pub(super) fn staged(&self, failure: &Failure) {
        self.note(staged_instead(failure));
    }

    pub(super) fn note(&self, note: String) {
        self.record().note(note);
    }

    /// For people.
    pub(super) fn notes(&self) -> Vec<String> {
        let record = self.record();
        let mut notes: Vec<String> = record
            .notes
            .iter()
            .map(|note| format!("cuFile: {note}"))
            .collect();
        if self.is_off() {
            notes.push(format!(
                "cuFile is not used any more, after {} failures",
                record.failures
            ));
        }
        notes
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Counters and notes are whole at every moment.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
