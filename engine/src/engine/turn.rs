//! Whose turn it is to move bytes: first come, first served.

use std::collections::VecDeque;

/// The queue of the turn. Whoever is first has it; with [`super::monitor::Monitor`] others wait.
#[derive(Debug, Default)]
pub(super) struct TurnQueue {
    pub(super) queue: VecDeque<u64>,
    next: u64,
}

impl TurnQueue {
    /// Joins the end of the queue; the ticket.
    pub(super) fn join(&mut self) -> u64 {
        self.next += 1;
        self.queue.push_back(self.next);
        self.next
    }

    pub(super) fn is_first(&self, ticket: u64) -> bool {
        self.queue.front() == Some(&ticket)
    }

    /// Ends a turn, or the wait for it.
    pub(super) fn leave(&mut self, ticket: u64) {
        self.queue.retain(|each| *each != ticket);
    }
}

#[cfg(test)]
mod tests {
    //! Order, and those who give up.
    use super::*;

    #[test]
    fn turns_go_round_in_the_order_of_joining() {
        let mut turns = TurnQueue::default();
        let first = turns.join();
        let second = turns.join();
        assert!(turns.is_first(first) && !turns.is_first(second));
        turns.leave(first);
        let again = turns.join();
        assert!(turns.is_first(second) && !turns.is_first(again));
    }

    #[test]
    fn whoever_gives_up_holds_nobody_up() {
        let mut turns = TurnQueue::default();
        let tickets = [turns.join(), turns.join(), turns.join()];
        turns.leave(tickets[1]);
        assert!(turns.is_first(tickets[0]));
        turns.leave(tickets[0]);
        assert!(turns.is_first(tickets[2]));
    }
}
