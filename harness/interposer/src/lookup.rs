//! The wrapped resolvers: `dlsym`, `dlvsym`, `cuGetProcAddress` in both versions. `cudaGetDriverEntryPoint*` of the runtime ask the
//! latter.
//!
//! The real resolver answers first, and its answer, an address, is what is looked up: a name says neither which version of a function a
//! client of some CUDA version gets nor whether it gets the per-thread twin. (On driver 580.159 all 4998 answers of `cuGetProcAddress`, of
//! all names in four versions with each flag, were addresses that the library also exports by name, and no two names share one.)
#![allow(unsafe_code, non_snake_case)]

use std::arch::naked_asm;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;

use spillproof_faults::Library;

use crate::elf::Object;
use crate::real::{
    DLSYM, DLVSYM, Export, PROC_ADDRESS, PROC_ADDRESS_V2, find_loader, real_dlsym, real_dlvsym,
};

/// `CUDA_ERROR_NOT_FOUND`.
const NOT_FOUND: u32 = 500;

/// What a wrapper has to do: return the address, or let libc's own answer its caller.
#[repr(C)]
struct Answer {
    is_given: usize,
    address: usize,
}

impl Answer {
    const LEFT: Answer = Answer {
        is_given: 0,
        address: 0,
    };

    fn given(address: usize) -> Answer {
        Answer {
            is_given: 1,
            address,
        }
    }
}

/// Asks, and either returns the answer or jumps to libc's own function as if the wrapper had not been there: what `RTLD_NEXT` and
/// `RTLD_DEFAULT` mean depends on the address that the function returns to.
macro_rules! resolver {
    ($name:ident, $ask:ident, $real:ident) => {
        /// The wrapper.
        ///
        /// # Safety
        /// As the wrapped function, whose arguments it takes.
        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "push rsi",
                ".cfi_adjust_cfa_offset 8",
                "push rdx",
                ".cfi_adjust_cfa_offset 8",
                "mov rcx, [rsp + 24]",
                "call {ask}",
                "mov rcx, rax",
                "mov rax, rdx",
                "pop rdx",
                ".cfi_adjust_cfa_offset -8",
                "pop rsi",
                ".cfi_adjust_cfa_offset -8",
                "pop rdi",
                ".cfi_adjust_cfa_offset -8",
                "test rcx, rcx",
                "jz 2f",
                "ret",
                "2:",
                "mov rax, [rip + {real}]",
                "jmp rax",
                ".cfi_endproc",
                ask = sym $ask,
                real = sym $real,
            )
        }

        /// The wrapper.
        ///
        /// # Safety
        /// As the wrapped function, whose arguments it takes.
        #[cfg(target_arch = "aarch64")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "stp x29, x30, [sp, #-48]!",
                ".cfi_def_cfa_offset 48",
                ".cfi_offset x29, -48",
                ".cfi_offset x30, -40",
                "mov x29, sp",
                "stp x0, x1, [sp, #16]",
                "str x2, [sp, #32]",
                "mov x3, x30",
                "bl {ask}",
                "mov x9, x0",
                "mov x10, x1",
                "ldp x0, x1, [sp, #16]",
                "ldr x2, [sp, #32]",
                "ldp x29, x30, [sp], #48",
                ".cfi_def_cfa_offset 0",
                ".cfi_restore x29",
                ".cfi_restore x30",
                "cbz x9, 2f",
                "mov x0, x10",
                "ret",
                "2:",
                "adrp x9, {real}",
                "ldr x9, [x9, :lo12:{real}]",
                "br x9",
                ".cfi_endproc",
                ask = sym $ask,
                real = sym $real,
            )
        }
    };
}

resolver!(dlsym, ask_dlsym, DLSYM);
resolver!(dlvsym, ask_dlvsym, DLVSYM);

unsafe extern "C" fn ask_dlsym(
    handle: *mut c_void,
    name: *const c_char,
    _third: usize,
    caller: usize,
) -> Answer {
    // SAFETY: passed on from the caller of `dlsym`.
    unsafe { ask(handle, name, caller, || real_dlsym(handle, name)) }
}

unsafe extern "C" fn ask_dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: usize,
) -> Answer {
    // SAFETY: passed on from the caller of `dlvsym`.
    unsafe { ask(handle, name, caller, || real_dlvsym(handle, name, version)) }
}

/// # Safety
/// As `dlsym`.
unsafe fn ask(
    handle: *mut c_void,
    name: *const c_char,
    caller: usize,
    by_handle: impl FnOnce() -> usize,
) -> Answer {
    find_loader();
    if name.is_null() {
        return Answer::LEFT;
    }
    // SAFETY: `dlsym` demands a terminated string.
    let Some(export) = Export::find(unsafe { CStr::from_ptr(name) }.to_bytes()) else {
        return Answer::LEFT;
    };
    if handle == libc::RTLD_NEXT && !precedes(caller) {
        return Answer::LEFT;
    }
    if handle == libc::RTLD_NEXT || handle == libc::RTLD_DEFAULT {
        // The search comes to the wrapper first, whether or not there is anything behind it. Without anything, libc's message stays.
        return match export.is_visible() {
            true => Answer::LEFT,
            false => Answer::given(0),
        };
    }
    Answer::given(match by_handle() {
        0 => 0,
        // A handle that stands for the whole program, where the wrapper comes first, too.
        address if address == export.wrapper() && !export.is_visible() => 0,
        address if address == export.wrapper() => address,
        // Another library of the same function name, say an interposer behind this one, which wants what is behind itself.
        address if export.library() == Library::Libc && export.real() != Some(address) => address,
        address => {
            export.learn(address);
            export.wrapper()
        }
    })
}

/// Whether the address lies in the program or in a library that is searched before this one.
fn precedes(caller: usize) -> bool {
    let (Some(own), Some(caller)) = (Object::own(), Object::holding(caller)) else {
        return false;
    };
    own.and_before().any(|object| object == caller) && own != caller
}

type ProcAddress = unsafe extern "C-unwind" fn(*const c_char, *mut usize, c_int, u64) -> u32;
type ProcAddressV2 =
    unsafe extern "C-unwind" fn(*const c_char, *mut usize, c_int, u64, *mut c_int) -> u32;

/// The wrapper.
///
/// # Safety
/// As the wrapped function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn cuGetProcAddress(
    name: *const c_char,
    address: *mut usize,
    version: c_int,
    flags: u64,
) -> u32 {
    let Some(real) = PROC_ADDRESS.real() else {
        return NOT_FOUND;
    };
    // SAFETY: the address is that of the real function, whose type this is, and the arguments are the caller's.
    unsafe {
        let real: ProcAddress = transmute(real);
        let result = real(name, address, version, flags);
        give_wrapper(result, address);
        result
    }
}

/// The wrapper.
///
/// # Safety
/// As the wrapped function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn cuGetProcAddress_v2(
    name: *const c_char,
    address: *mut usize,
    version: c_int,
    flags: u64,
    status: *mut c_int,
) -> u32 {
    let Some(real) = PROC_ADDRESS_V2.real() else {
        return NOT_FOUND;
    };
    // SAFETY: as above.
    unsafe {
        let real: ProcAddressV2 = transmute(real);
        let result = real(name, address, version, flags, status);
        give_wrapper(result, address);
        result
    }
}

/// Puts the wrapper in place of the function that the driver answered with.
///
/// # Safety
/// The pointer must be the one that the driver has written through where it succeeded.
unsafe fn give_wrapper(result: u32, address: *mut usize) {
    if result != 0 || address.is_null() {
        return;
    }
    // SAFETY: not null, and the driver has just written there.
    unsafe {
        let found = address.read_unaligned();
        if let Some(export) = exported_at(found) {
            address.write_unaligned(export.wrapper());
        }
    }
}

/// The export whose real function lies at an address of the driver.
fn exported_at(address: usize) -> Option<Export> {
    if address == 0 {
        return None;
    }
    let foreign = || Export::all().filter(|export| export.library() != Library::Libc);
    let known = || foreign().find(|export| export.known() == Some(address));
    known().or_else(|| {
        let object = Object::holding(address)?;
        for export in foreign() {
            if let Some(address) = object.function(export.name()) {
                export.learn(address);
            }
        }
        known()
    })
}
