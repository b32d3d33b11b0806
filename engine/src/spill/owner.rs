//! Who owns a directory of spill files, and whether that process is alive.

use std::{ffi::OsStr, fmt, fs, io};

/// Prefix of every directory that an engine makes.
const PREFIX: &str = "spill-";

/// Suffix of a directory that is being made: it may not be locked yet.
const UNFINISHED: &str = ".new";

/// A process, told apart from later ones of the same number by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pid: u32,
    /// Clock ticks after boot.
    started: u64,
}

impl Owner {
    /// This process, numbered as `/proc` numbers it.
    pub(super) fn this_process() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let (owner, _) = parse_stat(&stat).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no start time in {stat:?}"),
            )
        })?;
        Ok(owner)
    }

    /// A process of the same number that started before this one, and so is gone.
    #[cfg(test)]
    pub(super) fn earlier(self) -> Self {
        Self {
            started: self.started - 1,
            ..self
        }
    }

    /// Whether the process runs. One that has ended but was not waited for does not: it holds no files.
    pub(super) fn is_alive(self) -> io::Result<bool> {
        let stat = match fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Ok(stat) => stat,
            // A process that ends while its line is read is reported as ESRCH.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        Ok(match parse_stat(&stat) {
            Some((there, state)) => there == self && !matches!(state, 'Z' | 'X'),
            // Whatever it is, it is there.
            None => true,
        })
    }
}

/// Owner and state of a line of `/proc/PID/stat`; the command in it may hold spaces and parentheses (proc(5)).
fn parse_stat(line: &str) -> Option<(Owner, char)> {
    let (pid, rest) = line.split_once(' ')?;
    let (_, rest) = rest.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 22 of the line; the state was field 3.
    let started = fields.nth(18)?.parse().ok()?;
    let pid = pid.parse().ok()?;
    Some((Owner { pid, started }, state))
}

/// The name of a directory: `spill-PID-STARTED`, and `-N` for a further engine of that process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DirectoryName {
    pub(super) owner: Owner,
    pub(super) number: u64,
    /// It has not got its final name yet.
    pub(super) unfinished: bool,
}

impl DirectoryName {
    /// The name that a directory entry means; `None` for what no engine makes.
    pub(super) fn parse(name: &OsStr) -> Option<Self> {
        let text = name.to_str()?;
        let numbers = text.strip_prefix(PREFIX)?;
        let (numbers, unfinished) = match numbers.strip_suffix(UNFINISHED) {
            Some(numbers) => (numbers, true),
            None => (numbers, false),
        };
        let mut parts = numbers.split('-');
        let pid = parts.next()?.parse().ok()?;
        let started = parts.next()?.parse().ok()?;
        let number = match parts.next() {
            Some(number) => number.parse().ok()?,
            None => 0,
        };
        let parsed = Self {
            owner: Owner { pid, started },
            number,
            unfinished,
        };
        // Signs, leading zeros and further parts would name another directory than the one that is there.
        (parsed.to_string() == text).then_some(parsed)
    }
}

impl fmt::Display for DirectoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { pid, started } = self.owner;
        write!(f, "{PREFIX}{pid}-{started}")?;
        if self.number > 0 {
            write!(f, "-{}", self.number)?;
        }
        if self.unfinished {
            f.write_str(UNFINISHED)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Names that engines make, and lines of `/proc`.
    use super::*;

    #[test]
    fn names_parse_to_what_they_were_printed_from() {
        for number in [0, 1, 12] {
            for unfinished in [false, true] {
                let name = DirectoryName {
                    owner: Owner {
                        pid: 7,
                        started: 99,
                    },
                    number,
                    unfinished,
                };
                assert_eq!(
                    DirectoryName::parse(OsStr::new(&name.to_string())),
                    Some(name)
                );
            }
        }
    }

    #[test]
    fn names_that_no_engine_makes_have_no_owner() {
        for name in [
            "spill",
            "spill-",
            "spill-1",
            "spill-1-",
            "spill-a-1",
            "spill-1-2-0",
            "spill-01-2",
            "spill-+1-2",
            "spill-1-2-3-4",
            "spill-1-2.old",
            "xspill-1-2",
            "spill-1-2.new.new",
        ] {
            assert_eq!(DirectoryName::parse(OsStr::new(name)), None, "{name}");
        }
    }

    #[test]
    fn a_command_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21\n";
        let owner = Owner {
            pid: 42,
            started: 777,
        };
        assert_eq!(parse_stat(line), Some((owner, 'S')));
        assert_eq!(parse_stat("42 (cut S 1"), None);
    }

    #[test]
    fn this_process_is_alive_and_an_earlier_one_of_its_number_is_not() {
        let here = Owner::this_process().unwrap();
        assert_eq!(here.pid, std::process::id());
        assert!(here.is_alive().unwrap());
        assert!(!here.earlier().is_alive().unwrap());
    }

    #[test]
    fn a_process_that_ended_is_not_alive_before_and_after_it_was_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        let (owner, _) = parse_stat(&fs::read_to_string(&stat).unwrap()).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while owner.is_alive().unwrap() {
            assert!(
                std::time::Instant::now() < deadline,
                "{owner:?} does not end"
            );
            std::thread::yield_now();
        }
        assert!(fs::exists(&stat).unwrap(), "it was not waited for yet");
        child.wait().unwrap();
        assert!(!owner.is_alive().unwrap());
    }
}
