//! One device: its retained primary context, its memory, and what could not be given back to it.
#![allow(unsafe_code)]

use super::{DeviceAddress, result::RawResult, symbols::Symbols};
use crate::Error;
use cudarc::driver::sys::{CUcontext, CUdevice};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

/// What gives device memory back.
const FREE: &str = "cuMemFree";

/// Bytes of the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryInfo {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// A device with its primary context. The context is made current on whichever thread calls, and stays so.
pub(crate) struct Context {
    symbols: Symbols,
    device: CUdevice,
    raw: CUcontext,
    /// Until it is released, or that was refused.
    retained: bool,
    /// Who may call the driver: CUDA does not survive a fork.
    process: u32,
    /// The sticky result that ended the context (F17), 0 while it lives.
    lost: AtomicU32,
    /// Held while device memory is allocated or freed, so that what the driver refused to take back is known before it can
    /// be handed out again. Not for looking: calls may wait for the device.
    memory: Mutex<()>,
    unreleased: Mutex<Unreleased>,
}

/// What the driver refused to take back (F9).
#[derive(Default)]
struct Unreleased {
    allocations: Vec<(DeviceAddress, u64)>,
    /// The latest refusal that no caller was there to see.
    unseen: Option<Error>,
}

// SAFETY: a CUcontext may be used from any thread once it is current there, which every call below sees to; the
// driver's functions are thread-safe, and the rest of the fields are Sync by themselves.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Opens device `cuda:ordinal`.
    ///
    /// # Errors
    /// No library, a missing symbol, a failing `cuInit`, no such device, or another failing call.
    pub(crate) fn open(ordinal: u32) -> Result<Arc<Self>, Error> {
        Self::open_with(Symbols::load()?, ordinal)
    }

    pub(super) fn open_with(symbols: Symbols, ordinal: u32) -> Result<Arc<Self>, Error> {
        // SAFETY: the only legal argument is 0; the call has no other precondition.
        let result = unsafe { (symbols.init)(0) };
        if result != RawResult::SUCCESS {
            return Err(Error::CudaInit {
                code: result.0,
                name: symbols.name_of(result),
            });
        }
        let mut count = 0;
        // SAFETY: writes one int into `count`.
        let result = unsafe { (symbols.device_count)(&mut count) };
        check_with(&symbols, "cuDeviceGetCount", result)?;
        let index = i32::try_from(ordinal)
            .ok()
            .filter(|index| *index < count)
            .ok_or(Error::NoDevice {
                ordinal,
                count: u32::try_from(count).unwrap_or(0),
            })?;
        let mut device = 0;
        // SAFETY: writes one handle into `device`.
        let result = unsafe { (symbols.device)(&mut device, index) };
        check_with(&symbols, "cuDeviceGet", result)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle into `raw`; `device` came from the driver.
        let result = unsafe { (symbols.retain_context)(&mut raw, device) };
        if result == RawResult::OUT_OF_MEMORY {
            return Err(Error::DeviceOom {
                wanted: 0,
                free: 0,
                total: 0,
            });
        }
        check_with(&symbols, "cuDevicePrimaryCtxRetain", result)?;
        let context = Self {
            symbols,
            device,
            raw,
            retained: true,
            process: std::process::id(),
            lost: AtomicU32::new(0),
            memory: Mutex::default(),
            unreleased: Mutex::default(),
        };
        context.bind()?;
        Ok(Arc::new(context))
    }

    /// Whether a sticky result ended the context, or it is that of a parent process.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) != 0 || self.is_of_parent()
    }

    fn is_of_parent(&self) -> bool {
        std::process::id() != self.process
    }

    pub(super) fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Makes the context current on this thread.
    pub(crate) fn bind(&self) -> Result<(), Error> {
        if self.is_of_parent() {
            return Err(Error::OtherProcess {
                opened_by: self.process,
            });
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if lost != 0 {
            return Err(Error::Cuda {
                call: "the device was lost: an earlier call",
                code: lost,
                name: self.symbols.name_of(RawResult(lost)),
            });
        }
        // SAFETY: `raw` is retained until this value is dropped.
        let result = unsafe { (self.symbols.set_context)(self.raw) };
        self.check("cuCtxSetCurrent", result)
    }

    /// Turns a result into an error, and remembers the one that ended the context.
    pub(super) fn check(&self, call: &'static str, result: RawResult) -> Result<(), Error> {
        if result.is_sticky() {
            self.lost.store(result.0, Ordering::Relaxed);
        }
        check_with(&self.symbols, call, result)
    }

    /// Waits for everything that any stream of the context still has to do (E21).
    pub(crate) fn synchronize(&self) -> Result<(), Error> {
        self.bind()?;
        // SAFETY: no arguments; the context is current.
        let result = unsafe { (self.symbols.synchronize)() };
        self.check("cuCtxSynchronize", result)
    }

    /// Free and total bytes; never more free than total, whatever the driver says (F10).
    pub(crate) fn memory_info(&self) -> Result<MemoryInfo, Error> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes into locals.
        let result = unsafe { (self.symbols.memory_info)(&mut free, &mut total) };
        self.check("cuMemGetInfo", result)?;
        Ok(MemoryInfo {
            free_bytes: free.min(total) as u64,
            total_bytes: total as u64,
        })
    }

    pub(super) fn allocate(&self, bytes: u64) -> Result<DeviceAddress, Error> {
        self.bind()?;
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut address = 0;
        let _memory = self.memory();
        // SAFETY: writes one address into a local.
        let result = unsafe { (self.symbols.allocate)(&mut address, size) };
        if result == RawResult::OUT_OF_MEMORY {
            let info = self.memory_info().unwrap_or(MemoryInfo {
                free_bytes: 0,
                total_bytes: 0,
            });
            return Err(Error::DeviceOom {
                wanted: bytes,
                free: info.free_bytes,
                total: info.total_bytes,
            });
        }
        self.check("cuMemAlloc", result)?;
        // Memory that is handed out again was freed after all: it must not be freed under its new owner.
        let end = address.saturating_add(bytes);
        self.unreleased()
            .allocations
            .retain(|(at, len)| at.saturating_add(*len) <= address || *at >= end);
        Ok(address)
    }

    /// Frees an allocation. One that the driver refuses is kept for [`Self::reclaim`], as the refusal means that it
    /// is still allocated; where that is not sure (the address is unknown, the context is gone) it is given up, so
    /// that nothing is ever freed twice.
    pub(super) fn free(&self, address: DeviceAddress, bytes: u64) -> Result<(), Error> {
        if self.is_lost() {
            // The driver takes everything back when the context goes; a forked child waits for no lock.
            return Ok(());
        }
        let _memory = self.memory();
        self.free_alone(address, bytes)
    }

    fn free_alone(&self, address: DeviceAddress, bytes: u64) -> Result<(), Error> {
        if self.is_lost() {
            return Ok(());
        }
        let refused = || self.unreleased().allocations.push((address, bytes));
        self.bind().inspect_err(|_| refused())?;
        // SAFETY: `address` came from `allocate`, and its one owner gives it up here.
        let result = unsafe { (self.symbols.free)(address) };
        if result != RawResult::SUCCESS && result != RawResult::INVALID_VALUE && !result.is_sticky()
        {
            refused();
        }
        self.check(FREE, result)
    }

    /// Tries once more to free what the driver refused to take back.
    pub(crate) fn reclaim(&self) -> Result<(), Error> {
        if self.is_of_parent() {
            // Whoever held a lock when this child was forked does not run in it.
            return Ok(());
        }
        let _memory = self.memory();
        let refused = std::mem::take(&mut self.unreleased().allocations);
        let tried = !refused.is_empty();
        let mut first_error = Ok(());
        for (address, bytes) in refused {
            first_error = first_error.and(self.free_alone(address, bytes));
        }
        if tried && first_error.is_ok() {
            // Made good: nothing is left to be told of.
            let mut unreleased = self.unreleased();
            unreleased.unseen.take_if(|error| is_about_memory(error));
        }
        first_error
    }

    /// Bytes that the driver refused to take back, and that are retried.
    pub(crate) fn unreleased_bytes(&self) -> u64 {
        self.unreleased()
            .allocations
            .iter()
            .map(|(_, bytes)| bytes)
            .sum()
    }

    /// Keeps an error that happened in a drop for the next caller who can be told.
    pub(crate) fn note(&self, error: Error) {
        if !self.is_of_parent() {
            self.unreleased().unseen = Some(error);
        }
    }

    /// The latest error of a drop, for people.
    pub(crate) fn last_note(&self) -> Option<String> {
        self.unreleased().unseen.as_ref().map(ToString::to_string)
    }

    /// The latest error of a drop, once.
    pub(crate) fn take_note(&self) -> Option<Error> {
        self.unreleased().unseen.take()
    }

    /// Gives the context back, where nobody else holds it any more.
    ///
    /// # Errors
    /// Memory that the driver still does not take back, what happened in drops, or its refusal of the context.
    pub(crate) fn close(self: Arc<Self>) -> Result<(), Error> {
        let outcome = self.reclaim();
        let outcome = outcome.and(self.take_note().map_or(Ok(()), Err));
        let last = Arc::into_inner(self);
        outcome.and(last.map_or(Ok(()), |mut context| context.release()))
    }

    fn release(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.retained) {
            return Ok(());
        }
        // SAFETY: retained once in `open`, released once here; buffers, slots and streams hold the context by Arc,
        // so none of them is left.
        let result = unsafe { (self.symbols.release_context)(self.device) };
        self.check("cuDevicePrimaryCtxRelease", result)
    }

    fn memory(&self) -> MutexGuard<'_, ()> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreleased(&self) -> MutexGuard<'_, Unreleased> {
        self.unreleased
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.is_of_parent() || !self.retained {
            return;
        }
        if self.reclaim().is_err() {
            // Nobody is left to be told; the driver frees the rest with the context.
        }
        let _ = self.release();
    }
}

fn is_about_memory(error: &Error) -> bool {
    matches!(error, Error::Cuda { call, .. } if *call == FREE)
}

fn check_with(symbols: &Symbols, call: &'static str, result: RawResult) -> Result<(), Error> {
    if result == RawResult::SUCCESS {
        return Ok(());
    }
    Err(Error::Cuda {
        call,
        code: result.0,
        name: symbols.name_of(result),
    })
}
