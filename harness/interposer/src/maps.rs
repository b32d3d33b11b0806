//! What the kernel says is mapped where.

use std::ops::Range;

use rustix::fs::{Mode, OFlags};

use crate::raw::RawDescriptor;

/// A line is shorter than this: the kernel cuts paths at a page.
const BUFFER_BYTES: usize = 4096 + 256;

/// Calls `body` with the mapping that holds an address, and the path of the file mapped there or an empty one.
pub(crate) fn find<T>(address: usize, body: impl FnOnce(Range<usize>, &[u8]) -> T) -> Option<T> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let maps = rustix::fs::open(c"/proc/self/maps", flags, Mode::empty()).ok()?;
    let maps = RawDescriptor::from(maps);
    let mut buffer = [0u8; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        let read = rustix::io::read(&maps, &mut buffer[filled..]).ok()?;
        filled += read;
        let mut taken = 0;
        while let Some(length) = buffer[taken..filled].iter().position(|byte| *byte == b'\n') {
            let line = &buffer[taken..taken + length];
            if let Some((range, path)) = parse(line)
                && range.contains(&address)
            {
                return Some(body(range, path));
            }
            taken += length + 1;
        }
        if read == 0 || (taken == 0 && filled == buffer.len()) {
            return None;
        }
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
    }
}

/// `55d0c000-55d0d000 r-xp 00001000 08:01 1234    /usr/lib/x.so` (proc_pid_maps(5)).
fn parse(line: &[u8]) -> Option<(Range<usize>, &[u8])> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let range = std::str::from_utf8(fields.next()?).ok()?;
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let path = fields.nth(4).unwrap_or_default().trim_ascii_start();
    Some((start..end, path))
}
