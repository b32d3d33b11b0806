//! Which calls a workload makes.

use crate::observation::Run;
use spillproof_faults::SiteId;
use std::{collections::BTreeMap, fmt::Write as _};

/// The line above the calls in a golden.
const HEADING: &str = "calls:";

/// A call that can fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The function.
    pub site: SiteId,
    /// Which call of it, from 1.
    pub nth: u64,
    /// Bytes that it is about, 0 where there are none.
    pub size: u64,
    /// The offset in the file, where the call has one.
    pub offset: Option<u64>,
    /// The path relative to the offload directory, empty where there is none.
    pub path: String,
    /// The file name of who called.
    pub caller: String,
}

/// The calls of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The calls.
    pub points: Vec<Point>,
}

impl Recording {
    /// What was recorded while the case's faults were in force.
    #[must_use]
    pub fn of(run: &Run) -> Self {
        let mut counts = BTreeMap::new();
        let point = |call: &spillproof_faults::TraceEntry| {
            let nth = counts.entry(call.site).or_insert(0);
            *nth += 1;
            Point {
                site: call.site,
                nth: *nth,
                size: call.size,
                offset: call.offset,
                path: call.path.clone(),
                caller: call.caller.clone(),
            }
        };
        Self {
            points: run.calls.iter().map(point).collect(),
        }
    }

    /// Calls by site.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<SiteId, Calls> {
        let mut calls: BTreeMap<SiteId, Calls> = BTreeMap::new();
        for point in &self.points {
            let of_site = calls.entry(point.site).or_default();
            of_site.count += 1;
            of_site.largest_bytes = of_site.largest_bytes.max(point.size);
        }
        calls
    }

    /// A call by its number.
    #[must_use]
    pub fn point(&self, site: SiteId, nth: u64) -> Option<&Point> {
        let mut points = self.points.iter();
        points.find(|point| point.site == site && point.nth == nth)
    }

    /// The calls as they stand in a golden: by site how many, and how many bytes each is about.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{HEADING}\n");
        for (site, calls) in self.calls() {
            let of_site = self.points.iter().filter(|point| point.site == site);
            let sizes: Vec<String> = of_site.map(|point| point.size.to_string()).collect();
            let _ = write!(text, "  {} {}", site.site().name, calls.count);
            if sizes.iter().any(|size| size != "0") {
                let _ = write!(text, ": {}", sizes.join(" "));
            }
            text.push('\n');
        }
        text
    }
}

/// Calls of a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// Bytes that the largest of them is about.
    pub largest_bytes: u64,
}

/// Which calls a golden names. A site that the table no longer has is passed over: the golden is then
/// out of date, and the workload's own trial says so.
#[must_use]
pub fn calls_in(golden: &str) -> BTreeMap<SiteId, Calls> {
    let lines = golden.lines().skip_while(|line| *line != HEADING).skip(1);
    let calls = |line: &str| {
        let mut words = line.split_whitespace();
        let site = SiteId::find(words.next()?)?;
        let count = words.next()?.trim_end_matches(':').parse().ok()?;
        let largest_bytes = words.filter_map(|word| word.parse().ok()).max();
        let calls = Calls {
            count,
            largest_bytes: largest_bytes.unwrap_or(0),
        };
        Some((site, calls))
    };
    lines.filter_map(calls).collect()
}
