//! Views that the subject holds for a case, and what they must show.

use super::session::{Session, Stop};
use crate::{error::HarnessError, observation::Outcome};
use spillproof_protocol::Digest;
use std::collections::BTreeMap;

/// A view under the name that the case gave it.
#[derive(Clone, Debug)]
pub(super) struct HeldView {
    pub(super) handle: u64,
    /// The tensor, and what it contained when the view was taken.
    expected: BTreeMap<String, Digest>,
}

impl Session<'_> {
    /// Remembers what a view shows from now on.
    pub(super) fn hold(
        &mut self,
        model: &str,
        tensor: &str,
        view: &str,
        outcome: &Outcome,
    ) -> Result<(), Stop> {
        let Outcome::Held(handle) = outcome else {
            return Ok(());
        };
        let shadow = self.shadows.get(model);
        let shadow =
            shadow.ok_or_else(|| HarnessError::Case(format!("model {model:?} is not loaded")))?;
        let mut digests = shadow
            .digests()
            .map_err(|error| HarnessError::Case(error.to_string()))?;
        digests.retain(|name, _| name == tensor);
        let held = HeldView {
            handle: *handle,
            expected: digests,
        };
        match self.views.insert(view.to_owned(), held) {
            None => Ok(()),
            Some(_) => {
                Err(HarnessError::Case(format!("two views are called {view:?} at once")).into())
            }
        }
    }

    pub(super) fn expected_of_view(&self, view: &str) -> BTreeMap<String, Digest> {
        let held = self.views.get(view);
        held.map(|held| held.expected.clone()).unwrap_or_default()
    }
}
