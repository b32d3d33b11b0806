//! The harness's side: it makes the memory, loads plans into it, and reads what happened.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;

use super::entry::{Attachment, LedgerView, Receipt, RuleCount, TraceView};
use super::layout::{
    Lengths, MAGIC, MAX_RECEIPTS, MAX_ROWS, MAX_SCOPE_BYTES, MAX_SCOPES, PATH_BYTES, RECEIPTS,
    SCOPES, VERSION, attachment, fingerprint, header, receipt, scope, site, state, trace,
};
use super::words::Words;
use super::{ledger, presence, rules, trace as recorded};
use crate::plan::{MAX_RULES, Plan, RuleError};
use crate::site::{SiteId, Spelling, SpellingId};
use crate::table::SPELLING_COUNT;

/// What the shared memory is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Directories in which libc's calls count: absolute, resolved, at most [`MAX_SCOPES`].
    pub scopes: Vec<PathBuf>,
    /// Rows of the ledger. A row takes 256 bytes once it is used.
    pub ledger_rows: usize,
    /// Rows of the trace. A row takes 224 bytes once it is used; they count as shared memory of the subject.
    pub trace_rows: usize,
    /// Whether the trace records from the start.
    pub is_recording: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            scopes: Vec::new(),
            ledger_rows: 16 * 1024,
            trace_rows: 64 * 1024,
            is_recording: false,
        }
    }
}

/// Why the harness cannot make or load shared memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SharedError {
    /// A system call failed.
    #[error("cannot {operation} the memory shared with subjects: {source}")]
    Io {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// A directory of the scope that calls could not be compared with.
    #[error("the scope {path} is not an absolute path without . and ..; resolve it first", path = .path.display())]
    ScopeNotResolved {
        /// The directory.
        path: PathBuf,
    },
    /// A directory of the scope that does not fit.
    #[error("the scope {path} has {bytes} bytes; at most {MAX_SCOPE_BYTES} fit, use a shorter one", path = .path.display())]
    ScopeTooLong {
        /// The directory.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Too many directories.
    #[error("the scope has {scopes} directories; at most {MAX_SCOPES} fit")]
    TooManyScopes {
        /// Directories asked for.
        scopes: usize,
    },
    /// A ledger or a trace that does not fit, or none.
    #[error("{rows} rows were asked for; choose 1 to {MAX_ROWS}")]
    Rows {
        /// Rows asked for.
        rows: usize,
    },
    /// A plan that was not read but put together, and is wrong.
    #[error("rule {rule}: {reason}", rule = .index + 1)]
    Plan {
        /// The rule, by its index.
        index: usize,
        /// What is wrong with it.
        reason: RuleError,
    },
}

/// The shared memory, seen from the harness.
#[derive(Debug)]
pub struct Shared {
    pub(super) words: Words,
    lengths: Lengths,
    rules: usize,
    generation: u64,
}

impl Shared {
    /// Makes the memory with a plan in force. Subjects open it as `/proc/PID/fd/N` of the descriptor, which is close-on-exec
    /// and must stay open as long as subjects may start.
    pub fn create(plan: &Plan, options: &Options) -> Result<(Shared, OwnedFd), SharedError> {
        check(plan)?;
        if options.scopes.len() > MAX_SCOPES {
            let scopes = options.scopes.len();
            return Err(SharedError::TooManyScopes { scopes });
        }
        options
            .scopes
            .iter()
            .try_for_each(|path| check_scope(path))?;
        let wanted = [options.ledger_rows, options.trace_rows];
        if let Some(rows) = wanted
            .into_iter()
            .find(|rows| !(1..=MAX_ROWS).contains(rows))
        {
            return Err(SharedError::Rows { rows });
        }
        let lengths = Lengths {
            ledger_rows: options.ledger_rows,
            trace_rows: options.trace_rows,
        };
        let (words, file) =
            make(lengths).map_err(|(operation, source)| SharedError::Io { operation, source })?;
        for (index, path) in options.scopes.iter().enumerate() {
            let bytes = without_end(path);
            let start = SCOPES + index * scope::WORDS;
            words.set(start + scope::BYTES, bytes.len() as u64);
            words.set_bytes(start + scope::TEXT, MAX_SCOPE_BYTES / 8, bytes);
        }
        words.set(header::SCOPES, options.scopes.len() as u64);
        words.set(header::LEDGER_ROWS, lengths.ledger_rows as u64);
        words.set(header::TRACE_ROWS, lengths.trace_rows as u64);
        rules::record(&words, options.is_recording);
        words.set(header::FINGERPRINT, fingerprint());
        words.set(header::VERSION, VERSION);
        words.set(header::MAGIC, MAGIC);
        let mut shared = Shared {
            words,
            lengths,
            rules: 0,
            generation: 0,
        };
        shared.load(plan)?;
        Ok((shared, file))
    }

    /// Puts another plan in place of the present one and into force. Counts of rules and receipts start anew. A call that is
    /// under way meanwhile may still leave a receipt of the plan before, which is not read, or be decided by parts of both.
    pub fn load(&mut self, plan: &Plan) -> Result<(), SharedError> {
        check(plan)?;
        self.disarm();
        let used = self.words.get(header::NEXT_RECEIPT);
        for row in 0..used.min(MAX_RECEIPTS as u64) as usize {
            let start = RECEIPTS + row * receipt::WORDS;
            self.words.set(start + receipt::STATE, state::FREE);
        }
        self.words.set(header::NEXT_RECEIPT, 0);
        rules::store(&self.words, plan);
        self.rules = plan.rules.len();
        self.generation = self.words.get(header::GENERATION);
        Ok(())
    }

    /// Takes the rules out of force; calls go on being counted by site, not by rule.
    pub fn disarm(&self) {
        rules::arm(&self.words, 0);
    }

    /// Puts the rules back into force; their counts go on from where they were.
    pub fn arm(&self) {
        rules::arm(&self.words, rules::all(self.rules));
    }

    /// Switches the trace.
    pub fn record(&self, is_recording: bool) {
        rules::record(&self.words, is_recording);
    }

    /// Sets the counts of calls by site and spelling to 0 and empties the trace, so that what follows is counted from 1.
    /// Only while no subject makes calls; else some of them are counted on either side.
    pub fn restart_counts(&self) {
        for of in SiteId::all() {
            self.words.set(site::calls(of), 0);
        }
        for index in 0..SPELLING_COUNT as u16 {
            let spelling = SpellingId(index);
            if !spelling.spelling().is_last {
                self.words.set(site::calls_by(spelling), 0);
            }
        }
        let used = self.words.get(header::NEXT_TRACE);
        for row in 0..used.min(self.lengths.trace_rows as u64) as usize {
            let start = self.lengths.trace() + row * trace::WORDS;
            self.words.set(start + trace::STATE, state::FREE);
        }
        self.words.set(header::NEXT_TRACE, 0);
    }

    /// Processes that attached themselves, in order.
    pub fn attachments(&self) -> Vec<Attachment> {
        presence::rows(&self.words)
            .filter(|start| {
                let how = self.words.get(start + attachment::HOW);
                how & attachment::IS_EXPECTED == 0
            })
            .map(|start| Attachment {
                pid: self.words.get(start + attachment::PID) as u32,
                start_ticks: self.words.get(start + attachment::START_TICKS),
                serial: self.words.get(start + attachment::SERIAL),
            })
            .collect()
    }

    /// Receipts of the present plan, in order; the first [`MAX_RECEIPTS`] are kept.
    pub fn receipts(&self) -> Vec<Receipt> {
        let taken = self.words.get(header::NEXT_RECEIPT);
        let rows = taken.min(MAX_RECEIPTS as u64) as usize;
        let mut receipts: Vec<Receipt> = (0..rows).filter_map(|row| self.receipt(row)).collect();
        receipts.sort_by_key(|receipt| receipt.serial);
        receipts
    }

    /// What each rule of the present plan has seen, complete even where receipts found no room.
    pub fn rule_counts(&self) -> Vec<RuleCount> {
        let counts = (0..self.rules).map(|index| rules::counts(&self.words, index));
        counts
            .map(|(counted, fired)| RuleCount { counted, fired })
            .collect()
    }

    /// Calls of a site.
    pub fn calls(&self, of: SiteId) -> u64 {
        self.words.get(site::calls(of))
    }

    /// Calls by one spelling.
    pub fn calls_by(&self, spelling: SpellingId) -> u64 {
        let counted = |index: u16| self.words.get(site::calls_by(SpellingId(index)));
        let Spelling {
            site, nth, is_last, ..
        } = *spelling.spelling();
        if !is_last {
            return counted(spelling.0);
        }
        let others = (spelling.0 - u16::from(nth)..spelling.0).map(counted);
        // A call of another spelling may come in between.
        others.fold(self.calls(site), u64::saturating_sub)
    }

    /// The calls recorded.
    pub fn trace(&self) -> TraceView {
        recorded::view(&self.words, self.lengths)
    }

    /// What exists, in processes dead and alive.
    pub fn ledger(&self) -> LedgerView {
        ledger::view(&self.words, self.lengths)
    }

    fn receipt(&self, row: usize) -> Option<Receipt> {
        let start = RECEIPTS + row * receipt::WORDS;
        let get = |word: usize| self.words.get(start + word);
        if get(receipt::STATE) != state::WHOLE || get(receipt::GENERATION) != self.generation {
            return None;
        }
        let rule = usize::try_from(get(receipt::RULE)).ok()?;
        let is_known = rule < self.rules;
        let site = SiteId::checked(get(receipt::SITE))?;
        is_known.then(|| Receipt {
            rule,
            nth: get(receipt::NTH),
            site,
            pid: get(receipt::PID) as u32,
            tid: get(receipt::TID) as u32,
            size: get(receipt::SIZE),
            key: get(receipt::KEY),
            path: self.words.text(start + receipt::PATH, PATH_BYTES),
            serial: get(receipt::SERIAL),
        })
    }
}

fn check(plan: &Plan) -> Result<(), SharedError> {
    let (rules, limit) = (plan.rules.len(), MAX_RULES);
    if rules > limit {
        let reason = RuleError::TooManyRules { rules, limit };
        return Err(SharedError::Plan {
            index: limit,
            reason,
        });
    }
    for (index, rule) in plan.rules.iter().enumerate() {
        let checked = rule.check();
        checked.map_err(|reason| SharedError::Plan { index, reason })?;
    }
    Ok(())
}

fn check_scope(path: &Path) -> Result<(), SharedError> {
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let path = || path.to_owned();
    let bytes = without_end(&path()).len();
    if !path().is_absolute() || !path().components().all(is_plain) || bytes == 0 {
        return Err(SharedError::ScopeNotResolved { path: path() });
    }
    if bytes > MAX_SCOPE_BYTES {
        let path = path();
        return Err(SharedError::ScopeTooLong { path, bytes });
    }
    Ok(())
}

/// A path's bytes without slashes at the end.
fn without_end(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/');
    &bytes[..end.map_or(0, |last| last + 1)]
}

fn make(lengths: Lengths) -> Result<(Words, OwnedFd), (&'static str, Errno)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create(c"spillproof-faults", flags).map_err(|source| ("create", source))?;
    let bytes = lengths.words() as u64 * 8;
    ftruncate(&file, bytes).map_err(|source| ("size", source))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(|source| ("seal", source))?;
    let words = Words::map(file.as_fd(), lengths.words()).map_err(|source| ("map", source))?;
    Ok((words, file))
}

#[cfg(test)]
mod tests {
    //! What was written late, or in another order than that in which it happened.
    use super::*;
    use crate::shared::{Attached, Call, Facts, Recorded};

    struct NoFacts;

    impl Facts for NoFacts {
        fn paths(&mut self) -> [Option<&[u8]>; 2] {
            [None, None]
        }

        fn caller(&mut self) -> &[u8] {
            b""
        }
    }

    #[test]
    fn a_receipt_of_the_plan_before_is_not_read() {
        let plan: Plan = "fsync:error=EIO".parse().unwrap();
        let (mut shared, file) = Shared::create(&plan, &Options::default()).unwrap();
        let attached = Attached::map(&file).unwrap();
        let site = SiteId::named("fsync");
        let call = Call {
            site,
            is_in_scope: true,
            size: 0,
        };
        shared.load(&plan).unwrap();
        attached.decide(call, attached.rules(site), &mut NoFacts);
        attached.decide(call, attached.rules(site), &mut NoFacts);
        let receipts = || {
            let receipts = shared.receipts();
            receipts
                .iter()
                .map(|receipt| receipt.nth)
                .collect::<Vec<_>>()
        };
        assert_eq!(receipts(), [1, 2]);
        let late = RECEIPTS + receipt::WORDS + receipt::GENERATION;
        shared.words.set(late, shared.generation - 1);
        assert_eq!(receipts(), [1]);
        shared.words.set(RECEIPTS + receipt::RULE, 1);
        assert_eq!(receipts(), []);
    }

    #[test]
    fn what_threads_wrote_in_another_order_is_read_in_that_of_the_serial_numbers() {
        let (shared, file) = Shared::create(&Plan::default(), &Options::default()).unwrap();
        let attached = Attached::map(&file).unwrap();
        for nth in 1..=2 {
            attached.record(&Recorded {
                site: SiteId::named("fsync"),
                nth,
                size: 0,
                offset: None,
                path: b"",
                caller: b"",
            });
        }
        let first = shared.lengths.trace();
        shared.words.set(first + trace::SERIAL, 9);
        let order = shared
            .trace()
            .entries
            .iter()
            .map(|entry| entry.nth)
            .collect::<Vec<_>>();
        assert_eq!(order, [2, 1]);
    }
}
