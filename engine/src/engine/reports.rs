//! What the engine tells: plain values, made once and handed out.

use crate::{Extent, TransferPath};
use std::path::PathBuf;

/// Where bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Device memory.
    Vram,
    /// Anonymous host memory.
    Ram,
    /// A file that is mapped.
    Mapped,
    /// A file that is not.
    File,
}

/// Result of [`crate::Engine::load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadReport {
    /// Device memory that the model now takes; less than its size when it did not fit whole.
    pub device_bytes: u64,
}

/// Result of [`crate::Engine::make_resident`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidentReport {
    /// Allocations that met device OOM and were then served.
    pub recoveries: u64,
}

/// Result of [`crate::Engine::request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestReport {
    /// Allocations that met device OOM and were then served.
    pub recoveries: u64,
}

/// Result of [`crate::Engine::free_memory`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeReport {
    /// How much of what was loaded left.
    pub extent: Extent,
    /// Device memory released, bytes.
    pub freed_bytes: u64,
    /// What left, in order.
    pub moves: Vec<Moved>,
}

/// One block that left the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The tensors that share it, in the manifest's order.
    pub tensors: Vec<String>,
    /// Device memory released, bytes.
    pub bytes: u64,
    /// Where it is now.
    pub to: Tier,
    /// File bytes written for it, padding included; 0 when a current copy was there.
    pub written_bytes: u64,
    /// How it travelled.
    pub path: TransferPath,
}

/// What the engine holds, without moving anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Every model, in load order.
    pub models: Vec<ModelStatus>,
    /// Bytes per tier.
    pub tiers: TierBytes,
    /// Every offload file, those that only views hold included.
    pub files: Vec<FileStatus>,
    /// Offload file bytes written since the engine was opened, padding included.
    pub written_bytes: u64,
    /// Offload file bytes read to the device since the engine was opened.
    pub read_bytes: u64,
    /// Of the bytes written, those that went past the page cache by direct I/O, padding included.
    pub direct_written_bytes: u64,
    /// Of the bytes read, those that came past the page cache, padding included.
    pub direct_read_bytes: u64,
    /// Leftovers of dead owners removed when the engine was opened.
    pub reaped_orphans: u64,
    /// Files that could not be unlinked yet (E36).
    pub pending_unlinks: u64,
    /// Device bytes that the driver refused to take back; every operation tries again (F9).
    pub unreleased_bytes: u64,
    /// What works less well than it should, for people: slots that could not be pinned (F6), failed releases, why cuFile
    /// is not used, what it failed with.
    pub notes: Vec<String>,
}

/// One model in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelStatus {
    /// Its name.
    pub name: String,
    /// Device memory that it takes, bytes.
    pub device_bytes: u64,
    /// Its tensors, in the manifest's order.
    pub tensors: Vec<TensorStatus>,
}

/// One tensor in [`ModelStatus`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorStatus {
    /// Its name.
    pub name: String,
    /// The highest tier that holds it. A tensor without bytes is with the rest of its model: on the device while
    /// anything of it is, else in RAM.
    pub tier: Tier,
    /// How its last transfer between device and host travelled; `None` before the first.
    pub path: Option<TransferPath>,
}

/// Bytes per tier, each byte counted once, in the highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierBytes {
    /// Device memory.
    pub vram: u64,
    /// Anonymous host memory.
    pub ram: u64,
    /// Mapped files.
    pub mapped: u64,
    /// Files that are not mapped.
    pub file: u64,
}

/// One offload file in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Where it is.
    pub path: PathBuf,
    /// Its length, bytes; it is sparse.
    pub bytes: u64,
}
