//! NVIDIA's cuFile (GPUDirect Storage), as far as the engine needs it: one table of symbols, a driver that is opened
//! once a process under a watchdog, file handles, buffer registrations, and transfers whose every answer is judged.
//!
//! Types and conventions are those of `cufile.h` (cuFile API Reference Guide), checked against the bindings that cudarc
//! generates from it. Its own call wrappers are not used: they turn foreign codes into a Rust enum, for which a code that
//! this build does not know would be undefined behaviour, and they look the library up under names that a runtime-only
//! installation lacks.
//!
//! # What is deliberately not used
//! - **Streams and batches** (`cuFileReadAsync`, `cuFileBatchIO…`). The disk is the limit,
//!   and one call at a time keeps it busy; an asynchronous call would keep buffers in flight after an error, with a result
//!   for each entry to be missed (F34). A call that has returned has ended.
//! - **`cuFileDriverClose`.** The driver belongs to the process: a host program, or another engine, may use it too, and
//!   closing it once too often ends every handle in the process without a word. It goes with the process.
//! - **`cuFileSetParameter…`.** Settings belong to the process as well.
//! - **Statistics** (`cuFileGetStatsL3` of CUDA 13 counts direct and other transfers apart). Its structure grew between
//!   minor versions under one symbol, and collecting has to be switched on for the whole process.

mod answer;
mod code;
mod driver;
#[cfg(test)]
pub(crate) mod fake;
mod handle;
mod mode;
mod module_table;
mod raw;
mod registration;
mod symbols;
#[cfg(test)]
mod tests;

pub(crate) use answer::Failure;
pub(crate) use code::Reach;
pub(crate) use driver::Driver;
pub(crate) use handle::{DevicePlace, Handle};
pub(crate) use mode::{Mode, Storage};
pub(crate) use registration::Registration;
