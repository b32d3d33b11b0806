//! Standard output and standard error: kept in part, counted in full, never in the subject's way.

use super::finding::{Finding, Stream};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    thread::{self, JoinHandle},
};

const HEAD_BYTES: usize = 64 << 10;
const TAIL_BYTES: usize = 64 << 10;

/// What was written to a stream: its beginning, its end, and how much there was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// Bytes written in all.
    pub bytes: u64,
}

impl Captured {
    fn push(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let first = bytes.len().min(HEAD_BYTES - self.head.len());
        self.head.extend_from_slice(&bytes[..first]);
        bytes = &bytes[first..];
        self.tail
            .extend(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        self.tail
            .drain(..self.tail.len().saturating_sub(TAIL_BYTES));
    }

    /// Bytes between the beginning and the end that were not kept.
    #[must_use]
    pub fn left_out_bytes(&self) -> u64 {
        self.bytes - (self.head.len() + self.tail.len()) as u64
    }
}

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.left_out_bytes() == 0 {
            let all = [&self.head[..], &tail].concat();
            return f.write_str(&String::from_utf8_lossy(&all));
        }
        write!(
            f,
            "{}\n[… {} bytes left out …]\n{}",
            String::from_utf8_lossy(&self.head),
            self.left_out_bytes(),
            String::from_utf8_lossy(&tail)
        )
    }
}

/// Reads both streams in one thread until told to stop, so that a subject never blocks on them.
#[derive(Debug)]
pub(super) struct Capture {
    stop: OwnedFd,
    reader: JoinHandle<[Captured; 2]>,
}

impl Capture {
    pub(super) fn start(pid: u32, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let (stopped, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        for stream in [&stdout, &stderr] {
            fcntl(stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let reader = thread::Builder::new()
            .name(format!("capture-{pid}"))
            .spawn(move || read(&stopped, [Some(stdout), Some(stderr)]))?;
        Ok(Self { stop, reader })
    }

    /// Takes what is in the pipes and ends. A process that still holds them does not delay it.
    pub(super) fn finish(self) -> [Captured; 2] {
        drop(self.stop);
        match self.reader.join() {
            Ok(captured) => captured,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn read(stopped: &OwnedFd, mut streams: [Option<OwnedFd>; 2]) -> [Captured; 2] {
    let mut captured = [Captured::default(), Captured::default()];
    loop {
        let stop = {
            let mut polled = vec![PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
            polled.extend(
                streams
                    .iter()
                    .flatten()
                    .map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)),
            );
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return captured,
            }
            polled[0].revents().is_some_and(|events| !events.is_empty())
        };
        for (stream, captured) in streams.iter_mut().zip(&mut captured) {
            drain(stream, captured, if stop { 64 } else { 16 });
        }
        if stop {
            return captured;
        }
    }
}

/// Reads until the pipe is empty, or `turns` times: 64 empty the largest pipe, and nobody who goes on writing delays the end.
fn drain(stream: &mut Option<OwnedFd>, captured: &mut Captured, turns: usize) {
    let mut buffer = [0; 64 << 10];
    for _ in 0..turns {
        let Some(open) = &stream else { return };
        match nix::unistd::read(open, &mut buffer) {
            Ok(0) => *stream = None,
            Ok(length) => captured.push(&buffer[..length]),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return,
            Err(_) => *stream = None,
        }
    }
}

/// The finding for a stream that took more than `limit_bytes`.
pub(super) fn flood(stream: Stream, captured: &Captured, limit_bytes: u64) -> Option<Finding> {
    (captured.bytes > limit_bytes).then_some(Finding::Flood {
        stream,
        bytes: captured.bytes,
        limit_bytes,
    })
}

#[cfg(test)]
mod tests {
    //! What is kept of a long output.
    use super::*;

    #[test]
    fn a_short_output_is_kept_as_it_is() {
        let mut captured = Captured::default();
        captured.push(b"one\n");
        captured.push(b"two\n");
        assert_eq!(captured.to_string(), "one\ntwo\n");
        assert_eq!((captured.bytes, captured.left_out_bytes()), (8, 0));
    }

    #[test]
    fn a_long_output_keeps_its_beginning_and_its_end() {
        let mut captured = Captured::default();
        captured.push(b"first");
        for _ in 0..100 {
            captured.push(&vec![b'x'; 100_000]);
        }
        captured.push(b"last");
        let text = captured.to_string();
        assert!(text.starts_with("firstx") && text.ends_with("xlast"));
        assert!(text.len() < HEAD_BYTES + TAIL_BYTES + 100);
        assert_eq!(captured.bytes, 10_000_009);
        assert!(text.contains(&format!("{} bytes left out", captured.left_out_bytes())));
    }
}
