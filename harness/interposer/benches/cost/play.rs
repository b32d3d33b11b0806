//! The calls.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::fs::File;
use std::hint::black_box;
use std::mem::transmute;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Instant;

const BYTES: usize = 4096;

/// Prints a line for each call: its name, the median and the quickest of the rounds in nanoseconds.
pub(crate) fn run(calls: u32, rounds: u32, directory: &Path) {
    let path = directory.join("file");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let name = CString::new(path.to_str().unwrap()).unwrap();
    let number = file.as_raw_fd();
    let mut buffer = [0u8; BYTES];
    let buffer: *mut c_void = buffer.as_mut_ptr().cast();
    let measure = |name: &str, call: &dyn Fn()| measure(name, calls, rounds, call);
    // SAFETY: a descriptor, a name and a buffer that live to the end of the function.
    unsafe {
        measure("pread 4 KiB, cached", &|| {
            black_box(libc::pread(number, buffer, BYTES, 0));
        });
        measure("pwrite 4 KiB", &|| {
            black_box(libc::pwrite(number, buffer, BYTES, 0));
        });
        measure("open + close", &|| {
            let number = libc::open(name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            black_box(libc::close(number));
        });
        measure("stat by path", &|| {
            let mut stat: libc::stat = std::mem::zeroed();
            black_box(libc::stat(name.as_ptr(), &raw mut stat));
        });
    }
    device(&measure);
}

/// Allocations of the emulated device.
fn device(measure: &dyn Fn(&str, &dyn Fn())) {
    // SAFETY: a terminated name of a library without constructors of its own.
    let driver = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
    assert!(!driver.is_null());
    // SAFETY: the handle is open, the name terminated.
    let find = |name: &std::ffi::CStr| unsafe { libc::dlsym(driver, name.as_ptr()) };
    type One = unsafe extern "C" fn(usize) -> u32;
    type Two = unsafe extern "C" fn(*mut u64, usize) -> u32;
    // SAFETY: functions of the driver by their types in cuda.h, with memory to write to.
    unsafe {
        let init: One = transmute(find(c"cuInit"));
        let retain: Two = transmute(find(c"cuDevicePrimaryCtxRetain"));
        let current: One = transmute(find(c"cuCtxSetCurrent"));
        let allocate: Two = transmute(find(c"cuMemAlloc_v2"));
        let free: One = transmute(find(c"cuMemFree_v2"));
        let mut context = 0u64;
        assert_eq!(init(0), 0);
        assert_eq!(retain(&raw mut context, 0), 0);
        assert_eq!(current(context as usize), 0);
        measure("cuMemAlloc + cuMemFree, emulated", &|| {
            let mut address = 0u64;
            black_box(allocate(&raw mut address, 1 << 16));
            black_box(free(address as usize));
        });
    }
}

fn measure(name: &str, calls: u32, rounds: u32, call: &dyn Fn()) {
    let round = || {
        let start = Instant::now();
        for _ in 0..calls {
            call();
        }
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    // The first one warms caches up.
    round();
    let mut times: Vec<f64> = (0..rounds).map(|_| round()).collect();
    times.sort_by(f64::total_cmp);
    println!("{name};{:.1};{:.1}", times[times.len() / 2], times[0]);
}
