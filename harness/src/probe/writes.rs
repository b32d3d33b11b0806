//! File bytes that a process wrote.

use super::ProbeError;
use procfs::process::{Io, Process};

/// Reads `write_bytes` of `/proc/PID/io`: bytes of pages on disk filesystems that the process made dirty or wrote
/// directly. Unlike `wchar` it does not count sockets, and not the emulated GPU's board, which is written through the same
/// calls. A page that is overwritten while it is still dirty counts once.
///
/// # Errors
/// [`ProbeError::Gone`] when it has ended.
pub fn written_bytes(pid: u32) -> Result<u64, ProbeError> {
    counter(pid, |io| io.write_bytes)
}

/// Reads `wchar` of `/proc/PID/io`.
pub(super) fn given_bytes(pid: u32) -> Result<u64, ProbeError> {
    counter(pid, |io| io.wchar)
}

fn counter(pid: u32, which: impl FnOnce(Io) -> u64) -> Result<u64, ProbeError> {
    let io = Process::new(pid.cast_signed()).and_then(|process| process.io());
    let bytes = io
        .map(which)
        .map_err(|error| ProbeError::of_procfs(pid, "io", error))?;
    // A zombie still shows its counters.
    if super::lives(pid) {
        Ok(bytes)
    } else {
        Err(ProbeError::Gone { pid })
    }
}
