//! What is read around a step.

use super::session::{Session, Stop};
use crate::{
    observation::Reading,
    probe::{self, FilesReading, LedgerReading, ProbeError},
};
use std::path::PathBuf;

impl Session<'_> {
    pub(super) fn reading(&self) -> Result<Reading, Stop> {
        let pid = self.subject.pid();
        let mut reading = self.device_only_reading()?;
        reading.process = Some(probe::process(pid)?);
        reading.written_bytes = probe::written_bytes(pid)?;
        reading.ledger = self.ledger();
        Ok(reading)
    }

    pub(super) fn device_only_reading(&self) -> Result<Reading, Stop> {
        Ok(Reading {
            process: None,
            written_bytes: 0,
            device: self.device.reading(&[self.subject.pid()])?,
            ledger: None,
            offload_files: probe::files(&self.sandbox.offload_view())?,
            other_files: self.other_files()?,
        })
    }

    fn ledger(&self) -> Option<LedgerReading> {
        let injection = self.injection.filter(|_| self.is_interposed)?;
        Some(injection.ledger())
    }

    /// Everything that the subject may see of its directory but the offload files.
    pub(super) fn other_files(&self) -> Result<FilesReading, ProbeError> {
        let mut all = FilesReading::default();
        let directories = [
            self.sandbox.work_dir(),
            self.sandbox.home_dir(),
            self.sandbox.tmp_dir(),
        ];
        for directory in directories {
            let name = directory.file_name().map(PathBuf::from).unwrap_or_default();
            let entries = probe::files(&directory)?.entries.into_iter();
            all.entries
                .extend(entries.map(|(path, entry)| (name.join(path), entry)));
        }
        Ok(all)
    }
}
