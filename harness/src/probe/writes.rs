//! Bytes that a process passed to write calls.

use super::ProbeError;
use procfs::process::Process;

/// Reads `wchar` of `/proc/PID/io`: bytes that the process has passed to write calls, whether or not they reached a disk.
///
/// # Errors
/// [`ProbeError::Gone`] when it has ended.
pub fn written_bytes(pid: u32) -> Result<u64, ProbeError> {
    let io = Process::new(pid.cast_signed()).and_then(|process| process.io());
    io.map(|io| io.wchar)
        .map_err(|error| ProbeError::of_procfs(pid, "io", error))
}
