//! The JSON document, and what is said of missing runs.

use serde_json::json;
use spillproof_harness::bench::{
    Ran, Summary,
    record::{Record, SCHEMA},
};
use std::{fmt::Write as _, fs, io, path::Path};

/// Writes everything as one document.
pub(super) fn write(
    path: &Path,
    records: &[Record],
    summaries: &[Summary],
    ran: &Ran,
) -> io::Result<()> {
    let (mut sessions, mut runs) = (Vec::new(), Vec::new());
    let (mut skipped, mut failed) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Session(session) => sessions.push(session),
            Record::Run(run) => runs.push(run),
            Record::Skip(skip) => skipped.push(skip),
            Record::Failure(skip) => failed.push(skip),
        }
    }
    let document = json!({
        "schema": SCHEMA,
        "sessions": sessions,
        "summaries": summaries,
        "skipped": skipped,
        "failed": failed,
        "missing": ran.missing,
        "runs": runs,
    });
    fs::write(path, format!("{document:#}\n"))
}

/// Rows that lack runs.
pub(super) fn missing(ran: &Ran) -> String {
    let mut text = String::new();
    for (row, count) in &ran.missing {
        let _ = writeln!(
            text,
            "- {row} lacks {count} runs, the time limit came; go on with --resume"
        );
    }
    text
}
