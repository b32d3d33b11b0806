//! A real GPU belongs to one process at a time, over the whole machine.

use crate::error::HarnessError;
use std::{
    env,
    fs::{File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The right to use a GPU; given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    _lock: File,
}

impl Slot {
    /// The GPU of this unique id, unless somebody has it.
    ///
    /// # Errors
    /// The lock file cannot be made; it lies in the directory for temporary files.
    pub(super) fn try_take(uuid: &str) -> Result<Option<Self>, HarnessError> {
        try_lock(&lock_path(uuid, ""))
    }
}

/// The wish to use a GPU that another process has, seen by that process; taken back on drop.
#[derive(Debug)]
pub(super) struct Wish {
    _lock: File,
}

impl Wish {
    /// Says that somebody waits.
    ///
    /// # Errors
    /// As for the slot.
    pub(super) fn say(uuid: &str) -> Result<Option<Self>, HarnessError> {
        let path = lock_path(uuid, "-waiting");
        let file = open_lock(&path).map_err(HarnessError::path("open", &path))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self { _lock: file })),
            // Whoever has it looks at this moment whether anybody waits.
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(HarnessError::path("lock", &path)(error)),
        }
    }

    /// Whether another process waits for the GPU.
    ///
    /// # Errors
    /// As for the slot.
    pub(super) fn anybodys(uuid: &str) -> Result<bool, HarnessError> {
        Ok(try_lock(&lock_path(uuid, "-waiting"))?.is_none())
    }
}

fn try_lock(path: &Path) -> Result<Option<Slot>, HarnessError> {
    let file = open_lock(path).map_err(HarnessError::path("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Slot { _lock: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(HarnessError::path("lock", path)(error)),
    }
}

/// Whoever came first made it, as a user of its own: it is only read, which a lock is content with. In a directory of everybody's
/// with the sticky bit the kernel lets not even root open another user's file by `O_CREAT` (fs.protected_regular).
fn open_lock(path: &Path) -> io::Result<File> {
    loop {
        match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        let mut new = OpenOptions::new();
        match new.write(true).create_new(true).mode(0o644).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made,
        }
    }
}

fn lock_path(uuid: &str, what: &str) -> PathBuf {
    let name: String = uuid
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    env::temp_dir().join(format!("spillproof-{name}{what}.lock"))
}

#[cfg(test)]
mod tests {
    //! Whose the locks are, and where they lie.
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_lock_file_of_another_user_serves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.lock");
        drop(try_lock(&path).unwrap().unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o444, 0o444, "{mode:o}");
        // What it may not do: not even root may write it then.
        let _ = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444));
        let slot = try_lock(&path).unwrap().unwrap();
        assert!(slot._lock.set_len(1).is_err(), "it is opened for writing");
        assert!(try_lock(&path).unwrap().is_none());
        drop(slot);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_wish_is_seen_while_it_lasts() {
        let uuid = format!("wish-{}", std::process::id());
        assert!(!Wish::anybodys(&uuid).unwrap());
        let (one, two) = (Wish::say(&uuid).unwrap(), Wish::say(&uuid).unwrap());
        assert!(one.is_some() && two.is_some());
        drop(one);
        assert!(Wish::anybodys(&uuid).unwrap());
        drop(two);
        assert!(!Wish::anybodys(&uuid).unwrap());
        std::fs::remove_file(lock_path(&uuid, "-waiting")).unwrap();
    }

    #[test]
    fn a_name_of_a_gpu_leads_nowhere_else() {
        let path = lock_path("../../etc/GPU-1", "");
        assert_eq!(path, env::temp_dir().join("spillproof-etcGPU-1.lock"));
    }
}
