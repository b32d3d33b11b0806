//! A directory of its own for each case.

use crate::{
    claim::{self, Claim, claimed_directory},
    error::HarnessError,
    probe::WriteMeter,
    world::{Enclosure, MemoryGroup, Volume, World, make_image},
};
use nix::{
    fcntl::{OFlag, open},
    sys::{
        stat::Mode,
        statfs::{TMPFS_MAGIC, statfs},
    },
};
use std::{
    fs::{self, Permissions},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Where the machine's filesystem in memory is mounted.
const MEMORY: &str = "/dev/shm";

/// `<base>/spillproof-held-<kernel>-<label>-<unique>/{offload, home, tmp, work}`, removed on drop. What a process left that was killed is removed
/// by the next one that makes a sandbox in the same place.
#[derive(Debug)]
pub struct Sandbox {
    root: TempDir,
    on_tmpfs: bool,
    offload: PathBuf,
    /// A private volume as its subject sees it. It lives as long as the subject or this.
    volume: Option<OwnedFd>,
    enclosure: Enclosure,
    _memory: Option<(TempDir, Claim)>,
    group: Option<MemoryGroup>,
    /// Let go of after the directory is gone.
    _claim: Claim,
}

impl Sandbox {
    /// Makes the directories below `base`, which is created when missing. Only the owner may enter them.
    ///
    /// # Errors
    /// `base` cannot be created, or written to.
    pub fn create(base: &Path, label: &str) -> Result<Self, HarnessError> {
        Self::create_in(&World::default(), base, label)
    }

    /// The same in another world than the plain one.
    ///
    /// # Errors
    /// As [`Sandbox::create`]; or this machine does not permit such a world.
    pub fn create_in(world: &World, base: &Path, label: &str) -> Result<Self, HarnessError> {
        fs::create_dir_all(base).map_err(HarnessError::path("create", base))?;
        // Links in `base` would make the paths that /proc shows differ from ours.
        let base = fs::canonicalize(base).map_err(HarnessError::path("resolve", base))?;
        let label: String = label
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        claim::reap_once(&base, claim::remove_tree);
        let (root, claim) = claimed_directory(&base, &format!("{label}-"))
            .map_err(HarnessError::path("create a directory in", &base))?;
        for name in ["offload", "home", "tmp", "work"] {
            make_private(&root.path().join(name))?;
        }
        let kind = statfs(root.path()).map_err(HarnessError::system("statfs"))?;
        let mut sandbox = Self {
            on_tmpfs: kind.filesystem_type() == TMPFS_MAGIC,
            offload: root.path().join("offload"),
            root,
            volume: None,
            enclosure: Enclosure::default(),
            _memory: None,
            group: None,
            _claim: claim,
        };
        sandbox.furnish(world)?;
        Ok(sandbox)
    }

    fn furnish(&mut self, world: &World) -> Result<(), HarnessError> {
        if let Some(bytes) = world.memory_bytes {
            let group =
                MemoryGroup::create(bytes).map_err(HarnessError::system("a memory cgroup"))?;
            self.enclosure = std::mem::take(&mut self.enclosure).in_group(&group.members());
            self.group = Some(group);
        }
        match world.volume {
            Volume::Disk => {}
            Volume::Memory => {
                let memory = Path::new(MEMORY);
                claim::reap_once(memory, claim::remove_tree);
                let (directory, claim) = claimed_directory(memory, "")
                    .map_err(HarnessError::path("create a directory in", memory))?;
                self.offload = directory.path().join("offload");
                make_private(&self.offload)?;
                self._memory = Some((directory, claim));
            }
            Volume::SmallDisk { .. } | Volume::SmallMemory { .. } => {
                let (point, image) = (self.root().join("volume"), self.root().join("image"));
                fs::create_dir(&point).map_err(HarnessError::path("create", &point))?;
                if let Volume::SmallDisk { bytes } = world.volume {
                    make_image(&image, bytes)
                        .map_err(HarnessError::path("make a filesystem in", &image))?;
                }
                self.offload = point.join("offload");
                self.enclosure = std::mem::take(&mut self.enclosure)
                    .with_volume(world.volume, &point, &self.offload, &image)
                    .map_err(HarnessError::path("mount", &point))?;
            }
        }
        Ok(())
    }

    /// What a subject enters before it starts.
    pub(crate) fn enclosure(&self) -> &Enclosure {
        &self.enclosure
    }

    /// Looks at the private volume, if there is one, as the process sees it.
    ///
    /// # Errors
    /// The process is gone, or may not be looked at.
    pub fn look_through(&mut self, pid: u32) -> Result<(), HarnessError> {
        let Some(point) = self
            .offload
            .parent()
            .filter(|_| self.enclosure.is_private())
        else {
            return Ok(());
        };
        let inside = point.strip_prefix("/").unwrap_or(point);
        let path = Path::new("/proc")
            .join(pid.to_string())
            .join("root")
            .join(inside);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let volume = open(&path, flags, Mode::empty())
            .map_err(|error| HarnessError::path("open", &path)(error.into()))?;
        self.volume = Some(volume);
        Ok(())
    }

    /// The root of the private volume, for the harness; nothing where there is none.
    #[must_use]
    pub fn volume_view(&self) -> Option<PathBuf> {
        let descriptor = self.volume.as_ref()?.as_raw_fd();
        Some(PathBuf::from(format!("/proc/self/fd/{descriptor}")))
    }

    /// What the memory cgroup of the case tells of itself, where there is one.
    #[must_use]
    pub fn group_account(&self) -> Option<String> {
        self.group.as_ref().map(MemoryGroup::account)
    }

    /// Where the harness finds the offload directory.
    #[must_use]
    pub fn offload_view(&self) -> PathBuf {
        match self.volume_view() {
            Some(volume) => volume.join("offload"),
            None => self.offload.clone(),
        }
    }

    /// How the subject is seen to write offload files.
    #[must_use]
    pub fn write_meter(&self) -> WriteMeter {
        let offload = self.offload_view();
        // On the same volume, and not where the subject looks.
        WriteMeter::of(offload.parent().unwrap_or(&offload))
    }

    /// The case's own directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where offload files go, as the subject sees it: empty, mode 0700.
    #[must_use]
    pub fn offload_dir(&self) -> PathBuf {
        self.offload.clone()
    }

    /// The subject's working directory.
    #[must_use]
    pub fn work_dir(&self) -> PathBuf {
        self.root().join("work")
    }

    /// The subject's `HOME`.
    #[must_use]
    pub fn home_dir(&self) -> PathBuf {
        self.root().join("home")
    }

    /// The subject's `TMPDIR`.
    #[must_use]
    pub fn tmp_dir(&self) -> PathBuf {
        self.root().join("tmp")
    }

    /// Whether its files take RAM: an engine may rightly refuse such an offload directory (E35).
    #[must_use]
    pub fn is_tmpfs(&self) -> bool {
        self.on_tmpfs
    }

    /// Leaves the directory in place, for a person to look at, under a name that is not reaped.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn keep(self) -> Result<PathBuf, HarnessError> {
        let held = self.root.keep();
        let name = held.file_name().unwrap_or_default().to_string_lossy();
        let kept = held.with_file_name(name.trim_start_matches(claim::prefix()));
        fs::rename(&held, &kept).map_err(HarnessError::path("rename", &held))?;
        Ok(kept)
    }
}

/// Makes a directory that only its owner may enter, whatever the umask is.
fn make_private(path: &Path) -> Result<(), HarnessError> {
    fs::create_dir(path).map_err(HarnessError::path("create", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(HarnessError::path("set the mode of", path))
}

#[cfg(test)]
mod tests {
    //! What a case finds in its directory, and what is left of it.
    use super::*;

    #[test]
    fn the_offload_directory_is_empty_and_private() {
        let base = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::create(base.path(), "oom::forced[emulated]").unwrap();
        let offload = sandbox.offload_dir();
        assert_eq!(fs::read_dir(&offload).unwrap().count(), 0);
        assert_eq!(
            fs::metadata(&offload).unwrap().permissions().mode() & 0o7777,
            0o700
        );
        let name = sandbox.root().file_name().unwrap().to_str().unwrap();
        assert!(
            name.starts_with("spillproof-held-") && name.contains("-oom--forced-emulated--"),
            "{name}"
        );
    }

    #[test]
    fn it_is_removed_on_drop_with_all_that_is_in_it() {
        let base = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::create(base.path(), "gone").unwrap();
        let root = sandbox.root().to_owned();
        fs::write(sandbox.offload_dir().join("left"), "x").unwrap();
        drop(sandbox);
        assert!(!root.exists());
    }

    #[test]
    fn it_stays_when_kept() {
        let base = tempfile::tempdir().unwrap();
        let kept = Sandbox::create(base.path(), "kept")
            .unwrap()
            .keep()
            .unwrap();
        let name = kept.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("kept-"), "{name}");
        assert!(kept.join("offload").is_dir());
    }

    #[test]
    fn tmpfs_is_told_from_a_disk() {
        for base in [Path::new("/dev/shm"), &std::env::temp_dir()] {
            let Ok(sandbox) = Sandbox::create(base, "kind") else {
                continue;
            };
            let stat = std::process::Command::new("stat")
                .args(["--file-system", "--format=%T"])
                .arg(sandbox.root())
                .output()
                .unwrap();
            let kind = String::from_utf8(stat.stdout).unwrap();
            assert_eq!(sandbox.is_tmpfs(), kind.trim() == "tmpfs", "{kind}");
        }
    }
}
