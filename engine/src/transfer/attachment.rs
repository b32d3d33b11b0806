//! What cuFile has of a spill file: a handle, made when it is first needed and kept with the file.

use crate::cufile::{Failure, Handle};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// At most one handle, with its descriptor; both go before the file does.
#[derive(Default)]
pub(super) struct Attachment(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Untried,
    Registered(Arc<Handle>),
    /// It failed on this file, and is not asked again.
    Refused,
}

impl Attachment {
    /// The handle, made by `register` when there is none yet; `None` once the file was refused.
    ///
    /// # Errors
    /// Those of `register`.
    pub(super) fn handle(
        &self,
        register: impl FnOnce() -> Result<Handle, Failure>,
    ) -> Result<Option<Arc<Handle>>, Failure> {
        let mut state = self.state();
        match &*state {
            State::Registered(handle) => Ok(Some(Arc::clone(handle))),
            State::Refused => Ok(None),
            State::Untried => {
                let handle = Arc::new(register()?);
                *state = State::Registered(Arc::clone(&handle));
                Ok(Some(handle))
            }
        }
    }

    /// Never again for this file. A handle goes as soon as no transfer uses it.
    pub(super) fn refuse(&self) {
        let before = std::mem::replace(&mut *self.state(), State::Refused);
        drop(before);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Changed by single assignments only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
