//! Whose turn it is to move bytes: first come, first served, and two at a time where one model leaves the device while another one
//! arrives.

use std::collections::VecDeque;

/// What an operation moves in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moves {
    /// Anything.
    Any,
    /// Blocks of this model, away from the device.
    Leaving(u64),
    /// Blocks of this model to the device; of none that anybody knows yet, where there is no number.
    Arriving(Option<u64>),
}

impl Moves {
    /// Whether two may move at once: neither touches a block or a file of the other, and each has slots and threads of its own.
    fn go_together(self, other: Self) -> bool {
        match (self, other) {
            (Self::Leaving(leaving), Self::Arriving(arriving))
            | (Self::Arriving(arriving), Self::Leaving(leaving)) => arriving != Some(leaving),
            (Self::Any, _)
            | (_, Self::Any)
            | (Self::Leaving(_), Self::Leaving(_))
            | (Self::Arriving(_), Self::Arriving(_)) => false,
        }
    }
}

/// The queue of the turn. Whoever is first has it, and behind him whoever goes together with all before; with [`super::monitor::Monitor`]
/// others wait.
#[derive(Debug, Default)]
pub(super) struct TurnQueue {
    queue: VecDeque<Place>,
    next: u64,
}

#[derive(Debug)]
struct Place {
    ticket: u64,
    moves: Moves,
    /// It has the turn.
    goes: bool,
}

impl TurnQueue {
    /// Joins the end of the queue; the ticket.
    pub(super) fn join(&mut self, moves: Moves) -> u64 {
        self.next += 1;
        self.queue.push_back(Place {
            ticket: self.next,
            moves,
            goes: false,
        });
        self.next
    }

    /// Whether it has the turn, from now on where it had not.
    pub(super) fn go(&mut self, ticket: u64) -> bool {
        let Some(at) = self.position(ticket) else {
            return false;
        };
        let moves = self.queue[at].moves;
        let goes = self
            .queue
            .range(..at)
            .all(|before| before.moves.go_together(moves));
        self.queue[at].goes |= goes;
        self.queue[at].goes
    }

    /// It moves anything from now on: nobody gets the turn beside it any more.
    pub(super) fn widen(&mut self, ticket: u64) {
        if let Some(at) = self.position(ticket) {
            self.queue[at].moves = Moves::Any;
        }
    }

    /// Whether nobody else has the turn, nor comes before it.
    pub(super) fn is_alone(&self, ticket: u64) -> bool {
        let is_first = self.queue.front().map(|first| first.ticket) == Some(ticket);
        is_first && self.queue.iter().skip(1).all(|other| !other.goes)
    }

    /// Ends a turn, or the wait for it.
    pub(super) fn leave(&mut self, ticket: u64) {
        self.queue.retain(|each| each.ticket != ticket);
    }

    fn position(&self, ticket: u64) -> Option<usize> {
        self.queue.iter().position(|each| each.ticket == ticket)
    }
}

#[cfg(test)]
impl TurnQueue {
    /// Who has the turn or waits for it.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    //! Order, who goes together, and those who give up.
    use super::*;

    #[test]
    fn turns_go_round_in_the_order_of_joining() {
        let mut turns = TurnQueue::default();
        let first = turns.join(Moves::Any);
        let second = turns.join(Moves::Any);
        assert!(turns.go(first) && !turns.go(second));
        turns.leave(first);
        let again = turns.join(Moves::Any);
        assert!(turns.go(second) && !turns.go(again));
    }

    #[test]
    fn whoever_gives_up_holds_nobody_up() {
        let mut turns = TurnQueue::default();
        let tickets = [(); 3].map(|()| turns.join(Moves::Any));
        turns.leave(tickets[1]);
        assert!(turns.go(tickets[0]));
        turns.leave(tickets[0]);
        assert!(turns.go(tickets[2]));
    }

    #[test]
    fn only_one_model_leaves_while_another_one_arrives() {
        let kinds = [
            Moves::Any,
            Moves::Leaving(1),
            Moves::Leaving(2),
            Moves::Arriving(Some(1)),
            Moves::Arriving(Some(2)),
            Moves::Arriving(None),
        ];
        for first in kinds {
            for second in kinds {
                let mut turns = TurnQueue::default();
                let (one, other) = (turns.join(first), turns.join(second));
                assert!(turns.go(one));
                let together = match (first, second) {
                    (Moves::Leaving(a), Moves::Arriving(b))
                    | (Moves::Arriving(b), Moves::Leaving(a)) => b != Some(a),
                    _ => false,
                };
                assert_eq!(turns.go(other), together, "{first:?} {second:?}");
                turns.leave(one);
                assert!(turns.go(other), "{first:?} {second:?}");
            }
        }
    }

    #[test]
    fn nobody_overtakes_one_whom_he_would_keep_waiting() {
        let mut turns = TurnQueue::default();
        let leaving = turns.join(Moves::Leaving(1));
        let waiting = turns.join(Moves::Any);
        let arriving = turns.join(Moves::Arriving(Some(2)));
        assert!(turns.go(leaving) && !turns.go(waiting) && !turns.go(arriving));
        turns.leave(leaving);
        assert!(turns.go(waiting) && !turns.go(arriving));
    }

    #[test]
    fn one_that_widens_waits_for_those_beside_it_and_nobody_joins_it() {
        // Whoever came first.
        for arrives_first in [true, false] {
            let mut turns = TurnQueue::default();
            let mut kinds = [Moves::Leaving(1), Moves::Arriving(Some(2))];
            if arrives_first {
                kinds.reverse();
            }
            let tickets = kinds.map(|moves| turns.join(moves));
            let [arriving, leaving] = match arrives_first {
                true => tickets,
                false => [tickets[1], tickets[0]],
            };
            assert!(turns.go(arriving) && turns.go(leaving));
            turns.widen(arriving);
            assert!(!turns.is_alone(arriving));
            let late = turns.join(Moves::Leaving(3));
            assert!(!turns.go(late));
            turns.leave(leaving);
            assert!(turns.is_alone(arriving) && !turns.go(late));
            turns.leave(arriving);
            assert!(turns.go(late));
        }
    }
}
