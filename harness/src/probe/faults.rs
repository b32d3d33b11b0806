//! Page faults of a process: every page that becomes resident through a process's own access costs one.

use std::{fs::File, io, os::unix::fs::FileExt};

/// `/proc/PID/stat`, kept open.
#[derive(Debug)]
pub(super) struct FaultCounter(File);

impl FaultCounter {
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/stat")).map(Self)
    }

    /// Minor and major faults of all threads, those that ended included.
    pub(super) fn read(&self) -> io::Result<u64> {
        let mut text = [0; 1024];
        let length = self.0.read_at(&mut text, 0)?;
        parse(&text[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Fields 10 and 12 of the line [man 5 proc]; the name before them may hold anything.
fn parse(stat: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(&stat[stat.iter().rposition(|&byte| byte == b')')?..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let minor: u64 = fields.nth(8)?.parse().ok()?;
    let major: u64 = fields.nth(1)?.parse().ok()?;
    Some(minor + major)
}

#[cfg(test)]
mod tests {
    //! The line that kernels print.
    use super::*;

    #[test]
    fn minor_and_major_faults_are_added() {
        let stat = b"4711 (a) 9 (b)) S 1 2 3 4 5 6 1000 7 20 8 9";
        assert_eq!(parse(stat), Some(1020));
        assert_eq!(parse(b"4711 (a) S 1"), None);
    }
}
