//! What the harness reads: a consistent picture of the whole board.

use crate::board::Board;
use crate::cufile::CufileUse;
use crate::error::BoardError;
use crate::layout::{MAX_VIOLATIONS, header, row, row_word, violation, violation_word};
use crate::object::ObjectKind;

/// The board at one moment, without what dead processes left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The devices, in order.
    pub devices: Vec<DeviceUse>,
    /// The live objects, by process and serial.
    pub objects: Vec<Object>,
    /// What processes moved by cuFile, by process; it outlives the process.
    pub cufile: Vec<CufileUse>,
    /// The violations so far, in order; they outlive their process.
    pub violations: Vec<Violation>,
    /// Violations that came after the log was full.
    pub uncounted_violations: u64,
}

/// How much of a device is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceUse {
    /// Capacity in bytes.
    pub capacity_bytes: u64,
    /// Bytes handed out or kept by pools.
    pub used_bytes: u64,
}

/// A live object of a running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The owner.
    pub pid: u32,
    /// Index of the device.
    pub device: u32,
    /// What it is.
    pub kind: ObjectKind,
    /// Accounted size in bytes; 0 for handles.
    pub bytes: u64,
    /// The call that made it.
    pub call: String,
    /// Number of that call within its process, from 1.
    pub serial: u64,
    /// Its address or handle.
    pub address: u64,
}

/// A breach of the driver's rules by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The process that did it.
    pub pid: u32,
    /// The call in which it was noticed.
    pub call: String,
    /// What was wrong, with the values.
    pub text: String,
}

impl Board {
    /// Reclaims what dead processes left, then reads everything.
    pub fn snapshot(&self) -> Result<Snapshot, BoardError> {
        let mut locked = self.lock()?;
        locked.reclaim_dead();
        let words = self.words();
        let devices = (0..self.device_count())
            .map(|index| DeviceUse {
                capacity_bytes: self.capacity_bytes(index).unwrap_or(0),
                used_bytes: locked.used_bytes(index),
            })
            .collect();
        let mut objects: Vec<Object> = locked
            .valid_rows()
            .filter_map(|id| {
                let start = row_word(id.0);
                Some(Object {
                    pid: words.get(start + row::PID) as u32,
                    device: words.get(start + row::DEVICE) as u32,
                    kind: ObjectKind::from_code(words.get(start + row::KIND))?,
                    bytes: words.get(start + row::BYTES),
                    call: words.text(start + row::CALL, row::CALL_WORDS),
                    serial: words.get(start + row::SERIAL),
                    address: words.get(start + row::ADDRESS),
                })
            })
            .collect();
        objects.sort_by_key(|object| (object.pid, object.serial));
        let count = words.get(header::VIOLATIONS);
        let kept = count.min(MAX_VIOLATIONS as u64);
        let violations = (0..kept as usize)
            .map(violation_word)
            .filter(|start| words.get(start + violation::STATE) == 1)
            .map(|start| Violation {
                pid: words.get(start + violation::PID) as u32,
                call: words.text(start + violation::CALL, violation::CALL_WORDS),
                text: words.text(start + violation::TEXT, violation::TEXT_WORDS),
            })
            .collect();
        Ok(Snapshot {
            devices,
            objects,
            cufile: self.cufile_use(),
            violations,
            uncounted_violations: count - kept,
        })
    }
}
