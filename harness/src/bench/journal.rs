//! The file of records: a line is there as soon as its run is over, and a later session goes on where it ends.

use super::record::{Machine, Record, Run, Session};
use crate::error::HarnessError;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The records so far, and where new ones are written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
}

/// Why a file cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// A line is no record.
    #[error("line {line} of {} is no record of a benchmark: {reason}; name a file that --lines has written", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Its runs cannot be compared with new ones.
    #[error("{} was measured with {what} {then:?}, now it is {now:?}; runs of both cannot be compared", path.display())]
    Unlike {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
        /// What it was.
        then: String,
        /// What it is.
        now: String,
    },
}

impl Journal {
    /// A new file, with the session as its first line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(path: &Path, session: Session) -> Result<Self, JournalError> {
        if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
            fs::create_dir_all(parent).map_err(HarnessError::path("create", parent))?;
        }
        let file = File::create(path).map_err(HarnessError::path("create", path))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            records: Vec::new(),
        };
        journal.write(Record::Session(session))?;
        Ok(journal)
    }

    /// A file that an earlier session has written; a last line that was cut off is written over.
    ///
    /// # Errors
    /// It cannot be used, or was measured on another machine or with other settings.
    pub fn resume(path: &Path, session: Session) -> Result<Self, JournalError> {
        let text = fs::read_to_string(path).map_err(HarnessError::path("read", path))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut records = Vec::new();
        for (index, line) in text[..whole].lines().enumerate() {
            let record = serde_json::from_str(line).map_err(|error| JournalError::Line {
                path: path.to_owned(),
                line: index + 1,
                reason: error.to_string(),
            })?;
            records.push(record);
        }
        for record in &records {
            if let Record::Session(then) = record {
                compare(path, then, &session)?;
            }
        }
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|file| file.set_len(whole as u64).map(|()| file))
            .map_err(HarnessError::path("open", path))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            records,
        };
        journal.write(Record::Session(session))?;
        Ok(journal)
    }

    /// Adds a record; it is on its way to the disk when this returns.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, record: Record) -> Result<(), HarnessError> {
        let written = serde_json::to_string(&record)
            .map_err(io::Error::other)
            .and_then(|line| writeln!(self.file, "{line}"));
        written.map_err(HarnessError::path("write", &self.path))?;
        self.records.push(record);
        Ok(())
    }

    /// All of them, those of earlier sessions included.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Every run.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.records.iter().filter_map(|record| match record {
            Record::Run(run) => Some(run),
            Record::Session(_) | Record::Skip(_) | Record::Failure(_) => None,
        })
    }

    /// Runs of a row.
    pub fn runs_of(&self, row: &str) -> impl Iterator<Item = &Run> {
        self.runs().filter(move |run| run.row == row)
    }

    /// Whether it is known that a row cannot be measured here.
    #[must_use]
    pub fn is_skipped(&self, row: &str) -> bool {
        self.records
            .iter()
            .any(|record| matches!(record, Record::Skip(skip) if skip.row == row))
    }
}

/// What changes from one start to the next on one machine, or does not matter, is left out.
fn compare(path: &Path, then: &Session, now: &Session) -> Result<(), JournalError> {
    let told = |machine: &Machine| {
        [
            ("device", machine.device.clone()),
            ("gpu", machine.gpu.clone().unwrap_or_default()),
            ("driver", machine.driver.clone().unwrap_or_default()),
            ("kernel", machine.kernel.clone()),
            ("cores", machine.cores.to_string()),
            ("filesystem", machine.filesystem.clone()),
        ]
    };
    let machine = told(&then.machine).into_iter().zip(told(&now.machine));
    let mut pairs: Vec<(String, String, String)> = machine
        .map(|((what, then), (_, now))| (what.to_owned(), then, now))
        .collect();
    for name in then.settings.keys().chain(now.settings.keys()) {
        let of = |session: &Session| session.settings.get(name).cloned().unwrap_or_default();
        pairs.push((format!("--{name}"), of(then), of(now)));
    }
    pairs.push(("schema".into(), then.schema.clone(), now.schema.clone()));
    match pairs.into_iter().find(|(_, then, now)| then != now) {
        None => Ok(()),
        Some((what, then, now)) => Err(JournalError::Unlike {
            path: path.to_owned(),
            what,
            then,
            now,
        }),
    }
}

#[cfg(test)]
mod tests {
    //! What a later session finds.
    use super::*;
    use crate::bench::record::{SCHEMA, Skip};

    fn session(bytes: &str) -> Session {
        Session {
            schema: SCHEMA.into(),
            started: "2026-11-30T20:21:22Z".into(),
            command_line: vec!["spillproof".into()],
            machine: Machine {
                device: "emulated".into(),
                gpu: None,
                gpu_bytes: None,
                driver: None,
                cuda: None,
                kernel: "6.1".into(),
                cores: 2,
                memory_bytes: 1,
                filesystem: "ext4 (/dev/vda)".into(),
                free_bytes: 2,
            },
            settings: [("bytes".to_owned(), bytes.to_owned())].into(),
        }
    }

    fn run(row: &str, run: u32) -> Record {
        Record::Run(Run {
            row: row.into(),
            run,
            ..Run::default()
        })
    }

    #[test]
    fn a_later_session_goes_on_behind_the_last_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/lines");
        let mut first = Journal::create(&path, session("4GiB")).unwrap();
        first.write(run("a", 1)).unwrap();
        first
            .write(Record::Skip(Skip {
                row: "b".into(),
                reason: "none".into(),
            }))
            .unwrap();
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"{\"record\":\"run\",\"ro"))
            .unwrap();
        let mut second = Journal::resume(&path, session("4GiB")).unwrap();
        second.write(run("a", 2)).unwrap();
        let third = Journal::resume(&path, session("4GiB")).unwrap();
        assert_eq!(third.records().len(), 6);
        let numbers: Vec<u32> = third.runs_of("a").map(|run| run.run).collect();
        assert_eq!(numbers, [1, 2]);
        assert!(third.is_skipped("b") && !third.is_skipped("a"));
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        Journal::create(&path, session("4GiB")).unwrap();
        let error = Journal::resume(&path, session("8GiB")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("--bytes \"4GiB\", now it is \"8GiB\""),
            "{text}"
        );
        let mut other = session("4GiB");
        other.machine.gpu = Some("NVIDIA H200".into());
        let text = Journal::resume(&path, other).unwrap_err().to_string();
        assert!(text.contains("gpu \"\""), "{text}");
        let mut grown = session("4GiB");
        grown.machine.memory_bytes = 3;
        Journal::resume(&path, grown).unwrap();
        fs::write(&path, "{}\n").unwrap();
        let text = Journal::resume(&path, session("4GiB"))
            .unwrap_err()
            .to_string();
        assert!(text.starts_with("line 1 of "), "{text}");
    }
}
