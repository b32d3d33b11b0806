//! Which devices this machine has, found without a CUDA context.

use super::{DeviceKind, nvml};
use std::{fs, path::Path};

/// Where the kernel driver lists its GPUs, one directory each.
const DRIVER_LIST: &str = "/proc/driver/nvidia/gpus";

/// The most that an emulated device has: its memory is the host's, beside everything else that a laptop does.
pub const EMULATED_BYTES: u64 = 4 << 30;

/// One device, usable or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Which.
    pub kind: DeviceKind,
    /// For people: its name and size.
    pub description: String,
    /// Its memory, bytes, where there is a limit that is known.
    pub total_bytes: Option<u64>,
    /// Why it cannot be used, where it cannot.
    pub unavailable: Option<String>,
}

impl Discovered {
    /// Whether cases can run on it, and it is not the emulated one.
    #[must_use]
    pub fn is_usable_gpu(&self) -> bool {
        self.kind != DeviceKind::Emulated && self.unavailable.is_none()
    }
}

/// Lists the devices: the emulated one always, then the GPUs in the order of the PCI bus.
///
/// Asks the management library, and the kernel driver's list where that library is missing: a GPU that
/// is there but cannot be read is listed with the reason, so that it is not passed over in silence.
#[must_use]
pub fn discover() -> Vec<Discovered> {
    let mut devices = vec![Discovered {
        kind: DeviceKind::Emulated,
        description: "emulated GPU".into(),
        total_bytes: Some(EMULATED_BYTES),
        unavailable: None,
    }];
    match managed() {
        Ok(gpus) => devices.extend(gpus),
        Err(reason) => devices.extend(listed(Path::new(DRIVER_LIST), &reason)),
    }
    devices
}

fn managed() -> Result<Vec<Discovered>, String> {
    let nvml = nvml::open().map_err(|error| error.to_string())?;
    let count = nvml.device_count().map_err(|error| error.to_string())?;
    Ok((0..count)
        .map(|ordinal| {
            let described = nvml.device_by_index(ordinal).and_then(|device| {
                let memory = device.memory_info()?;
                let description = format!(
                    "{}, {} MiB, {} MiB used",
                    device.name()?,
                    memory.total >> 20,
                    memory.used >> 20
                );
                Ok((description, memory.total))
            });
            let (description, total_bytes, unavailable) = match described {
                Ok((description, total_bytes)) => (description, Some(total_bytes), None),
                Err(error) => ("GPU".into(), None, Some(error.to_string())),
            };
            Discovered {
                kind: DeviceKind::Cuda { ordinal },
                description,
                total_bytes,
                unavailable,
            }
        })
        .collect())
}

fn listed(list: &Path, reason: &str) -> Vec<Discovered> {
    let mut addresses: Vec<String> = fs::read_dir(list)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    addresses.sort();
    (0..)
        .zip(addresses)
        .map(|(ordinal, address)| Discovered {
            kind: DeviceKind::Cuda { ordinal },
            description: format!("GPU at {address}"),
            total_bytes: None,
            unavailable: Some(format!(
                "the management library libnvidia-ml.so.1 cannot be used: {reason}"
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    //! What is listed, on any machine.
    use super::*;

    #[test]
    fn the_emulated_device_is_always_first_and_usable() {
        let devices = discover();
        assert_eq!(devices[0].kind, DeviceKind::Emulated);
        assert_eq!(devices[0].unavailable, None);
        assert_eq!(
            devices.iter().map(|device| device.kind).collect::<Vec<_>>(),
            {
                let mut sorted: Vec<_> = devices.iter().map(|device| device.kind).collect();
                sorted.sort();
                sorted
            }
        );
    }

    #[test]
    fn a_gpu_without_a_management_library_is_listed_with_the_reason() {
        let list = tempfile::tempdir().unwrap();
        for address in ["0000:81:00.0", "0000:01:00.0"] {
            fs::create_dir(list.path().join(address)).unwrap();
        }
        let devices = listed(list.path(), "not found");
        assert_eq!(devices[0].description, "GPU at 0000:01:00.0");
        assert_eq!(devices[1].kind, DeviceKind::Cuda { ordinal: 1 });
        assert!(devices.iter().all(|device| {
            device
                .unavailable
                .as_ref()
                .is_some_and(|reason| reason.contains("not found"))
        }));
    }

    #[test]
    fn a_machine_without_the_driver_lists_none() {
        assert_eq!(listed(Path::new("/nonexistent"), ""), []);
    }

    #[test]
    fn kinds_print_as_they_stand_in_case_names() {
        assert_eq!(DeviceKind::Emulated.to_string(), "emulated");
        assert_eq!(DeviceKind::Cuda { ordinal: 3 }.to_string(), "cuda:3");
    }
}
