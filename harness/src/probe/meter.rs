//! How far a process has come with its writing, also on filesystems of which the kernel does not count what is written.

use super::{ProbeError, writes};
use std::{fs, io, io::Write as _, path::Path};

/// What is read to see a process write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMeter {
    /// `write_bytes` of `/proc/PID/io`, see [`super::written_bytes`].
    Pages,
    /// `wchar` there: everything that was given to write(2) and its kin, sockets and the emulated GPU's board included, so that
    /// a moment may come early, and never late.
    Calls,
}

impl WriteMeter {
    /// The one for files in this directory. ZFS, 9p and filesystems in memory make no page dirty that counts; one that cannot be tried
    /// is taken for one that counts.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        match counts_pages(directory) {
            Ok(true) | Err(_) => Self::Pages,
            Ok(false) => Self::Calls,
        }
    }

    /// Bytes so far.
    ///
    /// # Errors
    /// [`ProbeError::Gone`] when it has ended.
    pub fn read(self, pid: u32) -> Result<u64, ProbeError> {
        match self {
            Self::Pages => writes::written_bytes(pid),
            Self::Calls => writes::given_bytes(pid),
        }
    }
}

/// Writes a page to a file without a name and looks whether it was counted, of this thread alone.
fn counts_pages(directory: &Path) -> io::Result<bool> {
    let mut file = tempfile::tempfile_in(directory)?;
    let before = own_write_bytes()?;
    file.write_all(&[1; 4096])?;
    // Some count only then.
    file.sync_data()?;
    Ok(own_write_bytes()? > before)
}

fn own_write_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/io")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    let bytes = line.and_then(|bytes| bytes.parse().ok());
    bytes.ok_or_else(|| io::Error::other("/proc/thread-self/io has no write_bytes"))
}

#[cfg(test)]
mod tests {
    //! That a process which writes is seen to, wherever it does.
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_is_written_is_seen_on_disk_and_in_memory() {
        let memory = Path::new("/dev/shm");
        for base in [memory, &std::env::temp_dir()] {
            let directory = tempfile::tempdir_in(base).unwrap();
            let meter = WriteMeter::of(directory.path());
            if base == memory {
                assert_eq!(meter, WriteMeter::Calls);
            }
            let file = directory.path().join("file");
            let mut child = Command::new("sh")
                .arg("-c")
                .arg("read go; head -c 300000 /dev/zero > \"$0\"; read end")
                .arg(&file)
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let before = meter.read(child.id()).unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(b"\n").unwrap();
            let patience = std::time::Duration::from_secs(20);
            // Its child's bytes are its own once that is reaped.
            let seen = crate::settle::settle(patience, || {
                let bytes = meter.read(child.id()).unwrap() - before;
                (bytes >= 300_000).then_some(bytes)
            });
            drop(input);
            child.wait().unwrap();
            assert!(seen.is_some(), "nothing was seen in {}", base.display());
        }
    }
}
