//! Two faults at a time: the second one comes while the first is recovered from (F66 to F69).

use crate::search::{Extent, Search, Searching};

pub(crate) fn searches(_: Extent) -> Vec<Search> {
    Vec::new()
}

pub(crate) fn search(_: &mut Searching<'_>, _: u64) -> Result<String, String> {
    Ok(String::new())
}
