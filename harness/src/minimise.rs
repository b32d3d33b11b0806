//! What of a failing experiment can be left out: first rules of its plan, then its steps.
//!
//! Whether something smaller still fails is asked of the caller, who may run out of time. What comes back failed when it was
//! asked, and unless time ran out, no single rule or step of it can be left out.

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minimised {
    /// Rules, by their index.
    pub rules: Vec<usize>,
    /// Steps, by their index.
    pub steps: Vec<usize>,
    /// How often was asked.
    pub tries: usize,
    /// Whether time ran out, so that something smaller may fail too.
    pub is_cut_short: bool,
}

/// What an attempt with fewer parts came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The same failure.
    Fails,
    /// Another one, or none, or nothing was measured.
    Differs,
    /// There is no time for it.
    NoTime,
}

/// Leaves out what the failure does not need of so many rules and steps, at least one of each staying where there is one.
/// `attempt` is given the rules and the steps that are kept.
pub fn minimise(
    rules: usize,
    steps: usize,
    mut attempt: impl FnMut(&[usize], &[usize]) -> Attempt,
) -> Minimised {
    let mut search = Search {
        tries: 0,
        is_cut_short: false,
    };
    let steps: Vec<usize> = (0..steps).collect();
    let rules = search.fewer((0..rules).collect(), |rules| attempt(rules, &steps));
    let steps = search.fewer(steps, |steps| attempt(&rules, steps));
    // A rule may have mattered only to steps that are gone.
    let rules = search.fewer(rules, |rules| attempt(rules, &steps));
    Minimised {
        rules,
        steps,
        tries: search.tries,
        is_cut_short: search.is_cut_short,
    }
}

struct Search {
    tries: usize,
    is_cut_short: bool,
}

impl Search {
    /// Without halves, quarters and so on, and then without single ones until none can go.
    fn fewer(
        &mut self,
        mut kept: Vec<usize>,
        mut attempt: impl FnMut(&[usize]) -> Attempt,
    ) -> Vec<usize> {
        let mut part = kept.len().div_ceil(2).max(1);
        loop {
            let before = kept.len();
            // From the end: what comes last needs what comes first more often than the other way round.
            let mut end = kept.len();
            while end > 0 && kept.len() > 1 && !self.is_cut_short {
                let start = end.saturating_sub(part);
                let fewer = [&kept[..start], &kept[end..]].concat();
                end = start;
                if fewer.is_empty() {
                    continue;
                }
                match attempt(&fewer) {
                    Attempt::Fails => kept = fewer,
                    Attempt::Differs => {}
                    Attempt::NoTime => {
                        self.is_cut_short = true;
                        return kept;
                    }
                }
                self.tries += 1;
            }
            if part == 1 && kept.len() == before || kept.len() <= 1 || self.is_cut_short {
                return kept;
            }
            part = part.div_ceil(2);
        }
    }
}

#[cfg(test)]
mod tests {
    //! What stays of failures that need some rules and steps.
    use super::*;

    /// Fails exactly when all of these are there.
    fn needs(
        rules: &'static [usize],
        steps: &'static [usize],
    ) -> impl FnMut(&[usize], &[usize]) -> Attempt {
        move |kept_rules, kept_steps| {
            let all = rules.iter().all(|rule| kept_rules.contains(rule))
                && steps.iter().all(|step| kept_steps.contains(step));
            if all {
                Attempt::Fails
            } else {
                Attempt::Differs
            }
        }
    }

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        for (rules, steps) in [
            (&[0][..], &[0][..]),
            (&[3], &[12]),
            (&[1, 2], &[0, 6, 12]),
            (&[0, 1, 2, 3], &[3, 4, 5, 6, 7]),
        ] {
            let found = minimise(4, 13, needs(rules, steps));
            assert_eq!((found.rules, found.steps), (rules.to_vec(), steps.to_vec()));
            assert!(!found.is_cut_short);
        }
    }

    #[test]
    fn nothing_is_asked_of_one_rule_and_one_step() {
        let found = minimise(1, 1, |_, _| panic!("there is nothing to leave out"));
        assert_eq!(
            (found.rules, found.steps, found.tries),
            (vec![0], vec![0], 0)
        );
    }

    #[test]
    fn one_of_each_stays_where_anything_fails() {
        let found = minimise(7, 9, |_, _| Attempt::Fails);
        assert_eq!((found.rules.len(), found.steps.len()), (1, 1));
    }

    #[test]
    fn a_rule_that_only_a_needless_step_needed_goes() {
        // Rule 1 matters only as long as step 2 is there, and step 2 can go.
        let found = minimise(2, 3, |rules, steps| {
            let fails = rules.contains(&0) && (rules.contains(&1) || !steps.contains(&2));
            if fails {
                Attempt::Fails
            } else {
                Attempt::Differs
            }
        });
        assert_eq!(found.rules, [0]);
        assert!(!found.steps.contains(&2));
    }

    #[test]
    fn the_smallest_that_failed_comes_back_when_time_runs_out() {
        let mut left = 3;
        let mut last = Vec::new();
        let found = minimise(8, 1, |rules, _| {
            if left == 0 {
                return Attempt::NoTime;
            }
            left -= 1;
            let fails = rules.contains(&0) && rules.contains(&5);
            if fails {
                last = rules.to_vec();
                Attempt::Fails
            } else {
                Attempt::Differs
            }
        });
        assert_eq!(
            (found.rules, found.tries, found.is_cut_short),
            (last, 3, true)
        );
    }

    #[test]
    fn few_attempts_do_for_many_parts_of_which_one_matters() {
        let found = minimise(64, 1, needs(&[40], &[0]));
        assert!(found.tries < 20, "{} tries", found.tries);
    }
}
