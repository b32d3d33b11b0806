//! The C library's file calls. Errors are those of the man pages (Linux man-pages 6), most telling first, without what only
//! a bad pointer gives (EFAULT), and with EIO of `msync`, which writes back as `fsync` does.

use super::row::{collect, libc};
use crate::error::{FaultError, names::*};
use crate::site::{After, Effect, Failure, Site, Size, Target};

const OPEN: &[FaultError] = &[
    EMFILE,
    EACCES,
    ENFILE,
    ENOENT,
    EINVAL,
    EROFS,
    ELOOP,
    ENOSPC,
    EDQUOT,
    EINTR,
    ENOMEM,
    EPERM,
    EEXIST,
    EISDIR,
    ENOTDIR,
    ENXIO,
    ENODEV,
    EBUSY,
    ETXTBSY,
    EOVERFLOW,
    EOPNOTSUPP,
    ENAMETOOLONG,
    EAGAIN,
    EFBIG,
];
const MAKE_TEMPORARY: &[FaultError] = &[
    EMFILE,
    EACCES,
    ENFILE,
    ENOSPC,
    EDQUOT,
    EROFS,
    EEXIST,
    EINVAL,
    EINTR,
    ENOENT,
    ENOTDIR,
    ENOMEM,
    EPERM,
    ELOOP,
    ENAMETOOLONG,
];
const READ: &[FaultError] = &[EIO, EINTR, EINVAL, EAGAIN, EISDIR, EBADF];
const WRITE: &[FaultError] = &[
    ENOSPC, EIO, EINTR, EDQUOT, EFBIG, EINVAL, EAGAIN, EPERM, EPIPE, EBADF,
];
const SYNC: &[FaultError] = &[EIO, ENOSPC, EDQUOT, EINTR, EROFS, EINVAL, EBADF];
const STAT: &[FaultError] = &[
    EACCES,
    ENOENT,
    ENOMEM,
    ENOTDIR,
    ELOOP,
    ENAMETOOLONG,
    EOVERFLOW,
    EINVAL,
    EBADF,
];
const STATFS: &[FaultError] = &[
    EIO,
    EACCES,
    ENOENT,
    ENOSYS,
    EINTR,
    ENOMEM,
    ENOTDIR,
    ELOOP,
    ENAMETOOLONG,
    EOVERFLOW,
    EBADF,
];
const RENAME: &[FaultError] = &[
    ENOSPC,
    EACCES,
    EDQUOT,
    EXDEV,
    EROFS,
    EPERM,
    EBUSY,
    EEXIST,
    EINVAL,
    EISDIR,
    ELOOP,
    EMLINK,
    ENAMETOOLONG,
    ENOENT,
    ENOMEM,
    ENOTDIR,
    ENOTEMPTY,
];
const UNLINK: &[FaultError] = &[
    EACCES,
    EBUSY,
    EIO,
    EROFS,
    EPERM,
    ENOENT,
    EISDIR,
    ELOOP,
    ENAMETOOLONG,
    ENOMEM,
    ENOTDIR,
    EBADF,
];
const MKDIR: &[FaultError] = &[
    ENOSPC,
    EACCES,
    EDQUOT,
    EROFS,
    EEXIST,
    EPERM,
    ELOOP,
    EMLINK,
    ENAMETOOLONG,
    ENOENT,
    ENOMEM,
    ENOTDIR,
    EINVAL,
];
const RMDIR: &[FaultError] = &[
    EACCES,
    EBUSY,
    EROFS,
    EPERM,
    ENOTEMPTY,
    EEXIST,
    EINVAL,
    ELOOP,
    ENAMETOOLONG,
    ENOENT,
    ENOMEM,
    ENOTDIR,
];
const LINK: &[FaultError] = &[
    ENOSPC,
    EPERM,
    EDQUOT,
    EIO,
    EXDEV,
    EMLINK,
    EACCES,
    EEXIST,
    EROFS,
    ELOOP,
    ENAMETOOLONG,
    ENOENT,
    ENOMEM,
    ENOTDIR,
    EINVAL,
];
const TRUNCATE: &[FaultError] = &[EIO, EFBIG, EINTR, EPERM, EINVAL, EROFS, ETXTBSY, EBADF];
const FALLOCATE: &[FaultError] = &[
    ENOSPC, EOPNOTSUPP, EIO, EINTR, EFBIG, ENOSYS, EPERM, ENODEV, ESPIPE, ETXTBSY, EINVAL, EBADF,
];
const COPY_RANGE: &[FaultError] = &[
    ENOSPC, EIO, EXDEV, EOPNOTSUPP, EINVAL, EFBIG, EISDIR, ENOMEM, EOVERFLOW, EPERM, ETXTBSY, EBADF,
];
const DUPLICATE: &[FaultError] = &[EMFILE, EBADF];
const DUPLICATE_TO: &[FaultError] = &[EMFILE, EBUSY, EINTR, EINVAL, EBADF];

/// The path of a descriptor-relative call with its usual arguments.
const AT: Target = Target::PathAt {
    dir_arg: 0,
    path_arg: 1,
};
const TWO_AT: Target = Target::TwoPathsAt {
    first_dir_arg: 0,
    first_path_arg: 1,
    second_dir_arg: 2,
    second_path_arg: 3,
};

/// A call on the descriptor in the first argument.
const fn file(arity: u8, errors: &'static [FaultError]) -> Site {
    libc(arity, errors).on(Target::Fd(0))
}

/// Hands the rows of libc to a macro, as the documentation of the table says.
#[macro_export]
macro_rules! for_each_libc_site {
    ($callback:ident) => {
        $callback! { Libc;
            // The `__…_2` and `__…_chk` ones are what _FORTIFY_SOURCE makes of a call.
            open [open open64 __open_2 __open64_2] = libc(3, OPEN).on(Target::Path(0)).opens();
            openat [openat openat64 __openat_2 __openat64_2] = libc(4, OPEN).on(AT).opens();
            creat [creat creat64] = libc(2, OPEN).on(Target::Path(0)).opens();
            // The template is a path only after the call, but its folder is known before.
            mkstemp [mkstemp mkstemp64] = libc(1, MAKE_TEMPORARY).on(Target::Path(0)).opens();
            mkostemp [mkostemp mkostemp64] = libc(2, MAKE_TEMPORARY).on(Target::Path(0)).opens();
            mkstemps [mkstemps mkstemps64] = libc(2, MAKE_TEMPORARY).on(Target::Path(0)).opens();
            mkostemps [mkostemps mkostemps64] = libc(3, MAKE_TEMPORARY).on(Target::Path(0)).opens();

            read [read __read_chk] = file(4, READ).counted(2);
            pread [pread pread64 __pread_chk __pread64_chk] = file(5, READ).counted(2).at(3);
            readv [readv] = file(3, READ).vectored(1, 2);
            preadv [preadv preadv64] = file(4, READ).vectored(1, 2).at(3);
            preadv2 [preadv2 preadv64v2] =
                file(5, &[EIO, EINTR, EOPNOTSUPP, EAGAIN, EINVAL, EISDIR, EBADF]).vectored(1, 2).at(3);
            write [write] = file(3, WRITE).counted(2);
            pwrite [pwrite pwrite64] = file(4, WRITE).counted(2).at(3);
            writev [writev] = file(3, WRITE).vectored(1, 2);
            pwritev [pwritev pwritev64] = file(4, WRITE).vectored(1, 2).at(3);
            pwritev2 [pwritev2 pwritev64v2] =
                file(5, &[ENOSPC, EIO, EINTR, EDQUOT, EFBIG, EOPNOTSUPP, EAGAIN, EPERM, EPIPE, EINVAL, EBADF])
                    .vectored(1, 2).at(3);
            copy_file_range [copy_file_range] = libc(6, COPY_RANGE).on(Target::TwoFds(0, 2)).counted(4);
            sendfile [sendfile sendfile64] =
                libc(4, &[EIO, EINVAL, EAGAIN, ENOMEM, EOVERFLOW, ESPIPE, EBADF]).on(Target::TwoFds(0, 1)).counted(3);
            splice [splice] =
                libc(6, &[EINVAL, ENOMEM, EAGAIN, ESPIPE, EBADF]).on(Target::TwoFds(0, 2)).counted(4);

            lseek [lseek lseek64] = file(3, &[EINVAL, EOVERFLOW, ENXIO, ESPIPE, EBADF]).at(1);
            ftruncate [ftruncate ftruncate64] = file(2, TRUNCATE).sized(Size::Arg(1));
            fallocate [fallocate fallocate64] = file(4, FALLOCATE).sized(Size::Arg(3)).at(2);
            posix_fallocate [posix_fallocate posix_fallocate64] =
                file(3, &[ENOSPC, EOPNOTSUPP, EINTR, EFBIG, ENODEV, ESPIPE, EINVAL, EBADF])
                    .fails_as(Failure::ReturnsErrno).sized(Size::Arg(2)).at(1);
            fsync [fsync] = file(1, SYNC);
            fdatasync [fdatasync] = file(1, SYNC);
            sync_file_range [sync_file_range] =
                file(4, &[EIO, ENOSPC, ENOMEM, ESPIPE, EINVAL, EBADF]).sized(Size::Arg(2)).at(1);

            close [close] =
                file(1, &[EIO, ENOSPC, EDQUOT, EINTR, EBADF]).after(After::Always).does(Effect::Closes(0));
            close_range [close_range] = libc(3, &[ENOMEM, EMFILE, EINVAL])
                .on(Target::FdRange { first_arg: 0, last_arg: Some(1) })
                .does(Effect::ClosesRange { first_arg: 0, last_arg: Some(1) });
            closefrom [closefrom] = libc(1, &[]).fails_as(Failure::Void)
                .on(Target::FdRange { first_arg: 0, last_arg: None })
                .does(Effect::ClosesRange { first_arg: 0, last_arg: None });
            dup [dup] = file(1, DUPLICATE).does(Effect::Duplicates).after(After::Never);
            dup2 [dup2] = file(2, DUPLICATE_TO).does(Effect::Duplicates).after(After::Never);
            dup3 [dup3] = file(3, DUPLICATE_TO).does(Effect::Duplicates).after(After::Never);
            fcntl [fcntl fcntl64] =
                file(3, &[EMFILE, EAGAIN, ENOLCK, EINTR, EACCES, EPERM, EBUSY, EDEADLK, EINVAL, ENOTDIR, EBADF])
                    .does(Effect::DuplicatesByCommand).after(After::Never);
            flock [flock] = file(2, &[EAGAIN, ENOLCK, EINTR, EINVAL, EBADF]);

            mmap [mmap mmap64] =
                libc(6, &[ENOMEM, ENODEV, EAGAIN, EACCES, ENFILE, EPERM, EINVAL, EOVERFLOW, EEXIST, ETXTBSY, EBADF])
                    .fails_as(Failure::MapFailed).on(Target::Fd(4)).sized(Size::Arg(1)).at(5)
                    .does(Effect::Maps).after(After::Never);
            munmap [munmap] = libc(2, &[ENOMEM, EINVAL]).on(Target::Mapping { address_arg: 0 })
                .sized(Size::Arg(1)).does(Effect::Unmaps { address_arg: 0 });
            msync [msync] = libc(3, &[EIO, ENOMEM, EBUSY, EINVAL])
                .on(Target::Mapping { address_arg: 0 }).sized(Size::Arg(1));
            madvise [madvise] = libc(3, &[ENOMEM, EINVAL, EIO, EAGAIN, EACCES, EBADF, EPERM])
                .on(Target::Mapping { address_arg: 0 }).sized(Size::Arg(1));

            rename [rename] = libc(2, RENAME).on(Target::TwoPaths(0, 1)).does(Effect::Names);
            renameat [renameat] = libc(4, RENAME).on(TWO_AT).does(Effect::Names);
            renameat2 [renameat2] = libc(5, RENAME).on(TWO_AT).does(Effect::Names);
            unlink [unlink] = libc(1, UNLINK).on(Target::Path(0));
            unlinkat [unlinkat] = libc(3, UNLINK).on(AT);
            mkdir [mkdir] = libc(2, MKDIR).on(Target::Path(0));
            mkdirat [mkdirat] = libc(3, MKDIR).on(AT);
            rmdir [rmdir] = libc(1, RMDIR).on(Target::Path(0));
            link [link] = libc(2, LINK).on(Target::TwoPaths(0, 1)).does(Effect::Names);
            linkat [linkat] = libc(5, LINK).on(TWO_AT).does(Effect::Names);

            stat [stat stat64] = libc(2, STAT).on(Target::Path(0));
            lstat [lstat lstat64] = libc(2, STAT).on(Target::Path(0));
            fstat [fstat fstat64] = file(2, &[ENOMEM, EOVERFLOW, EBADF]);
            fstatat [fstatat fstatat64] = libc(4, STAT).on(AT);
            statx [statx] =
                libc(5, &[EACCES, ENOENT, ENOMEM, ENOTDIR, ELOOP, ENAMETOOLONG, EINVAL, EBADF]).on(AT);
            statfs [statfs statfs64] = libc(2, STATFS).on(Target::Path(0));
            fstatfs [fstatfs fstatfs64] = file(2, &[EIO, ENOSYS, EINTR, ENOMEM, EOVERFLOW, EBADF]);
            // What programs built against a glibc older than 2.33 call: a version goes first.
            __xstat [__xstat __xstat64] = libc(3, STAT).on(Target::Path(1));
            __lxstat [__lxstat __lxstat64] = libc(3, STAT).on(Target::Path(1));
            __fxstat [__fxstat __fxstat64] = libc(3, &[ENOMEM, EOVERFLOW, EBADF]).on(Target::Fd(1));
            __fxstatat [__fxstatat __fxstatat64] =
                libc(5, STAT).on(Target::PathAt { dir_arg: 1, path_arg: 2 });

            syscall [syscall] = libc(7, &[]).fails_as(Failure::RawSyscall);
        }
    };
}

for_each_libc_site!(collect);
