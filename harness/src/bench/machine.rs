//! What a reader of numbers must know of the machine they come from.

use super::record::Machine;
use crate::{
    device::{DeviceKind, GpuFacts, gpu_facts},
    error::HarnessError,
};
use nix::sys::{statvfs::statvfs, utsname::uname};
use procfs::{Current, Meminfo};
use std::{
    fs,
    path::Path,
    thread::available_parallelism,
    time::{SystemTime, UNIX_EPOCH},
};

/// Reads the machine; `directory` is where files will be.
///
/// # Errors
/// The GPU or the filesystem cannot be asked.
pub(super) fn machine(device: &DeviceKind, directory: &Path) -> Result<Machine, HarnessError> {
    let facts = match device {
        DeviceKind::Emulated => GpuFacts::default(),
        DeviceKind::Cuda { ordinal } => gpu_facts(*ordinal)?,
    };
    let names = uname().map_err(HarnessError::system("uname"))?;
    let space = statvfs(directory).map_err(HarnessError::system("statvfs"))?;
    Ok(Machine {
        device: device.to_string(),
        gpu: facts.name,
        gpu_bytes: facts.total_bytes,
        driver: facts.driver,
        cuda: facts.cuda,
        kernel: names.release().to_string_lossy().into_owned(),
        cores: available_parallelism().map_or(1, |cores| cores.get() as u64),
        memory_bytes: Meminfo::current().map_or(0, |memory| memory.mem_total),
        filesystem: filesystem(directory),
        free_bytes: space.blocks_available() as u64 * space.fragment_size() as u64,
    })
}

/// Type and source of the mount that holds the directory: the last one with the longest point above it.
fn filesystem(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = Path::new(before.split(' ').nth(4)?);
            let mut after = after.split(' ');
            let (kind, source) = (after.next()?, after.next()?);
            let depth = point.components().count();
            directory
                .starts_with(point)
                .then(|| (depth, format!("{kind} ({source})")))
        })
        .max_by_key(|(depth, _)| *depth);
    mount.map_or_else(|| "unknown".into(), |(_, found)| found)
}

/// Now, UTC, to the second, as RFC 3339 writes it.
#[must_use]
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    rfc3339(since.map_or(0, |since| since.as_secs()))
}

/// Days are turned into a date as in Howard Hinnant's `civil_from_days`.
fn rfc3339(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86400, seconds % 86400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    //! Dates, and what is told of this machine.
    use super::*;

    #[test]
    fn seconds_are_written_as_dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }

    #[test]
    fn this_machine_has_processors_memory_and_a_filesystem() {
        let machine = machine(&DeviceKind::Emulated, Path::new(".")).unwrap();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 28 && machine.free_bytes > 0);
        assert!(machine.filesystem.contains(" ("), "{machine:?}");
        assert_eq!((machine.gpu, machine.driver), (None, None));
    }
}
