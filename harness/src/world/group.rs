//! A memory cgroup for one subject, below the harness's own or beside it.

use crate::{
    claim::{self, Claim},
    settle::settle,
};
use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How long the kernel may take to find the group empty once its processes are reaped.
const REMOVAL_BOUND: Duration = Duration::from_secs(2);

/// How many names are tried: a group of an earlier process with our number may still be there.
const TRIES: u32 = 16;

/// A cgroup with a limit; removed on drop, when its processes must be gone.
#[derive(Debug)]
pub struct MemoryGroup {
    directory: PathBuf,
    _claim: Claim,
}

impl MemoryGroup {
    /// Makes a group that may take `bytes` of memory, page cache included.
    ///
    /// # Errors
    /// No memory controller, or none in which this process may make groups.
    pub fn create(bytes: u64) -> io::Result<Self> {
        let mut refusal = io::Error::new(
            ErrorKind::Unsupported,
            "no cgroup with a memory controller is mounted",
        );
        for (parent, limit) in candidates() {
            claim::reap_once(&parent, |group| fs::remove_dir(group));
            let group = match Self::create_below(&parent) {
                Ok(group) => group,
                Err(error) => {
                    refusal = named(error, "create a group in", &parent);
                    continue;
                }
            };
            match group.set(limit, bytes) {
                Ok(()) => return Ok(group),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn create_below(parent: &Path) -> io::Result<Self> {
        static GROUPS: AtomicU64 = AtomicU64::new(1);
        for _ in 0..TRIES {
            let number = GROUPS.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}{}-{number}", claim::prefix(), std::process::id());
            let directory = parent.join(name);
            match fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            if let Some(claim) = Claim::take(&directory)? {
                return Ok(Self {
                    directory,
                    _claim: claim,
                });
            }
        }
        Err(claim::reaped_too_soon(parent))
    }

    /// The file that takes the ids of processes to move into the group.
    #[must_use]
    pub fn members(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// What it has had at most and has now, and whether the kernel killed for it, in the kernel's words; what a version of
    /// cgroups does not tell is left out.
    #[must_use]
    pub fn account(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        let peaks = ["memory.peak", "memory.max_usage_in_bytes"].map(read);
        let peak = peaks
            .iter()
            .find_map(|peak| peak.trim().parse::<u64>().ok());
        let mut words: Vec<String> = peak
            .map(|bytes| format!("peak {} MiB", bytes >> 20))
            .into_iter()
            .collect();
        // Version 2, version 1.
        let events = [read("memory.events"), read("memory.oom_control")].concat();
        words.extend(
            values(&events, &["oom_kill"]).map(|(_, killed)| format!("{killed} killed for memory")),
        );
        let stat = read("memory.stat");
        let kinds = [
            "anon",
            "file",
            "shmem",
            "kernel",
            "file_dirty",
            "file_writeback",
            "total_rss",
            "total_cache",
            "total_shmem",
            "total_dirty",
            "total_writeback",
        ];
        words.extend(
            values(&stat, &kinds).map(|(kind, bytes)| format!("{kind} {} MiB", bytes >> 20)),
        );
        words.join(", ")
    }

    fn set(&self, limit: &str, bytes: u64) -> io::Result<()> {
        let path = self.directory.join(limit);
        // A limit file that is not there would be made as a plain file nowhere: cgroup filesystems refuse that.
        fs::write(&path, bytes.to_string()).map_err(|error| named(error, "write", &path))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Nobody is there to be told; an empty group that stays takes nothing.
        let _ = settle(REMOVAL_BOUND, || fs::remove_dir(&self.directory).ok());
    }
}

/// Lines `KEY NUMBER` whose key is wanted.
fn values<'a>(text: &'a str, wanted: &[&str]) -> impl Iterator<Item = (&'a str, u64)> {
    let lines = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    });
    lines.filter(move |(key, _)| wanted.contains(key))
}

fn named(error: io::Error, action: &str, path: &Path) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot {action} {}: {error}", path.display()),
    )
}

/// Cgroups in which groups with a memory limit might be made, and the name of the limit: version 1 below our own; version 2
/// below our own, or beside it, where processes and groups may not stand in one cgroup.
fn candidates() -> Vec<(PathBuf, &'static str)> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let (memberships, mounts) = (read("cgroup"), read("mountinfo"));
    let mut found = Vec::new();
    for membership in memberships.lines() {
        let mut fields = membership.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == "memory") {
            continue;
        }
        let Some(own) = mounts.lines().find_map(|line| mounted(line, is_v2, path)) else {
            continue;
        };
        if !is_v2 {
            found.push((own, "memory.limit_in_bytes"));
            continue;
        }
        let passes_on = |group: &Path| {
            fs::read_to_string(group.join("cgroup.subtree_control"))
                .is_ok_and(|names| names.split_whitespace().any(|name| name == "memory"))
        };
        let beside = own.parent().map(Path::to_owned);
        let places = std::iter::once(own).chain(beside);
        found.extend(
            places
                .filter(|place| passes_on(place))
                .map(|place| (place, "memory.max")),
        );
    }
    found
}

/// Where a line of `/proc/self/mountinfo` shows the cgroup `path`, if it mounts that hierarchy (proc_pid_mountinfo(5)).
fn mounted(line: &str, is_v2: bool, path: &str) -> Option<PathBuf> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let kind = filesystem.next()?;
    let options = filesystem.nth(1)?;
    let fits = if is_v2 {
        kind == "cgroup2"
    } else {
        kind == "cgroup" && options.split(',').any(|option| option == "memory")
    };
    let mut fields = mount.split(' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    let below = Path::new(path).strip_prefix(root).ok()?;
    fits.then(|| Path::new(point).join(below))
}

#[cfg(test)]
mod tests {
    //! Which mount shows a cgroup, and what one tells of itself.
    use super::*;

    #[test]
    fn a_group_tells_its_peak_its_dead_and_what_fills_it() {
        let directory = tempfile::tempdir().unwrap();
        let group = MemoryGroup {
            directory: directory.path().join("group"),
            _claim: Claim::take(directory.path()).unwrap().unwrap(),
        };
        let write = |name: &str, text: &str| {
            fs::create_dir_all(&group.directory).unwrap();
            fs::write(group.directory.join(name), text).unwrap();
        };
        assert_eq!(group.account(), "");
        write("memory.peak", "268435456\n");
        write("memory.events", "low 0\noom 2\noom_kill 1\n");
        write(
            "memory.stat",
            "anon 1048576\nfile 5242880\nshmem 4194304\npgfault 7\n",
        );
        let expected = "peak 256 MiB, 1 killed for memory, anon 1 MiB, file 5 MiB, shmem 4 MiB";
        assert_eq!(group.account(), expected);
        fs::remove_dir_all(&group.directory).unwrap();
    }

    #[test]
    fn the_mount_of_the_right_hierarchy_shows_the_group() {
        let v1 = "29 24 0:26 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory";
        let v2 = "30 24 0:27 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let at = |line, is_v2, path| mounted(line, is_v2, path);
        assert_eq!(
            at(v1, false, "/a/b"),
            Some("/sys/fs/cgroup/memory/a/b".into())
        );
        assert_eq!(at(v1, true, "/a/b"), None);
        assert_eq!(at(v2, true, "/a/b"), Some("/sys/fs/cgroup/b".into()));
        assert_eq!(at(v2, true, "/other"), None);
        let cpu = v1.replace("memory", "cpu");
        assert_eq!(at(&cpu, false, "/a"), None);
    }
}
