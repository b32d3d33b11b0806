//! Plans drawn by a seed from the calls that a workload was seen to make.

use super::{Mode, Recording, shorts};
use spillproof_faults::{Action, Plan, Rule, SiteId, When};

/// Most rules of a drawn plan.
const MAX_RULES: u64 = 3;

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The numbers of a seed and a stream.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self { state: seed };
        let first = random.next();
        Self {
            state: first ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03),
        }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias is far below what a search could notice.
        self.next() % bound.max(1)
    }

    /// One of these.
    pub fn choose<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len() as u64) as usize)
    }
}

/// Draws plans.
#[derive(Debug)]
pub struct Draw<'a> {
    /// The calls to draw from.
    pub recording: &'a Recording,
    /// The numbers.
    pub random: Random,
}

impl Draw<'_> {
    /// A plan of one to three rules, mostly one; `None` where no call was recorded.
    pub fn plan(&mut self) -> Option<Plan> {
        let rules = match self.random.below(4) {
            0 => 1 + self.random.below(MAX_RULES),
            _ => 1,
        };
        let mut plan = Plan::default();
        let mut named: Vec<SiteId> = Vec::new();
        for _ in 0..rules {
            let point = self.random.choose(&self.recording.points)?;
            if named.contains(&point.site) {
                continue;
            }
            named.push(point.site);
            let row = point.site.site();
            let cuts = shorts(point.site, point.size, point.offset);
            let cut = self.random.choose(&cuts).copied();
            let rule = match (cut, self.random.choose(row.errors)) {
                (Some(bytes), _) if self.random.below(4) == 0 => Rule {
                    when: When::only(point.nth),
                    ..Rule::new(point.site, Action::Short { bytes })
                },
                (_, Some(error)) => {
                    let modes = Mode::of(point.site, *error);
                    let mode = *self.random.choose(&modes)?;
                    mode.rule(point.site, *error, point.nth)
                }
                (_, None) => continue,
            };
            plan.rules.push(rule);
        }
        Some(plan).filter(|plan| !plan.rules.is_empty())
    }
}
