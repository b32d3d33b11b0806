//! Who owns a row: a process, told from a later one with the same number by its start time.

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};
use rustix::process::getpid;

use crate::descriptor::Descriptor;

/// A process, by number and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Process number.
    pub pid: u32,
    /// Start time in clock ticks since boot, field 22 of `/proc/PID/stat` (proc(5)).
    pub start_ticks: u64,
}

impl Owner {
    /// The calling process.
    pub fn current() -> Owner {
        let pid = getpid().as_raw_pid().unsigned_abs();
        let start_ticks = match read_stat(pid) {
            Some(stat) => stat.start_ticks,
            None => 0,
        };
        Owner { pid, start_ticks }
    }

    /// Whether the process is still running. A zombie is not: it holds no memory any more.
    pub fn is_alive(&self) -> bool {
        match read_stat(self.pid) {
            Some(stat) => {
                stat.start_ticks == self.start_ticks && !matches!(stat.state, b'Z' | b'X' | b'x')
            }
            None => false,
        }
    }
}

struct Stat {
    state: u8,
    start_ticks: u64,
}

fn read_stat(pid: u32) -> Option<Stat> {
    let path = format!("/proc/{pid}/stat");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = Descriptor::from(open(path.as_str(), flags, Mode::empty()).ok()?);
    let mut buffer = [0u8; 1024];
    let mut length = 0;
    while length < buffer.len() {
        match read(&file, &mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    parse_stat(&buffer[..length])
}

/// The name in the second field may hold anything, so fields are counted from its last parenthesis.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_ticks })
}

#[cfg(test)]
mod tests {
    //! A process is told from a gone one, a zombie and a later one with the same number.
    use super::*;
    use std::process::Command;

    #[test]
    fn this_process_is_alive() {
        let owner = Owner::current();
        assert_ne!(owner.start_ticks, 0);
        assert!(owner.is_alive());
    }

    #[test]
    fn another_start_time_is_another_process() {
        let mut owner = Owner::current();
        owner.start_ticks += 1;
        assert!(!owner.is_alive());
    }

    #[test]
    fn a_zombie_and_a_reaped_process_are_dead() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let stat = read_stat(child.id()).unwrap();
        let owner = Owner {
            pid: child.id(),
            start_ticks: stat.start_ticks,
        };
        assert!(owner.is_alive());
        child.kill().unwrap();
        let became_zombie = (0..2000).any(|_| {
            std::thread::yield_now();
            std::thread::sleep(std::time::Duration::from_millis(1));
            read_stat(owner.pid).is_some_and(|stat| stat.state == b'Z')
        });
        assert!(became_zombie);
        assert!(!owner.is_alive());
        child.wait().unwrap();
        assert!(!owner.is_alive());
    }

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let stat = b"7 (a) Z 1 (b) S 1 7 7 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 4242 0 0";
        let stat = parse_stat(stat).unwrap();
        assert_eq!(stat.state, b'S');
        assert_eq!(stat.start_ticks, 4242);
    }
}
