//! Collects settings and checks them together.

use super::{
    CuFileUse, Device, FileIo, FileTier, Settings, TmpfsPolicy,
    size::{Unit, parse_size},
};
use crate::transfer::CHECKSUM_BYTES;
use crate::{error::Error, policy::Threshold};
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

const MIB: u64 = 1 << 20;

/// Staging memory when nothing else is said: with most threads, 24 slots of 2 MiB.
const DEFAULT_STAGING_BYTES: u64 = 48 * MIB;

/// More copy no faster out of the page cache than the bus takes it: one makes about 4 GB/s with checksum and copy to the device. Disks are
/// busy with two.
const MOST_DEFAULT_IO_THREADS: usize = 12;

/// Smaller slots would make the calls, not the bytes, the cost.
const MIN_SLOT_BYTES: u64 = MIB / 2;

/// A slot to the device and one from it.
const SLOTS_PER_THREAD: u64 = 2;

/// Far beyond what can be pinned: a slip of the unit.
const MAX_STAGING_BYTES: u64 = 1 << 40;

const MAX_IO_THREADS: usize = 256;

/// Opening takes a second or two on machines with many devices; one that takes longer was seen never to come back.
const DEFAULT_CUFILE_OPEN_BOUND: Duration = Duration::from_secs(5);

/// The unit of direct I/O, and of every offset in a spill file.
const SLOT_GRANULE_BYTES: u64 = CHECKSUM_BYTES;

/// A value, and who gave it: what an error about it must name.
#[derive(Clone, Debug)]
struct Given<T> {
    value: T,
    variable: &'static str,
    text: String,
}

impl<T> Given<T> {
    fn invalid(&self, remedy: impl Into<String>) -> Error {
        Error::InvalidSetting {
            variable: self.variable,
            value: self.text.clone(),
            remedy: remedy.into(),
        }
    }
}

/// Collects settings; a later call overrides an earlier one, so the environment goes last.
#[derive(Debug)]
pub struct SettingsBuilder {
    device: String,
    directory: Option<Given<PathBuf>>,
    staging_bytes: Given<u64>,
    io_threads: Given<usize>,
    threshold: Threshold,
    ram_limit_bytes: Option<u64>,
    file_tier: FileTier,
    tmpfs: TmpfsPolicy,
    durable: bool,
    file_io: FileIo,
    cufile: CuFileUse,
    cufile_open_bound: Duration,
    /// The first variable that could not be read; told by `build`.
    malformed: Option<Error>,
}

impl Default for SettingsBuilder {
    fn default() -> Self {
        Self {
            device: "cuda:0".into(),
            directory: None,
            staging_bytes: Given {
                value: DEFAULT_STAGING_BYTES,
                variable: "staging_bytes",
                text: DEFAULT_STAGING_BYTES.to_string(),
            },
            io_threads: Given {
                value: default_io_threads(),
                variable: "io_threads",
                text: default_io_threads().to_string(),
            },
            threshold: Threshold::Off,
            ram_limit_bytes: None,
            file_tier: FileTier::Mapped,
            tmpfs: TmpfsPolicy::Refuse,
            durable: false,
            file_io: FileIo::Auto,
            cufile: CuFileUse::Auto,
            cufile_open_bound: DEFAULT_CUFILE_OPEN_BOUND,
            malformed: None,
        }
    }
}

impl SettingsBuilder {
    /// The device, `cuda:N` (default `cuda:0`).
    #[must_use]
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.device = device.into();
        self
    }

    /// The directory in which the engine makes its own (default: the system's for temporary files).
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        let value = directory.into();
        self.directory = Some(Given {
            text: value.display().to_string(),
            value,
            variable: "directory",
        });
        self
    }

    /// Most pinned and staging host memory that the engine ever holds, bytes (default 48 MiB).
    #[must_use]
    pub fn staging_bytes(mut self, bytes: u64) -> Self {
        self.staging_bytes = Given {
            value: bytes,
            variable: "staging_bytes",
            text: bytes.to_string(),
        };
        self
    }

    /// Number of I/O threads for each direction, to the device and from it (default: the number of processors, 2 to 12); 1 makes runs deterministic.
    #[must_use]
    pub fn io_threads(mut self, threads: usize) -> Self {
        self.io_threads = Given {
            value: threads,
            variable: "io_threads",
            text: threads.to_string(),
        };
        self
    }

    /// Below what remaining host memory blocks go to files (default: files are turned off).
    #[must_use]
    pub fn threshold(mut self, threshold: Threshold) -> Self {
        self.threshold = threshold;
        self
    }

    /// Host memory that the engine may plan with, bytes (default: what the machine has).
    #[must_use]
    pub fn ram_limit_bytes(mut self, bytes: Option<u64>) -> Self {
        self.ram_limit_bytes = bytes;
        self
    }

    /// What becomes of data in files (default: mapped).
    #[must_use]
    pub fn file_tier(mut self, tier: FileTier) -> Self {
        self.file_tier = tier;
        self
    }

    /// What to do with an offload directory that lives in memory (default: refuse it).
    #[must_use]
    pub fn tmpfs(mut self, policy: TmpfsPolicy) -> Self {
        self.tmpfs = policy;
        self
    }

    /// Whether files are synchronised with their disk before device memory is given back (default: no).
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Whether files are written and read past the page cache (default: those that take much of the memory).
    #[must_use]
    pub fn file_io(mut self, file_io: FileIo) -> Self {
        self.file_io = file_io;
        self
    }

    /// When files are written and read by cuFile (default: where that is direct).
    #[must_use]
    pub fn cufile(mut self, when: CuFileUse) -> Self {
        self.cufile = when;
        self
    }

    /// How long the cuFile driver may take to open (default 5 s). One that takes longer is not used by this process. The
    /// first engine of a process waits for it, others have its answer.
    #[must_use]
    pub fn cufile_open_bound(mut self, bound: Duration) -> Self {
        self.cufile_open_bound = bound;
        self
    }

    /// Lays the variables of this process on top of what was set so far.
    ///
    /// | variable | meaning |
    /// | --- | --- |
    /// | `OFFLOAD_DEVICE` | the device, `cuda:N` |
    /// | `OFFLOAD_DIR` | the directory |
    /// | `MMAP_MEM_THRESHOLD_GB` | the threshold, GiB, fractions allowed; 0 turns files off |
    /// | `OFFLOAD_RAM_LIMIT_GB` | host memory to plan with, GiB, fractions allowed |
    /// | `OFFLOAD_STAGING_MB` | staging memory, MiB |
    /// | `OFFLOAD_IO_THREADS` | number of I/O threads for each direction |
    /// | `OFFLOAD_FILE_TIER` | `mapped` or `file` |
    /// | `OFFLOAD_TMPFS` | `refuse` or `count` |
    /// | `OFFLOAD_DURABLE` | `0` or `1` |
    /// | `OFFLOAD_FILE_IO` | `auto`, `direct` or `cached` |
    /// | `OFFLOAD_CUFILE` | `auto`, `on` or `off` |
    #[must_use]
    pub fn environment(self) -> Self {
        self.environment_from(|variable| std::env::var_os(variable))
    }

    /// As [`environment`](Self::environment), from any source of variables.
    #[must_use]
    pub fn environment_from(mut self, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        if let Err(error) = self.read_environment(&variable) {
            self.malformed.get_or_insert(error);
        }
        self
    }

    fn read_environment(
        &mut self,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<(), Error> {
        let text = |name: &'static str| {
            variable(name)
                .map(|value| utf8(name, &value))
                .transpose()
                .map(|text| text.map(|text| (name, text)))
        };
        if let Some((_, device)) = text("OFFLOAD_DEVICE")? {
            self.device = device;
        }
        if let Some(value) = variable("OFFLOAD_DIR") {
            self.directory = Some(Given {
                text: value.display().to_string(),
                value: value.into(),
                variable: "OFFLOAD_DIR",
            });
        }
        if let Some((name, text)) = text("MMAP_MEM_THRESHOLD_GB")? {
            self.threshold = match parse_size(name, &text, Unit::Gib)? {
                0 => Threshold::Off,
                bytes => Threshold::Below(bytes),
            };
        }
        if let Some((name, text)) = text("OFFLOAD_RAM_LIMIT_GB")? {
            self.ram_limit_bytes = Some(parse_size(name, &text, Unit::Gib)?);
        }
        if let Some((name, text)) = text("OFFLOAD_STAGING_MB")? {
            self.staging_bytes = Given {
                value: parse_size(name, &text, Unit::Mib)?,
                variable: name,
                text,
            };
        }
        if let Some((name, text)) = text("OFFLOAD_IO_THREADS")? {
            self.io_threads = Given {
                value: count(name, &text)?,
                variable: name,
                text,
            };
        }
        if let Some((name, text)) = text("OFFLOAD_FILE_TIER")? {
            let words = [("mapped", FileTier::Mapped), ("file", FileTier::Closed)];
            self.file_tier = word(name, &text, &words)?;
        }
        if let Some((name, text)) = text("OFFLOAD_TMPFS")? {
            let words = [
                ("refuse", TmpfsPolicy::Refuse),
                ("count", TmpfsPolicy::CountAsRam),
            ];
            self.tmpfs = word(name, &text, &words)?;
        }
        if let Some((name, text)) = text("OFFLOAD_DURABLE")? {
            self.durable = word(name, &text, &[("0", false), ("1", true)])?;
        }
        if let Some((name, text)) = text("OFFLOAD_FILE_IO")? {
            let words = [
                ("auto", FileIo::Auto),
                ("direct", FileIo::Direct),
                ("cached", FileIo::Cached),
            ];
            self.file_io = word(name, &text, &words)?;
        }
        if let Some((name, text)) = text("OFFLOAD_CUFILE")? {
            let words = [
                ("auto", CuFileUse::Auto),
                ("on", CuFileUse::On),
                ("off", CuFileUse::Off),
            ];
            self.cufile = word(name, &text, &words)?;
        }
        Ok(())
    }

    /// Checks the settings. The directory itself is looked at when the engine opens.
    ///
    /// # Errors
    /// The first setting that cannot be used, with its value and what to set instead.
    pub fn build(self) -> Result<Settings, Error> {
        if let Some(error) = self.malformed {
            return Err(error);
        }
        let directory = match self.directory {
            Some(given) if given.value.as_os_str().is_empty() => {
                return Err(given.invalid("give the path of a directory, or leave it unset"));
            }
            Some(given) => given.value,
            None => std::env::temp_dir(),
        };
        let slot_bytes = slot_bytes(&self.staging_bytes, &self.io_threads)?;
        Ok(Settings {
            device: parse_device(&self.device)?,
            directory,
            staging_bytes: self.staging_bytes.value,
            slot_bytes,
            io_threads: self.io_threads.value,
            threshold: self.threshold,
            ram_limit_bytes: self.ram_limit_bytes,
            file_tier: self.file_tier,
            tmpfs: self.tmpfs,
            durable: self.durable,
            file_io: self.file_io,
            cufile: self.cufile,
            cufile_open_bound: self.cufile_open_bound,
        })
    }
}

fn default_io_threads() -> usize {
    // Where the number of processors is not told, two.
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    processors.clamp(2, MOST_DEFAULT_IO_THREADS)
}

fn slot_bytes(staging: &Given<u64>, threads: &Given<usize>) -> Result<u64, Error> {
    let count = threads.value as u64;
    if count == 0 || threads.value > MAX_IO_THREADS {
        return Err(threads.invalid(format!("give 1 to {MAX_IO_THREADS} threads")));
    }
    if staging.value > MAX_STAGING_BYTES {
        return Err(staging.invalid("give at most 1 TiB"));
    }
    let slot = staging.value / (count * SLOTS_PER_THREAD) / SLOT_GRANULE_BYTES * SLOT_GRANULE_BYTES;
    if slot < MIN_SLOT_BYTES {
        return Err(staging.invalid(format!(
            "give at least {count} MiB, one for each I/O thread, or use fewer threads"
        )));
    }
    Ok(slot)
}

fn parse_device(text: &str) -> Result<Device, Error> {
    let unsupported = || Error::UnsupportedDevice(text.to_owned());
    let ordinal = match text.strip_prefix("cuda") {
        Some("") => "0",
        Some(rest) => rest.strip_prefix(':').ok_or_else(unsupported)?,
        None => return Err(unsupported()),
    };
    // `u32::from_str` takes a plus sign too.
    if !ordinal.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(unsupported());
    }
    let ordinal = ordinal.parse().map_err(|_| unsupported())?;
    Ok(Device { ordinal })
}

fn utf8(variable: &'static str, value: &OsStr) -> Result<String, Error> {
    value
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::InvalidSetting {
            variable,
            value: value.to_string_lossy().into_owned(),
            remedy: "give text in UTF-8".into(),
        })
}

fn count(variable: &'static str, text: &str) -> Result<usize, Error> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| Error::InvalidSetting {
            variable,
            value: text.to_owned(),
            remedy: format!("give a whole number, 1 to {MAX_IO_THREADS}"),
        })
}

fn word<T: Copy>(variable: &'static str, text: &str, words: &[(&str, T)]) -> Result<T, Error> {
    words
        .iter()
        .find_map(|(word, value)| (*word == text).then_some(*value))
        .ok_or_else(|| Error::InvalidSetting {
            variable,
            value: text.to_owned(),
            remedy: format!(
                "give one of {}",
                words
                    .iter()
                    .map(|(word, _)| *word)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        })
}
