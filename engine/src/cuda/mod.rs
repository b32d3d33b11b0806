//! The CUDA driver, as far as the engine needs it: one table of symbols that is complete before the first call,
//! a retained primary context, device buffers, lanes (a stream with its pinned slot).
//!
//! Only cudarc's loader and types are used. Its call wrappers panic when the library or a symbol is missing, and
//! they return results as a Rust enum, for which a code that this build does not know would be undefined
//! behaviour. Here a result is a newtype, and a missing symbol is [`crate::Error::CudaTooOld`].

mod buffer;
mod context;
mod event;
#[cfg(test)]
pub(crate) mod fake;
mod lane;
mod pinned;
mod result;
mod symbols;
#[cfg(test)]
mod tests;

pub(crate) use buffer::DeviceBuffer;
pub(crate) use context::Context;
pub(crate) use lane::Lane;

/// An address in device memory.
pub(crate) type DeviceAddress = cudarc::driver::sys::CUdeviceptr;
