//! A driver inside the test process whose calls can be told to fail: what the emulated driver, being a faithful one,
//! does not do by itself. Device memory is a map of host vectors; copies are done when the call returns.
#![allow(unsafe_code)]

use super::{Context, DeviceAddress, result::RawResult, symbols::Symbols};
use crate::Error;
use cudarc::driver::sys::{CUcontext, CUdevice, CUstream};
use std::{
    collections::BTreeMap,
    ffi::{c_char, c_int, c_uint, c_void},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One test at a time has the driver.
static TURN: Mutex<()> = Mutex::new(());
static BOARD: Mutex<Option<Board>> = Mutex::new(None);

#[derive(Default)]
struct Board {
    capacity: u64,
    next_address: u64,
    memory: BTreeMap<u64, Vec<u8>>,
    registered: usize,
    streams: usize,
    calls: BTreeMap<&'static str, u64>,
    plans: Vec<Failure>,
    meanwhile: Vec<Meanwhile>,
    /// The copy to the host that is queued and then denied, by its number.
    denied: Option<u64>,
    queued: Vec<Queued>,
    violations: Vec<String>,
}

struct Failure {
    call: &'static str,
    first: u64,
    last: u64,
    code: u32,
}

/// A copy that lands when its stream, or the context, is waited for.
struct Queued {
    to: u64,
    contents: Vec<u8>,
}

/// What happens elsewhere while a call runs.
struct Meanwhile {
    call: &'static str,
    nth: u64,
    act: Box<dyn FnOnce() + Send>,
}

/// The driver of one test.
pub(crate) struct FakeDriver {
    _turn: MutexGuard<'static, ()>,
}

fn board() -> MutexGuard<'static, Option<Board>> {
    BOARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the call, and does it unless it is to fail.
fn call(name: &'static str, act: impl FnOnce(&mut Board) -> RawResult) -> RawResult {
    let mut guard = board();
    let Some(board) = guard.as_mut() else {
        return RawResult(4);
    };
    let count = board.calls.entry(name).or_default();
    *count += 1;
    let count = *count;
    let due = board
        .meanwhile
        .iter()
        .position(|each| each.call == name && each.nth == count);
    if let Some(due) = due {
        let meanwhile = board.meanwhile.remove(due);
        drop(guard);
        (meanwhile.act)();
    } else {
        drop(guard);
    }
    done(name, count, act)
}

fn done(name: &str, count: u64, act: impl FnOnce(&mut Board) -> RawResult) -> RawResult {
    let mut guard = board();
    let Some(board) = guard.as_mut() else {
        return RawResult(4);
    };
    let failure = board
        .plans
        .iter()
        .find(|plan| plan.call == name && (plan.first..=plan.last).contains(&count));
    match failure {
        Some(failure) => RawResult(failure.code),
        None => act(board),
    }
}

impl Board {
    /// Copies that are queued end.
    fn land(&mut self) {
        for Queued { to, contents } in self.queued.drain(..) {
            let to = to as *mut u8;
            // SAFETY: the lane keeps the slot for as long as a copy may be under way, which is what is tested.
            unsafe { std::ptr::copy_nonoverlapping(contents.as_ptr(), to, contents.len()) };
        }
    }

    fn used(&self) -> u64 {
        self.memory.values().map(|bytes| bytes.len() as u64).sum()
    }

    fn find(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        let (start, bytes) = self.memory.range_mut(..=address).next_back()?;
        let from = (address - start) as usize;
        bytes.get_mut(from..from.checked_add(len)?)
    }
}

impl FakeDriver {
    pub(crate) fn new(capacity: u64) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        *board() = Some(Board {
            capacity,
            next_address: 1 << 32,
            ..Board::default()
        });
        Self { _turn: turn }
    }

    pub(crate) fn context(&self) -> Arc<Context> {
        self.try_context(0).expect("the fake driver opens")
    }

    pub(crate) fn try_context(&self, ordinal: u32) -> Result<Arc<Context>, Error> {
        Context::open_with(symbols(), ordinal)
    }

    /// Lets the `first`th to `last`th call from now on fail.
    pub(crate) fn fail(&self, name: &'static str, first: u64, last: u64, code: u32) {
        self.with(|board| {
            let before = board.calls.get(name).copied().unwrap_or(0);
            board.plans.push(Failure {
                call: name,
                first: before + first,
                last: last.saturating_add(before),
                code,
            });
        });
    }

    /// Does `act` inside the `nth` call from now on, before the call does anything.
    pub(crate) fn meanwhile(
        &self,
        name: &'static str,
        nth: u64,
        act: impl FnOnce() + Send + 'static,
    ) {
        self.with(|board| {
            let before = board.calls.get(name).copied().unwrap_or(0);
            board.meanwhile.push(Meanwhile {
                call: name,
                nth: before + nth,
                act: Box::new(act),
            });
        });
    }

    /// The `nth` copy to the host is queued, and said to have failed: it lands when somebody waits.
    pub(crate) fn deny(&self, nth: u64) {
        self.with(|board| board.denied = Some(nth));
    }

    pub(crate) fn stop_failing(&self) {
        self.with(|board| board.plans.clear());
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.with(|board| board.used())
    }

    pub(crate) fn registered(&self) -> usize {
        self.with(|board| board.registered)
    }

    pub(crate) fn streams(&self) -> usize {
        self.with(|board| board.streams)
    }

    pub(crate) fn calls(&self, name: &'static str) -> u64 {
        self.with(|board| board.calls.get(name).copied().unwrap_or(0))
    }

    /// Device memory as another library in the process sees it: out of it, or `None` where there is none.
    pub(crate) fn peek(address: u64, len: usize) -> Option<Vec<u8>> {
        board()
            .as_mut()?
            .find(address, len)
            .map(|bytes| bytes.to_vec())
    }

    /// Into it; `false` where there is none.
    pub(crate) fn poke(address: u64, contents: &[u8]) -> bool {
        board()
            .as_mut()
            .and_then(|board| board.find(address, contents.len()))
            .map(|bytes| bytes.copy_from_slice(contents))
            .is_some()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.with(|board| board.violations.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Board) -> T) -> T {
        act(board().as_mut().expect("the driver lives"))
    }
}

impl Drop for FakeDriver {
    fn drop(&mut self) {
        *board() = None;
    }
}

fn symbols() -> Symbols {
    Symbols {
        init,
        device_count,
        device,
        retain_context,
        release_context,
        set_context,
        synchronize,
        memory_info,
        allocate,
        free,
        register,
        unregister,
        to_device,
        to_host,
        create_stream,
        destroy_stream,
        synchronize_stream,
        error_name,
    }
}

macro_rules! succeed {
    ($($name:ident($($argument:ident: $type:ty),*) = $symbol:literal;)*) => {
        $(unsafe extern "C" fn $name($($argument: $type),*) -> RawResult {
            $(let _ = $argument;)*
            call($symbol, |_| RawResult::SUCCESS)
        })*
    };
}

succeed! {
    init(flags: c_uint) = "cuInit";
    release_context(device: CUdevice) = "cuDevicePrimaryCtxRelease";
    set_context(context: CUcontext) = "cuCtxSetCurrent";
}

unsafe extern "C" fn synchronize() -> RawResult {
    call("cuCtxSynchronize", |board| {
        board.land();
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn synchronize_stream(_stream: CUstream) -> RawResult {
    call("cuStreamSynchronize", |board| {
        board.land();
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn device_count(out: *mut c_int) -> RawResult {
    call("cuDeviceGetCount", |_| {
        // SAFETY: the caller gives one int to write to.
        unsafe { *out = 1 };
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn device(out: *mut CUdevice, ordinal: c_int) -> RawResult {
    call("cuDeviceGet", |_| {
        // SAFETY: the caller gives one handle to write to.
        unsafe { *out = ordinal };
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn retain_context(out: *mut CUcontext, _device: CUdevice) -> RawResult {
    call("cuDevicePrimaryCtxRetain", |_| {
        // SAFETY: the caller gives one handle to write to; nobody looks behind it.
        unsafe { *out = std::ptr::dangling_mut() };
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn memory_info(free: *mut usize, total: *mut usize) -> RawResult {
    call("cuMemGetInfo", |board| {
        // SAFETY: the caller gives two sizes to write to.
        unsafe {
            *free = (board.capacity - board.used()) as usize;
            *total = board.capacity as usize;
        }
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn allocate(out: *mut DeviceAddress, bytes: usize) -> RawResult {
    call("cuMemAlloc", |board| {
        if board.used() + bytes as u64 > board.capacity {
            return RawResult::OUT_OF_MEMORY;
        }
        let address = board.next_address;
        board.next_address += (bytes as u64).next_multiple_of(512) + 512;
        board.memory.insert(address, vec![0xEE; bytes]);
        // SAFETY: the caller gives one address to write to.
        unsafe { *out = address };
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn free(address: DeviceAddress) -> RawResult {
    call("cuMemFree", |board| {
        if board.memory.remove(&address).is_some() {
            return RawResult::SUCCESS;
        }
        board
            .violations
            .push(format!("double free of {address:#x}"));
        RawResult::INVALID_VALUE
    })
}

unsafe extern "C" fn register(_memory: *mut c_void, _bytes: usize, _flags: c_uint) -> RawResult {
    call("cuMemHostRegister", |board| {
        board.registered += 1;
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn unregister(_memory: *mut c_void) -> RawResult {
    call("cuMemHostUnregister", |board| {
        board.registered -= 1;
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn to_device(
    to: DeviceAddress,
    from: *const c_void,
    len: usize,
    _stream: CUstream,
) -> RawResult {
    call("cuMemcpyHtoDAsync", |board| {
        let Some(target) = board.find(to, len) else {
            board
                .violations
                .push(format!("write of {len} bytes to {to:#x}"));
            return RawResult::INVALID_VALUE;
        };
        // SAFETY: the caller gives `len` readable bytes.
        target.copy_from_slice(unsafe { std::slice::from_raw_parts(from.cast(), len) });
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn to_host(
    to: *mut c_void,
    from: DeviceAddress,
    len: usize,
    _stream: CUstream,
) -> RawResult {
    call("cuMemcpyDtoHAsync", |board| {
        let is_denied = board.denied == board.calls.get("cuMemcpyDtoHAsync").copied();
        let Some(source) = board.find(from, len) else {
            board
                .violations
                .push(format!("read of {len} bytes at {from:#x}"));
            return RawResult::INVALID_VALUE;
        };
        if is_denied {
            let contents = source.to_vec();
            let to = to as u64;
            board.queued.push(Queued { to, contents });
            return RawResult(999);
        }
        // SAFETY: the caller gives `len` writable bytes.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), to.cast(), len) };
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn create_stream(out: *mut CUstream, _flags: c_uint) -> RawResult {
    call("cuStreamCreate", |board| {
        board.streams += 1;
        // SAFETY: the caller gives one handle to write to; nobody looks behind it.
        unsafe { *out = std::ptr::dangling_mut() };
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn destroy_stream(_stream: CUstream) -> RawResult {
    call("cuStreamDestroy", |board| {
        board.streams -= 1;
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn error_name(_result: RawResult, out: *mut *const c_char) -> RawResult {
    // SAFETY: the caller gives one pointer to write to; the string is static.
    unsafe { *out = c"CUDA_ERROR_OF_THE_FAKE".as_ptr() };
    RawResult::SUCCESS
}
