//! The functions of the table.
#![allow(unsafe_code)]

use super::{Copy, call};
use crate::cuda::{DeviceAddress, result::RawResult, symbols::Symbols};
use cudarc::driver::sys::{CUcontext, CUdevice, CUevent, CUstream};
use std::ffi::{c_char, c_int, c_uint, c_void};

pub(super) fn symbols() -> Symbols {
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
        create_event,
        destroy_event,
        record_event,
        synchronize_event,
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

unsafe extern "C" fn synchronize_stream(stream: CUstream) -> RawResult {
    call("cuStreamSynchronize", |board| {
        board.land_stream(stream.addr(), u64::MAX);
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
    stream: CUstream,
) -> RawResult {
    call("cuMemcpyHtoDAsync", |board| {
        let is_late = board.is_late;
        let Some(target) = board.find(to, len) else {
            board
                .violations
                .push(format!("write of {len} bytes to {to:#x}"));
            return RawResult::INVALID_VALUE;
        };
        if is_late {
            let from = from as u64;
            board.queue(stream.addr(), Copy::ToDevice { to, from, len });
            return RawResult::SUCCESS;
        }
        // SAFETY: the caller gives `len` readable bytes.
        target.copy_from_slice(unsafe { std::slice::from_raw_parts(from.cast(), len) });
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn to_host(
    to: *mut c_void,
    from: DeviceAddress,
    len: usize,
    stream: CUstream,
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
            board.queue(stream.addr(), Copy::ToHost { to, contents });
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
        let handle = board.calls["cuStreamCreate"] as usize;
        // SAFETY: the caller gives one handle to write to; nobody looks behind it.
        unsafe { *out = std::ptr::without_provenance_mut(handle) };
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn destroy_stream(_stream: CUstream) -> RawResult {
    call("cuStreamDestroy", |board| {
        board.streams -= 1;
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn create_event(out: *mut CUevent, _flags: c_uint) -> RawResult {
    call("cuEventCreate", |board| {
        let handle = board.calls["cuEventCreate"] as usize;
        board.events.insert(handle, (0, 0));
        // SAFETY: the caller gives one handle to write to; nobody looks behind it.
        unsafe { *out = std::ptr::without_provenance_mut(handle) };
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn destroy_event(event: CUevent) -> RawResult {
    call("cuEventDestroy", |board| {
        match board.events.remove(&event.addr()) {
            Some(_) => RawResult::SUCCESS,
            None => RawResult::INVALID_VALUE,
        }
    })
}

unsafe extern "C" fn record_event(event: CUevent, stream: CUstream) -> RawResult {
    call("cuEventRecord", |board| {
        let recorded = (stream.addr(), board.ever_queued);
        board.events.insert(event.addr(), recorded);
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn synchronize_event(event: CUevent) -> RawResult {
    call("cuEventSynchronize", |board| {
        let (stream, count) = board.events[&event.addr()];
        board.land_stream(stream, count);
        RawResult::SUCCESS
    })
}

unsafe extern "C" fn error_name(_result: RawResult, out: *mut *const c_char) -> RawResult {
    // SAFETY: the caller gives one pointer to write to; the string is static.
    unsafe { *out = c"CUDA_ERROR_OF_THE_FAKE".as_ptr() };
    RawResult::SUCCESS
}
