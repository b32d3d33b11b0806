//! The exported symbols. Each puts the index of its spelling in a scratch register and jumps to one routine, which saves the argument
//! registers, asks [`before`] what is to be done, makes the call and tells [`after`] its result.
//!
//! All sites take integers and pointers and return one register, so no vector register and no hidden result pointer is touched. A
//! variadic function is called as one with fixed arguments, which on these processors passes the same registers and stack words.
#![allow(unsafe_code)]

use std::arch::naked_asm;

use spillproof_faults::SpellingId;

use crate::dispatch::{Frame, How, after, before};

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
///
/// A call that nothing has to be done behind is jumped to, as if the wrapper had not been there: behind a system call the processor has
/// forgotten where it is to return to, and each frame more costs.
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
        "sub rsp, {frame_bytes}",
        "mov [rsp], rdi",
        "mov [rsp + 8], rsi",
        "mov [rsp + 16], rdx",
        "mov [rsp + 24], rcx",
        "mov [rsp + 32], r8",
        "mov [rsp + 40], r9",
        "mov edi, r11d",
        "mov rsi, rsp",
        "lea rdx, [rbp + 16]",
        "mov rcx, [rbp + 8]",
        "call {before}",
        "cmp edx, {is_done}",
        "je 3f",
        "mov r11, rax",
        "mov rdi, [rsp]",
        "mov rsi, [rsp + 8]",
        "mov ecx, edx",
        "mov rdx, [rsp + 16]",
        "mov r8, [rsp + 32]",
        "mov r9, [rsp + 40]",
        "cmp ecx, {is_passed}",
        "mov rcx, [rsp + 24]",
        "jne 2f",
        ".cfi_remember_state",
        "leave",
        ".cfi_def_cfa rsp, 8",
        ".cfi_restore rbp",
        "jmp r11",
        ".cfi_restore_state",
        "2:",
        "call r11",
        "mov rdi, rsp",
        "mov rsi, rax",
        "call {after}",
        "3:",
        "leave",
        ".cfi_def_cfa rsp, 8",
        ".cfi_restore rbp",
        "ret",
        ".cfi_endproc",
        frame_bytes = const size_of::<Frame>(),
        is_done = const How::Done as i32,
        is_passed = const How::Pass as i32,
        before = sym before,
        after = sym after,
    )
}

/// What every wrapper jumps to. At entry the stack and the registers are those of the call. As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C-unwind" fn enter() {
    naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, #-16]!",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset x29, -16",
        ".cfi_offset x30, -8",
        "mov x29, sp",
        ".cfi_def_cfa x29, 16",
        "sub sp, sp, #{frame_bytes}",
        "stp x0, x1, [sp]",
        "stp x2, x3, [sp, #16]",
        "stp x4, x5, [sp, #32]",
        "stp x6, x7, [sp, #48]",
        "mov w0, w9",
        "mov x1, sp",
        "add x2, x29, #16",
        "mov x3, x30",
        "bl {before}",
        "cmp x1, #{is_done}",
        "b.eq 3f",
        "mov x16, x0",
        "cmp x1, #{is_passed}",
        "ldp x0, x1, [sp]",
        "ldp x2, x3, [sp, #16]",
        "ldp x4, x5, [sp, #32]",
        "ldp x6, x7, [sp, #48]",
        "b.ne 2f",
        ".cfi_remember_state",
        "mov sp, x29",
        "ldp x29, x30, [sp], #16",
        ".cfi_def_cfa sp, 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "br x16",
        ".cfi_restore_state",
        "2:",
        "blr x16",
        "mov x1, x0",
        "mov x0, sp",
        "bl {after}",
        "3:",
        "mov sp, x29",
        "ldp x29, x30, [sp], #16",
        ".cfi_def_cfa sp, 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "ret",
        ".cfi_endproc",
        frame_bytes = const size_of::<Frame>(),
        is_done = const How::Done as i32,
        is_passed = const How::Pass as i32,
        before = sym before,
        after = sym after,
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
