//! A real GPU belongs to one case at a time, over all threads and processes of the machine, and is clean when a case starts.

use super::nvml::CudaGpu;
use crate::{error::HarnessError, settle::settle};
use std::{
    env,
    fs::{File, OpenOptions},
    path::PathBuf,
    time::Duration,
};

/// How long a process that ended may keep its device memory.
const CLEANING_BOUND: Duration = Duration::from_secs(10);

/// The right to use a GPU; given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    _lock: File,
}

impl Slot {
    /// Waits until every other case is done with the GPU of this unique id.
    ///
    /// # Errors
    /// The lock file cannot be made; it lies in the directory for temporary files.
    pub(super) fn take(uuid: &str) -> Result<Self, HarnessError> {
        let path = lock_path(uuid);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(HarnessError::path("open", &path))?;
        file.lock().map_err(HarnessError::path("lock", &path))?;
        Ok(Self { _lock: file })
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
