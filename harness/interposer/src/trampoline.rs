//! The exported symbols. Each puts the index of its spelling in a scratch register and jumps to one routine, which saves the argument
//! registers and asks [`dispatch`](crate::dispatch::dispatch) for the result.
//!
//! All sites take integers and pointers and return one register, so no vector register and no hidden result pointer is touched. A
//! variadic function is called as one with fixed arguments, which on these processors passes the same registers and stack words.
#![allow(unsafe_code)]

use std::arch::naked_asm;

use spillproof_faults::SpellingId;

use crate::dispatch::dispatch;

/// Argument registers of the C calling convention.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARGUMENT_REGISTERS: usize = 6;
/// Argument registers of the C calling convention.
#[cfg(target_arch = "aarch64")]
pub(crate) const ARGUMENT_REGISTERS: usize = 8;

/// Defines the wrapper of one spelling.
#[cfg(target_arch = "x86_64")]
macro_rules! trampoline {
    ($name:ident) => {
        /// A wrapper.
        ///
        /// # Safety
        /// As the wrapped function, whose arguments it takes.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub(crate) unsafe extern "C-unwind" fn $name() {
            naked_asm!(
                "mov r11d, {index}",
                "jmp {enter}",
                index = const SpellingId::named(stringify!($name)).0,
                enter = sym enter,
            )
        }
    };
}

/// Defines the wrapper of one spelling.
#[cfg(target_arch = "aarch64")]
macro_rules! trampoline {
    ($name:ident) => {
        /// A wrapper.
        ///
        /// # Safety
        /// As the wrapped function, whose arguments it takes.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub(crate) unsafe extern "C-unwind" fn $name() {
            naked_asm!(
                "mov w9, {index}",
                "b {enter}",
                index = const SpellingId::named(stringify!($name)).0,
                enter = sym enter,
            )
        }
    };
}

/// What every wrapper jumps to. At entry the stack and the registers are those of the call.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C-unwind" fn enter() {
    naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "push r9",
        "push r8",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "mov edi, r11d",
        "mov rsi, rsp",
        "lea rdx, [rbp + 16]",
        "mov rcx, [rbp + 8]",
        "call {dispatch}",
        "leave",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
        dispatch = sym dispatch,
    )
}

/// What every wrapper jumps to. At entry the stack and the registers are those of the call.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C-unwind" fn enter() {
    naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, #-80]!",
        ".cfi_def_cfa_offset 80",
        ".cfi_offset x29, -80",
        ".cfi_offset x30, -72",
        "mov x29, sp",
        ".cfi_def_cfa_register x29",
        "stp x0, x1, [sp, #16]",
        "stp x2, x3, [sp, #32]",
        "stp x4, x5, [sp, #48]",
        "stp x6, x7, [sp, #64]",
        "mov w0, w9",
        "add x1, sp, #16",
        "add x2, sp, #80",
        "mov x3, x30",
        "bl {dispatch}",
        "ldp x29, x30, [sp], #80",
        ".cfi_def_cfa sp, 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "ret",
        ".cfi_endproc",
        dispatch = sym dispatch,
    )
}

/// Defines the wrappers of one library, and their addresses in the order of the table.
macro_rules! wrappers {
    ($library:ident; $($site:ident [$($spelling:ident)+] = $row:expr;)+) => {
        $($(trampoline!($spelling);)+)+

        #[allow(non_upper_case_globals)]
        static $library: &[unsafe extern "C-unwind" fn()] = &[$($($spelling),+),+];
    };
}

spillproof_faults::for_each_libc_site!(wrappers);
spillproof_faults::for_each_cuda_site!(wrappers);
spillproof_faults::for_each_cufile_site!(wrappers);

/// The address of a spelling's wrapper.
pub(crate) fn wrapper(spelling: SpellingId) -> usize {
    let mut all = Libc.iter().chain(Cuda).chain(CuFile);
    all.nth(usize::from(spelling.0))
        .map_or(0, |wrapper| *wrapper as usize)
}
