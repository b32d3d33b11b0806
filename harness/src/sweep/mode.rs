//! In which ways the nth call of a site is made to fail.

use spillproof_faults::{Action, After, FaultError, Rule, Short, SiteId, When};

/// Calls in a row that fail with an error which asks for another try.
const TRANSIENT_CALLS: u64 = 3;

/// The size of a piece that every filesystem and device transfers.
const BLOCK_BYTES: u64 = 4096;

/// When an error happens, and to how many calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// The nth call fails.
    Once,
    /// That one and all later ones fail.
    Onward,
    /// That one and some more fail, with an error that asks for another try.
    SomeTimes,
    /// The nth call is made, and reported as failed.
    OnceAfter,
    /// That one and all later ones are made, and reported as failed.
    OnwardAfter,
}

impl Mode {
    /// The modes in which a call of the site can return the error.
    #[must_use]
    pub fn of(site: SiteId, error: FaultError) -> Vec<Self> {
        // Planned for good, a correct caller would try for good.
        let mut modes = match error.is_transient() {
            true => vec![Self::Once, Self::SomeTimes],
            false => vec![Self::Once, Self::Onward],
        };
        match site.site().after {
            After::Never | After::Always => {}
            After::Allowed if error.is_transient() => modes.push(Self::OnceAfter),
            After::Allowed => modes.extend([Self::OnceAfter, Self::OnwardAfter]),
        }
        modes
    }

    /// The rule for the nth call.
    #[must_use]
    pub fn rule(self, site: SiteId, error: FaultError, nth: u64) -> Rule {
        let when = match self {
            Self::Once | Self::OnceAfter => When::only(nth),
            Self::Onward | Self::OnwardAfter => When::from(nth),
            Self::SomeTimes => When {
                first: nth,
                last: Some(nth + TRANSIENT_CALLS - 1),
                step: 1,
            },
        };
        Rule {
            when,
            after: matches!(self, Self::OnceAfter | Self::OnwardAfter),
            ..Rule::new(site, Action::Error(error))
        }
    }
}

/// To how many bytes a call of the site can be cut: one unit less, half, one unit. The unit is a byte, and a block where both size and
/// place are whole blocks: such a call may be direct I/O, which transfers nothing smaller.
#[must_use]
pub fn shorts(site: SiteId, size: u64, offset: Option<u64>) -> Vec<u64> {
    if site.site().short == Short::None {
        return Vec::new();
    }
    let is_whole = |bytes: u64| bytes.is_multiple_of(BLOCK_BYTES);
    let unit = match is_whole(size) && is_whole(offset.unwrap_or(0)) {
        true => BLOCK_BYTES,
        false => 1,
    };
    let half = size / 2 / unit * unit;
    let mut counts = vec![size.saturating_sub(unit), half, BLOCK_BYTES];
    counts.retain(|bytes| (1..size).contains(bytes));
    counts.sort_unstable();
    counts.dedup();
    counts.reverse();
    counts
}
