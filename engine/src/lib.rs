//! An offload engine for models made of named tensors: it moves them between device memory, RAM and files.

mod cuda;
mod engine;
mod error;
mod memory;
mod model;
mod policy;
mod settings;
mod spill;
mod transfer;

pub use engine::{
    DeviceTensor, Engine, FileStatus, FreeReport, LoadReport, ModelSource, ModelStatus, Moved,
    RequestReport, ResidentReport, Status, TensorStatus, TensorView, Tier, TierBytes,
};
pub use error::{Error, ErrorKind};
pub use model::{Dtype, Fill, Manifest, ManifestStorage, ManifestTensor, Pattern};
pub use policy::{
    BlockFacts, Destination, Extent, HostCopy, MemoryRequest, Plan, PlannedMove, ShortTier,
    Shortfall, Threshold, TierFacts, plan,
};
pub use settings::{Device, FileTier, Settings, SettingsBuilder, TmpfsPolicy};
pub use transfer::{Contents, TransferPath};
