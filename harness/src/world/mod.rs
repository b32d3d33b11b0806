//! Where a case lives: the volume of its offload directory, what its subject may use, and what happens around it.
//!
//! Everything here is real: small filesystems, resource limits and memory cgroups of the kernel, made for one subject alone and
//! gone with it. What this machine does not permit is found out when trials are listed ([`unavailable`]).

mod enclosure;
mod group;
mod image;
mod limit;
mod permitted;
mod storage;

pub use enclosure::Enclosure;
pub use group::MemoryGroup;
pub(crate) use image::make_image;
pub(crate) use limit::{Headroom, lift, lower};
pub use permitted::unavailable;
pub use storage::out_of_direct_reach;

use crate::{
    case::Action,
    crash::{Deadly, Kill, Moment},
};
use std::fmt;

/// Where a case lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// What the offload directory lies on.
    pub volume: Volume,
    /// Most bytes that a file of the subject may have, `RLIMIT_FSIZE`, from its start.
    pub file_bytes: Option<u64>,
    /// Most host memory that the subject may take, bytes: a memory cgroup of its own.
    pub memory_bytes: Option<u64>,
}

/// What an offload directory lies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Volume {
    /// The disk on which the case's own directory lies.
    #[default]
    Disk,
    /// A disk filesystem of its own that holds this many bytes, its own structures included.
    SmallDisk {
        /// Its size.
        bytes: u64,
    },
    /// A filesystem in memory of its own that holds this many bytes.
    SmallMemory {
        /// Its size.
        bytes: u64,
    },
    /// The machine's own filesystem in memory, `/dev/shm`.
    Memory,
}

impl Volume {
    /// Whether what lies on it takes host memory.
    #[must_use]
    pub fn is_in_memory(self) -> bool {
        match self {
            Self::Disk | Self::SmallDisk { .. } => false,
            Self::SmallMemory { .. } | Self::Memory => true,
        }
    }

    /// Whether only the subject sees it under its path.
    #[must_use]
    pub fn is_private(self) -> bool {
        match self {
            Self::Disk | Self::Memory => false,
            Self::SmallDisk { .. } | Self::SmallMemory { .. } => true,
        }
    }
}

/// What happens around the subject between its own steps, or to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A resource of the subject is limited, from outside, to what it uses now and a little more.
    Limit {
        /// Which.
        resource: LimitedResource,
        /// What stays free: descriptors, or bytes.
        headroom: u64,
    },
    /// What was limited is no longer.
    LiftLimits,
    /// Somebody else's file takes the small volume's space, until this many bytes are free.
    FillVolume {
        /// What stays free, bytes.
        leave_bytes: u64,
    },
    /// That file is removed.
    ClearVolume,
    /// The subject gets a signal and ends.
    Kill(Kill),
    /// A subject is started in the dead one's place, in the same directories.
    Restart,
    /// A subject is started in the dead one's place, and killed while it opens.
    KillAtStart {
        /// The signal.
        signal: Deadly,
        /// When it comes, by what is seen since it was asked to open.
        when: Moment,
    },
    /// Another process of the same program, on the same directory and device, does something.
    Beside(Box<Action>),
}

/// A resource that can be limited while a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedResource {
    /// `RLIMIT_NOFILE`: descriptors.
    Descriptors,
    /// `RLIMIT_AS`: bytes of address space.
    AddressSpace,
    /// `RLIMIT_FSIZE`: bytes of a file. The subject uses none of it yet.
    FileSize,
}

impl fmt::Display for LimitedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Descriptors => "descriptors",
            Self::AddressSpace => "address space",
            Self::FileSize => "file size",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { resource, headroom } => write!(f, "limit {resource} +{headroom}"),
            Self::LiftLimits => f.write_str("limits lifted"),
            Self::FillVolume { leave_bytes } => write!(f, "volume filled but {leave_bytes}"),
            Self::ClearVolume => f.write_str("volume cleared"),
            Self::Kill(kill) => write!(f, "{kill}"),
            Self::Restart => f.write_str("restart"),
            Self::KillAtStart { signal, when } => write!(f, "{signal} during restart, {when}"),
            Self::Beside(action) => write!(f, "beside: {}", action.label()),
        }
    }
}
