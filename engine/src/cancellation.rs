//! Asking for the end of an operation that runs in another thread.

use crate::Error;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Ends the operations that it is given to. Clones are one and the same.
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
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
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
}
