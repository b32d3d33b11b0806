//! The memory lines of `/proc/PID/status`.

/// Resident memory of a process at one moment.
///
/// The kernel keeps these counters per CPU; until Linux 6.16 a reading could be off by some hundred
/// KiB per CPU that the process ran on, since then it is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// `RssAnon`: private memory.
    pub anon_bytes: u64,
    /// `RssShmem`: shared anonymous memory, memfd and tmpfs pages.
    pub shmem_bytes: u64,
    /// `RssFile`: pages of mapped files. They can be dropped at any time and count as no cost.
    pub file_bytes: u64,
    /// `HugetlbPages`: reserved huge pages, which no other line counts.
    pub hugetlb_bytes: u64,
    /// `VmHWM`: the most that anon + shmem + file have been together since the mark was last reset.
    pub high_water_bytes: u64,
    /// `Threads`.
    pub threads: u64,
}

impl ProcessMemory {
    /// Reads the text of `/proc/PID/status`; `None` for a zombie, which has no memory lines.
    #[must_use]
    pub fn parse(status: &[u8]) -> Option<Self> {
        let mut memory = Self::default();
        let mut seen = 0;
        for line in status.split(|&byte| byte == b'\n') {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else {
                continue;
            };
            let (field, unit, needed) = match &line[..colon] {
                b"RssAnon" => (&mut memory.anon_bytes, 1024, true),
                b"RssShmem" => (&mut memory.shmem_bytes, 1024, true),
                b"RssFile" => (&mut memory.file_bytes, 1024, true),
                b"HugetlbPages" => (&mut memory.hugetlb_bytes, 1024, false),
                b"VmHWM" => (&mut memory.high_water_bytes, 1024, true),
                b"Threads" => (&mut memory.threads, 1, true),
                _ => continue,
            };
            let number = line[colon + 1..]
                .iter()
                .skip_while(|byte| byte.is_ascii_whitespace())
                .take_while(|byte| byte.is_ascii_digit())
                .fold(0u64, |number, &digit| number * 10 + u64::from(digit - b'0'));
            *field = number * unit;
            seen += u32::from(needed);
        }
        (seen == 5).then_some(memory)
    }

    /// What counts as a cost: anonymous, shared and huge pages.
    #[must_use]
    pub fn anon_shared_bytes(&self) -> u64 {
        self.anon_bytes + self.shmem_bytes + self.hugetlb_bytes
    }

    /// What the high-water mark would see now.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.anon_bytes + self.shmem_bytes + self.file_bytes
    }
}

#[cfg(test)]
mod tests {
    //! The lines that kernels print.
    use super::*;

    const STATUS: &[u8] = b"Name:\tRss: 5\nState:\tS (sleeping)\nVmHWM:\t    9000 kB\nVmRSS:\t    7000 kB\nRssAnon:\t     100 kB\n\
        RssFile:\t    6800 kB\nRssShmem:\t     100 kB\nHugetlbPages:\t    2048 kB\nThreads:\t3\n";

    #[test]
    fn every_line_is_read_in_bytes() {
        let memory = ProcessMemory::parse(STATUS).unwrap();
        assert_eq!(
            memory,
            ProcessMemory {
                anon_bytes: 100 << 10,
                shmem_bytes: 100 << 10,
                file_bytes: 6800 << 10,
                hugetlb_bytes: 2 << 20,
                high_water_bytes: 9000 << 10,
                threads: 3,
            }
        );
        assert_eq!(memory.anon_shared_bytes(), (200 << 10) + (2 << 20));
        assert_eq!(memory.resident_bytes(), 7000 << 10);
    }

    #[test]
    fn a_zombie_has_no_memory() {
        assert_eq!(
            ProcessMemory::parse(b"Name:\tx\nState:\tZ (zombie)\nThreads:\t1\n"),
            None
        );
    }
}
