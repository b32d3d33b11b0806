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
        let (library, name) = first_of(|name| {
            // SAFETY: opening the library runs its initialisers, which is what every program that uses it does; it is
            // looked up under fixed names by the system's loader, and only when a CUDA device is open.
            unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) }
                .map_err(|error| text(&error))
        })?;
        let symbols = Self::look_up(&library, name);
        let _ = library.into_raw();
        symbols
    }
}

/// Opens the first of the names that there is. One that is there and does not open is not passed over for another.
///
/// # Errors
/// What was said of it, or of the first name when there is none.
fn first_of<T>(
    mut open: impl FnMut(&'static str) -> Result<T, String>,
) -> Result<(T, &'static str), String> {
    let mut first = None;
    for name in NAMES {
        match open(name) {
            Ok(library) => return Ok((library, name)),
            Err(reason) => {
                // As the loader says it, and not of a library that this one needs.
                let is_absent = reason.contains(&format!("{name}: cannot open"))
                    && reason.contains("No such file");
                if !is_absent {
                    return Err(format!("no cuFile library: {reason}"));
                }
                first.get_or_insert(reason);
            }
        }
    }
    Err(format!("no cuFile library: {}", first.unwrap_or_default()))
}

/// An error with what is behind it: the loader's own words are.
fn text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", text(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    //! Which of the names is opened.
    use super::*;

    fn absent(name: &str) -> String {
        format!("dlopen failed: {name}: cannot open shared object file: No such file or directory")
    }

    #[test]
    fn the_runtimes_name_comes_first_and_the_developers_when_that_is_absent() {
        assert_eq!(first_of(|_| Ok(())).unwrap().1, "libcufile.so.0");
        let only_the_other = |name: &str| match name {
            "libcufile.so.0" => Err(absent(name)),
            _ => Ok(()),
        };
        assert_eq!(first_of(only_the_other).unwrap().1, "libcufile.so");
        let reason = first_of::<()>(|name| Err(absent(name))).unwrap_err();
        assert!(reason.contains("libcufile.so.0:"), "{reason}");
    }

    #[test]
    fn a_library_that_is_there_and_does_not_open_is_not_passed_over() {
        for said in [
            "libcufile.so.0: invalid ELF header",
            "libcudart.so.13: cannot open shared object file: No such file or directory",
        ] {
            let mut asked = 0;
            let reason = first_of::<()>(|_| {
                asked += 1;
                Err(said.into())
            });
            assert_eq!(asked, 1);
            assert!(reason.unwrap_err().contains(said));
        }
    }

    #[test]
    fn the_loaders_own_words_are_told() {
        // SAFETY: there is no such library, so nothing runs.
        let error = unsafe { Library::open(Some("libcufile-of-nobody.so"), RTLD_NOW) };
        let text = text(&error.err().unwrap());
        assert!(
            text.contains("libcufile-of-nobody.so: cannot open"),
            "{text}"
        );
        assert!(text.contains("No such file"), "{text}");
    }
}
