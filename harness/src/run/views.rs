//! Views that the subject holds for a case, and what they must show.

use super::session::{Session, Stop};
use crate::{error::HarnessError, observation::Outcome, shadow::ShadowError};
use spillproof_protocol::Digest;
use std::collections::BTreeMap;

/// A view under the name that the case gave it.
#[derive(Clone, Debug)]
pub(super) struct HeldView {
    pub(super) handle: u64,
    tensor: String,
    /// What it may have contained when the view was taken.
    possible: Vec<Digest>,
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
        let broken = |error: ShadowError| HarnessError::Case(error.to_string());
        let mut possible = Vec::new();
        for contents in shadow.possible_contents(tensor).map_err(broken)? {
            let digest = contents.digest(self.algorithm);
            let digest = digest.map_err(|error| broken(error.into()))?;
            possible.push(digest.clone());
            self.run.contents.insert(digest, contents);
        }
        let held = HeldView {
            handle: *handle,
            tensor: tensor.to_owned(),
            possible,
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
        held.map(HeldView::expected).unwrap_or_default()
    }

    /// As [`Session::expected_of_view`] where the view was seen to show this.
    pub(super) fn decided_view(&mut self, view: &str, shown: &Digest) -> BTreeMap<String, Digest> {
        if let Some(held) = self.views.get_mut(view)
            && held.possible.contains(shown)
        {
            held.possible = vec![shown.clone()];
        }
        self.expected_of_view(view)
    }
}

impl HeldView {
    fn expected(&self) -> BTreeMap<String, Digest> {
        let first = self.possible.first();
        first
            .map(|digest| (self.tensor.clone(), digest.clone()))
            .into_iter()
            .collect()
    }
}
