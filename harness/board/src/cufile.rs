//! What each process moved by cuFile: bytes and transfers, directly and in compatibility mode apart; and which of the faults
//! that it was put into it has met.
//!
//! The counts stand as long as the process lives, whatever it closes or deregisters, and after its death until another
//! process needs the row.

use crate::board::Board;
use crate::error::BoardError;
use crate::layout::cufile::FAULT_WORDS;
use crate::layout::{MAX_CUFILE_USERS, ROW_VALID, cufile, cufile_word};
use crate::map::Words;
use crate::owner::Owner;
use crate::table::Locked;

/// How cuFile moved bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CufilePath {
    /// Between storage and device memory.
    Direct,
    /// In compatibility mode: through a buffer of cuFile in host memory.
    Compat,
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CufileDirection {
    /// From device memory into a file.
    Write,
    /// From a file into device memory.
    Read,
}

/// Transfers of one path and direction. One that moved nothing is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CufileCount {
    /// Transfers that moved bytes.
    pub transfers: u64,
    /// The bytes that they moved.
    pub bytes: u64,
}

/// A fault of the emulated cuFile, at the moment in which it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CufileFault {
    /// Opening the driver was refused.
    OpenRefused,
    /// Opening the driver did not return.
    OpenHung,
    /// A file was not registered.
    HandleRefused,
    /// Memory was not registered.
    BufferRefused,
    /// A transfer was cut short.
    CutShort,
    /// The driver was closed by somebody else.
    Closed,
}

/// How often each fault was met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CufileFaults([u64; FAULT_WORDS]);

impl CufileFaults {
    /// How often this one was.
    #[must_use]
    pub fn met(&self, fault: CufileFault) -> u64 {
        self.0[index(fault)]
    }

    /// How often any was.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, met| sum.saturating_add(*met))
    }
}

/// Everything that a process moved by cuFile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CufileUse {
    /// The process.
    pub pid: u32,
    /// Device memory to files, directly.
    pub direct_writes: CufileCount,
    /// Files to device memory, directly.
    pub direct_reads: CufileCount,
    /// Device memory to files, in compatibility mode.
    pub compat_writes: CufileCount,
    /// Files to device memory, in compatibility mode.
    pub compat_reads: CufileCount,
    /// What went wrong because it had to.
    pub faults: CufileFaults,
}

impl CufileUse {
    /// Bytes written to files, by either path.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.direct_writes
            .bytes
            .saturating_add(self.compat_writes.bytes)
    }

    /// Bytes read from files, by either path.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.direct_reads
            .bytes
            .saturating_add(self.compat_reads.bytes)
    }
}

impl Locked<'_> {
    /// Counts one transfer of `bytes` bytes for a process. Fails where [`MAX_CUFILE_USERS`] live processes have counts.
    pub fn count_cufile(
        &mut self,
        owner: Owner,
        path: CufilePath,
        direction: CufileDirection,
        bytes: u64,
    ) -> Result<(), BoardError> {
        let words = self.words();
        let at = row_of(words, owner)? + counter(path, direction);
        words.set(at, words.get(at).saturating_add(1));
        words.set(at + 1, words.get(at + 1).saturating_add(bytes));
        Ok(())
    }

    /// Counts that a process met a fault. Fails where [`MAX_CUFILE_USERS`] live processes have counts.
    pub fn count_cufile_fault(
        &mut self,
        owner: Owner,
        fault: CufileFault,
    ) -> Result<(), BoardError> {
        let words = self.words();
        let at = row_of(words, owner)? + cufile::FAULTS + index(fault);
        words.set(at, words.get(at).saturating_add(1));
        Ok(())
    }
}

impl Board {
    /// The counts of every process that has some, by process number.
    pub(crate) fn cufile_use(&self) -> Vec<CufileUse> {
        let words = self.words();
        let mut users: Vec<CufileUse> = (0..MAX_CUFILE_USERS)
            .map(cufile_word)
            .filter_map(|start| Some((start, user(words, start)?)))
            .map(|(start, owner)| {
                let count = |path, direction| {
                    let at = start + counter(path, direction);
                    CufileCount {
                        transfers: words.get(at),
                        bytes: words.get(at + 1),
                    }
                };
                CufileUse {
                    pid: owner.pid,
                    direct_writes: count(CufilePath::Direct, CufileDirection::Write),
                    direct_reads: count(CufilePath::Direct, CufileDirection::Read),
                    compat_writes: count(CufilePath::Compat, CufileDirection::Write),
                    compat_reads: count(CufilePath::Compat, CufileDirection::Read),
                    faults: CufileFaults(std::array::from_fn(|fault| {
                        words.get(start + cufile::FAULTS + fault)
                    })),
                }
            })
            .collect();
        users.sort_by_key(|user| user.pid);
        users
    }
}

/// Word of a counter within its row.
fn counter(path: CufilePath, direction: CufileDirection) -> usize {
    let index = match (path, direction) {
        (CufilePath::Direct, CufileDirection::Write) => 0,
        (CufilePath::Direct, CufileDirection::Read) => 1,
        (CufilePath::Compat, CufileDirection::Write) => 2,
        (CufilePath::Compat, CufileDirection::Read) => 3,
    };
    cufile::COUNTERS + 2 * index
}

/// Place of a fault among the faults of a row.
fn index(fault: CufileFault) -> usize {
    match fault {
        CufileFault::OpenRefused => 0,
        CufileFault::OpenHung => 1,
        CufileFault::HandleRefused => 2,
        CufileFault::BufferRefused => 3,
        CufileFault::CutShort => 4,
        CufileFault::Closed => 5,
    }
}

/// The process of a row.
fn user(words: &Words, start: usize) -> Option<Owner> {
    (words.get(start + cufile::STATE) == ROW_VALID).then(|| Owner {
        pid: words.get(start + cufile::PID) as u32,
        start_ticks: words.get(start + cufile::START_TICKS),
    })
}

fn find(words: &Words, is_wanted: impl Fn(Option<Owner>) -> bool) -> Option<usize> {
    (0..MAX_CUFILE_USERS)
        .map(cufile_word)
        .find(|start| is_wanted(user(words, *start)))
}

fn row_of(words: &Words, owner: Owner) -> Result<usize, BoardError> {
    match find(words, |user| user == Some(owner)) {
        Some(start) => Ok(start),
        None => take_row(words, owner),
    }
}

/// A row for a new process: a free one, or else that of a dead process.
fn take_row(words: &Words, owner: Owner) -> Result<usize, BoardError> {
    let start = find(words, |user| user.is_none())
        .or_else(|| find(words, |user| user.is_some_and(|user| !user.is_alive())))
        .ok_or(BoardError::TableFull {
            limit: MAX_CUFILE_USERS,
        })?;
    words.set(start + cufile::STATE, 0);
    for word in cufile::COUNTERS..cufile::FAULTS + FAULT_WORDS {
        words.set(start + word, 0);
    }
    words.set(start + cufile::PID, u64::from(owner.pid));
    words.set(start + cufile::START_TICKS, owner.start_ticks);
    words.set(start + cufile::STATE, ROW_VALID);
    Ok(start)
}
