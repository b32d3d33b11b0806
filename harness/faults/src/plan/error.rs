//! What can be wrong with a plan.

use crate::error::FaultError;
use crate::site::SiteId;

/// A plan that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct PlanError {
    /// The line, from 1.
    pub line: usize,
    /// Where in the line, in characters from 1.
    pub column: usize,
    /// What is wrong there and what to write instead.
    pub reason: RuleError,
}

impl PlanError {
    /// The line of the plan, below it a caret under the place, and what is wrong there.
    pub fn underlined(&self, plan: &str) -> String {
        let line = plan.split('\n').nth(self.line - 1).unwrap_or_default();
        let before = line.chars().take(self.column - 1);
        // Tabs stay tabs, so that the caret stands below its place.
        let blanks: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
        format!("{line}\n{blanks}^ {}", self.reason)
    }
}

/// What is wrong with a rule, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Nothing is there.
    #[error("the plan is empty; write a rule such as pwrite:error=ENOSPC:when=3")]
    EmptyPlan,
    /// A rule without a site.
    #[error("a site is missing; a rule starts with the name of a call, such as pwrite")]
    NoSite,
    /// A site that is none.
    #[error("{word:?} is no site{}", proposal(.nearest))]
    UnknownSite {
        /// What was written.
        word: String,
        /// The nearest that is one.
        nearest: Option<&'static str>,
    },
    /// A site named twice in a rule.
    #[error("{site} is named twice; name it once")]
    SiteTwice {
        /// The site.
        site: &'static str,
    },
    /// `syscall`.
    #[error("a raw syscall counts as the call that it makes; name that one, such as pwrite")]
    RawSyscall,
    /// A key that is none.
    #[error("{word:?} is no key{}; known are error, short, delay, signal, after, when, path, caller", proposal(.nearest))]
    UnknownKey {
        /// What was written.
        word: String,
        /// The nearest that is one.
        nearest: Option<&'static str>,
    },
    /// A key named twice.
    #[error("{key} is given twice; give it once")]
    KeyTwice {
        /// The key.
        key: &'static str,
    },
    /// A key without its value.
    #[error("{key} needs a value: {example}")]
    ValueMissing {
        /// The key.
        key: &'static str,
        /// One that is right.
        example: &'static str,
    },
    /// `after=…`.
    #[error("after takes no value; write after alone")]
    AfterValue,
    /// No action.
    #[error("the rule does nothing; add one of error=NAME, short=BYTES, delay=TIME, signal=NAME")]
    NoAction,
    /// More than one action.
    #[error(
        "the rule already says {first}; a rule does one thing, write a second rule for {second}"
    )]
    TwoActions {
        /// The first.
        first: &'static str,
        /// The second.
        second: &'static str,
    },
    /// An error that is none.
    #[error("{word:?} is no error{}", proposal(.nearest))]
    UnknownError {
        /// What was written.
        word: String,
        /// The nearest that is one.
        nearest: Option<&'static str>,
    },
    /// An error that the site cannot return.
    #[error("{site} cannot return {error}; it can return {}", errors_of(.site))]
    ErrorIllegal {
        /// The site.
        site: &'static str,
        /// The error.
        error: FaultError,
    },
    /// A site that returns nothing.
    #[error("{site} returns nothing and cannot fail; it can be given a delay or a signal")]
    CannotFail {
        /// The site.
        site: &'static str,
    },
    /// `after` where success makes something.
    #[error(
        "{site} cannot be reported as failed after it was done: nobody could give back what it made; leave out after"
    )]
    AfterIllegal {
        /// The site.
        site: &'static str,
    },
    /// `short` where nothing is counted.
    #[error("{site} returns no count of bytes; leave out short, or name a read or a write")]
    ShortIllegal {
        /// The site.
        site: &'static str,
    },
    /// `short` with `after`.
    #[error("a short count is part of the call; leave out after")]
    ShortAfter,
    /// A number of bytes that is none.
    #[error("{word:?} is no number of bytes; write 4096, 4KiB or 1MiB")]
    BadBytes {
        /// What was written.
        word: String,
    },
    /// A time that is none.
    #[error("{word:?} is no time; write 10us, 5ms or 1s")]
    BadTime {
        /// What was written.
        word: String,
    },
    /// A delay that nobody waits for.
    #[error("a delay is at most an hour; write less")]
    DelayTooLong,
    /// A signal that is none.
    #[error("{word:?} is no signal{}", proposal(.nearest))]
    UnknownSignal {
        /// What was written.
        word: String,
        /// The nearest that is one.
        nearest: Option<&'static str>,
    },
    /// A `when` that is none.
    #[error("{word:?} is no choice of calls; write 3, 3+, 3..7, 3+2 or 3..7+2")]
    BadWhen {
        /// What was written.
        word: String,
    },
    /// Calls are counted from 1.
    #[error("calls are counted from 1, so none is the call 0; write when=1")]
    WhenZero,
    /// Each 0th.
    #[error("a step of 0 chooses no call; write 1 or more")]
    StepZero,
    /// The last before the first.
    #[error("no call lies between {first} and {last}; write when={last}..{first}")]
    WhenBackwards {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// A `path` where no file is named.
    #[error("{site} names no file; leave out path")]
    PathWithoutFile {
        /// The site.
        site: &'static str,
    },
    /// A pattern that is none.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// A pattern that does not fit.
    #[error("the pattern has {bytes} bytes; at most {limit} fit, use * for a part")]
    GlobTooLong {
        /// Its length.
        bytes: usize,
        /// What fits.
        limit: usize,
    },
    /// A plan that does not fit.
    #[error("the plan has {rules} rules; at most {limit} fit")]
    TooManyRules {
        /// Its rules.
        rules: usize,
        /// What fits.
        limit: usize,
    },
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Nothing is there.
    #[error("the pattern is empty; write * for anything")]
    Empty,
    /// Blanks around it or control characters inside.
    #[error("the pattern has blanks around it or control characters; use ? for these")]
    Blanks,
    /// A separator of plans.
    #[error("the pattern has a bare : or ; in it; write \\: or \\;")]
    Separator,
    /// A `\` at the end.
    #[error("the pattern ends in a bare \\; write \\\\")]
    Dangling,
}

fn proposal(nearest: &Option<&'static str>) -> String {
    nearest.map_or(String::new(), |word| format!("; did you mean {word}?"))
}

fn errors_of(site: &&'static str) -> String {
    let errors = SiteId::find(site).map_or(&[][..], |id| id.site().errors);
    let names: Vec<&str> = errors.iter().map(|error| error.name()).collect();
    names.join(", ")
}
