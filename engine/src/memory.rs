//! How much host memory is available: what the machine has, and what the cgroups around this process leave (E7).

use crate::error::Error;
use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

/// Host memory that can be taken without swapping or being killed, bytes: the smaller of `MemAvailable` and the
/// headroom of every memory cgroup, of version 1 or 2, from this process's own up to the mount's root.
///
/// A cgroup's headroom is its limit less what is used, where file pages that are not in active use count as free.
///
/// # Errors
/// `/proc/meminfo` cannot be read or does not say. A cgroup that cannot be read sets no limit.
pub(crate) fn available_bytes() -> Result<u64, Error> {
    available_under(Path::new("/proc"))
}

fn available_under(proc_root: &Path) -> Result<u64, Error> {
    let path = proc_root.join("meminfo");
    let machine = fs::read_to_string(&path)
        .and_then(|text| {
            mem_available(&text).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "it has no line MemAvailable")
            })
        })
        .map_err(|source| Error::from_call("read", path, 0, source))?;
    Ok(cgroups(proc_root)
        .iter()
        .filter_map(Cgroup::headroom_bytes)
        .fold(machine, u64::min))
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// The names of what a version of cgroups keeps in its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn limits(self) -> &'static [&'static str] {
        match self {
            Self::One => &["memory.limit_in_bytes"],
            // Above `high` the process is not killed but slowed down until it is below.
            Self::Two => &["memory.max", "memory.high"],
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::One => "memory.usage_in_bytes",
            Self::Two => "memory.current",
        }
    }

    /// What of `memory.stat` the kernel can take back at once, from the text of that file: inactive file pages, but for those that
    /// have to reach the disk first. A group that is full of these is killed in when the disk is slow.
    fn reclaimable_bytes(self, stat: &str) -> u64 {
        let [inactive, unwritten @ ..] = match self {
            Self::One => ["total_inactive_file", "total_dirty", "total_writeback"],
            Self::Two => ["inactive_file", "file_dirty", "file_writeback"],
        };
        let value = |wanted: &str| -> u64 {
            stat.lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(key, _)| *key == wanted)
                .and_then(|(_, value)| value.trim().parse().ok())
                .unwrap_or(0)
        };
        let unwritten = unwritten
            .map(value)
            .into_iter()
            .fold(0, u64::saturating_add);
        value(inactive).saturating_sub(unwritten)
    }
}

/// A directory of a cgroup filesystem.
#[derive(Debug)]
struct Cgroup {
    version: Version,
    directory: PathBuf,
}

impl Cgroup {
    fn headroom_bytes(&self) -> Option<u64> {
        let number = |name: &str| -> Option<u64> {
            // "max" means no limit; version 1 writes a number near 2^63 instead, which limits nothing either.
            fs::read_to_string(self.directory.join(name))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        let limit = self
            .version
            .limits()
            .iter()
            .filter_map(|name| number(name))
            .min()?;
        let used = number(self.version.usage())?;
        let stat = fs::read_to_string(self.directory.join("memory.stat")).unwrap_or_default();
        let reclaimable = self.version.reclaimable_bytes(&stat);
        Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
    }
}

/// Every memory cgroup around this process. None where there are no cgroups.
fn cgroups(proc_root: &Path) -> Vec<Cgroup> {
    let read = |name: &str| fs::read_to_string(proc_root.join("self").join(name)).ok();
    let (Some(memberships), Some(mounts)) = (read("cgroup"), read("mountinfo")) else {
        return Vec::new();
    };
    memberships
        .lines()
        .filter_map(parse_membership)
        .flat_map(|(version, path)| {
            mounts
                .lines()
                .filter_map(parse_mount)
                .filter(move |mount| mount.version == version)
                .flat_map(move |mount| mount.ancestors_of(path))
        })
        .collect()
}

/// Version and path of a line of `/proc/PID/cgroup` that is about memory: `HIERARCHY:CONTROLLERS:PATH` (cgroups(7)).
fn parse_membership(line: &str) -> Option<(Version, &Path)> {
    let (hierarchy, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let version = match (hierarchy, controllers) {
        ("0", "") => Version::Two,
        (_, controllers) if controllers.split(',').any(|name| name == "memory") => Version::One,
        _ => return None,
    };
    Some((version, Path::new(path)))
}

/// A mounted cgroup filesystem.
struct Mount {
    version: Version,
    /// The cgroup that is shown at the mount point.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// The cgroup `path` and those above it, as far as this mount shows them.
    fn ancestors_of(self, path: &Path) -> Vec<Cgroup> {
        // In a container the paths of /proc/self/cgroup may be those of the host: then the mount's root is our cgroup.
        let below = path
            .strip_prefix(&self.root)
            .ok()
            .filter(|below| {
                below
                    .components()
                    .all(|part| matches!(part, Component::Normal(_)))
            })
            .unwrap_or(Path::new(""));
        below
            .ancestors()
            .map(|below| Cgroup {
                version: self.version,
                directory: self.point.join(below),
            })
            .collect()
    }
}

/// A line of `/proc/PID/mountinfo`, where it mounts memory cgroups (proc_pid_mountinfo(5)).
fn parse_mount(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let kind = filesystem.next()?;
    let options = filesystem.nth(1)?;
    let version = match kind {
        "cgroup2" => Version::Two,
        "cgroup" if options.split(',').any(|option| option == "memory") => Version::One,
        _ => return None,
    };
    let mut fields = mount.split(' ');
    let root = PathBuf::from(unescape(fields.nth(3)?));
    let point = PathBuf::from(unescape(fields.next()?));
    Some(Mount {
        version,
        root,
        point,
    })
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    //! Fixture directories in the kernel's formats; the first test reads this machine.
    use super::*;
    use tempfile::TempDir;

    const MIB: u64 = 1 << 20;
    const MACHINE: u64 = 1000 * MIB;

    /// A `/proc` with 1000 MiB available, and mount points below the same directory.
    struct Fixture(TempDir);

    impl Fixture {
        fn new() -> Self {
            let fixture = Self(tempfile::tempdir().unwrap());
            fixture.write(
                "meminfo",
                "MemTotal:       2048000 kB\nMemFree:            100 kB\nMemAvailable:   1024000 kB\n",
            );
            fixture
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn join(&self, memberships: &str, mounts: &[(&str, &str, &str, &str)]) {
            self.write("self/cgroup", memberships);
            let lines: String = mounts
                .iter()
                .map(|(root, point, kind, options)| {
                    let point = self.0.path().join(point);
                    format!(
                        "30 24 0:26 {root} {} rw,nosuid shared:4 - {kind} cgroup {options}\n",
                        point.display()
                    )
                })
                .collect();
            self.write("self/mountinfo", &lines);
        }

        fn v2(&self, cgroup: &str, max: &str, high: &str, current: u64, inactive: u64) {
            self.write(&format!("cg/{cgroup}/memory.max"), &format!("{max}\n"));
            self.write(&format!("cg/{cgroup}/memory.high"), &format!("{high}\n"));
            self.write(
                &format!("cg/{cgroup}/memory.current"),
                &format!("{current}\n"),
            );
            self.write(
                &format!("cg/{cgroup}/memory.stat"),
                &format!("anon 1\nfile 99\ninactive_file_x 5\ninactive_file {inactive}\n"),
            );
        }

        fn available(&self) -> u64 {
            available_under(self.0.path()).unwrap()
        }
    }

    const V2: &[(&str, &str, &str, &str)] = &[("/", "cg", "cgroup2", "rw")];

    #[test]
    fn this_machine_has_some_memory_and_no_more_than_it_says() {
        let text = fs::read_to_string("/proc/meminfo").unwrap();
        let total = text
            .lines()
            .next()
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap();
        let total = total.parse::<u64>().unwrap() * 1024;
        assert!((1..=total).contains(&available_bytes().unwrap()));
    }

    #[test]
    fn without_cgroups_the_machine_decides() {
        let fixture = Fixture::new();
        assert_eq!(fixture.available(), MACHINE);
        fixture.join("0::/a\n", V2);
        assert_eq!(fixture.available(), MACHINE, "no files in it");
        fixture.v2("a", "max", "max", 5, 0);
        assert_eq!(fixture.available(), MACHINE, "no limit in it");
    }

    #[test]
    fn the_tightest_cgroup_of_all_ancestors_decides() {
        let fixture = Fixture::new();
        fixture.join("0::/a/b\n", V2);
        fixture.v2("a/b", &(900 * MIB).to_string(), "max", 100 * MIB, 0);
        assert_eq!(fixture.available(), 800 * MIB);
        fixture.v2("a", &(500 * MIB).to_string(), "max", 200 * MIB, 0);
        assert_eq!(fixture.available(), 300 * MIB);
        fixture.v2("", &(150 * MIB).to_string(), "max", 50 * MIB, 0);
        assert_eq!(fixture.available(), 100 * MIB);
        fixture.v2("other", "0", "max", 0, 0);
        assert_eq!(fixture.available(), 100 * MIB, "not an ancestor");
    }

    #[test]
    fn the_lower_of_max_and_high_limits() {
        let fixture = Fixture::new();
        fixture.join("0::/a\n", V2);
        let (low, high) = ((100 * MIB).to_string(), (200 * MIB).to_string());
        fixture.v2("a", &high, &low, 0, 0);
        assert_eq!(fixture.available(), 100 * MIB);
        fixture.v2("a", &low, &high, 0, 0);
        assert_eq!(fixture.available(), 100 * MIB);
    }

    #[test]
    fn inactive_file_pages_count_as_free_but_never_beyond_the_limit() {
        let fixture = Fixture::new();
        fixture.join("0::/a\n", V2);
        let limit = (100 * MIB).to_string();
        fixture.v2("a", &limit, "max", 90 * MIB, 30 * MIB);
        assert_eq!(fixture.available(), 40 * MIB);
        fixture.v2("a", &limit, "max", 90 * MIB, 500 * MIB);
        assert_eq!(fixture.available(), 100 * MIB);
        fixture.v2("a", &limit, "max", 300 * MIB, 0);
        assert_eq!(fixture.available(), 0);
    }

    #[test]
    fn pages_that_the_disk_has_yet_to_take_do_not_count_as_free() {
        let fixture = Fixture::new();
        fixture.join("0::/a\n", V2);
        fixture.v2("a", &(100 * MIB).to_string(), "max", 90 * MIB, 0);
        let stat = |inactive: u64, dirty: u64, writeback: u64| {
            let lines = [
                ("inactive_file", inactive * MIB),
                ("file_dirty", dirty * MIB),
                ("file_writeback", writeback * MIB),
            ];
            let text = lines
                .map(|(key, bytes)| format!("{key} {bytes}\n"))
                .concat();
            fixture.write("cg/a/memory.stat", &text);
            fixture.available()
        };
        assert_eq!(stat(30, 10, 5), 25 * MIB);
        assert_eq!(stat(30, 40, 5), 10 * MIB, "active pages can be dirty, too");
    }

    #[test]
    fn version_one_counts_with_its_own_files() {
        let fixture = Fixture::new();
        fixture.join(
            "7:cpu,cpuacct:/x\n5:memory:/a\n",
            &[
                ("/", "cpu", "cgroup", "rw,cpu,cpuacct"),
                ("/", "cg", "cgroup", "rw,memory"),
            ],
        );
        fixture.write("cg/memory.limit_in_bytes", "9223372036854771712\n");
        fixture.write("cg/memory.usage_in_bytes", "1\n");
        assert_eq!(
            fixture.available(),
            MACHINE,
            "a number near 2^63 is no limit"
        );
        fixture.write("cg/a/memory.limit_in_bytes", &(300 * MIB).to_string());
        fixture.write("cg/a/memory.usage_in_bytes", &(200 * MIB).to_string());
        assert_eq!(fixture.available(), 100 * MIB, "memory.stat may be missing");
        fixture.write(
            "cg/a/memory.stat",
            &format!(
                "inactive_file 7\ntotal_inactive_file {}\ntotal_dirty {}\ntotal_writeback {MIB}\n",
                50 * MIB,
                9 * MIB
            ),
        );
        assert_eq!(fixture.available(), 140 * MIB);
    }

    #[test]
    fn a_container_that_sees_the_hosts_path_uses_the_mount_itself() {
        let fixture = Fixture::new();
        fixture.join(
            "5:memory:/docker/abc/inner\n",
            &[("/docker/abc", "cg", "cgroup", "rw,memory")],
        );
        fixture.write("cg/inner/memory.limit_in_bytes", &(70 * MIB).to_string());
        fixture.write("cg/inner/memory.usage_in_bytes", "0");
        assert_eq!(fixture.available(), 70 * MIB);
        fixture.join("0::/../elsewhere\n", V2);
        fixture.v2("", &(60 * MIB).to_string(), "max", 0, 0);
        assert_eq!(fixture.available(), 60 * MIB);
    }

    #[test]
    fn a_mount_point_with_spaces_is_found() {
        let fixture = Fixture::new();
        fixture.join("0::/\n", &[("/", "c\\040g", "cgroup2", "rw")]);
        fixture.write("c g/memory.max", &(60 * MIB).to_string());
        fixture.write("c g/memory.current", "0");
        assert_eq!(fixture.available(), 60 * MIB);
    }

    #[test]
    fn a_meminfo_that_does_not_say_is_an_error_that_names_it() {
        let fixture = Fixture::new();
        for text in ["MemTotal: 5 kB\n", "MemAvailable: many kB\n", ""] {
            fixture.write("meminfo", text);
            let error = available_under(fixture.0.path()).unwrap_err().to_string();
            assert!(
                error.contains("meminfo") && error.contains("MemAvailable"),
                "{error}"
            );
        }
        fs::remove_file(fixture.0.path().join("meminfo")).unwrap();
        assert!(matches!(
            available_under(fixture.0.path()),
            Err(Error::Io {
                operation: "read",
                ..
            })
        ));
    }
}
