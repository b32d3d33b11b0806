//! What comes of a benchmark: the tables, the JSON document, and the status.

use super::{FAILED_STATUS, INCONCLUSIVE_STATUS, NOTHING_STATUS};
use serde_json::{Value, json};
use spillproof::counts::{self, Counted};
use spillproof_harness::bench::{
    Ran, Summary, markdown,
    record::{Record, SCHEMA},
};
use std::{fmt::Write as _, fs, io, path::Path};

/// Everything that is known at the end.
#[derive(Default)]
pub(super) struct Report {
    pub(super) records: Vec<Record>,
    pub(super) summaries: Vec<Summary>,
    pub(super) ran: Ran,
    pub(super) counted: Vec<Result<Counted, String>>,
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if !self.records.is_empty() {
            text.push_str(&markdown(&self.records, &self.summaries));
        }
        for (row, count) in &self.ran.missing {
            let _ = writeln!(
                text,
                "- {row} lacks {count} runs, the time limit came; go on with --resume"
            );
        }
        if !self.counted.is_empty() {
            let counted: Vec<Counted> = self.counted.iter().flatten().cloned().collect();
            text.push_str(&counts::markdown(&counted));
            for error in self.counted.iter().filter_map(|one| one.as_ref().err()) {
                let _ = writeln!(text, "- FAILED: {error}");
            }
        }
        text
    }

    /// Writes everything as one document.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let (mut sessions, mut runs) = (Vec::new(), Vec::new());
        let (mut skipped, mut failed) = (Vec::new(), Vec::new());
        for record in &self.records {
            match record {
                Record::Session(session) => sessions.push(session),
                Record::Run(run) => runs.push(run),
                Record::Skip(skip) => skipped.push(skip),
                Record::Failure(skip) => failed.push(skip),
            }
        }
        let counts: Vec<Value> = self.counted.iter().flatten().map(counts_of).collect();
        let document = json!({
            "schema": SCHEMA,
            "sessions": sessions,
            "summaries": self.summaries,
            "skipped": skipped,
            "failed": failed,
            "missing": self.ran.missing,
            "counts": counts,
            "runs": runs,
        });
        fs::write(path, format!("{document:#}\n"))
    }

    /// The status of the whole command.
    pub(super) fn status(&self) -> u8 {
        let has_runs = self
            .records
            .iter()
            .any(|record| matches!(record, Record::Run(_)));
        if !self.ran.failures.is_empty() || self.counted.iter().any(Result::is_err) {
            FAILED_STATUS
        } else if !self.ran.missing.is_empty() {
            INCONCLUSIVE_STATUS
        } else if !has_runs && self.counted.is_empty() {
            NOTHING_STATUS
        } else {
            0
        }
    }
}

fn counts_of(counted: &Counted) -> Value {
    let calls = counted.calls.iter().map(|(site, calls)| {
        let told = json!({"calls": calls.count, "bytes": calls.bytes});
        ((*site).to_owned(), told)
    });
    json!({
        "workload": counted.workload,
        "written_bytes": counted.written_bytes,
        "read_bytes": counted.read_bytes,
        "calls": calls.collect::<serde_json::Map<String, Value>>(),
    })
}
