//! What a row of the table of objects stands for.

use std::fmt;

/// The kind of a live object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// Device memory handed out to a client.
    DeviceMemory,
    /// Device memory that a pool keeps reserved without having handed it out.
    PoolMemory,
    /// Pinned host memory that the driver allocated.
    Pinned,
    /// Host memory of the client, registered with the driver.
    Registered,
    /// A context.
    Context,
    /// A stream.
    Stream,
    /// An event.
    Event,
    /// A memory pool made by the client.
    Pool,
    /// A file registered with cuFile.
    CufileHandle,
    /// Device memory registered with cuFile.
    CufileBuffer,
    /// A batch of cuFile transfers.
    CufileBatch,
}

impl ObjectKind {
    /// Every kind, in the order of the codes on the board.
    pub const ALL: [ObjectKind; 11] = [
        ObjectKind::DeviceMemory,
        ObjectKind::PoolMemory,
        ObjectKind::Pinned,
        ObjectKind::Registered,
        ObjectKind::Context,
        ObjectKind::Stream,
        ObjectKind::Event,
        ObjectKind::Pool,
        ObjectKind::CufileHandle,
        ObjectKind::CufileBuffer,
        ObjectKind::CufileBatch,
    ];

    /// Whether the object's bytes count against the capacity of its device.
    pub fn takes_capacity(self) -> bool {
        match self {
            ObjectKind::DeviceMemory | ObjectKind::PoolMemory => true,
            ObjectKind::Pinned
            | ObjectKind::Registered
            | ObjectKind::Context
            | ObjectKind::Stream
            | ObjectKind::Event
            | ObjectKind::Pool
            | ObjectKind::CufileHandle
            | ObjectKind::CufileBuffer
            | ObjectKind::CufileBatch => false,
        }
    }

    pub(crate) fn code(self) -> u64 {
        self as u64 + 1
    }

    pub(crate) fn from_code(code: u64) -> Option<ObjectKind> {
        let index = usize::try_from(code.checked_sub(1)?).ok()?;
        ObjectKind::ALL.get(index).copied()
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            ObjectKind::DeviceMemory => "device memory",
            ObjectKind::PoolMemory => "pool memory",
            ObjectKind::Pinned => "pinned memory",
            ObjectKind::Registered => "registered memory",
            ObjectKind::Context => "context",
            ObjectKind::Stream => "stream",
            ObjectKind::Event => "event",
            ObjectKind::Pool => "pool",
            ObjectKind::CufileHandle => "cuFile handle",
            ObjectKind::CufileBuffer => "cuFile buffer",
            ObjectKind::CufileBatch => "cuFile batch",
        })
    }
}

/// An object about to be put on the board.
#[derive(Debug, Clone, Copy)]
pub struct NewObject<'a> {
    /// What it is.
    pub kind: ObjectKind,
    /// Index of its device.
    pub device: u32,
    /// Its size in bytes as accounted; 0 for handles.
    pub bytes: u64,
    /// Its address or handle.
    pub address: u64,
    /// The call that made it.
    pub call: &'a str,
    /// Number of the call within its process, from 1.
    pub serial: u64,
}

/// The place of an object on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowId(pub(crate) usize);
