//! One line there, one line back, each with a deadline and a limit.

use super::{
    finding::{CallOutcome, Finding},
    reply,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send},
};
use spillproof_protocol::Request;
use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// Why a call has no outcome.
pub(super) enum Broken {
    /// The subject's doing, complete as it is.
    Found(Finding),
    /// The socket is closed or the process has ended; its exit status tells which finding it is.
    Closed,
}

impl From<Finding> for Broken {
    fn from(finding: Finding) -> Self {
        Self::Found(finding)
    }
}

enum Wait {
    Ready,
    Ended,
    TimedOut,
}

#[derive(Debug)]
pub(super) struct Client {
    socket: UnixStream,
    received: Vec<u8>,
    line_bytes: usize,
    last_id: u64,
    /// The verb that was answered last.
    answered: &'static str,
}

impl Client {
    pub(super) fn new(socket: UnixStream, line_bytes: usize) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            received: Vec::new(),
            line_bytes,
            last_id: 0,
            answered: "the start",
        })
    }

    /// Lets the subject see the end of the stream.
    pub(super) fn close(&self) {
        // Fails only when the other side is gone already.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    pub(super) fn call(
        &mut self,
        request: &Request,
        deadline: Duration,
        process: &OwnedFd,
    ) -> Result<CallOutcome, Broken> {
        let start = Instant::now();
        let verb = request.verb();
        self.unasked()?;
        self.last_id += 1;
        let id = self.last_id;
        let line = request
            .to_line(id)
            .and_then(|line| serde_json::to_vec(&line));
        let mut line = line.map_err(|error| Finding::Garbage {
            verb,
            line: format!("the request itself: {error}"),
        })?;
        line.push(b'\n');
        let clock = Clock { start, deadline };
        self.send(verb, &line, clock, process)?;
        let line = self.receive(verb, clock, process)?;
        let outcome = reply::judge(verb, id, &line).map_err(|finding| match finding {
            // The reply to an earlier request again: it has been answered already.
            Finding::WrongId { got, .. } if got < id => Finding::SecondReply {
                after: self.answered,
                line: reply::excerpt(&line),
            },
            other => other,
        })?;
        self.answered = verb;
        self.unasked()?;
        Ok(outcome)
    }

    /// Bytes that came although nothing was asked.
    pub(super) fn unasked(&mut self) -> Result<(), Finding> {
        // One read: what came is shown in part, and whoever sends without end is found all the same.
        let _ = self.read();
        if self.received.is_empty() {
            return Ok(());
        }
        Err(Finding::SecondReply {
            after: self.answered,
            line: reply::excerpt(self.received.trim_ascii_end()),
        })
    }

    fn send(
        &self,
        verb: &'static str,
        mut line: &[u8],
        clock: Clock,
        process: &OwnedFd,
    ) -> Result<(), Broken> {
        while !line.is_empty() {
            match send(self.socket.as_raw_fd(), line, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => line = &line[sent..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => match self.wait(PollFlags::POLLOUT, clock, process) {
                    Wait::Ready => {}
                    Wait::Ended => return Err(Broken::Closed),
                    Wait::TimedOut => {
                        return Err(Broken::Found(Finding::Hang {
                            verb,
                            deadline: clock.deadline,
                        }));
                    }
                },
                Err(_) => return Err(Broken::Closed),
            }
        }
        Ok(())
    }

    fn receive(
        &mut self,
        verb: &'static str,
        clock: Clock,
        process: &OwnedFd,
    ) -> Result<Vec<u8>, Broken> {
        let mut searched = 0;
        loop {
            let end = self.received[searched..]
                .iter()
                .position(|&byte| byte == b'\n');
            searched = end.map_or(self.received.len(), |end| searched + end);
            if searched > self.line_bytes {
                return Err(Broken::Found(Finding::Oversized {
                    verb,
                    limit_bytes: self.line_bytes,
                }));
            }
            if end.is_some() {
                let rest = self.received.split_off(searched + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                return Ok(line);
            }
            match self.read() {
                Ok(0) => return Err(Broken::Closed),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {}
                Err(_) => return Err(Broken::Closed),
            }
            match self.wait(PollFlags::POLLIN, clock, process) {
                Wait::Ready => {}
                // What it wrote before it ended is read first.
                Wait::Ended => match self.read() {
                    Ok(length) if length > 0 => {}
                    Ok(_) | Err(_) => return Err(Broken::Closed),
                },
                Wait::TimedOut if self.received.is_empty() => {
                    return Err(Broken::Found(Finding::Hang {
                        verb,
                        deadline: clock.deadline,
                    }));
                }
                Wait::TimedOut => {
                    return Err(Broken::Found(Finding::PartialLine {
                        verb,
                        bytes: self.received.len(),
                        deadline: clock.deadline,
                    }));
                }
            }
        }
    }

    fn read(&mut self) -> Result<usize, Errno> {
        let mut buffer = [0; 64 << 10];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        self.received.extend_from_slice(&buffer[..length]);
        Ok(length)
    }

    fn wait(&self, events: PollFlags, clock: Clock, process: &OwnedFd) -> Wait {
        let mut polled = [
            PollFd::new(self.socket.as_fd(), events),
            PollFd::new(process.as_fd(), PollFlags::POLLIN),
        ];
        loop {
            let Some(left) = clock.left() else {
                return Wait::TimedOut;
            };
            match poll(&mut polled, left) {
                Ok(0) | Err(_) => continue,
                Ok(_) => {}
            }
            return if polled[0].any().unwrap_or(true) {
                Wait::Ready
            } else {
                Wait::Ended
            };
        }
    }
}

#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    deadline: Duration,
}

impl Clock {
    /// Rounded up to the next millisecond; `None` once the deadline has passed.
    fn left(self) -> Option<PollTimeout> {
        let left = self.deadline.checked_sub(self.start.elapsed())?;
        Some(PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX))
    }
}
