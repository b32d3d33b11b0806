//! Times as tables, and what of them is over the limit.

use std::fmt::Write as _;

use crate::methods::{Method, Way};
use crate::play::{SORTS, Sort};

/// What a wrapped call may cost more than the bare one where no rule is about it, nanoseconds.
const LIMIT_NS: f64 = 100.0;

/// By sort of call: rounds, and in each the time of every method, bare first.
#[derive(Debug)]
pub(crate) struct Table(Vec<Vec<Vec<f64>>>);

impl Default for Table {
    fn default() -> Table {
        Table(SORTS.iter().map(|_| Vec::new()).collect())
    }
}

/// What a method adds to the bare call.
struct Added {
    /// Its quickest batch less the quickest bare one: other work only ever adds.
    least_ns: f64,
    /// The median of the differences within a round.
    median_ns: f64,
}

impl Table {
    /// Takes a round.
    pub(crate) fn add(&mut self, sort: usize, times: Vec<f64>) {
        self.0[sort].push(times);
    }

    /// One table of our ways, and one of the others'.
    pub(crate) fn markdown(&self, methods: &[Method]) -> String {
        let is_ours = |method: &Method| method.way != Way::Other;
        let part = |wanted: bool| {
            let places = (1..methods.len()).filter(|place| is_ours(&methods[*place]) == wanted);
            self.part(methods, &places.collect::<Vec<_>>())
        };
        format!("{}\n{}", part(true), part(false))
    }

    fn part(&self, methods: &[Method], places: &[usize]) -> String {
        let mut text = "| ns | wrapped calls | bare |".to_owned();
        for place in places {
            let _ = write!(text, " {} |", methods[*place].name);
        }
        text.push_str("\n| --- | ---: | ---: |");
        text.push_str(&" ---: |".repeat(places.len()));
        for (row, sort) in SORTS.iter().enumerate() {
            let (bare, median) = (self.least_ns(row, 0), median(self.times(row, 0)));
            let Sort { name, calls, .. } = sort;
            let _ = write!(text, "\n| {name} | {calls} | {bare:.0} ({median:.0}) |");
            for place in places {
                let Added {
                    least_ns,
                    median_ns,
                } = self.added(row, *place);
                let judgement = match self.is_over(row, *place, methods[*place].way) {
                    None => "",
                    Some(true) => " over",
                    Some(false) => " ok",
                };
                let _ = write!(text, " {least_ns:+.0} ({median_ns:+.0}){judgement} |");
            }
        }
        text.push('\n');
        text
    }

    /// A line for each sort of call whose wrappers cost more than the limit where no rule is about it.
    pub(crate) fn over_limit(&self, methods: &[Method]) -> Vec<String> {
        let mut over = Vec::new();
        for (row, sort) in SORTS.iter().enumerate() {
            for (place, Method { name, way, .. }) in methods.iter().enumerate() {
                if self.is_over(row, place, *way) == Some(true) {
                    let added_ns = self.added(row, place).least_ns;
                    let (call, limit_ns) = (sort.name, limit_ns(sort));
                    over.push(format!("{call}, {name}: {added_ns:.0} ns more than bare, {limit_ns:.0} are allowed; profile it, or run again on a quiet machine"));
                }
            }
        }
        over
    }

    fn is_over(&self, row: usize, place: usize, way: Way) -> Option<bool> {
        let is_judged = way == Way::OursWithoutRule;
        is_judged.then(|| self.added(row, place).least_ns > limit_ns(&SORTS[row]))
    }

    fn added(&self, row: usize, place: usize) -> Added {
        let differences = self.0[row].iter().map(|round| round[place] - round[0]);
        Added {
            least_ns: self.least_ns(row, place) - self.least_ns(row, 0),
            median_ns: median(differences),
        }
    }

    fn least_ns(&self, row: usize, place: usize) -> f64 {
        self.times(row, place).fold(f64::INFINITY, f64::min)
    }

    fn times(&self, row: usize, place: usize) -> impl Iterator<Item = f64> {
        self.0[row].iter().map(move |round| round[place])
    }
}

fn limit_ns(sort: &Sort) -> f64 {
    LIMIT_NS * f64::from(sort.calls)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
