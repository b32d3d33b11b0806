//! Which function a raw system call means.

use spillproof_faults::SpellingId;

/// Whether it makes a symbolic link, which no site does.
pub(crate) fn makes_link(number: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_symlink as usize {
        return true;
    }
    number == libc::SYS_symlinkat as usize
}

macro_rules! meanings {
    ($($(#[$condition:meta])? $number:ident $function:literal)+) => {
        /// The function that makes that system call with the same arguments.
        pub(crate) fn meaning(number: usize) -> Option<SpellingId> {
            let number = libc::c_long::try_from(number).ok()?;
            match number {
                $($(#[$condition])? libc::$number => Some(const { SpellingId::named($function) }),)+
                _ => None,
            }
        }
    };
}

meanings! {
    #[cfg(target_arch = "x86_64")] SYS_open "open"
    SYS_openat "openat"
    #[cfg(target_arch = "x86_64")] SYS_creat "creat"
    SYS_read "read"
    SYS_pread64 "pread"
    SYS_readv "readv"
    SYS_preadv "preadv"
    SYS_preadv2 "preadv2"
    SYS_write "write"
    SYS_pwrite64 "pwrite"
    SYS_writev "writev"
    SYS_pwritev "pwritev"
    SYS_pwritev2 "pwritev2"
    SYS_copy_file_range "copy_file_range"
    SYS_sendfile "sendfile"
    SYS_splice "splice"
    SYS_lseek "lseek"
    SYS_ftruncate "ftruncate"
    SYS_fallocate "fallocate"
    SYS_fsync "fsync"
    SYS_fdatasync "fdatasync"
    SYS_sync_file_range "sync_file_range"
    SYS_close "close"
    SYS_close_range "close_range"
    SYS_dup "dup"
    #[cfg(target_arch = "x86_64")] SYS_dup2 "dup2"
    SYS_dup3 "dup3"
    SYS_fcntl "fcntl"
    SYS_flock "flock"
    SYS_mmap "mmap"
    SYS_munmap "munmap"
    SYS_msync "msync"
    SYS_madvise "madvise"
    #[cfg(target_arch = "x86_64")] SYS_rename "rename"
    SYS_renameat "renameat"
    SYS_renameat2 "renameat2"
    #[cfg(target_arch = "x86_64")] SYS_unlink "unlink"
    SYS_unlinkat "unlinkat"
    #[cfg(target_arch = "x86_64")] SYS_mkdir "mkdir"
    SYS_mkdirat "mkdirat"
    #[cfg(target_arch = "x86_64")] SYS_rmdir "rmdir"
    #[cfg(target_arch = "x86_64")] SYS_link "link"
    SYS_linkat "linkat"
    #[cfg(target_arch = "x86_64")] SYS_stat "stat"
    #[cfg(target_arch = "x86_64")] SYS_lstat "lstat"
    SYS_fstat "fstat"
    SYS_newfstatat "fstatat"
    SYS_statx "statx"
    SYS_statfs "statfs"
    SYS_fstatfs "fstatfs"
}
