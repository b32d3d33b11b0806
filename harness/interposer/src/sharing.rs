//! Functions that make a child which shares this process's memory: what is remembered of the process is not true of the child. They are no
//! sites: nothing is counted or made to fail here.
//!
//! Each says so and jumps to the real function as if it had not been there: the child goes on in the stack frame of the caller. What
//! `posix_spawn`, `system` and `popen` do inside libc passes no wrapper, and is not asked. A system call that a program makes by itself
//! is not seen: what such a child opens and closes through libc counts as its parent's.
#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::ffi::c_int;

use crate::attach::shared;
use crate::errno;
use crate::real::{CLONE, Export, VFORK};

/// The wrapper.
///
/// # Safety
/// As the wrapped function.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vfork() {
    naked_asm!(
        ".cfi_startproc",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {before}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "jmp rax",
        ".cfi_endproc",
        before = sym before_vfork,
    )
}

/// The wrapper.
///
/// # Safety
/// As the wrapped function.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vfork() {
    naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, #-16]!",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset x29, -16",
        ".cfi_offset x30, -8",
        "bl {before}",
        "mov x16, x0",
        "ldp x29, x30, [sp], #16",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "br x16",
        ".cfi_endproc",
        before = sym before_vfork,
    )
}

/// The wrapper. A seventh argument stays where it is on the stack.
///
/// # Safety
/// As the wrapped function, whose arguments it takes.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clone() {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "push rsi",
        ".cfi_adjust_cfa_offset 8",
        "push rdx",
        ".cfi_adjust_cfa_offset 8",
        "push rcx",
        ".cfi_adjust_cfa_offset 8",
        "push r8",
        ".cfi_adjust_cfa_offset 8",
        "push r9",
        ".cfi_adjust_cfa_offset 8",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "mov edi, edx",
        "call {before}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "pop r9",
        ".cfi_adjust_cfa_offset -8",
        "pop r8",
        ".cfi_adjust_cfa_offset -8",
        "pop rcx",
        ".cfi_adjust_cfa_offset -8",
        "pop rdx",
        ".cfi_adjust_cfa_offset -8",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        // The callee takes its stack arguments from where they are, and looks at no count of vector registers.
        "jmp rax",
        ".cfi_endproc",
        before = sym before_clone,
    )
}

/// The wrapper.
///
/// # Safety
/// As the wrapped function, whose arguments it takes.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clone() {
    naked_asm!(
        ".cfi_startproc",
        "stp x29, x30, [sp, #-80]!",
        ".cfi_def_cfa_offset 80",
        ".cfi_offset x29, -80",
        ".cfi_offset x30, -72",
        "stp x0, x1, [sp, #16]",
        "stp x2, x3, [sp, #32]",
        "stp x4, x5, [sp, #48]",
        "stp x6, x7, [sp, #64]",
        "mov w0, w2",
        "bl {before}",
        "mov x16, x0",
        "ldp x0, x1, [sp, #16]",
        "ldp x2, x3, [sp, #32]",
        "ldp x4, x5, [sp, #48]",
        "ldp x6, x7, [sp, #64]",
        "ldp x29, x30, [sp], #80",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "br x16",
        ".cfi_endproc",
        before = sym before_clone,
    )
}

extern "C" fn before_vfork() -> usize {
    if let Some(shared) = shared() {
        shared.lend_memory();
    }
    real_or_missing(VFORK)
}

extern "C" fn before_clone(flags: c_int) -> usize {
    if flags & libc::CLONE_VM != 0
        && flags & libc::CLONE_THREAD == 0
        && let Some(shared) = shared()
    {
        shared.share_memory();
    }
    real_or_missing(CLONE)
}

fn real_or_missing(export: Export) -> usize {
    export.real().unwrap_or(missing as *const () as usize)
}

extern "C" fn missing() -> c_int {
    errno::set(libc::ENOSYS);
    -1
}
