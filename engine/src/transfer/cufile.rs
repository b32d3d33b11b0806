//! The way by cuFile: whole pages of a block travel between device and file by the library, what is left of the last page
//! through a pinned slot, which also pads it (E19). Blocks smaller than a page are staged altogether.
//!
//! Checksums are made of what the device holds, and verified on what the device then holds (E22): copying that out
//! through the slots costs little beside the disk, and stays inside the staging budget.
//!
//! Whatever cuFile fails with, the block goes the staged way instead (E26), and [`Reach`] says what is not tried again. A full
//! disk is no failure of cuFile: it is told at once, as what it is.

mod health;
mod probe;
#[cfg(test)]
mod tests;

use super::{
    Checksums, DeviceSpan, FileRange, ModelFile, Staged, StoredSpan, Traffic, Transfer,
    TransferPath,
};
use crate::{
    CuFileUse, Error, ErrorKind,
    cancellation::Stop,
    cuda::Context,
    cufile::{DevicePlace, Driver, Failure, Handle, Mode, Reach, Registration, Storage},
    model::FILE_ALIGNMENT_BYTES,
    spill::SpillDirectory,
};
use health::Health;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Most that one direct call moves: the library splits larger ones itself, and a cancellation is seen sooner.
const DIRECT_PIECE_BYTES: u64 = 16 << 20;

/// Most that one call moves in compatibility mode. The library splits what is larger among its threads, 16 MiB of host
/// memory each: seen with version 1.15, where calls of 1 GiB took 64 MiB, and calls of 4 MiB none that could be seen.
const COMPAT_PIECE_BYTES: u64 = 4 << 20;

/// Transfers by cuFile, with [`Staged`] beside it.
pub(crate) struct CuFile {
    driver: Arc<Driver>,
    context: Arc<Context>,
    staged: Arc<Staged>,
    traffic: Arc<Traffic>,
    path: TransferPath,
    piece_bytes: u64,
    /// Direct transfers in several pieces are faster from registered memory; a refusal is for good (F28).
    registers: AtomicBool,
    health: Health,
}

/// Which way.
#[derive(Clone, Copy)]
enum Direction {
    ToFile,
    ToDevice,
}

/// Why cuFile is not used.
pub(crate) enum Unusable {
    /// It does not work here: the reason, for people.
    Here(String),
    /// It could not be tried out, since descriptors ran out. Whether it works is not known (F36).
    Untried(Error),
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        match error.is_out_of_descriptors() {
            true => Self::Untried(error),
            false => Self::Here(error.to_string()),
        }
    }
}

impl From<Failure> for Unusable {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Other(error) => error.into(),
            failure => Self::Here(failure.to_string()),
        }
    }
}

/// How one read by cuFile ended.
enum Attempt {
    Done,
    NotAsked,
    Failed(Failure),
}

impl CuFile {
    /// Tries cuFile out in `directory`: a file is written from device memory and read back, and everything is given
    /// back. Nothing else proves that it works there.
    ///
    /// # Errors
    /// The reason why it is not used.
    pub(crate) fn open(
        driver: Arc<Driver>,
        context: &Arc<Context>,
        directory: &SpillDirectory,
        staged: &Arc<Staged>,
        traffic: &Arc<Traffic>,
        wanted: CuFileUse,
    ) -> Result<Self, Unusable> {
        let file = probe::file(directory)?;
        let storage = file.open_direct().and_then(|opened| {
            Storage::of(&opened).map_err(|error| Error::from_call("fstatfs", file.path(), 0, error))
        })?;
        let (path, piece_bytes) = match (driver.mode(storage), wanted) {
            (Mode::Direct, CuFileUse::Auto | CuFileUse::On) => {
                (TransferPath::CuFile, DIRECT_PIECE_BYTES)
            }
            (Mode::Compat, CuFileUse::On) => (TransferPath::CuFileCompat, COMPAT_PIECE_BYTES),
            (Mode::Compat, CuFileUse::Auto) => {
                return Err(Unusable::Here(
                    "it would go through buffers of its own in host memory (compatibility mode); \
                     OFFLOAD_CUFILE=on uses it all the same"
                        .into(),
                ));
            }
            (Mode::Direct | Mode::Compat, CuFileUse::Off) => {
                return Err(Unusable::Here("OFFLOAD_CUFILE=off".into()));
            }
        };
        let opened = Self {
            driver,
            context: Arc::clone(context),
            staged: Arc::clone(staged),
            traffic: Arc::clone(traffic),
            path,
            piece_bytes,
            registers: AtomicBool::new(path == TransferPath::CuFile),
            health: Health::default(),
        };
        let outcome = probe::run(&opened, &file);
        drop(file);
        traffic.restart();
        outcome.map(|()| opened)
    }

    /// Moves the block's whole pages, and tells how many bytes these are; `None` when cuFile is not to be asked.
    fn move_pages(
        &self,
        span: DeviceSpan,
        range: &FileRange,
        direction: Direction,
        stop: &Stop,
    ) -> Result<Option<u64>, Failure> {
        let bytes = span.bytes / FILE_ALIGNMENT_BYTES * FILE_ALIGNMENT_BYTES;
        if bytes == 0 || self.health.is_off() || self.driver.usable().is_err() {
            return Ok(None);
        }
        let Some(handle) = self.handle(range.file())? else {
            return Ok(None);
        };
        // Given back before this returns, also where it fails.
        let registration = self.register(span, bytes)?;
        let mut at = 0;
        while at < bytes {
            stop.check().map_err(Failure::Stopped)?;
            let len = self.piece_bytes.min(bytes - at) as usize;
            let (place, offset) = (
                DevicePlace {
                    base: span.address,
                    offset: at,
                },
                range.offset() + at,
            );
            match direction {
                Direction::ToFile => handle.write(place, len, offset, |moved| {
                    self.traffic.count_written(moved);
                })?,
                Direction::ToDevice => handle.read(place, len, offset, |moved| {
                    self.traffic.count_read(moved);
                })?,
            }
            at += len as u64;
        }
        if let Some(Err(failure)) = registration.map(Registration::release) {
            // The bytes are there. Memory that counts as registered for ever is not added to.
            self.registers.store(false, Ordering::Relaxed);
            self.health
                .note(format!("device memory stays registered: {failure}"));
        }
        Ok(Some(bytes))
    }

    /// Reads by cuFile and verifies what the device then holds.
    fn attempt(
        &self,
        from: &Arc<FileRange>,
        checksums: &Checksums,
        to: DeviceSpan,
        stop: &Stop,
    ) -> Result<Attempt, Error> {
        let done = match self.move_pages(to, from, Direction::ToDevice, stop) {
            Ok(Some(done)) => done,
            Ok(None) => return Ok(Attempt::NotAsked),
            Err(Failure::Stopped(error)) => return Err(error),
            Err(Failure::Other(error)) if !is_of_this_file(&error) => return Err(error),
            Err(failure) => return Ok(Attempt::Failed(failure)),
        };
        match self.staged.load_rest(from, checksums, to, done, stop) {
            Ok(()) => Ok(Attempt::Done),
            // The file's fault or cuFile's: the other way tells.
            Err(corrupt) if corrupt.kind() == ErrorKind::Corrupt => {
                Ok(Attempt::Failed(Failure::WrongBytes(corrupt)))
            }
            Err(error) => Err(error),
        }
    }

    fn handle(&self, file: &ModelFile) -> Result<Option<Arc<Handle>>, Failure> {
        file.attachment().handle(|| {
            let descriptor = file.open_direct().map_err(Failure::Other)?;
            Handle::register(&self.driver, descriptor)
        })
    }

    fn register(&self, span: DeviceSpan, bytes: u64) -> Result<Option<Registration>, Failure> {
        if bytes <= self.piece_bytes || !self.registers.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match Registration::new(&self.driver, span.address, span.bytes as usize) {
            Ok(registration) => Ok(Some(registration)),
            Err(failure) if failure.reach() == Reach::Process => Err(failure),
            Err(failure) => {
                self.registers.store(false, Ordering::Relaxed);
                self.health
                    .note(format!("device memory stays unregistered: {failure}"));
                Ok(None)
            }
        }
    }

    /// Sees to it that what has failed for good is not tried again. `served` tells whether the staged way did what cuFile
    /// did not: where neither can, the cause lies elsewhere.
    fn record(&self, failure: &Failure, file: &ModelFile, served: bool) {
        let reach = failure.reach();
        if reach >= Reach::File {
            file.attachment().refuse();
        }
        if reach >= Reach::Process {
            self.driver.lose(&failure.to_string());
        } else if reach >= Reach::Engine {
            self.health.switch_off();
        }
        // A handle that is unknown all at once may mean that the driver was closed: it is noticed here.
        let _ = self.driver.is_open();
        // What somebody did to the file's name says nothing about cuFile.
        let is_elsewhere = matches!(failure, Failure::Other(_));
        match (served, is_elsewhere) {
            (true, true) => self.health.staged(failure),
            (true, false) => self.health.failed(failure),
            (false, true | false) => {}
        }
    }
}

impl Transfer for CuFile {
    fn store(
        &self,
        from: DeviceSpan,
        to: &Arc<FileRange>,
        stop: &Stop,
    ) -> Result<StoredSpan, Error> {
        // cuFile is not ordered with streams (E21).
        self.context.synchronize()?;
        let first = match self.move_pages(from, to, Direction::ToFile, stop) {
            Ok(Some(done)) => {
                let checksums = self.staged.store_rest(from, to, done, stop)?;
                self.health.succeeded();
                return Ok(StoredSpan {
                    checksums,
                    path: self.path,
                });
            }
            Ok(None) => return self.staged.store(from, to, stop),
            Err(Failure::Stopped(error)) => return Err(error),
            Err(Failure::Other(error)) if !is_of_this_file(&error) => return Err(error),
            Err(failure) => failure,
        };
        if let Some(full) = full_disk(&first, from, to) {
            return Err(full);
        }
        let second = self.staged.store(from, to, stop);
        self.record(&first, to.file(), second.is_ok());
        second.map_err(|second| after(&first, second))
    }

    fn load(
        &self,
        from: &Arc<FileRange>,
        checksums: &Checksums,
        to: DeviceSpan,
        stop: &Stop,
    ) -> Result<TransferPath, Error> {
        from.check_len()?;
        self.context.synchronize()?;
        let mut asked_before = false;
        loop {
            let first = match self.attempt(from, checksums, to, stop)? {
                Attempt::Done => {
                    self.health.succeeded();
                    if asked_before {
                        self.health.note(format!(
                            "{} changed while it was read; a second read was right",
                            from.file().path().display()
                        ));
                    }
                    return Ok(self.path);
                }
                Attempt::NotAsked => return self.staged.load(from, checksums, to, stop),
                Attempt::Failed(failure) => failure,
            };
            let second = self.staged.load(from, checksums, to, stop);
            match (&first, &second) {
                (Failure::WrongBytes(_), Err(error)) if error.kind() == ErrorKind::Corrupt => {
                    return second;
                }
                // By cuFile, or by whoever changed the file and put it right before the staged way came: whether it is
                // wrong again, with the file right before and after, tells.
                (Failure::WrongBytes(_), Ok(_)) if !asked_before => {
                    asked_before = true;
                    continue;
                }
                (Failure::WrongBytes(_), Err(_)) => {}
                (_, Ok(_) | Err(_)) => self.record(&first, from.file(), second.is_ok()),
            }
            return second.map_err(|second| after(&first, second));
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.health.notes();
        notes.extend(
            self.driver
                .usable()
                .err()
                .map(|reason| format!("cuFile is not used any more: {reason}")),
        );
        notes
    }
}

/// Whether the name of the file is what stands against opening it for cuFile. That the system opens nothing, for want of descriptors
/// for instance, says nothing about cuFile and is told (F35, F36).
fn is_of_this_file(error: &Error) -> bool {
    error.kind() == ErrorKind::Corrupt
}

/// The error of a disk that is full, which the staged way would meet again.
fn full_disk(failure: &Failure, from: DeviceSpan, to: &FileRange) -> Option<Error> {
    let source = io::Error::from_raw_os_error(failure.errno()?);
    let error = Error::from_call("cuFileWrite", to.file().path(), from.bytes, source);
    (error.kind() == ErrorKind::DiskFull).then_some(error)
}

fn after(first: &Failure, second: Error) -> Error {
    // Being asked to stop has nothing to do with what went before.
    if second.kind() == ErrorKind::Cancelled {
        return second;
    }
    Error::AfterCuFile {
        first: first.to_string(),
        second: Box::new(second),
    }
}
