//! A real GPU, read through its management library: no context is made on it.

use super::{
    absence,
    emulated::CUFILE_NAMES,
    occupancy::Occupancy,
    reading::{NvmlReading, NvmlScope},
    turn::Turn,
};
use crate::{ballast::Ballast, error::HarnessError};
use nvml_wrapper::{Nvml, enums::device::UsedGpuMemory, error::NvmlError};
use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The management library has its versioned name only where no development package is installed.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Names the file of cuFile's settings.
const CUFILE_SETTINGS: &str = "CUFILE_ENV_PATH_JSON";

/// A real GPU.
#[derive(Clone)]
pub struct CudaGpu {
    nvml: Arc<Nvml>,
    ordinal: u32,
    uuid: String,
    /// Looked through first by the loader.
    libraries: Option<PathBuf>,
    /// Held for as long as a case uses it.
    turn: Arc<Turn>,
}

impl fmt::Debug for CudaGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{} ({})", self.ordinal, self.uuid)
    }
}

/// The management library, opened once: as long as somebody has it open, the driver does not shut the GPU down between two
/// cases, which would cost each of them a second. An error is the normal answer of a machine without a GPU, and comes at once.
pub(super) fn open() -> Result<Arc<Nvml>, NvmlError> {
    static OPENED: Mutex<Option<Arc<Nvml>>> = Mutex::new(None);
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(nvml) = &*opened {
        return Ok(Arc::clone(nvml));
    }
    let nvml = Nvml::builder().lib_path(OsStr::new(LIBRARY)).init()?;
    Ok(Arc::clone(opened.insert(Arc::new(nvml))))
}

impl CudaGpu {
    /// The GPU with that number in the order of the PCI bus, once no other case uses it.
    ///
    /// # Errors
    /// No management library, no such GPU, or no place for its lock.
    pub fn open(ordinal: u32) -> Result<Self, HarnessError> {
        let failed = |error: NvmlError| HarnessError::Device {
            device: format!("cuda:{ordinal}"),
            reason: error.to_string(),
        };
        let nvml = open().map_err(failed)?;
        let uuid = nvml
            .device_by_index(ordinal)
            .and_then(|device| device.uuid())
            .map_err(failed)?;
        Ok(Self {
            nvml,
            ordinal,
            libraries: None,
            turn: Arc::new(Turn::take(&uuid)?),
            uuid,
        })
    }

    /// Keeps the machine's cuFile out of the subject's sight: files in `directory`, which is made, stand before it.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn without_cufile(mut self, directory: &Path) -> Result<Self, HarnessError> {
        fs::create_dir_all(directory).map_err(HarnessError::path("create", directory))?;
        absence::block(directory, &CUFILE_NAMES)?;
        self.libraries = Some(directory.to_owned());
        Ok(self)
    }

    /// Shows the subject this GPU alone, as its device 0, the loader path as it is, and the user's settings of cuFile.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut environment = vec![
            ("CUDA_VISIBLE_DEVICES".into(), self.uuid.clone().into()),
            ("CUDA_DEVICE_ORDER".into(), "PCI_BUS_ID".into()),
        ];
        let inherited = env::var_os("LD_LIBRARY_PATH");
        let paths = inherited.iter().flat_map(env::split_paths);
        let paths: Vec<PathBuf> = self.libraries.iter().cloned().chain(paths).collect();
        if let Some(path) = env::join_paths(&paths).ok().filter(|_| !paths.is_empty()) {
            environment.push(("LD_LIBRARY_PATH".into(), path));
        }
        if let Some(path) = env::var_os(CUFILE_SETTINGS) {
            environment.push((CUFILE_SETTINGS.into(), path));
        }
        environment
    }

    pub(super) fn ballast(&self) -> MutexGuard<'_, Option<Ballast>> {
        self.turn.ballast()
    }

    /// Who is on it, and what is free.
    pub(super) fn occupancy(&self) -> Result<Occupancy, HarnessError> {
        let read = || -> Result<Occupancy, NvmlError> {
            let device = self.nvml.device_by_index(self.ordinal)?;
            let processes = device.running_compute_processes()?;
            Ok(Occupancy {
                free_bytes: device.memory_info()?.free,
                processes: processes.into_iter().map(|process| process.pid).collect(),
            })
        };
        read().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &NvmlError) -> HarnessError {
        HarnessError::Device {
            device: format!("cuda:{}", self.ordinal),
            reason: error.to_string(),
        }
    }

    /// Memory in use by the processes `pids`, or by the device where the library knows none of them.
    ///
    /// # Errors
    /// The management library fails.
    pub fn reading(&self, pids: &[u32]) -> Result<NvmlReading, HarnessError> {
        let read = || -> Result<NvmlReading, NvmlError> {
            let device = self.nvml.device_by_index(self.ordinal)?;
            let memory = device.memory_info()?;
            let processes: Vec<(u32, UsedGpuMemory)> = device
                .running_compute_processes()?
                .into_iter()
                .map(|process| (process.pid, process.used_gpu_memory))
                .collect();
            Ok(of(
                Totals {
                    used: memory.used,
                    free: memory.free,
                    total: memory.total,
                },
                &processes,
                pids,
            ))
        };
        read().map_err(|error| self.failed(&error))
    }
}

struct Totals {
    used: u64,
    free: u64,
    total: u64,
}

fn of(totals: Totals, processes: &[(u32, UsedGpuMemory)], pids: &[u32]) -> NvmlReading {
    let mut own = None;
    let mut foreign = 0;
    for (pid, used) in processes {
        match used {
            UsedGpuMemory::Used(bytes) if pids.contains(pid) => {
                *own.get_or_insert(0) += bytes;
            }
            UsedGpuMemory::Used(bytes) => foreign += bytes,
            UsedGpuMemory::Unavailable => {}
        }
    }
    NvmlReading {
        used_bytes: own.unwrap_or(totals.used),
        scope: if own.is_some() {
            NvmlScope::Process
        } else {
            NvmlScope::Device
        },
        device_used_bytes: totals.used,
        free_bytes: totals.free,
        total_bytes: totals.total,
        foreign_bytes: own.map(|_| foreign),
    }
}

#[cfg(test)]
mod tests {
    //! Whose bytes are whose, from lists as the library gives them.
    use super::*;
    use UsedGpuMemory::{Unavailable, Used};

    const TOTALS: Totals = Totals {
        used: 900,
        free: 100,
        total: 1000,
    };

    #[test]
    fn listed_processes_are_told_apart() {
        let reading = of(
            TOTALS,
            &[(1, Used(300)), (2, Used(200)), (3, Used(50))],
            &[1, 3],
        );
        assert_eq!(
            (reading.used_bytes, reading.scope),
            (350, NvmlScope::Process)
        );
        assert_eq!(reading.foreign_bytes, Some(200));
    }

    #[test]
    fn without_a_listed_process_the_device_speaks_for_all() {
        for processes in [&[][..], &[(4711, Used(300))], &[(1, Unavailable)]] {
            let reading = of(TOTALS, processes, &[1]);
            assert_eq!(
                (reading.used_bytes, reading.scope),
                (900, NvmlScope::Device)
            );
            assert_eq!(reading.foreign_bytes, None);
        }
    }
}
