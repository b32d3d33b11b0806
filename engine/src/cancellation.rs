//! Asking for the end of an operation that runs in another thread.

use crate::Error;
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

/// Ends the operations that it is given to, see [`crate::Engine::unless`]. Clones are one and the same.
///
/// A cancelled operation returns an error of the kind [`crate::ErrorKind::Cancelled`] as soon as it gets to look: while
/// it waits, between blocks, and between the chunks of a transfer, not inside a caller's code. What was half way then is
/// undone, which may have to wait for its turn; what was whole stays (E38). An operation that ends before it looks ends
/// as if nobody had asked.
#[derive(Clone, Default)]
pub struct Cancellation(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    waiting: Mutex<Vec<Weak<dyn Wake>>>,
}

/// Something that operations wait at.
pub(crate) trait Wake: Send + Sync {
    /// Lets everybody who waits look again.
    fn wake(&self);
}

impl Cancellation {
    /// One that nobody has cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels every operation that it was given to, those that begin later included. It cannot be undone.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting());
        for place in waiting.iter().filter_map(Weak::upgrade) {
            place.wake();
        }
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Weak<dyn Wake>>> {
        // The list is whole at every moment.
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes this place, too, when it is cancelled.
    fn watch(&self, place: Weak<dyn Wake>) {
        let mut waiting = self.waiting();
        waiting.retain(|each| each.strong_count() > 0);
        if !waiting.iter().any(|each| each.ptr_eq(&place)) {
            waiting.push(place);
        }
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancellation")
            .field(&self.is_cancelled())
            .finish()
    }
}

/// What an operation looks at to learn whether it is to end.
#[derive(Clone)]
pub(crate) struct Stop {
    cancellation: Cancellation,
    operation: &'static str,
}

impl Stop {
    /// For `operation`, which is "the request" and the like in the error.
    pub(crate) fn new(cancellation: &Cancellation, operation: &'static str) -> Self {
        Self {
            cancellation: cancellation.clone(),
            operation,
        }
    }

    /// For what must be done in any case.
    pub(crate) fn never() -> Self {
        Self::new(&Cancellation::new(), "")
    }

    /// # Errors
    /// [`Error::Cancelled`], once it was asked for.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.cancellation.is_cancelled() {
            return Err(Error::Cancelled(self.operation));
        }
        Ok(())
    }

    /// Whoever waits at `place` looks again when this is to end.
    pub(crate) fn watch(&self, place: Weak<dyn Wake>) {
        self.cancellation.watch(place);
    }
}

#[cfg(test)]
mod tests {
    //! Who is told, and that nobody is missed.
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn weak(bell: &Arc<Bell>) -> Weak<dyn Wake> {
        let place: Weak<Bell> = Arc::downgrade(bell);
        place
    }

    #[test]
    fn every_clone_is_cancelled_and_every_place_woken_once() {
        let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
        let cancellation = Cancellation::new();
        let stop = Stop::new(&cancellation, "the test");
        for bell in [&bells[0], &bells[1], &bells[0]] {
            stop.watch(weak(bell));
        }
        stop.check().unwrap();
        cancellation.clone().cancel();
        let error = stop.check().unwrap_err();
        assert_eq!(error.to_string(), "the test was cancelled");
        assert!(cancellation.is_cancelled());
        assert!(bells.iter().all(|bell| bell.0.load(Ordering::SeqCst) == 1));
    }

    #[test]
    fn a_token_that_serves_many_engines_keeps_none_that_is_gone() {
        let cancellation = Cancellation::new();
        for _ in 0..100 {
            cancellation.watch(weak(&Arc::new(Bell::default())));
        }
        assert!(cancellation.waiting().len() <= 1);
        cancellation.cancel();
    }
}
