//! Which calls were made to fail, of those that there are.

use spillproof_faults::{SITES, SiteId};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::{Duration, Instant},
};

/// Sites in a line of the list of those never reached.
const SITES_IN_A_LINE: usize = 8;

/// What all sweeps of a process came to.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Calls by workload and site.
    seen: BTreeMap<(String, SiteId), u64>,
    hit: BTreeSet<(String, SiteId, u64)>,
    runs: u64,
    injected: u64,
    /// Trials over a site that the engine does not reach.
    not_called: u64,
    began: Option<Instant>,
    lasted: Duration,
}

impl Coverage {
    /// A workload makes so many calls of a site.
    pub fn see(&mut self, workload: &str, site: SiteId, calls: u64) {
        self.seen.insert((workload.to_owned(), site), calls);
    }

    /// A run begins.
    pub fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// A run is over, in which calls failed or not.
    pub fn end(&mut self, is_injected: bool) {
        self.runs += 1;
        self.injected += u64::from(is_injected);
        if let Some(began) = self.began {
            self.lasted = began.elapsed();
        }
    }

    /// A call was made to fail.
    pub fn hit(&mut self, workload: &str, site: SiteId, nth: u64) {
        self.hit.insert((workload.to_owned(), site, nth));
    }

    /// A trial had nothing to make fail: the workload makes no call of the site with this engine.
    pub fn not_called(&mut self, workload: &str, site: SiteId) {
        self.seen.remove(&(workload.to_owned(), site));
        self.not_called += 1;
    }

    /// Runs in which calls failed.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.injected
    }

    /// Counts, runs per second, points hit of points seen by site, and sites never reached; nothing where nothing was run.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if self.runs == 0 && self.not_called == 0 {
            return None;
        }
        let seconds = self.lasted.as_secs_f64().max(f64::EPSILON);
        let mut text = format!(
            "sweep: {} injected of {} runs in {seconds:.1} s, {:.1} injected runs a second\n",
            self.injected,
            self.runs,
            self.injected as f64 / seconds
        );
        if self.not_called > 0 {
            let _ = writeln!(text, "{} trials not called by this engine", self.not_called);
        }
        let mut by_site: BTreeMap<SiteId, (usize, u64)> = BTreeMap::new();
        for ((_, site), calls) in &self.seen {
            by_site.entry(*site).or_default().1 += calls;
        }
        for (_, site, _) in &self.hit {
            by_site.entry(*site).or_default().0 += 1;
        }
        let (hit, seen) = by_site
            .values()
            .fold((0, 0), |(hit, seen), of| (hit + of.0, seen + of.1));
        let _ = writeln!(text, "points hit / points seen: {hit} / {seen}");
        for (site, (hit, seen)) in &by_site {
            let _ = writeln!(text, "  {:<28} {hit:>5} / {seen}", site.site().name);
        }
        let never =
            SiteId::all().filter(|site| site.site().is_plannable() && !by_site.contains_key(site));
        let never: Vec<&str> = never.map(|site| site.site().name).collect();
        let _ = writeln!(
            text,
            "never reached, {} of {} sites:",
            never.len(),
            SITES.len()
        );
        for names in never.chunks(SITES_IN_A_LINE) {
            let _ = writeln!(text, "  {}", names.join(" "));
        }
        Some(text)
    }
}
