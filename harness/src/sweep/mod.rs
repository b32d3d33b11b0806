//! Every call of a workload fails once: the calls are recorded, and then each of them is made to fail in each way that its
//! documentation knows, until a run meets no call any more that could fail.
//!
//! # What a sweep shows
//! A workload that makes its calls in one order makes the same calls up to the one that fails. So the runs for the nth call of a site are
//! those with `when=n` and `when=n+`, and the first n at which nothing happens proves that no call was left out.
//!
//! # What it does not show
//! Two faults at a time, other than a call that fails from some moment on; calls that are made only after a fault, once they fail
//! themselves; and of short counts only some.

mod coverage;
mod mode;
mod random;
mod recording;
mod sweeper;
mod target;
#[cfg(test)]
mod tests;

pub use coverage::Coverage;
pub use mode::{Mode, shorts};
pub use random::{Draw, Random};
pub use recording::{Calls, Point, Recording, calls_in};
pub use sweeper::{Depth, MAX_REDS, Red, Swept, sweep};
pub use target::{Fault, Target};
