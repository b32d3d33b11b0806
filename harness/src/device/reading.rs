//! What is read of a device from outside. What a source cannot tell is absent, never zero.

use spillproof_board::{ObjectKind, Snapshot};
use std::fmt;

/// A device at one moment, by what could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceReading {
    /// There is no device.
    Absent,
    /// Everything: the board of an emulated GPU.
    Board(BoardReading),
    /// Bytes only: the management library of a real GPU.
    Nvml(NvmlReading),
}

impl DeviceReading {
    /// Device memory that the subject holds, handed out or kept by its pools, bytes.
    #[must_use]
    pub fn held_bytes(&self) -> Option<u64> {
        match self {
            Self::Absent => None,
            Self::Board(board) => Some(board.device_bytes + board.pool_bytes),
            Self::Nvml(nvml) => Some(nvml.used_bytes),
        }
    }

    /// Device memory that is free for anyone, bytes.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        match self {
            Self::Absent => None,
            Self::Board(board) => Some(board.free_bytes),
            Self::Nvml(nvml) => Some(nvml.free_bytes),
        }
    }

    /// Device memory in all, bytes.
    #[must_use]
    pub fn total_bytes(&self) -> Option<u64> {
        match self {
            Self::Absent => None,
            Self::Board(board) => Some(board.total_bytes),
            Self::Nvml(nvml) => Some(nvml.total_bytes),
        }
    }
}

/// Something that a subject still holds, by the call that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// The holder.
    pub pid: u32,
    /// What it is.
    pub kind: ObjectKind,
    /// Its size; 0 for handles.
    pub bytes: u64,
    /// The call.
    pub call: String,
    /// That call's number within its process.
    pub serial: u64,
}

impl fmt::Display for Survivor {
    /// `cuMemAlloc_v2 #12, 64.0 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.call, self.serial)?;
        if self.bytes > 0 {
            write!(f, ", {:.1} MiB", self.bytes as f64 / f64::from(1 << 20))?;
        }
        Ok(())
    }
}

/// Bytes that cuFile moved by one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CufileMoves {
    /// From device memory into files.
    pub written_bytes: u64,
    /// From files into device memory.
    pub read_bytes: u64,
}

/// The subject's part of a board, over all its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoardReading {
    /// Device memory handed out, bytes.
    pub device_bytes: u64,
    /// Device memory that pools keep without having handed it out, bytes.
    pub pool_bytes: u64,
    /// Pinned host memory, bytes.
    pub pinned_bytes: u64,
    /// Registered host memory, bytes.
    pub registered_bytes: u64,
    /// Contexts.
    pub contexts: u64,
    /// Streams.
    pub streams: u64,
    /// Events.
    pub events: u64,
    /// Pools.
    pub pools: u64,
    /// Files registered with cuFile.
    pub cufile_handles: u64,
    /// Ranges of device memory registered with cuFile.
    pub cufile_buffers: u64,
    /// Batches of cuFile transfers.
    pub cufile_batches: u64,
    /// What cuFile moved between storage and device memory, over the life of the processes.
    pub cufile_direct: CufileMoves,
    /// What cuFile moved through its own buffers in host memory, over the life of the processes.
    pub cufile_compat: CufileMoves,
    /// How often cuFile failed as the case asks for, over the life of the processes.
    pub cufile_faults: u64,
    /// Device memory that other processes hold, bytes.
    pub foreign_bytes: u64,
    /// Device memory that nobody holds, bytes.
    pub free_bytes: u64,
    /// Device memory in all, bytes.
    pub total_bytes: u64,
    /// Everything that the subject holds, by the call that made it.
    pub survivors: Vec<Survivor>,
    /// What was done against the driver's rules, by anyone, since the board was made.
    pub violations: Vec<String>,
}

impl BoardReading {
    /// The part of the processes `pids`.
    #[must_use]
    pub fn of(snapshot: &Snapshot, pids: &[u32]) -> Self {
        let mut reading = Self::default();
        for device in &snapshot.devices {
            reading.total_bytes += device.capacity_bytes;
            reading.free_bytes += device.capacity_bytes.saturating_sub(device.used_bytes);
        }
        for object in &snapshot.objects {
            if !pids.contains(&object.pid) {
                if object.kind.takes_capacity() {
                    reading.foreign_bytes += object.bytes;
                }
                continue;
            }
            match object.kind {
                ObjectKind::DeviceMemory => reading.device_bytes += object.bytes,
                ObjectKind::PoolMemory => reading.pool_bytes += object.bytes,
                ObjectKind::Pinned => reading.pinned_bytes += object.bytes,
                ObjectKind::Registered => reading.registered_bytes += object.bytes,
                ObjectKind::Context => reading.contexts += 1,
                ObjectKind::Stream => reading.streams += 1,
                ObjectKind::Event => reading.events += 1,
                ObjectKind::Pool => reading.pools += 1,
                ObjectKind::CufileHandle => reading.cufile_handles += 1,
                ObjectKind::CufileBuffer => reading.cufile_buffers += 1,
                ObjectKind::CufileBatch => reading.cufile_batches += 1,
            }
            reading.survivors.push(Survivor {
                pid: object.pid,
                kind: object.kind,
                bytes: object.bytes,
                call: object.call.clone(),
                serial: object.serial,
            });
        }
        for moved in &snapshot.cufile {
            if pids.contains(&moved.pid) {
                reading.cufile_direct.written_bytes += moved.direct_writes.bytes;
                reading.cufile_direct.read_bytes += moved.direct_reads.bytes;
                reading.cufile_compat.written_bytes += moved.compat_writes.bytes;
                reading.cufile_compat.read_bytes += moved.compat_reads.bytes;
                reading.cufile_faults += moved.faults.total();
            }
        }
        reading.violations = snapshot
            .violations
            .iter()
            .map(|violation| {
                format!(
                    "{}: {} (process {})",
                    violation.call, violation.text, violation.pid
                )
            })
            .collect();
        if snapshot.uncounted_violations > 0 {
            reading
                .violations
                .push(format!("and {} more", snapshot.uncounted_violations));
        }
        reading
    }
}

/// Whose bytes a management library could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NvmlScope {
    /// The subject's alone.
    Process,
    /// Everyone's on the device: the library lists none of the subject's processes, as in a container with its
    /// own pids. Fair only on a GPU that nobody else uses.
    Device,
}

/// What the management library tells of a real GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvmlReading {
    /// Device memory in use, by `scope`, bytes. Contexts are included.
    pub used_bytes: u64,
    /// Whose.
    pub scope: NvmlScope,
    /// Device memory in use by anyone, bytes.
    pub device_used_bytes: u64,
    /// Device memory that is free, bytes.
    pub free_bytes: u64,
    /// Device memory in all, bytes.
    pub total_bytes: u64,
    /// Device memory of other processes, where the library tells processes apart, bytes.
    pub foreign_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    //! Whose bytes are whose.
    use super::*;
    use spillproof_board::{CufileCount, CufileFaults, CufileUse, DeviceUse, Object, Violation};

    fn object(pid: u32, kind: ObjectKind, bytes: u64) -> Object {
        Object {
            pid,
            device: 0,
            kind,
            bytes,
            call: "cuMemAlloc_v2".into(),
            serial: 12,
            address: 0,
        }
    }

    /// Counts that tell a process and a counter from the others.
    fn moved(pid: u32) -> CufileUse {
        let count = |bytes| CufileCount {
            transfers: 1,
            bytes: u64::from(pid) * 10 + bytes,
        };
        CufileUse {
            pid,
            direct_writes: count(1),
            direct_reads: count(2),
            compat_writes: count(3),
            compat_reads: count(4),
            faults: CufileFaults::default(),
        }
    }

    #[test]
    fn each_kind_is_counted_for_its_owner() {
        let snapshot = Snapshot {
            devices: vec![DeviceUse {
                capacity_bytes: 1000,
                used_bytes: 600,
            }],
            objects: vec![
                object(1, ObjectKind::DeviceMemory, 300),
                object(1, ObjectKind::PoolMemory, 100),
                object(1, ObjectKind::Pinned, 7),
                object(1, ObjectKind::Registered, 9),
                object(1, ObjectKind::Context, 0),
                object(1, ObjectKind::Stream, 0),
                object(1, ObjectKind::Stream, 0),
                object(1, ObjectKind::Event, 0),
                object(1, ObjectKind::Pool, 0),
                object(1, ObjectKind::CufileHandle, 0),
                object(1, ObjectKind::CufileBuffer, 64),
                object(1, ObjectKind::CufileBuffer, 64),
                object(1, ObjectKind::CufileBatch, 0),
                object(2, ObjectKind::DeviceMemory, 200),
                object(2, ObjectKind::Pinned, 5),
            ],
            cufile: vec![moved(1), moved(2)],
            violations: vec![Violation {
                pid: 1,
                call: "cuMemFree_v2".into(),
                text: "double free".into(),
            }],
            uncounted_violations: 3,
        };
        let reading = BoardReading::of(&snapshot, &[1]);
        assert_eq!(
            (
                reading.device_bytes,
                reading.pool_bytes,
                reading.pinned_bytes,
                reading.registered_bytes
            ),
            (300, 100, 7, 9)
        );
        assert_eq!(
            (
                reading.contexts,
                reading.streams,
                reading.events,
                reading.pools
            ),
            (1, 2, 1, 1)
        );
        assert_eq!(
            (
                reading.foreign_bytes,
                reading.free_bytes,
                reading.total_bytes
            ),
            (200, 400, 1000)
        );
        assert_eq!(
            (
                reading.cufile_handles,
                reading.cufile_buffers,
                reading.cufile_batches
            ),
            (1, 2, 1)
        );
        let moves = |written_bytes, read_bytes| CufileMoves {
            written_bytes,
            read_bytes,
        };
        assert_eq!(reading.cufile_direct, moves(11, 12));
        assert_eq!(reading.cufile_compat, moves(13, 14));
        assert_eq!(reading.survivors.len(), 13);
        assert_eq!(
            reading.violations,
            ["cuMemFree_v2: double free (process 1)", "and 3 more"]
        );
        assert_eq!(DeviceReading::Board(reading).held_bytes(), Some(400));
    }

    #[test]
    fn an_absent_device_reads_as_nothing_and_not_as_zero() {
        assert_eq!(DeviceReading::Absent.held_bytes(), None);
        assert_eq!(DeviceReading::Absent.total_bytes(), None);
    }

    #[test]
    fn survivors_are_named_by_their_call() {
        let survivor = Survivor {
            pid: 1,
            kind: ObjectKind::DeviceMemory,
            bytes: 64 << 20,
            call: "cuMemAlloc_v2".into(),
            serial: 12,
        };
        assert_eq!(survivor.to_string(), "cuMemAlloc_v2 #12, 64.0 MiB");
    }
}
