//! What one trial of a sweep makes fail.

use super::{Mode, Recording, shorts, sweeper::Depth};
use spillproof_faults::{Action, FaultError, Plan, Rule, Short, SiteId, When};
use std::fmt;

/// How calls of a site fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With this error.
    Error(FaultError),
    /// By moving fewer bytes than they were asked to.
    Short,
}

/// A site and how its calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The site.
    pub site: SiteId,
    /// How its calls fail.
    pub fault: Fault,
}

impl fmt::Display for Target {
    /// `pwrite_ENOSPC`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let site = self.site.site().name;
        match self.fault {
            Fault::Error(error) => write!(f, "{site}_{error}"),
            Fault::Short => write!(f, "{site}_short"),
        }
    }
}

impl Target {
    /// Every way in which calls of the site can fail.
    #[must_use]
    pub fn of(site: SiteId) -> Vec<Self> {
        let row = site.site();
        let errors = row.errors.iter().copied().map(Fault::Error);
        let short = (row.short != Short::None).then_some(Fault::Short);
        let faults = errors.chain(short);
        faults.map(|fault| Self { site, fault }).collect()
    }

    /// The plans for the nth call. The first of them happens where there is such a call at all.
    #[must_use]
    pub fn plans(self, nth: u64, depth: Depth, recording: &Recording) -> Vec<Plan> {
        let rules: Vec<Rule> = match self.fault {
            Fault::Error(error) => {
                let mut modes = Mode::of(self.site, error);
                modes.truncate(match depth {
                    Depth::Everything => usize::MAX,
                    Depth::OnceAndOnward => 2,
                    Depth::Thrice { .. } => 1,
                });
                let modes = modes.into_iter();
                modes.map(|mode| mode.rule(self.site, error, nth)).collect()
            }
            Fault::Short => {
                let point = recording.point(self.site, nth);
                let mut counts = point.map_or_else(Vec::new, |point| {
                    shorts(self.site, point.size, point.offset)
                });
                if depth != Depth::Everything {
                    counts = counts.get(counts.len() / 2).copied().into_iter().collect();
                }
                let cut = |bytes| Rule {
                    when: When::only(nth),
                    ..Rule::new(self.site, Action::Short { bytes })
                };
                counts.into_iter().map(cut).collect()
            }
        };
        let plan = |rule| Plan { rules: vec![rule] };
        rules.into_iter().map(plan).collect()
    }
}
