//! An offload engine for models made of named tensors: it moves them between device memory, RAM and files.

mod error;
mod policy;

pub use error::{Error, ErrorKind};
pub use policy::{
    BlockFacts, Destination, Extent, HostCopy, MemoryRequest, Plan, PlannedMove, ShortTier,
    Shortfall, Threshold, TierFacts, plan,
};
