//! What a process holds: memory, threads, descriptors, mappings.

use super::{ProbeError, memory::ProcessMemory};
use procfs::process::Process;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// More than the kernel writes into `/proc/PID/status` on machines of up to some hundred processors.
const STATUS_BYTES: usize = 4096;

/// Everything that is read from `/proc/PID` at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessReading {
    /// `RssAnon`, bytes.
    pub rss_anon_bytes: u64,
    /// `RssShmem`, bytes.
    pub rss_shmem_bytes: u64,
    /// `RssFile`, bytes.
    pub rss_file_bytes: u64,
    /// `VmHWM`, bytes.
    pub high_water_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors by target: a path, or a kind such as `socket:[*]` whose number means nothing.
    pub descriptors: BTreeMap<String, u64>,
    /// File-backed mappings by path, as /proc spells it (a removed file ends in ` (deleted)`).
    pub file_maps: BTreeMap<PathBuf, u64>,
    /// All mappings.
    pub maps_total: u64,
}

impl ProcessReading {
    /// Resident memory in all, bytes.
    #[must_use]
    pub fn rss_bytes(&self) -> u64 {
        self.rss_anon_bytes + self.rss_shmem_bytes + self.rss_file_bytes
    }
}

/// Reads a process.
///
/// # Errors
/// [`ProbeError::Gone`] when it has ended, also while it was being read.
pub fn process(pid: u32) -> Result<ProcessReading, ProbeError> {
    let memory = memory(pid)?;
    let descriptors = descriptors(pid)?;
    let mut file_maps = BTreeMap::new();
    let maps = proc_maps::get_process_maps(pid.cast_signed())
        .map_err(|error| ProbeError::of(pid, "maps", error))?;
    for map in &maps {
        if let Some(path) = map.filename().filter(|path| path.is_absolute()) {
            *file_maps.entry(path.to_owned()).or_insert(0) += 1;
        }
    }
    // The maps of a process that ended meanwhile are empty, not an error.
    if !super::lives(pid) {
        return Err(ProbeError::Gone { pid });
    }
    Ok(ProcessReading {
        rss_anon_bytes: memory.anon_bytes,
        rss_shmem_bytes: memory.shmem_bytes,
        rss_file_bytes: memory.file_bytes,
        high_water_bytes: memory.high_water_bytes,
        threads: memory.threads,
        descriptors,
        file_maps,
        maps_total: maps.len() as u64,
    })
}

/// `VmSize` of `/proc/PID/status`, bytes: what `RLIMIT_AS` limits.
///
/// # Errors
/// [`ProbeError::Gone`] when it has ended.
pub fn address_space_bytes(pid: u32) -> Result<u64, ProbeError> {
    let status = Process::new(pid.cast_signed())
        .and_then(|process| process.status())
        .map_err(|error| ProbeError::of_procfs(pid, "status", error))?;
    let kib = status.vmsize.ok_or(ProbeError::Gone { pid })?;
    Ok(kib * 1024)
}

/// Reads `/proc/PID/status`.
pub(super) fn memory(pid: u32) -> Result<ProcessMemory, ProbeError> {
    // The kernel writes the text anew for each read, so there is room for all of it.
    let mut status = Vec::with_capacity(STATUS_BYTES);
    File::open(format!("/proc/{pid}/status"))
        .and_then(|mut file| file.read_to_end(&mut status))
        .map_err(|error| ProbeError::of(pid, "status", error))?;
    ProcessMemory::parse(&status).ok_or(ProbeError::Gone { pid })
}

/// Reads the unique set size: the private bytes of `/proc/PID/smaps_rollup`. The kernel walks over every page for it.
pub(super) fn uss(pid: u32) -> Result<u64, ProbeError> {
    let read = || -> procfs::ProcResult<u64> {
        let rollup = Process::new(pid.cast_signed())?.smaps_rollup()?;
        Ok(rollup
            .memory_map_rollup
            .iter()
            .flat_map(|map| &map.extension.map)
            .filter(|(name, _)| name.starts_with("Private_"))
            .map(|(_, bytes)| bytes)
            .sum())
    };
    read().map_err(|error| ProbeError::of_procfs(pid, "smaps_rollup", error))
}

fn descriptors(pid: u32) -> Result<BTreeMap<String, u64>, ProbeError> {
    let gone = |error| ProbeError::of(pid, "fd", error);
    let mut descriptors = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).map_err(gone)? {
        match fs::read_link(entry.map_err(gone)?.path()) {
            Ok(target) => *descriptors.entry(normalised(&target)).or_insert(0) += 1,
            // Closed between the listing and the reading.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(gone(error)),
        }
    }
    Ok(descriptors)
}

/// `socket:[4711]` → `socket:[*]`; paths and `anon_inode:[eventfd]` stay.
fn normalised(target: &Path) -> String {
    let text = target.to_string_lossy();
    match text
        .strip_suffix(']')
        .and_then(|text| text.split_once(":["))
    {
        Some((kind, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{kind}:[*]")
        }
        Some(_) | None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    //! How targets are named, and what a dead process reads as. The rest is in `tests/probes.rs`.
    use super::*;

    #[test]
    fn only_numbers_are_taken_out_of_targets() {
        for (target, expected) in [
            ("socket:[4711]", "socket:[*]"),
            ("pipe:[1]", "pipe:[*]"),
            ("anon_inode:[eventfd]", "anon_inode:[eventfd]"),
            ("anon_inode:inotify", "anon_inode:inotify"),
            ("/tmp/a:[1] (deleted)", "/tmp/a:[1] (deleted)"),
            ("/tmp/[1]", "/tmp/[1]"),
        ] {
            assert_eq!(normalised(Path::new(target)), expected);
        }
    }

    #[test]
    fn a_process_that_never_was_is_gone() {
        // Above the largest pid that Linux gives out.
        let pid = (1 << 22) + 1;
        assert!(matches!(process(pid), Err(ProbeError::Gone { pid: gone }) if gone == pid));
    }
}
