//! The functions behind the wrappers.
//!
//! Those of libc are found at start, so that neither a signal handler nor a forked child needs the loader's lock later. Those of CUDA and
//! cuFile become known when somebody asks for them: the library may be loaded late, and out of everybody's sight (`RTLD_LOCAL`).
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::mem::transmute;
use std::sync::atomic::{AtomicUsize, Ordering};

use spillproof_faults::{Library, SPELLING_COUNT, SpellingId};

use crate::attach::functions;
use crate::elf::Object;
use crate::errno;
use crate::inner::{closedir, fclose};
use crate::leaving::{_Exit, _exit, execv, execve, execvp, execvpe, posix_spawn, posix_spawnp};
use crate::linking::{symlink, symlinkat};
use crate::lookup::{cuGetProcAddress, cuGetProcAddress_v2, dlsym, dlvsym};
use crate::sharing::{clone, vfork};
use crate::trampoline::wrapper;

/// The wrappers that are no sites.
const OTHERS: [&str; 18] = [
    "dlsym",
    "dlvsym",
    "cuGetProcAddress",
    "cuGetProcAddress_v2",
    "fclose",
    "closedir",
    "_exit",
    "_Exit",
    "execve",
    "execv",
    "execvp",
    "execvpe",
    "posix_spawn",
    "posix_spawnp",
    "vfork",
    "clone",
    "symlink",
    "symlinkat",
];
const EXPORTS: usize = SPELLING_COUNT + OTHERS.len();
const DLSYM_EXPORT: Export = Export(SPELLING_COUNT);
const DLVSYM_EXPORT: Export = Export(SPELLING_COUNT + 1);
/// `cuGetProcAddress` as it was first, without a status.
pub(crate) const PROC_ADDRESS: Export = Export(SPELLING_COUNT + 2);
/// `cuGetProcAddress` as it is since CUDA 12.
pub(crate) const PROC_ADDRESS_V2: Export = Export(SPELLING_COUNT + 3);
/// `fclose`.
pub(crate) const FCLOSE: Export = Export(SPELLING_COUNT + 4);
/// `closedir`.
pub(crate) const CLOSEDIR: Export = Export(SPELLING_COUNT + 5);
/// `_exit`.
pub(crate) const EXIT: Export = Export(SPELLING_COUNT + 6);
/// `_Exit`.
pub(crate) const EXIT_C: Export = Export(SPELLING_COUNT + 7);
/// `execve`.
pub(crate) const EXECVE: Export = Export(SPELLING_COUNT + 8);
/// `execv`.
pub(crate) const EXECV: Export = Export(SPELLING_COUNT + 9);
/// `execvp`.
pub(crate) const EXECVP: Export = Export(SPELLING_COUNT + 10);
/// `execvpe`.
pub(crate) const EXECVPE: Export = Export(SPELLING_COUNT + 11);
/// `posix_spawn`.
pub(crate) const SPAWN: Export = Export(SPELLING_COUNT + 12);
/// `posix_spawnp`.
pub(crate) const SPAWNP: Export = Export(SPELLING_COUNT + 13);
/// `vfork`.
pub(crate) const VFORK: Export = Export(SPELLING_COUNT + 14);
/// `clone`.
pub(crate) const CLONE: Export = Export(SPELLING_COUNT + 15);
/// `symlink`.
pub(crate) const SYMLINK: Export = Export(SPELLING_COUNT + 16);
/// `symlinkat`.
pub(crate) const SYMLINKAT: Export = Export(SPELLING_COUNT + 17);

/// The real function of each export but `dlsym` and `dlvsym`; 0 while it is not known.
#[derive(Debug)]
pub(crate) struct Functions([AtomicUsize; EXPORTS]);

impl Functions {
    pub(crate) const fn unknown() -> Functions {
        Functions([const { AtomicUsize::new(0) }; EXPORTS])
    }
}

/// libc's own `dlsym`. The assembly of the wrapper jumps through it.
pub(crate) static DLSYM: AtomicUsize = AtomicUsize::new(0);
/// libc's own `dlvsym`.
pub(crate) static DLVSYM: AtomicUsize = AtomicUsize::new(0);

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> usize;
type Dlvsym = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> usize;

/// A function that this library exports under the name of another library's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Export(usize);

impl From<SpellingId> for Export {
    fn from(spelling: SpellingId) -> Export {
        Export(usize::from(spelling.0))
    }
}

impl Export {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Export> {
        (0..EXPORTS).map(Export)
    }

    /// The export of that name.
    pub(crate) fn find(name: &[u8]) -> Option<Export> {
        Export::all().find(|export| export.name().as_bytes() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self.spelling() {
            Some(spelling) => spelling.spelling().name,
            None => OTHERS[self.0 - SPELLING_COUNT],
        }
    }

    pub(crate) fn library(self) -> Library {
        match self.spelling() {
            Some(spelling) => spelling.site().site().library,
            None if self == PROC_ADDRESS || self == PROC_ADDRESS_V2 => Library::Cuda,
            None => Library::Libc,
        }
    }

    /// The address of the wrapper.
    pub(crate) fn wrapper(self) -> usize {
        match self {
            DLSYM_EXPORT => dlsym as *const () as usize,
            DLVSYM_EXPORT => dlvsym as *const () as usize,
            PROC_ADDRESS => cuGetProcAddress as *const () as usize,
            PROC_ADDRESS_V2 => cuGetProcAddress_v2 as *const () as usize,
            FCLOSE => fclose as *const () as usize,
            CLOSEDIR => closedir as *const () as usize,
            EXIT => _exit as *const () as usize,
            EXIT_C => _Exit as *const () as usize,
            EXECVE => execve as *const () as usize,
            EXECV => execv as *const () as usize,
            EXECVP => execvp as *const () as usize,
            EXECVPE => execvpe as *const () as usize,
            SPAWN => posix_spawn as *const () as usize,
            SPAWNP => posix_spawnp as *const () as usize,
            VFORK => vfork as *const () as usize,
            CLONE => clone as *const () as usize,
            SYMLINK => symlink as *const () as usize,
            SYMLINKAT => symlinkat as *const () as usize,
            Export(index) => wrapper(SpellingId(index as u16)),
        }
    }

    /// The address of the real function, if it is known.
    #[inline]
    pub(crate) fn known(self) -> Option<usize> {
        let address = self.slot().load(Ordering::Acquire);
        (address != 0).then_some(address)
    }

    /// The address of the real function, found now where it was not known.
    #[inline]
    pub(crate) fn real(self) -> Option<usize> {
        self.known().or_else(|| self.resolve())
    }

    /// Whether the loader would find the function without this library: in the objects behind it, in the order of lookup.
    pub(crate) fn is_visible(self) -> bool {
        next(self).is_some_and(|address| {
            self.learn(address);
            true
        })
    }

    /// Remembers the real function. The newest one counts: a library that was unloaded and loaded again has moved.
    pub(crate) fn learn(self, address: usize) {
        // Somebody's question may well be answered with the wrapper.
        if address != self.wrapper() {
            self.slot().store(address, Ordering::Release);
        }
    }

    #[cold]
    fn resolve(self) -> Option<usize> {
        // A caller of the wrapped function must find `errno` and `dlerror` as they were.
        let errno = errno::get();
        let address = next(self).or_else(|| loaded(self));
        if let Some(address) = address {
            self.learn(address);
        }
        errno::set(errno);
        address
    }

    fn spelling(self) -> Option<SpellingId> {
        (self.0 < SPELLING_COUNT).then_some(SpellingId(self.0 as u16))
    }

    #[inline]
    fn slot(self) -> &'static AtomicUsize {
        match self {
            DLSYM_EXPORT => &DLSYM,
            DLVSYM_EXPORT => &DLVSYM,
            Export(index) => &functions().0[index],
        }
    }
}

/// Finds libc's functions; false where there is no `dlsym` to ask.
pub(crate) fn find_all() -> bool {
    if !find_loader() {
        return false;
    }
    for export in Export::all() {
        if export.library() == Library::Libc && export.known().is_none() {
            export.resolve();
        }
    }
    // A function that this libc lacks has left its message there.
    // SAFETY: it has no preconditions.
    unsafe { libc::dlerror() };
    true
}

/// Finds libc's own `dlsym` and `dlvsym`, which no loader's call can tell from the wrappers.
pub(crate) fn find_loader() -> bool {
    if DLSYM_EXPORT.known().is_some() {
        return true;
    }
    let homes = [&b"libc.so.6"[..], b"libdl.so.2"];
    let objects = || Object::own().into_iter().flat_map(Object::everybody);
    for home in homes {
        for object in objects().filter(|object| object.file_name() == home) {
            if let Some(address) = object.function("dlsym") {
                DLVSYM.store(object.function("dlvsym").unwrap_or(0), Ordering::Release);
                DLSYM.store(address, Ordering::Release);
                return true;
            }
        }
    }
    false
}

/// Calls libc's own `dlsym` from here.
///
/// # Safety
/// As `dlsym`; with `RTLD_NEXT`, the search begins behind this library.
pub(crate) unsafe fn real_dlsym(handle: *mut c_void, name: *const c_char) -> usize {
    if !find_loader() {
        return 0;
    }
    // SAFETY: the address is that of libc's `dlsym`, whose type this is.
    unsafe {
        let function: Dlsym = transmute(DLSYM.load(Ordering::Acquire));
        function(handle, name)
    }
}

/// As [`real_dlsym`], for `dlvsym`.
///
/// # Safety
/// As [`real_dlsym`].
pub(crate) unsafe fn real_dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> usize {
    let address = DLVSYM.load(Ordering::Acquire);
    if address == 0 {
        return 0;
    }
    // SAFETY: as above, with `dlvsym`.
    unsafe {
        let function: Dlvsym = transmute(address);
        function(handle, name, version)
    }
}

/// The function that the loader finds behind this library.
fn next(export: Export) -> Option<usize> {
    with_name(export, |name| {
        // SAFETY: the name is a terminated string.
        let address = unsafe { real_dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        (address != 0).then_some(address)
    })
}

/// The function in a library that is loaded, but not for everybody to see.
fn loaded(export: Export) -> Option<usize> {
    let library = match export.library() {
        Library::Libc => return None,
        Library::Cuda => c"libcuda.so.1",
        Library::CuFile => c"libcufile.so.0",
    };
    // SAFETY: the name is a terminated string, and nothing is loaded that is not there already.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return None;
    }
    with_name(export, |name| {
        // SAFETY: the handle is open, the name a terminated string. Closing takes back the one use that opening added.
        let address = unsafe {
            let address = real_dlsym(handle, name.as_ptr());
            libc::dlclose(handle);
            address
        };
        (address != 0).then_some(address)
    })
}

fn with_name<T>(export: Export, body: impl FnOnce(&CStr) -> Option<T>) -> Option<T> {
    let mut bytes = [0u8; 64];
    let name = export.name().as_bytes();
    bytes.get_mut(..name.len())?.copy_from_slice(name);
    body(CStr::from_bytes_until_nul(&bytes).ok()?)
}
