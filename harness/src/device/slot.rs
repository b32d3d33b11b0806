//! A real GPU belongs to one case at a time, over all threads and processes of the machine, and is clean when a case starts.

use super::nvml::CudaGpu;
use crate::{error::HarnessError, settle::settle};
use std::{
    env,
    fs::{File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a process that ended may keep its device memory.
const CLEANING_BOUND: Duration = Duration::from_secs(10);

/// How long other cases may have a GPU before it is said that one does not end.
const TAKING_BOUND: Duration = Duration::from_secs(600);

/// The right to use a GPU; given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    _lock: File,
}

impl Slot {
    /// Waits until every other case is done with the GPU of this unique id.
    ///
    /// # Errors
    /// The lock file cannot be made; it lies in the directory for temporary files. Or nobody lets go of it within ten minutes.
    pub(super) fn take(uuid: &str) -> Result<Self, HarnessError> {
        Self::take_within(&lock_path(uuid), TAKING_BOUND)
    }

    fn take_within(path: &Path, bound: Duration) -> Result<Self, HarnessError> {
        let file = open_lock(path).map_err(HarnessError::path("open", path))?;
        let mut failure = None;
        let taken = settle(bound, || match file.try_lock() {
            Ok(()) => Some(()),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(error)) => {
                failure = Some(error);
                Some(())
            }
        });
        match (failure, taken) {
            (Some(error), _) => Err(HarnessError::path("lock", path)(error)),
            (None, None) => {
                let reason = format!("another run has had it for {bound:?}; end that run");
                let late = io::Error::new(ErrorKind::TimedOut, reason);
                Err(HarnessError::path("lock", path)(late))
            }
            (None, Some(())) => Ok(Self { _lock: file }),
        }
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

fn lock_path(uuid: &str) -> PathBuf {
    let name: String = uuid
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    env::temp_dir().join(format!("spillproof-{name}.lock"))
}

impl CudaGpu {
    /// Waits until nobody computes on the GPU and so much of its memory is free.
    ///
    /// # Errors
    /// [`HarnessError::Device`]: it stays dirty, which is nobody's fault that is judged here.
    pub fn wait_until_clean(&self, needed_bytes: u64) -> Result<(), HarnessError> {
        let mut last = Ok(None);
        let clean = settle(CLEANING_BOUND, || {
            last = self.occupancy().map(|found| found.dirt(needed_bytes));
            match &last {
                Ok(None) => Some(()),
                Ok(Some(_)) | Err(_) => None,
            }
        });
        match (clean, last?) {
            (Some(()), _) | (None, None) => Ok(()),
            (None, Some(reason)) => Err(HarnessError::Device {
                device: format!("{self:?}"),
                reason,
            }),
        }
    }
}

/// Who is on a GPU before a case starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occupancy {
    pub(super) free_bytes: u64,
    /// Ids of processes that compute there.
    pub(super) processes: Vec<u32>,
}

impl Occupancy {
    fn dirt(&self, needed_bytes: u64) -> Option<String> {
        if !self.processes.is_empty() {
            let pids: Vec<String> = self.processes.iter().map(u32::to_string).collect();
            return Some(format!(
                "process {} computes on it; end it, or run where nobody does",
                pids.join(", ")
            ));
        }
        (self.free_bytes < needed_bytes).then(|| {
            format!(
                "{} MiB are free, the case needs {} MiB; free some, or run on another GPU",
                self.free_bytes >> 20,
                needed_bytes >> 20
            )
        })
    }
}

#[cfg(test)]
mod tests {
    //! Who may start, and when.
    use super::*;
    use std::{
        os::unix::fs::PermissionsExt,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    #[test]
    fn one_case_at_a_time_has_the_slot() {
        let uuid = format!("test-{}", std::process::id());
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let slot = Slot::take(&uuid).unwrap();
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(slot);
                });
            }
        });
        std::fs::remove_file(lock_path(&uuid)).unwrap();
        assert_eq!(most.into_inner(), 1);
    }

    #[test]
    fn a_lock_file_of_another_user_serves_and_is_waited_for_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu.lock");
        drop(Slot::take_within(&path, Duration::ZERO).unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o444, 0o444, "{mode:o}");
        // What it may not do: not even root may write it then.
        let _ = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444));
        let slot = Slot::take_within(&path, Duration::ZERO).unwrap();
        assert!(slot._lock.set_len(1).is_err(), "it is opened for writing");
        let late = Slot::take_within(&path, Duration::from_millis(20)).unwrap_err();
        let late = late.to_string();
        assert!(
            late.contains("gpu.lock") && late.contains("end that run"),
            "{late}"
        );
        drop(slot);
        Slot::take_within(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_name_of_a_gpu_leads_nowhere_else() {
        let path = lock_path("../../etc/GPU-1");
        assert_eq!(path, env::temp_dir().join("spillproof-etcGPU-1.lock"));
    }

    #[test]
    fn a_gpu_is_dirty_when_someone_computes_or_too_little_is_free() {
        let of = |free_bytes, processes: &[u32]| Occupancy {
            free_bytes,
            processes: processes.to_vec(),
        };
        assert_eq!(of(64 << 20, &[]).dirt(64 << 20), None);
        let foreign = of(64 << 20, &[41, 42]).dirt(1).unwrap();
        assert!(foreign.starts_with("process 41, 42 computes"), "{foreign}");
        let full = of(63 << 20, &[]).dirt(64 << 20).unwrap();
        assert!(
            full.starts_with("63 MiB are free, the case needs 64 MiB"),
            "{full}"
        );
    }
}
