//! Times of many processes as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What one process says of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) median_ns: f64,
    pub(crate) quickest_ns: f64,
}

/// By call and by method: the times of each process.
#[derive(Debug, Default)]
pub(crate) struct Table {
    calls: BTreeMap<String, BTreeMap<usize, Vec<Times>>>,
}

/// What all processes of a method say of a call.
struct Summary {
    /// The least of the medians.
    median_ns: f64,
    quickest_ns: f64,
    highest_median_ns: f64,
}

impl Table {
    /// Takes what one process of a method says.
    pub(crate) fn add(&mut self, method: usize, times: BTreeMap<String, Times>) {
        for (call, times) in times {
            let by_method = self.calls.entry(call).or_default();
            by_method.entry(method).or_default().push(times);
        }
    }

    /// One row for each method. The first method's figures are as they are, the others' what they add to it.
    pub(crate) fn markdown(&self, methods: &[&str]) -> String {
        let mut text = "| ns |".to_owned();
        for call in self.calls.keys() {
            let _ = write!(text, " {call} |");
        }
        text.push_str("\n| --- |");
        text.push_str(&" ---: |".repeat(self.calls.len()));
        for (place, method) in methods.iter().enumerate() {
            let _ = write!(text, "\n| {method} |");
            for by_method in self.calls.values() {
                let (bare, own) = (summary(&by_method[&0]), summary(&by_method[&place]));
                let median = own.median_ns;
                let (quickest, highest) = (own.quickest_ns, own.highest_median_ns);
                let _ = match place {
                    0 => write!(text, " {median:.0} ({quickest:.0} to {highest:.0}) |"),
                    _ => write!(
                        text,
                        " {:+.0} ({:+.0} to {:+.0}) |",
                        median - bare.median_ns,
                        quickest - bare.quickest_ns,
                        highest - bare.median_ns
                    ),
                };
            }
        }
        text.push('\n');
        text
    }
}

fn summary(times: &[Times]) -> Summary {
    let medians = || times.iter().map(|times| times.median_ns);
    Summary {
        median_ns: medians().fold(f64::INFINITY, f64::min),
        quickest_ns: times
            .iter()
            .map(|times| times.quickest_ns)
            .fold(f64::INFINITY, f64::min),
        highest_median_ns: medians().fold(0.0, f64::max),
    }
}
