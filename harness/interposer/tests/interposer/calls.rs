//! Calling functions by name, with whatever arguments.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};

/// The most arguments of a site.
pub(crate) const ARGUMENTS: usize = 9;

type Function =
    unsafe extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize) -> usize;

/// The address of a function as programs find it.
pub(crate) fn find(handle: *mut c_void, name: &str) -> Option<usize> {
    let name = CString::new(name).unwrap();
    // SAFETY: the name is a terminated string, and callers pass an open handle or one that stands for the program.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    (!address.is_null()).then_some(address as usize)
}

/// Opens a library.
pub(crate) fn open(name: &str, flags: i32) -> *mut c_void {
    let name = CString::new(name).unwrap();
    // SAFETY: a terminated string; the emulated libraries have no constructors.
    unsafe { libc::dlopen(name.as_ptr(), flags) }
}

/// Calls a function. Callees ignore arguments that they have not.
pub(crate) fn call(address: usize, arguments: &[usize]) -> usize {
    let mut all = [0; ARGUMENTS];
    all[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f, g, h, i] = all;
    // SAFETY: the tests pass what each function declares.
    unsafe {
        let function: Function = std::mem::transmute(address);
        function(a, b, c, d, e, f, g, h, i)
    }
}

pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

pub(crate) fn set_errno(number: i32) {
    // SAFETY: the calling thread's own variable.
    unsafe { *libc::__errno_location() = number };
}
