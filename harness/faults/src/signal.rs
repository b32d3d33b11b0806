//! Signals, by name.

use std::fmt;

/// A signal that a rule raises: in the calling thread, or in the process where it is one by which a process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(u8);

/// Numbers of asm-generic, which x86-64 and aarch64 share (signal(7)).
const SIGNALS: &[(&str, u8)] = &[
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGCHLD", 17),
    ("SIGCONT", 18),
    ("SIGSTOP", 19),
    ("SIGTSTP", 20),
    ("SIGURG", 23),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGVTALRM", 26),
    ("SIGPROF", 27),
    ("SIGWINCH", 28),
    ("SIGIO", 29),
    ("SIGPWR", 30),
    ("SIGSYS", 31),
];

impl Signal {
    /// SIGKILL.
    pub const KILL: Signal = Signal(9);
    /// SIGTERM.
    pub const TERM: Signal = Signal(15);

    /// The signal of that name, with or without `SIG`.
    pub fn named(name: &str) -> Option<Signal> {
        let is_it = |known: &str| known == name || known.strip_prefix("SIG") == Some(name);
        let found = SIGNALS.iter().find(|(known, _)| is_it(known))?;
        Some(Signal(found.1))
    }

    /// The signal of that number, if it is one.
    pub fn checked(number: u64) -> Option<Signal> {
        let found = SIGNALS
            .iter()
            .find(|(_, known)| u64::from(*known) == number)?;
        Some(Signal(found.1))
    }

    /// All names, with and without `SIG`.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        let names = SIGNALS.iter().map(|(name, _)| *name);
        names.flat_map(|name| name.strip_prefix("SIG").into_iter().chain([name]))
    }

    /// Whether it is asked of a whole process, by whoever wants that to end: then any thread may take it, and one that waits for
    /// it (signalfd, sigwait) gets it whoever made the call.
    pub fn is_for_process(self) -> bool {
        const ASKED: [&str; 4] = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"];
        SIGNALS
            .iter()
            .any(|(name, number)| *number == self.0 && ASKED.contains(name))
    }

    /// Its number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = SIGNALS.iter().find(|(_, number)| *number == self.0);
        formatter.write_str(found.map_or("unknown", |(name, _)| name))
    }
}

/// A set of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals(u64);

impl Signals {
    /// Adds one.
    pub fn insert(&mut self, signal: Signal) {
        self.0 |= 1 << signal.0;
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, lowest number first, but those that end or stop the process last.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        let (last, first): (u64, u64) = (1 << 9 | 1 << 19, !(1 << 9 | 1 << 19));
        let each = |set: u64| {
            (0..64u8)
                .filter(move |number| set & 1 << number != 0)
                .map(Signal)
        };
        each(self.0 & first).chain(each(self.0 & last))
    }
}

#[cfg(test)]
mod tests {
    //! Whom a signal is sent to.
    use super::*;

    #[test]
    fn what_asks_a_process_to_end_is_sent_to_the_process() {
        let asking: Vec<String> = SIGNALS
            .iter()
            .filter(|(_, number)| Signal(*number).is_for_process())
            .map(|(_, number)| Signal(*number).to_string())
            .collect();
        assert_eq!(asking, ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"]);
    }
}
