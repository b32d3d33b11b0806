//! The calling process, by number and start time, without allocation and without libc.

use rustix::fd::AsRawFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};

use super::attached::close_raw;

/// Start time of the calling process in clock ticks since boot, field 22 of `/proc/self/stat` (proc(5)); 0 if unknown.
pub(super) fn start_ticks() -> u64 {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(file) = open(c"/proc/self/stat", flags, Mode::empty()) else {
        return 0;
    };
    let file = std::mem::ManuallyDrop::new(file);
    let mut buffer = [0u8; 1024];
    let mut length = 0;
    while length < buffer.len() {
        match read(&*file, &mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    close_raw(file.as_raw_fd());
    parse(&buffer[..length]).unwrap_or(0)
}

/// The name in the second field may hold anything, so fields are counted from its last parenthesis.
fn parse(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    //! The start time is found behind a hostile name.
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let stat = b"7 (a) Z 1 (b) S 1 7 7 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 4242 0 0";
        assert_eq!(parse(stat), Some(4242));
        assert_ne!(start_ticks(), 0);
    }
}
