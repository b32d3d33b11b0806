//! The bytes of device memory: moved by system calls on the descriptor. Only under `RLIMIT_FSIZE` are they mapped, 128 KiB
//! at a time.

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::board::Board;
use crate::host::{HostSource, HostTarget, pread, pwrite};
use crate::layout::{ADDRESS_BASE, DEVICE_REGION_BYTES, TABLE_BYTES, device_base, device_of};
use crate::window;

/// Where processes copy host memory through, behind the tables and before the first device.
const SCRATCH_OFFSET: u64 = 1 << 40;
/// Bytes for each process number there; they never exceed 2^22 (proc(5), pid_max).
const SCRATCH_BYTES: u64 = 1 << 20;

const _: () = {
    assert!(WINDOW_BYTES as u64 <= SCRATCH_BYTES);
    assert!(SCRATCH_OFFSET > TABLE_BYTES as u64);
    assert!(SCRATCH_OFFSET + (SCRATCH_BYTES << 22) < DEVICE_REGION_BYTES);
};

/// Device to device copies and fills pass through a buffer of this size.
const WINDOW_BYTES: usize = 256 * 1024;

impl Board {
    /// Copies device memory to the host. The caller has checked the device range.
    pub fn read_device(&self, address: u64, out: &mut [u8]) -> Result<(), Errno> {
        self.read_device_to(address, out.into())
    }

    /// As [`Board::read_device`]; a bad host range is `EFAULT`.
    pub fn read_device_to(&self, address: u64, mut out: HostTarget<'_>) -> Result<(), Errno> {
        let offset = file_offset(address, out.len() as u64)?;
        let mut done = 0;
        while done < out.len() {
            let rest = out.part(done, usize::MAX);
            match pread(self.descriptor(), rest, offset + done as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Copies host memory to the device. The caller has checked the device range.
    pub fn write_device(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.write_device_from(address, bytes.into())
    }

    /// As [`Board::write_device`]; a bad host range is `EFAULT`.
    pub fn write_device_from(&self, address: u64, bytes: HostSource<'_>) -> Result<(), Errno> {
        let offset = file_offset(address, bytes.len() as u64)?;
        if window::is_needed() {
            return window::write_at(self.descriptor(), offset, bytes);
        }
        let mut done = 0;
        while done < bytes.len() {
            let rest = bytes.part(done, usize::MAX);
            match pwrite(self.descriptor(), rest, offset + done as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Copies within device memory, over devices too. Overlapping ranges are copied as memmove does.
    pub fn copy_device(&self, to: u64, from: u64, bytes: u64) -> Result<(), Errno> {
        file_offset(to, bytes)?;
        file_offset(from, bytes)?;
        let mut window = vec![0u8; WINDOW_BYTES.min(bytes as usize)];
        let backwards = to > from && to - from < bytes;
        let mut done = 0;
        while done < bytes {
            let count = (bytes - done).min(WINDOW_BYTES as u64);
            let at = if backwards {
                bytes - done - count
            } else {
                done
            };
            let window = &mut window[..count as usize];
            self.read_device(from + at, window)?;
            self.write_device(to + at, window)?;
            done += count;
        }
        Ok(())
    }

    /// Fills device memory with a repeated pattern of 1, 2 or 4 bytes.
    pub fn fill_device(&self, address: u64, bytes: u64, pattern: &[u8]) -> Result<(), Errno> {
        file_offset(address, bytes)?;
        let length = WINDOW_BYTES.min(bytes as usize);
        let window: Vec<u8> = pattern.iter().copied().cycle().take(length).collect();
        let mut done = 0;
        while done < bytes {
            let count = (bytes - done).min(WINDOW_BYTES as u64);
            self.write_device(address + done, &window[..count as usize])?;
            done += count;
        }
        Ok(())
    }

    /// Copies host memory to host memory by system calls alone, so that a bad range is `EFAULT` and no crash. The bytes
    /// pass through a part of the board that belongs to process `pid`, one call at a time.
    pub fn copy_host(
        &self,
        pid: u32,
        mut to: HostTarget<'_>,
        from: HostSource<'_>,
    ) -> Result<(), Errno> {
        if window::is_needed() {
            return window::copy(to, from);
        }
        let length = to.len().min(from.len());
        let offset = SCRATCH_OFFSET + u64::from(pid) * SCRATCH_BYTES;
        let mut done = 0;
        while done < length {
            let end = length.min(done + WINDOW_BYTES);
            let count = match pwrite(self.descriptor(), from.part(done, end), offset) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let mut read = 0;
            while read < count {
                let rest = to.part(done + read, done + count);
                match pread(self.descriptor(), rest, offset + read as u64) {
                    Ok(0) => return Err(Errno::IO),
                    Ok(more) => read += more,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
            done += count;
        }
        Ok(())
    }

    /// Takes the pages behind the first `bytes` of a device's addresses now. A memory cgroup counts a page where it is first
    /// touched: these count for this process, as device memory counts for nobody who uses it.
    pub fn populate(&self, device: u32, bytes: u64) -> Result<(), Errno> {
        let offset = file_offset(device_base(device), bytes)?;
        loop {
            match fallocate(self.descriptor(), FallocateFlags::KEEP_SIZE, offset, bytes) {
                Err(Errno::INTR) => {}
                done => return done,
            }
        }
    }

    /// Gives the pages of freed device memory back to the system; they read as zeros from then on.
    pub fn discard(&self, address: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        if let Ok(offset) = file_offset(address, bytes) {
            // Only a saving: addresses are never handed out again.
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            while fallocate(self.descriptor(), flags, offset, bytes) == Err(Errno::INTR) {}
        }
    }
}

fn file_offset(address: u64, bytes: u64) -> Result<u64, Errno> {
    let last = address
        .checked_add(bytes.saturating_sub(1))
        .ok_or(Errno::INVAL)?;
    match (device_of(address), device_of(last)) {
        (Some(first), Some(last)) if first == last => Ok(address - ADDRESS_BASE),
        (Some(_) | None, Some(_) | None) => Err(Errno::INVAL),
    }
}
