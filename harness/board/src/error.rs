//! What can go wrong with a board.

use std::path::PathBuf;

use rustix::io::Errno;

/// An error of the board itself, not of a client of the emulated driver.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The configuration cannot be laid out.
    #[error("the board has {devices} devices; at most {limit} fit, use fewer")]
    TooManyDevices {
        /// Devices asked for.
        devices: usize,
        /// Devices that fit.
        limit: usize,
    },
    /// A device is larger than its region of addresses.
    #[error("device {device} has {capacity_bytes} bytes; at most {limit_bytes} fit, use less")]
    DeviceTooLarge {
        /// Index of the device.
        device: usize,
        /// Its capacity in bytes.
        capacity_bytes: u64,
        /// The largest legal capacity in bytes.
        limit_bytes: u64,
    },
    /// A system call on the board failed.
    #[error("cannot {operation} the board {path}: {source}")]
    Io {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The board.
        path: PathBuf,
        /// The kernel's answer.
        source: Errno,
    },
    /// The file is something else.
    #[error(
        "{path} is no board: it starts with {found:#018x}; point the variable at a board made by the harness"
    )]
    NotABoard {
        /// The file.
        path: PathBuf,
        /// Its first eight bytes.
        found: u64,
    },
    /// The board was laid out by another version.
    #[error(
        "the board {path} has layout {found}, this build reads layout {expected}; build the harness and the emulator from one tree"
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout version.
        found: u64,
        /// The one that this build knows.
        expected: u64,
    },
    /// A device has no room left.
    #[error("device {device} has {free_bytes} bytes free, {wanted_bytes} were wanted")]
    OutOfMemory {
        /// Index of the device.
        device: u32,
        /// Bytes wanted, rounded up as they are accounted.
        wanted_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// No row is free in the table of objects.
    #[error("all {limit} rows of the board are taken")]
    TableFull {
        /// Rows in the table.
        limit: usize,
    },
    /// The device does not exist.
    #[error("the board has {devices} devices, device {device} was named")]
    NoSuchDevice {
        /// The index named.
        device: u32,
        /// Devices on the board.
        devices: u32,
    },
    /// A device's region of addresses is used up.
    #[error("the addresses of device {device} are used up; make a new board")]
    AddressesExhausted {
        /// Index of the device.
        device: u32,
    },
}
