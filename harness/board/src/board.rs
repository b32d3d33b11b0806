//! A board: made by the harness, opened by subjects.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::fs::{
    FlockOperation, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_lock, fstat,
    ftruncate, memfd_create, open,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec, pread};
use rustix::process::getpid;

use crate::descriptor::Descriptor;
use crate::error::BoardError;
use crate::layout::{
    DEVICE_REGION_BYTES, FILE_BYTES, LAYOUT_VERSION, MAGIC, MAX_DEVICES, device, device_word,
    header,
};
use crate::map::Words;
use crate::table::Locked;

/// The lock of the file excludes processes only, and closing any descriptor of the file gives it up for the whole
/// process: threads exclude each other here, and a board is closed under this lock too.
static THREADS: Mutex<()> = Mutex::new(());

/// What a board is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardConfig {
    /// The devices, in order; none is legal (a driver without a device).
    pub devices: Vec<BoardDevice>,
}

/// One emulated device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardDevice {
    /// Memory that can be allocated, in bytes.
    pub capacity_bytes: u64,
    /// Name as clients see it, cut to 63 bytes.
    pub name: String,
}

/// An open board. Its descriptor is close-on-exec.
#[derive(Debug)]
pub struct Board {
    // `None` only while being dropped, so that the descriptor closes under the lock.
    descriptor: Option<Descriptor>,
    words: Words,
    path: PathBuf,
}

impl Board {
    /// Makes a board in anonymous memory. It lives as long as any process has it open.
    pub fn create(config: &BoardConfig) -> Result<Board, BoardError> {
        if config.devices.len() > MAX_DEVICES {
            return Err(BoardError::TooManyDevices {
                devices: config.devices.len(),
                limit: MAX_DEVICES,
            });
        }
        let unnamed = Path::new("memfd:spillproof-board");
        let fail = |operation| {
            move |source| BoardError::Io {
                operation,
                path: unnamed.to_path_buf(),
                source,
            }
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let descriptor = memfd_create("spillproof-board", flags).map_err(fail("create"))?;
        let descriptor = above_standard_streams(descriptor.into()).map_err(fail("duplicate"))?;
        ftruncate(&descriptor, FILE_BYTES).map_err(fail("size"))?;
        // Nobody can shrink the file below the others' mappings.
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW).map_err(fail("seal"))?;
        let words = Words::map(descriptor.as_fd()).map_err(fail("map"))?;
        for (index, (config, number)) in config.devices.iter().zip(0u32..).enumerate() {
            let limit_bytes = DEVICE_REGION_BYTES / 2;
            if config.capacity_bytes > limit_bytes {
                return Err(BoardError::DeviceTooLarge {
                    device: index,
                    capacity_bytes: config.capacity_bytes,
                    limit_bytes,
                });
            }
            let start = device_word(number);
            words.set(start + device::CAPACITY_BYTES, config.capacity_bytes);
            words.set_text(start + device::NAME, device::NAME_WORDS, &config.name);
        }
        words.set(header::DEVICES, config.devices.len() as u64);
        words.set(header::LAYOUT_VERSION, LAYOUT_VERSION);
        words.set(header::MAGIC, MAGIC);
        let path = PathBuf::from(format!(
            "/proc/{}/fd/{}",
            getpid().as_raw_pid(),
            descriptor.as_fd().as_raw_fd()
        ));
        Ok(Board {
            descriptor: Some(descriptor),
            words,
            path,
        })
    }

    /// Opens a board made by another process.
    pub fn open(path: &Path) -> Result<Board, BoardError> {
        let fail = |operation| {
            move |source| BoardError::Io {
                operation,
                path: path.to_path_buf(),
                source,
            }
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let descriptor = open(path, flags, Mode::empty()).map_err(fail("open"))?;
        let descriptor = above_standard_streams(descriptor.into()).map_err(fail("duplicate"))?;
        let mut first = [0u8; 16];
        let count = pread(&descriptor, &mut first, 0).map_err(fail("read"))?;
        let mut word = [0u8; 8];
        word.copy_from_slice(&first[..8]);
        let length = fstat(&descriptor).map_err(fail("stat"))?.st_size;
        if count < first.len() || u64::from_le_bytes(word) != MAGIC {
            return Err(BoardError::NotABoard {
                path: path.to_path_buf(),
                found: u64::from_le_bytes(word),
            });
        }
        word.copy_from_slice(&first[8..]);
        let found = u64::from_le_bytes(word);
        if found != LAYOUT_VERSION || u64::try_from(length) != Ok(FILE_BYTES) {
            return Err(BoardError::Layout {
                path: path.to_path_buf(),
                found,
                expected: LAYOUT_VERSION,
            });
        }
        let words = Words::map(descriptor.as_fd()).map_err(fail("map"))?;
        Ok(Board {
            descriptor: Some(descriptor),
            words,
            path: path.to_path_buf(),
        })
    }

    /// The path by which other processes open the board, while this one keeps it open.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of devices.
    pub fn device_count(&self) -> u32 {
        self.words.get(header::DEVICES).min(MAX_DEVICES as u64) as u32
    }

    /// Capacity of a device in bytes, or `None` where there is no such device.
    pub fn capacity_bytes(&self, index: u32) -> Option<u64> {
        (index < self.device_count())
            .then(|| self.words.get(device_word(index) + device::CAPACITY_BYTES))
    }

    /// Name of a device, or `None` where there is no such device.
    pub fn device_name(&self, index: u32) -> Option<String> {
        (index < self.device_count()).then(|| {
            self.words
                .text(device_word(index) + device::NAME, device::NAME_WORDS)
        })
    }

    /// Takes the lock of the board: against the other threads first, then against the other processes.
    pub fn lock(&self) -> Result<Locked<'_>, BoardError> {
        let threads = lock_threads();
        let descriptor = self.descriptor();
        loop {
            match fcntl_lock(descriptor, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Locked::new(self, threads)),
                Err(Errno::INTR) => {}
                Err(source) => return Err(self.io_error("lock", source)),
            }
        }
    }

    /// Bytes taken on all devices by everybody, at a glance: without the lock, which a process that was stopped may have.
    pub fn glance_used_bytes(&self) -> u64 {
        (0..self.device_count())
            .map(|index| self.words.get(device_word(index) + device::USED_BYTES))
            .fold(0, u64::saturating_add)
    }

    pub(crate) fn unlock(&self) {
        // Cannot fail on an open descriptor; the kernel releases the lock at the end of the process in any case.
        let _ = fcntl_lock(self.descriptor(), FlockOperation::Unlock);
    }

    pub(crate) fn words(&self) -> &Words {
        &self.words
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.descriptor {
            Some(descriptor) => descriptor.as_fd(),
            None => unreachable!("the descriptor is taken only in drop"),
        }
    }

    pub(crate) fn io_error(&self, operation: &'static str, source: Errno) -> BoardError {
        BoardError::Io {
            operation,
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _threads = lock_threads();
        drop(self.descriptor.take());
    }
}

fn lock_threads() -> MutexGuard<'static, ()> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A subject that was started with a standard stream closed must not find the board under its number.
fn above_standard_streams(descriptor: Descriptor) -> Result<Descriptor, Errno> {
    if descriptor.as_fd().as_raw_fd() > 2 {
        return Ok(descriptor);
    }
    fcntl_dupfd_cloexec(&descriptor, 3).map(Descriptor::from)
}
