//! The board: the shared state of an emulated GPU.
//!
//! A board is one `memfd`. Its first few MiB hold a header, a table of devices, a table of live objects, a log of
//! violations and counts of cuFile transfers; behind them lies one huge sparse region per device for the bytes of its memory. The harness creates the
//! board and reads it with [`Board::snapshot`]; the emulated driver inside each subject opens it by the path in the
//! environment variable [`BOARD_VARIABLE`] and keeps one row per object there, owned by the process that made it.
//!
//! What is promised:
//! - Only the tables are mapped, and of them only the touched pages count. Device bytes move by `pread` and `pwrite`, so
//!   they appear in nobody's resident set. (A process under `RLIMIT_FSIZE` writes through a window of 128 KiB instead.)
//! - Every system call goes through rustix's raw backend: nothing here passes a preloaded libc wrapper.
//! - A process may die at any instruction. Rows become valid by their last store, counters are recomputed by the next
//!   holder of the lock, and the lock is the kernel's (a POSIX record lock), which releases it at death.
//! - Addresses are handed out once and never again, over all processes, with a gap behind each allocation.
//!
//! What is not: a board is no security border. A subject that writes into the mapping on purpose can spoil it.
//! The record lock excludes processes and an internal mutex excludes threads; two copies of this crate in *one* process
//! (a harness that loads the emulator into itself) would not exclude each other.

mod board;
mod bytes;
mod cufile;
mod descriptor;
mod error;
mod host;
mod layout;
mod map;
mod object;
mod owner;
mod snapshot;
mod table;
mod window;

pub use board::{Board, BoardConfig, BoardDevice};
pub use cufile::{CufileCount, CufileDirection, CufileFault, CufileFaults, CufilePath, CufileUse};
pub use descriptor::Descriptor;
pub use error::BoardError;
pub use host::{HostSource, HostTarget};
pub use layout::{
    ADDRESS_BASE, ALLOCATION_UNIT_BYTES, DEVICE_REGION_BYTES, MAX_CUFILE_USERS, MAX_DEVICES,
    MAX_OBJECTS, MAX_VIOLATIONS, device_of, rounded_bytes,
};
pub use object::{NewObject, ObjectKind, RowId};
pub use owner::Owner;
pub use snapshot::{DeviceUse, Object, Snapshot, Violation};
pub use table::Locked;

/// The environment variable that names the board to a subject.
pub const BOARD_VARIABLE: &str = "CUDA_EMULATOR_BOARD";
