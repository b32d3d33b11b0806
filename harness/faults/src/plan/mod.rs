//! Fault plans: rules that say which call fails, how, and when.

mod display;
mod error;
mod parse;
mod value;

pub use error::{GlobError, PlanError, RuleError};
pub use value::Glob;

use std::time::Duration;

use crate::error::FaultError;
use crate::signal::Signal;
use crate::site::{After, Failure, Library, Short, SiteId};

/// Most rules of a plan.
pub const MAX_RULES: usize = 64;
/// Longest pattern of a path, bytes.
pub const MAX_PATH_GLOB_BYTES: usize = 192;
/// Longest pattern of a library's name, bytes.
pub const MAX_CALLER_GLOB_BYTES: usize = 64;
/// Longest delay.
pub const MAX_DELAY: Duration = Duration::from_secs(3600);

/// Rules, in order: of errors and short counts that meet at one call, the first rule's happens; delays and signals add up.
///
/// A plan is written as people know it from `strace -e inject=`, and prints itself in the canonical form:
///
/// ```text
/// plan = rule (";" or newline rule)*
/// rule = site ("," site)* (":" part)+
/// part = "error=" NAME | "short=" BYTES | "delay=" TIME | "signal=" NAME
///      | "after" | "when=" FIRST [".." LAST] ["+" [STEP]] | "path=" GLOB | "caller=" GLOB
/// ```
///
/// - A rule does one thing. Sizes are written `4096`, `4KiB`, `1MiB`, times `10us`, `5ms`, `1s`.
/// - `when=3` is the third call only, `3+` that and all later ones, `3..7` five of them, `3+2` every second from the third on;
///   without it, every call. A rule counts the calls of all its sites together.
/// - `after`: the call is made first. Not with `short`, nor for an error where success makes something.
/// - A glob's `*` runs over `/` too; unless it starts with `/`, it may match from any component on. `\` takes the next
///   character as it is.
///
/// ```
/// use spillproof_faults::Plan;
///
/// let plan: Plan = "pwrite64,write:error=ENOSPC:when=3+".parse()?;
/// assert_eq!(plan.to_string(), "pwrite,write:error=ENOSPC:when=3+");
/// let error = "pwirte:error=ENOSPC".parse::<Plan>().unwrap_err();
/// assert_eq!(error.to_string(), "line 1, column 1: \"pwirte\" is no site; did you mean pwrite?");
/// # Ok::<(), spillproof_faults::PlanError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The calls that it is about, counted together.
    pub sites: Vec<SiteId>,
    /// What happens.
    pub action: Action,
    /// After the call was done, not before.
    pub after: bool,
    /// Which of the calls.
    pub when: When,
    /// Only calls on such paths, inside the scope or not.
    pub path: Option<Glob>,
    /// Only calls from code of such a file, by the file's name.
    pub caller: Option<Glob>,
}

/// What a rule does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The call fails.
    Error(FaultError),
    /// The call moves so many bytes and says so.
    Short {
        /// Bytes moved.
        bytes: u64,
    },
    /// The call takes longer.
    Delay(Duration),
    /// The calling thread gets a signal; the process where it is one by which a process is asked to end.
    Signal(Signal),
}

/// Which of the calls that a rule counts, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// The first.
    pub first: u64,
    /// The last, if there is one.
    pub last: Option<u64>,
    /// From the first on, each so many-th.
    pub step: u64,
}

impl When {
    /// Every call.
    pub const EVERY: When = When {
        first: 1,
        last: None,
        step: 1,
    };

    /// Only that one.
    pub const fn only(nth: u64) -> When {
        When {
            first: nth,
            last: Some(nth),
            step: 1,
        }
    }

    /// That one and all later ones.
    pub const fn from(nth: u64) -> When {
        When {
            first: nth,
            last: None,
            step: 1,
        }
    }

    /// Whether the nth call is one of them.
    pub fn contains(&self, nth: u64) -> bool {
        let is_in_range = nth >= self.first && self.last.is_none_or(|last| nth <= last);
        is_in_range && (nth - self.first).is_multiple_of(self.step.max(1))
    }
}

impl Rule {
    /// A rule about every call of a site; change what differs.
    pub fn new(site: SiteId, action: Action) -> Rule {
        Rule {
            sites: vec![site],
            action,
            after: false,
            when: When::EVERY,
            path: None,
            caller: None,
        }
    }

    /// What is wrong with the rule, if something is.
    pub fn check(&self) -> Result<(), RuleError> {
        if self.sites.is_empty() {
            return Err(RuleError::NoSite);
        }
        for (index, id) in self.sites.iter().enumerate() {
            if self.sites[..index].contains(id) {
                return Err(RuleError::SiteTwice {
                    site: id.site().name,
                });
            }
            self.check_site(*id)?;
        }
        self.check_error_fits()?;
        let when = self.when;
        match when.last {
            _ if when.first == 0 => Err(RuleError::WhenZero),
            _ if when.step == 0 => Err(RuleError::StepZero),
            Some(last) if last < when.first => Err(RuleError::WhenBackwards {
                first: when.first,
                last,
            }),
            _ => Ok(()),
        }
    }

    fn check_site(&self, id: SiteId) -> Result<(), RuleError> {
        let site = id.site();
        if !site.is_plannable() {
            return Err(RuleError::RawSyscall);
        }
        if self.path.is_some() && site.library != Library::Libc {
            return Err(RuleError::PathWithoutFile { site: site.name });
        }
        match self.action {
            Action::Error(_) if site.failure == Failure::Void => {
                Err(RuleError::CannotFail { site: site.name })
            }
            Action::Error(_) if self.after && site.after == After::Never => {
                Err(RuleError::AfterIllegal { site: site.name })
            }
            Action::Short { .. } if site.short == Short::None => {
                Err(RuleError::ShortIllegal { site: site.name })
            }
            Action::Short { .. } if self.after => Err(RuleError::ShortAfter),
            Action::Delay(delay) if delay > MAX_DELAY => Err(RuleError::DelayTooLong),
            Action::Error(_) | Action::Short { .. } | Action::Delay(_) | Action::Signal(_) => {
                Ok(())
            }
        }
    }

    /// An error must be one that every site named can return: a rule that fires for some of them only says less than it
    /// seems to.
    fn check_error_fits(&self) -> Result<(), RuleError> {
        let Action::Error(error) = self.action else {
            return Ok(());
        };
        let unfit = self.sites.iter().find(|id| !id.site().can_return(error));
        match unfit {
            Some(id) => Err(RuleError::ErrorIllegal {
                site: id.site().name,
                error,
            }),
            None => Ok(()),
        }
    }
}
