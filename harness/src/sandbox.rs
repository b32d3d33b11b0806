//! A directory of its own for each case.

use crate::error::HarnessError;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// `<base>/<label>-<unique>/{offload, home, tmp, work}`, removed on drop.
#[derive(Debug)]
pub struct Sandbox {
    root: TempDir,
    on_tmpfs: bool,
}

impl Sandbox {
    /// Makes the directories below `base`, which is created when missing. Only the owner may enter them.
    ///
    /// # Errors
    /// `base` cannot be created, or written to.
    pub fn create(base: &Path, label: &str) -> Result<Self, HarnessError> {
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
        let root = tempfile::Builder::new()
            .prefix(&format!("{label}-"))
            .tempdir_in(&base)
            .map_err(HarnessError::path("create a directory in", &base))?;
        for name in ["offload", "home", "tmp", "work"] {
            let path = root.path().join(name);
            fs::create_dir(&path).map_err(HarnessError::path("create", &path))?;
            fs::set_permissions(&path, Permissions::from_mode(0o700))
                .map_err(HarnessError::path("set the mode of", &path))?;
        }
        let kind = statfs(root.path()).map_err(HarnessError::system("statfs"))?;
        Ok(Self {
            on_tmpfs: kind.filesystem_type() == TMPFS_MAGIC,
            root,
        })
    }

    /// The case's own directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where offload files go: empty, mode 0700.
    #[must_use]
    pub fn offload_dir(&self) -> PathBuf {
        self.root().join("offload")
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

    /// Leaves the directory in place, for a person to look at.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.root.keep()
    }
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
        assert!(name.starts_with("oom--forced-emulated--"), "{name}");
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
        let kept = Sandbox::create(base.path(), "kept").unwrap().keep();
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
