//! The calls.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::fs::File;
use std::hint::black_box;
use std::io::stdin;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::ptr::null_mut;
use std::time::Instant;

use crate::device::Device;

pub(crate) const BYTES: usize = 4096;
/// Calls of a batch before the clock runs: a process that has waited finds its caches cold.
const WARMING: u32 = 8;

/// A sort of calls that are made one after another.
pub(crate) struct Sort {
    pub(crate) name: &'static str,
    /// Wrapped calls in it.
    pub(crate) calls: u32,
    run: fn(&World),
}

const fn sort(name: &'static str, calls: u32, run: fn(&World)) -> Sort {
    Sort { name, calls, run }
}

/// How fast the kernel copies depends on where in a page it copies to, which differs from process to process.
#[repr(align(4096))]
struct Page([u8; BYTES]);

/// What they are made with.
struct World {
    name: CString,
    number: RawFd,
    buffer: *mut c_void,
    device: Device,
}

pub(crate) const SORTS: &[Sort] = &[
    sort("pread 4 KiB, cached", 1, World::read),
    sort("pwrite 4 KiB", 1, World::write),
    sort("stat by path", 1, World::stat),
    sort("open + close", 2, World::open_and_close),
    sort("open + fstat + close", 3, World::open_and_use),
    sort("mmap + munmap of 4 KiB", 2, World::map),
    sort("cuMemAlloc + cuMemFree", 2, |world| {
        world.device.allocate_and_free();
    }),
    sort("cuMemcpyHtoDAsync + cuStreamSynchronize", 2, |world| {
        world.device.copy(world.buffer);
    }),
    sort("cuStreamCreate + cuStreamDestroy", 2, |world| {
        world.device.make_stream();
    }),
    sort(
        "cuFileHandleRegister + cuFileHandleDeregister",
        2,
        |world| {
            world.device.register(world.number);
        },
    ),
];

impl World {
    fn read(&self) {
        // SAFETY: a buffer of so many bytes.
        black_box(unsafe { libc::pread(self.number, self.buffer, BYTES, 0) });
    }

    fn write(&self) {
        // SAFETY: as above.
        black_box(unsafe { libc::pwrite(self.number, self.buffer, BYTES, 0) });
    }

    fn stat(&self) {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: a terminated name, and room for the answer.
        black_box(unsafe { libc::stat(self.name.as_ptr(), stat.as_mut_ptr()) });
    }

    fn open(&self) -> RawFd {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: a terminated name.
        unsafe { libc::open(self.name.as_ptr(), flags) }
    }

    fn open_and_close(&self) {
        // SAFETY: nobody else has the descriptor.
        black_box(unsafe { libc::close(self.open()) });
    }

    fn open_and_use(&self) {
        let number = self.open();
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: room for the answer; nobody else has the descriptor.
        unsafe {
            black_box(libc::fstat(number, stat.as_mut_ptr()));
            black_box(libc::close(number));
        }
    }

    fn map(&self) {
        let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: a fresh mapping, which nobody uses.
        unsafe {
            let start = libc::mmap(null_mut(), BYTES, read, shared, self.number, 0);
            black_box(libc::munmap(start, BYTES));
        }
    }
}

/// For each line that names a sort by its place, makes so many calls and prints the nanoseconds that one took.
pub(crate) fn run(calls: u32, directory: &Path) {
    let path = directory.join("file");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut buffer = Page([0; BYTES]);
    let world = World {
        name: CString::new(path.to_str().unwrap()).unwrap(),
        number: file.as_raw_fd(),
        buffer: buffer.0.as_mut_ptr().cast(),
        device: Device::open(),
    };
    for line in stdin().lines() {
        let sort = &SORTS[line.unwrap().parse::<usize>().unwrap()];
        (0..WARMING.min(calls)).for_each(|_| (sort.run)(&world));
        let start = Instant::now();
        (0..calls).for_each(|_| (sort.run)(&world));
        println!(
            "{:.2}",
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        );
    }
}
