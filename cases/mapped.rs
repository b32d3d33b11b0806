//! Offload files under attack while they are mapped: somebody with the same rights unlinks, cuts, replaces, changes, grows or
//! closes them, while nothing happens, while a reader walks the map, and while the model comes back to the device. Readers get the
//! right bytes or a typed error, the process lives (F51 to F57), and a view shows the bytes of its moment whatever happens to its model.

use crate::{
    models::plain,
    steps::{
        CaseWords as _, case, drop_model, free_1e30, hold, load, modify, read_back, read_held,
        release, request,
    },
};
use spillproof_harness::case::{Case, MIB, Model};
use spillproof_protocol::Capability;

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    views()
}

/// Two tensors of whole pages, and one that ends within its last page.
fn model() -> Model {
    plain("a", 1, &[2 * MIB, 3 * MIB, MIB + 1000])
}

/// Views that outlive what they were taken from.
fn views() -> Vec<Case> {
    let case = |name: &str| case("mapped", name, 32, vec![model()]).needs(Capability::Views);
    vec![
        case("view_outlives_drop").steps([
            load("a"),
            free_1e30(),
            hold("a", "t0", "first"),
            hold("a", "t2", "last"),
            drop_model("a"),
            read_held("first"),
            read_held("last"),
            release("first"),
            read_held("last"),
            release("last"),
        ]),
        case("view_outlives_a_rewrite")
            .needs(Capability::Modify)
            .steps([
                load("a"),
                free_1e30(),
                hold("a", "t1", "old"),
                request("a"),
                modify("a", "t1", 50),
                free_1e30(),
                hold("a", "t1", "new"),
                read_held("old"),
                read_held("new"),
                read_back("a"),
                release("old"),
                read_held("new"),
                release("new"),
            ]),
        case("view_outlives_drop_and_load").steps([
            load("a"),
            free_1e30(),
            hold("a", "t1", "old"),
            drop_model("a"),
            load("a"),
            free_1e30(),
            hold("a", "t1", "new"),
            drop_model("a"),
            read_held("old"),
            read_held("new"),
            release("new"),
            read_held("old"),
            release("old"),
        ]),
    ]
}
