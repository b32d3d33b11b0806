//! An offload engine for models made of named tensors: it moves them between device memory, RAM and files.

mod error;
mod model;
mod policy;
mod settings;
mod spill;

pub use error::{Error, ErrorKind};
pub use model::{Dtype, Fill, Manifest, ManifestStorage, ManifestTensor, Pattern};
pub use policy::{
    BlockFacts, Destination, Extent, HostCopy, MemoryRequest, Plan, PlannedMove, ShortTier,
    Shortfall, Threshold, TierFacts, plan,
};
pub use settings::{Device, FileTier, Settings, SettingsBuilder, TmpfsPolicy};
