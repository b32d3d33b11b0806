//! The table of cuFile functions: complete, or a reason, before anything is called.
#![allow(unsafe_code)]

use super::raw::{RawDescriptor, RawHandle, RawProperties, RawStatus};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{c_int, c_long, c_void};

/// The names that an installation gives the library: the runtime's, then the one that only developers have.
const NAMES: [&str; 2] = ["libcufile.so.0", "libcufile.so"];

macro_rules! symbols {
    ($($field:ident = $symbol:literal: fn($($argument:ty),*) -> $answer:ty;)*) => {
        /// Addresses of the library's functions, each of the type that `cufile.h` gives it.
        #[derive(Clone, Copy)]
        pub(super) struct Symbols {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> $answer,)*
            /// Of CUDA 11.8 and later: how often the driver is open in this process.
            pub(super) use_count: Option<unsafe extern "C" fn() -> c_long>,
        }

        impl Symbols {
            fn look_up(library: &Library, name: &str) -> Result<Self, String> {
                let mut missing = Vec::new();
                $(
                    // SAFETY: the symbol, where it exists, is the cuFile function of that name, and the type in the table
                    // is its declaration in cufile.h; enumerations are 32-bit integers there.
                    let $field = unsafe {
                        library.get::<unsafe extern "C" fn($($argument),*) -> $answer>($symbol.as_bytes())
                    };
                    if $field.is_err() {
                        missing.push($symbol);
                    }
                )*
                // SAFETY: as above.
                let use_count = unsafe {
                    library.get::<unsafe extern "C" fn() -> c_long>(b"cuFileUseCount")
                };
                match ($($field,)*) {
                    ($(Ok($field),)*) => Ok(Self {
                        $($field: *$field,)*
                        use_count: use_count.ok().map(|symbol| *symbol),
                    }),
                    _ => Err(format!("{name} lacks {}", missing.join(", "))),
                }
            }
        }
    };
}

symbols! {
    open_driver = "cuFileDriverOpen": fn() -> RawStatus;
    properties = "cuFileDriverGetProperties": fn(*mut RawProperties) -> RawStatus;
    register_handle = "cuFileHandleRegister": fn(*mut RawHandle, *mut RawDescriptor) -> RawStatus;
    deregister_handle = "cuFileHandleDeregister": fn(RawHandle) -> ();
    register_buffer = "cuFileBufRegister": fn(*const c_void, usize, c_int) -> RawStatus;
    deregister_buffer = "cuFileBufDeregister": fn(*const c_void) -> RawStatus;
    read = "cuFileRead": fn(RawHandle, *mut c_void, usize, libc::off_t, libc::off_t) -> isize;
    write = "cuFileWrite": fn(RawHandle, *const c_void, usize, libc::off_t, libc::off_t) -> isize;
}

impl Symbols {
    /// Opens the library and looks every symbol up. The library then stays for the life of the process: it has threads
    /// of its own, and others in the process may hold what it gave them.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub(super) fn load() -> Result<Self, String> {
        let mut reason = String::new();
        for name in NAMES {
            // SAFETY: opening the library runs its initialisers, which is what every program that uses it does; it is
            // looked up under fixed names by the system's loader, and only when a CUDA device is open.
            match unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) } {
                Ok(library) => {
                    let symbols = Self::look_up(&library, name);
                    let _ = library.into_raw();
                    return symbols;
                }
                Err(error) => {
                    // One that is there and does not open is not passed over for another.
                    let is_absent = error.to_string().contains("No such file");
                    if reason.is_empty() || !is_absent {
                        reason = error.to_string();
                    }
                    if !is_absent {
                        break;
                    }
                }
            }
        }
        Err(format!("no cuFile library: {reason}"))
    }
}
