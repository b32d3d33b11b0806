//! An offload engine for models made of named tensors: it moves them between device memory, RAM and files.
//!
//! Inference servers run models that are larger than VRAM and RAM. This engine brings tensors to the device as a request visits
//! them, lets earlier ones go when memory runs out, and gives memory back on request: all of it, or at least so many
//! bytes. What leaves goes to RAM while there is plenty, else to a file that is mapped back or only read again.
//!
//! ```no_run
//! use spillproof_engine::{Engine, Error, MemoryRequest, ModelSource, Settings};
//!
//! # fn run_layer(_name: &str, _address: u64) -> Result<(), Error> { Ok(()) }
//! # fn main() -> Result<(), Error> {
//! // The environment (`MMAP_MEM_THRESHOLD_GB`, `OFFLOAD_…`) lies on top of what is set here.
//! let settings = Settings::builder().directory("/var/tmp/offload").environment().build()?;
//! let engine = Engine::open(settings)?;
//! engine.load("unet", ModelSource::Safetensors("unet.safetensors".into()))?;
//! // 64 MiB of workspace; each tensor is on the device while its visitor runs.
//! engine.request("unet", 64 << 20, &mut |tensor| run_layer(tensor.name(), tensor.address()))?;
//! engine.free_memory(None, MemoryRequest::Full)?;
//! let view = engine.map("unet", "conv_in.weight")?;
//! let mut first = [0; 16];
//! view.read_at(0, &mut first)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Memory
//! Besides what settings send to RAM, the engine holds its staging budget ([`SettingsBuilder::staging_bytes`], 48 MiB by
//! default), pinned where the driver allows it, whatever the size of the models.
//!
//! # Files
//! Each model has one file in a directory of the engine's own, locked, mode 0700, with a checksum per slot of data. Files
//! are never trusted by name and go with the last tensor or view that needs them; what a killed process left is removed
//! at the next start.
//!
//! Somebody may cut, change, unlink or remove any of it at any time: readers get the right bytes or a typed error, the
//! process gets no signal, and the directory is made again when the next file needs it.
//!
//! Large files go past the kernel's page cache where that has no room to spare, and are read from it as far as it has them
//! ([`FileIo`], [`Status::direct_written_bytes`]); what the filesystem refuses for direct I/O goes through the cache.
//!
//! # Threads
//! Any thread may call at any time. Moves have their turn in the order of asking, two at a time where one model leaves the device and
//! another one arrives; a request has it while it brings a block in, not while its visitor runs, and the block that a visitor looks at stays, unchanged, until it returns.
//! [`Engine::status`] and [`Engine::map`] wait for nobody. [`Engine::unless`] gives the operations that a [`Cancellation`]
//! ends early: between chunks, between blocks and wherever they wait, with the old or the new state left behind.
//!
//! # GPUDirect Storage
//! Where NVIDIA's cuFile library is installed, a device is open, and a probe in the offload directory shows that what cuFile
//! writes it also reads back, files are written from device memory and read to it by cuFile: with
//! [`CuFileUse::Auto`], the default, only where it does so directly, with [`CuFileUse::On`] through its own buffers in
//! host memory, too. Whole pages travel so; what is left of a block's last page, and blocks smaller than a page, are
//! staged. Every block reports the path that it took ([`TransferPath`]), and [`Status::notes`] says why cuFile is not used.
//!
//! What a block holds on the device is copied out through the staging slots besides, to make or verify its checksums.
//! Whatever cuFile fails with, the block is staged instead, within the same budget, and what has failed for good is not
//! tried again: the file, or cuFile altogether, by the code. A full disk is told as such.
//!
//! The driver is opened once a process, by whichever engine is first, with a bound
//! ([`SettingsBuilder::cufile_open_bound`]); one that does not come back leaves a thread behind, which may keep a processor
//! busy, and is not used by this process. Where `/proc/modules` is missing a library that reads it is not opened at all: it
//! would never come back. It is never closed, nor are its settings touched: both belong to the process. Once open it has threads of its
//! own, a log file (`cufile.log` in the working directory) and one descriptor of it, which stay. A file that cuFile uses
//! has a second descriptor and a handle, which go with the file. The asynchronous and batch calls are not used: beside the
//! disk they would gain nothing, and a call that has returned must have ended.
//!
//! # What it does not do
//! There is no hardware abstraction layer: a device that is not CUDA is refused. Two models do not leave, or
//! arrive, beside each other, as they would share the disk and the staging slots. A visitor that runs is not interrupted. Mapped bytes cannot be borrowed, only
//! copied out ([`TensorView::read_at`] says why and what that costs). A forked child is refused whatever would move bytes or
//! take a lock; views that it was born with it may read.

mod cancellation;
mod cuda;
mod cufile;
mod engine;
mod error;
mod memory;
mod model;
mod policy;
mod settings;
mod spill;
mod transfer;

pub use cancellation::Cancellation;
pub use engine::{
    DeviceTensor, Engine, FileStatus, FreeReport, LoadReport, ModelSource, ModelStatus, Moved,
    RequestReport, ResidentReport, Status, TensorStatus, TensorView, Tier, TierBytes, Unless,
};
pub use error::{Error, ErrorKind};
pub use model::{Dtype, Fill, Manifest, ManifestStorage, ManifestTensor, Pattern};
pub use policy::{
    BlockFacts, Destination, Extent, HostCopy, MemoryRequest, Plan, PlannedMove, ShortTier,
    Shortfall, Threshold, TierFacts, plan,
};
pub use settings::{CuFileUse, Device, FileIo, FileTier, Settings, SettingsBuilder, TmpfsPolicy};
pub use transfer::{Contents, TransferPath};
