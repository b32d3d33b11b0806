//! Which site a raw system call means. Arguments lie where the site says, one place further on than in the table, because
//! `syscall` takes the number first; `openat2` has its own behind the path, which no site looks at.

use crate::site::SiteId;

macro_rules! numbers {
    ($($name:literal = $number:literal)+) => {
        &[$(($number, SiteId::named($name))),+]
    };
}

/// By number, ascending (asm/unistd_64.h).
#[cfg(target_arch = "x86_64")]
const NUMBERS: &[(i64, SiteId)] = numbers! {
    "read" = 0 "write" = 1 "open" = 2 "close" = 3 "stat" = 4 "fstat" = 5 "lstat" = 6 "lseek" = 8 "mmap" = 9
    "munmap" = 11 "pread" = 17 "pwrite" = 18 "readv" = 19 "writev" = 20 "msync" = 26 "madvise" = 28 "dup" = 32
    "dup2" = 33 "sendfile" = 40 "fcntl" = 72 "flock" = 73 "fsync" = 74 "fdatasync" = 75 "ftruncate" = 77
    "rename" = 82 "mkdir" = 83 "rmdir" = 84 "creat" = 85 "link" = 86 "unlink" = 87 "statfs" = 137 "fstatfs" = 138
    "openat" = 257 "mkdirat" = 258 "fstatat" = 262 "unlinkat" = 263 "renameat" = 264 "linkat" = 265 "splice" = 275
    "sync_file_range" = 277 "fallocate" = 285 "dup3" = 292 "preadv" = 295 "pwritev" = 296 "renameat2" = 316
    "copy_file_range" = 326 "preadv2" = 327 "pwritev2" = 328 "statx" = 332 "close_range" = 436 "openat" = 437
};

/// By number, ascending (asm-generic/unistd.h).
#[cfg(target_arch = "aarch64")]
const NUMBERS: &[(i64, SiteId)] = numbers! {
    "dup" = 23 "dup3" = 24 "fcntl" = 25 "flock" = 32 "mkdirat" = 34 "unlinkat" = 35 "linkat" = 37 "renameat" = 38
    "statfs" = 43 "fstatfs" = 44 "ftruncate" = 46 "fallocate" = 47 "openat" = 56 "close" = 57 "lseek" = 62
    "read" = 63 "write" = 64 "readv" = 65 "writev" = 66 "pread" = 67 "pwrite" = 68 "preadv" = 69 "pwritev" = 70
    "sendfile" = 71 "splice" = 76 "fstatat" = 79 "fstat" = 80 "fsync" = 82 "fdatasync" = 83 "sync_file_range" = 84
    "munmap" = 215 "mmap" = 222 "msync" = 227 "madvise" = 233 "renameat2" = 276 "copy_file_range" = 285
    "preadv2" = 286 "pwritev2" = 287 "statx" = 291 "close_range" = 436 "openat" = 437
};

/// The site that a system call means, if it is one.
#[inline]
pub fn site_of_syscall(number: i64) -> Option<SiteId> {
    let found = NUMBERS.binary_search_by_key(&number, |(known, _)| *known);
    found.ok().map(|index| NUMBERS[index].1)
}

#[cfg(test)]
mod tests {
    //! Numbers are those of the C library's headers, and ascend.
    use super::*;

    #[test]
    fn numbers_ascend() {
        assert!(NUMBERS.is_sorted_by(|left, right| left.0 < right.0));
    }

    #[test]
    fn numbers_are_those_of_the_headers() {
        let mut known = vec![
            (libc::SYS_read, "read"),
            (libc::SYS_write, "write"),
            (libc::SYS_close, "close"),
            (libc::SYS_fstat, "fstat"),
            (libc::SYS_lseek, "lseek"),
            (libc::SYS_mmap, "mmap"),
            (libc::SYS_munmap, "munmap"),
            (libc::SYS_pread64, "pread"),
            (libc::SYS_pwrite64, "pwrite"),
            (libc::SYS_readv, "readv"),
            (libc::SYS_writev, "writev"),
            (libc::SYS_msync, "msync"),
            (libc::SYS_madvise, "madvise"),
            (libc::SYS_dup, "dup"),
            (libc::SYS_dup3, "dup3"),
            (libc::SYS_sendfile, "sendfile"),
            (libc::SYS_fcntl, "fcntl"),
            (libc::SYS_flock, "flock"),
            (libc::SYS_fsync, "fsync"),
            (libc::SYS_fdatasync, "fdatasync"),
            (libc::SYS_ftruncate, "ftruncate"),
            (libc::SYS_statfs, "statfs"),
            (libc::SYS_fstatfs, "fstatfs"),
            (libc::SYS_openat, "openat"),
            (libc::SYS_openat2, "openat"),
            (libc::SYS_mkdirat, "mkdirat"),
            (libc::SYS_newfstatat, "fstatat"),
            (libc::SYS_unlinkat, "unlinkat"),
            (libc::SYS_renameat, "renameat"),
            (libc::SYS_linkat, "linkat"),
            (libc::SYS_splice, "splice"),
            (libc::SYS_sync_file_range, "sync_file_range"),
            (libc::SYS_fallocate, "fallocate"),
            (libc::SYS_preadv, "preadv"),
            (libc::SYS_pwritev, "pwritev"),
            (libc::SYS_renameat2, "renameat2"),
            (libc::SYS_copy_file_range, "copy_file_range"),
            (libc::SYS_preadv2, "preadv2"),
            (libc::SYS_pwritev2, "pwritev2"),
            (libc::SYS_statx, "statx"),
            (libc::SYS_close_range, "close_range"),
        ];
        #[cfg(target_arch = "x86_64")]
        known.extend([
            (libc::SYS_open, "open"),
            (libc::SYS_stat, "stat"),
            (libc::SYS_lstat, "lstat"),
            (libc::SYS_dup2, "dup2"),
            (libc::SYS_rename, "rename"),
            (libc::SYS_mkdir, "mkdir"),
            (libc::SYS_rmdir, "rmdir"),
            (libc::SYS_creat, "creat"),
            (libc::SYS_link, "link"),
            (libc::SYS_unlink, "unlink"),
        ]);
        let named: Vec<(i64, SiteId)> = known
            .iter()
            .map(|(number, name)| (*number, SiteId::named(name)))
            .collect();
        for (number, site) in &named {
            assert_eq!(site_of_syscall(*number), Some(*site), "{number}");
        }
        let unnamed = NUMBERS.iter().find(|row| !named.contains(row));
        assert_eq!(unnamed, None);
        assert_eq!(site_of_syscall(libc::SYS_getpid), None);
        assert_eq!(site_of_syscall(-1), None);
    }
}
