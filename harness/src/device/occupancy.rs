//! A real GPU is clean when a case starts: nobody computes on it but the ballast that an earlier case left there.

use super::nvml::CudaGpu;
use crate::{ballast::Ballast, error::HarnessError, settle::settle};
use std::time::Duration;

/// How long a process that ended may keep its device memory.
const CLEANING_BOUND: Duration = Duration::from_secs(10);

impl CudaGpu {
    /// Waits until nobody computes on the GPU and so much of its memory is free.
    ///
    /// # Errors
    /// [`HarnessError::Device`]: it stays dirty, which is nobody's fault that is judged here.
    pub fn wait_until_clean(&self, needed_bytes: u64) -> Result<(), HarnessError> {
        let mut ballast = self.ballast();
        // One that does not obey is ended, and with it what it holds.
        ballast.take_if(|ballast| ballast.make_room(needed_bytes).is_err());
        let own = ballast.as_ref().map(Ballast::pid);
        let mut last = Ok(None);
        let clean = settle(CLEANING_BOUND, || {
            last = self.occupancy().map(|mut found| {
                found.processes.retain(|&pid| Some(pid) != own);
                found.dirt(needed_bytes)
            });
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

    /// Leaves a ballast for the next case. Where the management library does not tell whose memory it holds, as in a PID
    /// namespace, that case could not tell it from a stranger: it is ended then.
    pub fn keep(&self, ballast: Ballast) {
        let pid = ballast.pid();
        let known = self.occupancy();
        if known.is_ok_and(|found| found.processes.contains(&pid)) {
            *self.ballast() = Some(ballast);
        }
    }

    /// The ballast that lies on it since an earlier case.
    #[must_use]
    pub fn kept(&self) -> Option<Ballast> {
        self.ballast().take()
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
    //! Who may start.
    use super::*;

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
