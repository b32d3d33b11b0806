//! Lines there, and one line back for each, with a deadline and a limit.

use super::{
    finding::{CallOutcome, Finding},
    reply,
    taken::is_all_taken,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send},
};
use serde_json::Value;
use spillproof_protocol::Request;
use std::{
    collections::BTreeMap,
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
    Closed {
        /// What was going on.
        verb: &'static str,
    },
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
    /// What has not been answered yet, by id.
    outstanding: BTreeMap<u64, Pending>,
    /// The verb that was answered last.
    answered: &'static str,
}

/// Tells what has been read of what was sent, here and there.
pub(super) struct Answers(pub(super) io::Result<UnixStream>);

impl Answers {
    pub(super) fn have_come(&self) -> bool {
        let Ok(socket) = &self.0 else { return false };
        let mut socket = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut socket, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Whether the other side has read everything that was sent to it.
    pub(super) fn has_taken_all(&self) -> bool {
        self.0.as_ref().is_ok_and(is_all_taken)
    }

    /// Whether none will follow: the other side is closed.
    pub(super) fn are_over(&self) -> bool {
        let Ok(socket) = &self.0 else { return true };
        let mut socket = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        poll(&mut socket, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    verb: &'static str,
    clock: Clock,
}

impl Client {
    /// For whoever has to know while a call waits.
    pub(super) fn answers(&self) -> Answers {
        Answers(self.socket.try_clone())
    }

    pub(super) fn new(socket: UnixStream, line_bytes: usize) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            received: Vec::new(),
            line_bytes,
            last_id: 0,
            outstanding: BTreeMap::new(),
            answered: "the start",
        })
    }

    /// Lets the subject see the end of the stream.
    pub(super) fn close(&self) {
        // Fails only when the other side is gone already.
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    /// Asks, and waits for the answer; nothing else is outstanding.
    pub(super) fn call(
        &mut self,
        request: &Request,
        deadline: Duration,
        process: &OwnedFd,
    ) -> Result<CallOutcome, Broken> {
        self.unasked()?;
        self.begin(request, deadline, process)?;
        loop {
            if let Some((_, outcome)) = self.answer(None, process)? {
                return Ok(outcome);
            }
        }
    }

    /// Asks without waiting, and returns the id.
    pub(super) fn begin(
        &mut self,
        request: &Request,
        deadline: Duration,
        process: &OwnedFd,
    ) -> Result<u64, Broken> {
        let verb = request.verb();
        let clock = Clock {
            start: Instant::now(),
            deadline,
        };
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
        let pending = Pending { verb, clock };
        self.outstanding.insert(id, pending);
        self.send(pending, &line, process)?;
        Ok(id)
    }

    /// Waits for the next answer to anything outstanding; `None` when it has not come until then.
    pub(super) fn answer(
        &mut self,
        until: Option<Instant>,
        process: &OwnedFd,
    ) -> Result<Option<(u64, CallOutcome)>, Broken> {
        let oldest = self.outstanding.first_key_value();
        let Some((&oldest, &pending)) = oldest else {
            self.unasked()?;
            return Ok(None);
        };
        let Some(line) = self.receive(pending.verb, until, process)? else {
            return Ok(None);
        };
        let named = serde_json::from_slice(&line)
            .ok()
            .and_then(|line: Value| line.get("id").and_then(Value::as_u64));
        let (id, verb) = match named.and_then(|id| Some((id, self.outstanding.get(&id)?.verb))) {
            Some(known) => known,
            None => (oldest, pending.verb),
        };
        let last_id = self.last_id;
        let outcome = reply::judge(verb, id, &line).map_err(|finding| match finding {
            // The reply to an earlier request again: it has been answered already.
            Finding::WrongId { got, .. } if (1..=last_id).contains(&got) => Finding::SecondReply {
                after: self.answered,
                line: reply::excerpt(&line),
            },
            other => other,
        })?;
        self.outstanding.remove(&id);
        self.answered = verb;
        if self.outstanding.is_empty() {
            self.unasked()?;
        }
        Ok(Some((id, outcome)))
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

    fn send(&self, pending: Pending, mut line: &[u8], process: &OwnedFd) -> Result<(), Broken> {
        let Pending { verb, clock } = pending;
        while !line.is_empty() {
            match send(self.socket.as_raw_fd(), line, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => line = &line[sent..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => match self.wait(PollFlags::POLLOUT, clock.end(), process) {
                    Wait::Ready => {}
                    Wait::Ended => return Err(Broken::Closed { verb }),
                    Wait::TimedOut => {
                        return Err(Broken::Found(Finding::Hang {
                            verb,
                            deadline: clock.deadline,
                        }));
                    }
                },
                Err(_) => return Err(Broken::Closed { verb }),
            }
        }
        Ok(())
    }

    /// The next whole line; `None` when it has not come until then. `verb` is what it should answer.
    fn receive(
        &mut self,
        verb: &'static str,
        until: Option<Instant>,
        process: &OwnedFd,
    ) -> Result<Option<Vec<u8>>, Broken> {
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
                return Ok(Some(line));
            }
            match self.read() {
                Ok(0) => return Err(Broken::Closed { verb }),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {}
                Err(_) => return Err(Broken::Closed { verb }),
            }
            let due = self.due();
            let end = due.map(|due| due.clock.end());
            let until = end
                .into_iter()
                .chain(until)
                .min()
                .unwrap_or_else(Instant::now);
            match self.wait(PollFlags::POLLIN, until, process) {
                Wait::Ready => {}
                // What it wrote before it ended is read first.
                Wait::Ended => match self.read() {
                    Ok(length) if length > 0 => {}
                    Ok(_) | Err(_) => return Err(Broken::Closed { verb }),
                },
                Wait::TimedOut => match due.filter(|due| due.clock.end() <= Instant::now()) {
                    Some(due) => return Err(Broken::Found(self.overdue(due))),
                    None => return Ok(None),
                },
            }
        }
    }

    /// What has to be answered first.
    fn due(&self) -> Option<Pending> {
        let pending = self.outstanding.values();
        pending.min_by_key(|pending| pending.clock.end()).copied()
    }

    fn overdue(&self, due: Pending) -> Finding {
        let (verb, deadline) = (due.verb, due.clock.deadline);
        if self.received.is_empty() {
            return Finding::Hang { verb, deadline };
        }
        Finding::PartialLine {
            verb,
            bytes: self.received.len(),
            deadline,
        }
    }

    fn read(&mut self) -> Result<usize, Errno> {
        let mut buffer = [0; 64 << 10];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        self.received.extend_from_slice(&buffer[..length]);
        Ok(length)
    }

    fn wait(&self, events: PollFlags, until: Instant, process: &OwnedFd) -> Wait {
        let mut polled = [
            PollFd::new(self.socket.as_fd(), events),
            PollFd::new(process.as_fd(), PollFlags::POLLIN),
        ];
        loop {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return Wait::TimedOut;
            };
            // Rounded up to the next millisecond.
            let left = PollTimeout::try_from(left + Duration::from_millis(1));
            match poll(&mut polled, left.unwrap_or(PollTimeout::MAX)) {
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

#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Instant,
    deadline: Duration,
}

impl Clock {
    fn end(self) -> Instant {
        self.start + self.deadline
    }
}
