//! Judging what a cuFile transfer returned. Documents and life disagree about it: a failure is a negative code, or −1
//! with a code or an errno in `errno`, and a positive 5006 was seen, too (F30).

use super::code::{Code, Reach};
use crate::Error;
use std::io;

/// Direct I/O moves whole sectors: a shorter count is no progress to rely on, and bounds the number of calls.
pub(super) const SECTOR_BYTES: usize = 512;

/// Interruptions in a row after which a transfer is given up.
const MAX_INTERRUPTIONS: u32 = 100;

/// Why cuFile did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A code of the library.
    #[error("{call} failed with {code}{}", cuda_text(*cuda))]
    Code {
        call: &'static str,
        code: Code,
        /// The CUDA driver's result in it, 0 for none.
        cuda: i32,
    },
    /// An errno: the system's refusal, as the library met it, or EPERM for any of them (see [`Failure::errno`]).
    #[error("{call} failed: {}", errno_text(source))]
    System {
        call: &'static str,
        source: io::Error,
    },
    /// A negative count without a reason, or more than was asked for.
    #[error("{call} returned {returned} for {wanted} bytes")]
    Nonsense {
        call: &'static str,
        returned: isize,
        wanted: usize,
    },
    /// Nothing moved: the end of the file for a read (F31).
    #[error("{call} moved nothing of {wanted} bytes at byte {offset} of the file")]
    Nothing {
        call: &'static str,
        wanted: usize,
        offset: u64,
    },
    /// The bytes that it delivered are not those of the file.
    #[error("cuFile delivered wrong bytes: {0}")]
    WrongBytes(#[source] Error),
    /// What a transfer needs besides cuFile failed.
    #[error(transparent)]
    Other(Error),
    /// It was asked to stop: no failure of anybody.
    #[error(transparent)]
    Stopped(Error),
}

impl Failure {
    /// What is not to be tried again.
    pub(crate) fn reach(&self) -> Reach {
        match self {
            Self::Code { code, .. } => code.reach(),
            Self::System { .. } | Self::Other(_) | Self::Stopped(_) => Reach::Transfer,
            Self::Nonsense { .. } | Self::Nothing { .. } => Reach::File,
            Self::WrongBytes(_) => Reach::Engine,
        }
    }

    /// The errno, where there is one that means something: the library says EPERM when a system call of its own fails, or
    /// moves less than it should, whatever the cause (seen with version 1.15 for ENOSPC, EDQUOT, EIO, EINTR and others).
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => {
                source.raw_os_error().filter(|errno| *errno != libc::EPERM)
            }
            Self::Code { .. }
            | Self::Nonsense { .. }
            | Self::Nothing { .. }
            | Self::WrongBytes(_)
            | Self::Other(_)
            | Self::Stopped(_) => None,
        }
    }
}

fn errno_text(source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(libc::EPERM) => "it does not say why (EPERM)".into(),
        Some(_) | None => source.to_string(),
    }
}

fn cuda_text(result: i32) -> String {
    match result {
        0 => String::new(),
        result => format!(", CUDA result {result}"),
    }
}

/// What one call did.
#[derive(Debug)]
enum Answer {
    Moved(usize),
    Interrupted,
    Failed(Failure),
}

fn judge(call: &'static str, returned: isize, errno: i32, wanted: usize, offset: u64) -> Answer {
    let failed = |number: isize| match Code::from_number(number) {
        Some(code) => Answer::Failed(Failure::Code {
            call,
            code,
            cuda: 0,
        }),
        None if number == libc::EINTR as isize => Answer::Interrupted,
        None => match i32::try_from(number) {
            Ok(errno) if errno > 0 => Answer::Failed(Failure::System {
                call,
                source: io::Error::from_raw_os_error(errno),
            }),
            Ok(_) | Err(_) => Answer::Failed(Failure::Nonsense {
                call,
                returned,
                wanted,
            }),
        },
    };
    if Code::from_number(errno as isize).is_some() {
        return failed(errno as isize);
    }
    match returned {
        // The errno tells what it was; without one the −1 may be anything, EPERM least of all.
        -1 => failed(errno as isize),
        ..-1 => failed(returned.saturating_neg()),
        0 => Answer::Failed(Failure::Nothing {
            call,
            wanted,
            offset,
        }),
        1.. => match (Code::from_number(returned), returned as usize) {
            (_, count) if count == wanted => Answer::Moved(count),
            // A code's number as a count would be a short one that ends inside a sector.
            (Some(_), count) if !count.is_multiple_of(SECTOR_BYTES) => failed(returned),
            (_, count) if count > wanted || count < SECTOR_BYTES => {
                Answer::Failed(Failure::Nonsense {
                    call,
                    returned,
                    wanted,
                })
            }
            (_, count) => Answer::Moved(count),
        },
    }
}

/// Repeats a call until all of `wanted` bytes have moved: short counts are continued (F29), interruptions repeated. `step`
/// takes how many have moved already and gives what the call returned, and errno. `moved` hears of each count.
///
/// # Errors
/// The first answer that is neither progress nor an interruption.
pub(super) fn move_all(
    call: &'static str,
    wanted: usize,
    offset: u64,
    mut step: impl FnMut(usize) -> (isize, i32),
    mut moved: impl FnMut(u64),
) -> Result<(), Failure> {
    let (mut done, mut interruptions) = (0, 0);
    while done < wanted {
        let (returned, errno) = step(done);
        match judge(call, returned, errno, wanted - done, offset + done as u64) {
            Answer::Moved(count) => {
                done += count;
                interruptions = 0;
                moved(count as u64);
            }
            Answer::Interrupted if interruptions < MAX_INTERRUPTIONS => interruptions += 1,
            Answer::Interrupted => {
                return Err(Failure::System {
                    call,
                    source: io::Error::from_raw_os_error(libc::EINTR),
                });
            }
            Answer::Failed(failure) => return Err(failure),
        }
    }
    Ok(())
}
