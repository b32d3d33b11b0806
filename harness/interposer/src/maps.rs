//! What the kernel says is mapped where.
#![allow(unsafe_code)]

use std::ops::Range;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use crate::raw::RawDescriptor;

/// A line is shorter than this: the kernel cuts paths at a page.
const BUFFER_BYTES: usize = 4096 + 256;

/// `struct procmap_query` (linux/fs.h).
#[repr(C)]
#[derive(Default)]
struct Query {
    bytes: u64,
    /// 0: the mapping that holds the address.
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    protection: u64,
    page_bytes: u64,
    offset: u64,
    inode: u64,
    device: [u32; 2],
    name_bytes: u32,
    build_id_bytes: u32,
    name: u64,
    build_id: u64,
}

/// `PROCMAP_QUERY`, from Linux 6.11 on.
const PROCMAP_QUERY: Opcode = opcode::read_write::<Query>(b'f', 17);

/// Calls `body` with the mapping that holds an address, and the path of the file mapped there or an empty one.
pub(crate) fn find<T>(address: usize, body: impl FnOnce(Range<usize>, &[u8]) -> T) -> Option<T> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let maps = rustix::fs::open(c"/proc/self/maps", flags, Mode::empty()).ok()?;
    let maps = RawDescriptor::from(maps);
    let mut buffer = [0u8; BUFFER_BYTES];
    match ask(&maps, address, &mut buffer) {
        Ok((range, length)) => Some(body(range, &buffer[..length])),
        Err(Errno::NOENT) => None,
        // A kernel that cannot be asked so.
        Err(_) => scan(&maps, address, &mut buffer, body),
    }
}

/// One mapping; its path is as long as said.
fn ask(
    maps: &RawDescriptor,
    address: usize,
    name: &mut [u8; BUFFER_BYTES],
) -> Result<(Range<usize>, usize), Errno> {
    let mut query = Query {
        bytes: size_of::<Query>() as u64,
        address: address as u64,
        name_bytes: BUFFER_BYTES as u32,
        name: name.as_mut_ptr() as u64,
        ..Query::default()
    };
    // SAFETY: the operation takes this structure and writes at most so many bytes of a name where it says.
    unsafe { ioctl(maps, Updater::<PROCMAP_QUERY, Query>::new(&mut query)) }?;
    // With the zero at its end, and 0 where there is none.
    let length = (query.name_bytes as usize).min(BUFFER_BYTES);
    Ok((
        query.start as usize..query.end as usize,
        length.saturating_sub(1),
    ))
}

/// Line by line.
fn scan<T>(
    maps: &RawDescriptor,
    address: usize,
    buffer: &mut [u8; BUFFER_BYTES],
    body: impl FnOnce(Range<usize>, &[u8]) -> T,
) -> Option<T> {
    let mut filled = 0;
    loop {
        let read = rustix::io::read(maps, &mut buffer[filled..]).ok()?;
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

#[cfg(test)]
mod tests {
    //! Both ways to find a mapping.
    use super::*;

    fn open() -> RawDescriptor {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let maps = rustix::fs::open(c"/proc/self/maps", flags, Mode::empty());
        RawDescriptor::from(maps.unwrap())
    }

    fn asked(address: usize) -> Result<(Range<usize>, Vec<u8>), Errno> {
        let mut name = [0; BUFFER_BYTES];
        let (range, length) = ask(&open(), address, &mut name)?;
        Ok((range, name[..length].to_vec()))
    }

    fn scanned(address: usize) -> Option<(Range<usize>, Vec<u8>)> {
        let mut buffer = [0; BUFFER_BYTES];
        scan(&open(), address, &mut buffer, |range, path| {
            (range, path.to_vec())
        })
    }

    #[test]
    fn a_question_and_a_search_find_the_same() {
        let place = 0u8;
        // Of the program, of libc, and of no file.
        for address in [
            scanned as *const () as usize,
            libc::read as *const () as usize,
        ] {
            let found = scanned(address).unwrap();
            assert!(
                found.0.contains(&address) && found.1.starts_with(b"/"),
                "{found:?}"
            );
            match asked(address) {
                Err(Errno::NOTTY) => {}
                answer => assert_eq!(answer, Ok(found)),
            }
        }
        let (_, path) = scanned(&raw const place as usize).unwrap();
        assert!(!path.starts_with(b"/"));
    }

    #[test]
    fn where_nothing_is_mapped_nothing_is_found() {
        assert!(scanned(0).is_none());
        assert!(matches!(asked(0), Err(Errno::NOENT | Errno::NOTTY)));
    }
}
