//! What a real GPU is.

use super::nvml;
use crate::error::HarnessError;
use nvml_wrapper::error::NvmlError;

/// What does not change of a GPU while a machine runs; each absent where the management library does not tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuFacts {
    /// Its name, as `NVIDIA H200`.
    pub name: Option<String>,
    /// Its memory, bytes.
    pub total_bytes: Option<u64>,
    /// The driver's version.
    pub driver: Option<String>,
    /// The CUDA version that the driver supports, as `13.0`.
    pub cuda: Option<String>,
}

/// Reads a GPU by its number in the order of the PCI bus.
///
/// # Errors
/// No management library, or no such GPU.
pub fn gpu_facts(ordinal: u32) -> Result<GpuFacts, HarnessError> {
    let read = || -> Result<GpuFacts, NvmlError> {
        let nvml = nvml::open()?;
        let device = nvml.device_by_index(ordinal)?;
        let cuda = nvml.sys_cuda_driver_version().ok();
        Ok(GpuFacts {
            name: device.name().ok(),
            total_bytes: device.memory_info().ok().map(|memory| memory.total),
            driver: nvml.sys_driver_version().ok(),
            cuda: cuda.map(|version| format!("{}.{}", version / 1000, version % 1000 / 10)),
        })
    };
    read().map_err(|error| HarnessError::Device {
        device: format!("cuda:{ordinal}"),
        reason: error.to_string(),
    })
}
