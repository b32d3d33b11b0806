//! Writing device bytes where `RLIMIT_FSIZE` forbids writing so far into a file: through a small window, mapped for the
//! time of the call.
//!
//! The limit binds `write` and its kin but not stores to a mapping. The bytes pass through a pipe, so that the kernel
//! reads the client's memory and a bad range is `EFAULT`.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::slice;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, getrlimit};

use crate::descriptor::Descriptor;
use crate::host::{HostSource, HostTarget, read, write};
use crate::layout::FILE_BYTES;

/// A pipe takes this much at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// A multiple of every page size; the most that a window adds to the resident set is this and a chunk.
const WINDOW_STEP_BYTES: u64 = 64 * 1024;

/// Whether a limit on the size of files would stop writes to the board.
pub(crate) fn is_needed() -> bool {
    getrlimit(Resource::Fsize)
        .current
        .is_some_and(|limit| limit < FILE_BYTES)
}

/// Writes to the board at an offset.
pub(crate) fn write_at(
    board: BorrowedFd<'_>,
    offset: u64,
    bytes: HostSource<'_>,
) -> Result<(), Errno> {
    let pipe = Pipe::new()?;
    let mut done = 0;
    while done < bytes.len() {
        let chunk = bytes.part(done, done + CHUNK_BYTES);
        let at = offset + done as u64;
        let start = at - at % WINDOW_STEP_BYTES;
        let skipped = (at - start) as usize;
        let mut window = Window::map(board, start, skipped + chunk.len())?;
        pipe.pass(chunk, (&mut window.bytes()[skipped..]).into())?;
        done += chunk.len();
    }
    Ok(())
}

/// Copies host memory to host memory.
pub(crate) fn copy(mut to: HostTarget<'_>, from: HostSource<'_>) -> Result<(), Errno> {
    let pipe = Pipe::new()?;
    let length = to.len().min(from.len());
    for start in (0..length).step_by(CHUNK_BYTES) {
        let end = length.min(start + CHUNK_BYTES);
        pipe.pass(from.part(start, end), to.part(start, end))?;
    }
    Ok(())
}

struct Pipe {
    out: Descriptor,
    into: Descriptor,
}

impl Pipe {
    fn new() -> Result<Pipe, Errno> {
        // Not blocking: a pipe of less than the usual size takes part of a chunk.
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe {
            out: out.into(),
            into: into.into(),
        })
    }

    /// Moves `from` into `to`, which is as long, through the pipe.
    fn pass(&self, from: HostSource<'_>, mut to: HostTarget<'_>) -> Result<(), Errno> {
        let mut written = 0;
        let mut done = 0;
        while done < from.len() {
            match write(self.into.as_fd(), from.part(written, usize::MAX)) {
                Ok(count) => written += count,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error),
            }
            while done < written {
                match read(self.out.as_fd(), to.part(done, written)) {
                    Ok(0) => return Err(Errno::IO),
                    Ok(count) => done += count,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

struct Window {
    start: NonNull<c_void>,
    length: usize,
}

impl Window {
    fn map(board: BorrowedFd<'_>, offset: u64, length: usize) -> Result<Window, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours, and the file is sealed
        // against shrinking below it.
        let start = unsafe { mmap(null_mut(), length, access, MapFlags::SHARED, board, offset) }?;
        NonNull::new(start)
            .map(|start| Window { start, length })
            .ok_or(Errno::NOMEM)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has that length, is readable and writable, and lives as long as `self`. The slice goes to
        // read(2) alone; device memory at these offsets belongs to this process, so nobody else stores there.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the range is the one mapped by `map`, and no reference into it is left.
        let _ = unsafe { munmap(self.start.as_ptr(), self.length) };
    }
}
