//! Waiting for a condition with a bound: the only way in which the harness waits.

use std::{
    thread,
    time::{Duration, Instant},
};

const FIRST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Polls until `poll` returns a value or `deadline` has passed, with pauses that double from 0.5 ms to 50 ms.
///
/// The condition is polled at least once, and a last time after the deadline, so that a starved
/// thread does not miss what came true in time. `None` means it never held.
pub fn settle<T>(deadline: Duration, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let last = start.elapsed() >= deadline;
        if let Some(value) = poll() {
            return Some(value);
        }
        if last {
            return None;
        }
        thread::sleep(pause.min(deadline.saturating_sub(start.elapsed())));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    //! The bound holds from both sides.
    use super::*;

    #[test]
    fn a_condition_that_comes_true_is_returned() {
        let mut polls = 0;
        let value = settle(Duration::from_secs(5), || {
            polls += 1;
            (polls == 4).then_some("settled")
        });
        assert_eq!((value, polls), (Some("settled"), 4));
    }

    #[test]
    fn a_condition_that_never_holds_ends_at_the_deadline() {
        let start = Instant::now();
        let deadline = Duration::from_millis(30);
        let value = settle(deadline, || None::<()>);
        assert_eq!(value, None);
        assert!(start.elapsed() >= deadline);
    }

    #[test]
    fn a_deadline_of_zero_still_polls_once() {
        assert_eq!(settle(Duration::ZERO, || Some(1)), Some(1));
    }
}
