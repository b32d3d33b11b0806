//! Offload files under attack while they are mapped: somebody with the same rights unlinks, cuts, replaces, changes, grows or
//! closes them, while nothing happens, while a reader walks the map, and while the model comes back to the device. Readers get the
//! right bytes or a typed error, the process lives (F51 to F57), and a view shows the bytes of its moment whatever happens to its model.

use crate::{
    models::plain,
    steps::{
        CaseWords as _, attack, case, drop_model, fails, free, free_1e30, hold, load, modify,
        or_fails, read_back, read_held, release, request, together, wait,
    },
    world_steps::{WorldWords as _, clear_volume, fill_volume},
};
use spillproof_harness::{
    attack::{Attack, Place, Spot},
    case::{Amount, Case, Destinations, MIB, Model, Step},
    lanes::Moment,
    world::Volume,
};
use spillproof_protocol::{Capability, ErrorKind};

/// How often a reader reads while the attack comes.
const READS: usize = 6;

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    let attacked = attacks().into_iter().flat_map(|(name, attack, leaves)| {
        [
            idle(name, &attack, leaves),
            while_read(name, &attack, leaves),
            while_reloaded(name, &attack, leaves),
        ]
    });
    let before_writing = [
        before_writing("unlinked", Attack::Unlink),
        before_writing("directory_removed", Attack::RemoveDirectories),
        before_writing("permissions_taken", Attack::TakePermissions),
    ];
    views()
        .into_iter()
        .chain(attacked)
        .chain(before_writing)
        .chain([held_while_cut()])
        .chain(volume_filled())
        .collect()
}

/// Two tensors of whole pages, and one that ends within its last page.
fn model() -> Model {
    plain("a", 1, &[2 * MIB, 3 * MIB, MIB + 1000])
}

/// What an attack leaves to whoever reads by an open descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// Every byte, whatever its name is now: nothing may fail.
    All,
    /// Every byte, in a file of another length, which may count as corrupt (E22).
    AllAndMore,
    /// Not every byte: what needs the others is corrupt.
    Some,
}

fn attacks() -> Vec<(&'static str, Attack, Leaves)> {
    let at = |tensor: &str, spot| Place {
        model: "a".into(),
        tensor: tensor.into(),
        spot,
    };
    let cut = |tensor, spot| Attack::Cut {
        at: at(tensor, spot),
    };
    let flip = |tensor, spot| Attack::Flip {
        at: at(tensor, spot),
    };
    vec![
        ("unlinked", Attack::Unlink, Leaves::All),
        ("renamed", Attack::Rename, Leaves::All),
        ("replaced", Attack::Replace, Leaves::All),
        ("replaced_by_a_copy", Attack::ReplaceByCopy, Leaves::All),
        ("cut_to_nothing", cut("t0", Spot::First), Leaves::Some),
        ("cut_middle", cut("t1", Spot::Middle), Leaves::Some),
        ("cut_last", cut("t2", Spot::Last), Leaves::Some),
        ("flipped_first", flip("t0", Spot::First), Leaves::Some),
        ("flipped_middle", flip("t1", Spot::Middle), Leaves::Some),
        ("flipped_last", flip("t2", Spot::Last), Leaves::Some),
        ("grown", Attack::Grow, Leaves::AllAndMore),
        ("directory_removed", Attack::RemoveDirectories, Leaves::All),
        ("permissions_taken", Attack::TakePermissions, Leaves::All),
    ]
}

impl Leaves {
    /// What a step that needs every byte answers once the attack is over.
    fn after(self, step: Step) -> Step {
        match self {
            Self::All => step,
            Self::AllAndMore => or_fails(step, ErrorKind::Corrupt),
            Self::Some => fails(step, ErrorKind::Corrupt),
        }
    }

    /// What it answers while the attack comes.
    fn meanwhile(self, step: Step) -> Step {
        match self {
            Self::All => step,
            Self::AllAndMore | Self::Some => or_fails(step, ErrorKind::Corrupt),
        }
    }
}

/// Loads and lets everything go to a file, so that this is the only copy.
fn to_file() -> [Step; 2] {
    [load("a"), free_1e30()]
}

/// The model again, with what was lost given up: everything works in the same process.
fn afresh() -> Vec<Step> {
    vec![
        attack(Attack::GivePermissionsBack),
        drop_model("a"),
        load("a"),
        request("a"),
    ]
}

/// A journey through new files, where there is a place for them.
fn once_more(attack: &Attack) -> Vec<Step> {
    match attack {
        Attack::RemoveDirectories => {
            let leave = free(Amount::float(1e30), Destinations::Any);
            vec![or_fails(leave, ErrorKind::Io), request("a")]
        }
        _ => vec![free_1e30(), read_back("a"), request("a")],
    }
}

/// Everything is in the file and nobody does anything.
fn idle(name: &str, by: &Attack, leaves: Leaves) -> Case {
    case("mapped", format!("{name}_idle"), 32, vec![model()])
        .steps(to_file())
        .steps([
            attack(by.clone()),
            leaves.after(read_back("a")),
            leaves.after(request("a")),
        ])
        .steps(afresh())
        .steps(once_more(by))
}

/// A reader walks the map, and another walks a view.
fn while_read(name: &str, by: &Attack, leaves: Leaves) -> Case {
    let reads = |step: Step| vec![leaves.meanwhile(step); READS];
    let attacked = vec![
        wait(Moment::Answered { lane: 0, steps: 1 }),
        attack(by.clone()),
    ];
    case("mapped", format!("{name}_while_read"), 32, vec![model()])
        .needs(Capability::Views)
        .needs(Capability::Concurrent)
        .steps(to_file())
        .steps([
            hold("a", "t1", "view"),
            together([reads(read_back("a")), reads(read_held("view")), attacked]),
            leaves.after(read_back("a")),
            release("view"),
        ])
        .steps(afresh())
        .steps(once_more(by))
}

/// The model is on its way back: some of it is on the device, some is not.
fn while_reloaded(name: &str, by: &Attack, leaves: Leaves) -> Case {
    let attacked = vec![
        // The workspace, and the first tensor.
        wait(Moment::DeviceHolds {
            more_bytes: 3 * MIB,
        }),
        attack(by.clone()),
    ];
    case(
        "mapped",
        format!("{name}_while_reloaded"),
        32,
        vec![model()],
    )
    .needs(Capability::Concurrent)
    .steps(to_file())
    .steps([together([vec![leaves.meanwhile(request("a"))], attacked])])
    .steps(afresh())
    .steps(once_more(by))
}

/// The file is attacked while everything is on the device: what leaves next is written where it can be, or stays.
fn before_writing(name: &str, by: Attack) -> Case {
    let leave = || {
        let step = free(Amount::float(1e30), Destinations::Any);
        match by {
            Attack::RemoveDirectories | Attack::TakePermissions => or_fails(step, ErrorKind::Io),
            _ => step,
        }
    };
    case(
        "mapped",
        format!("{name}_before_writing"),
        32,
        vec![model()],
    )
    .needs(Capability::Modify)
    .steps(to_file())
    .steps([
        request("a"),
        modify("a", "t1", 60),
        attack(by.clone()),
        leave(),
        request("a"),
        attack(Attack::GivePermissionsBack),
        leave(),
        request("a"),
    ])
}

/// The filesystem fills up while the map is read, and while the model comes back: its bytes have their space already (F55).
fn volume_filled() -> [Case; 2] {
    let on_a_small_disk = |name: &str| {
        case("mapped", name, 32, vec![model()])
            .on(Volume::SmallDisk { bytes: 48 * MIB })
            .needs(Capability::Concurrent)
            .steps(to_file())
    };
    let journey = [clear_volume(), free_1e30(), read_back("a"), request("a")];
    let after_one = wait(Moment::Answered { lane: 0, steps: 1 });
    let after_a_tensor = wait(Moment::DeviceHolds {
        more_bytes: 3 * MIB,
    });
    [
        on_a_small_disk("volume_filled_while_read")
            .steps([
                together([vec![read_back("a"); READS], vec![after_one, fill_volume(0)]]),
                request("a"),
            ])
            .steps(journey.clone()),
        on_a_small_disk("volume_filled_while_reloaded")
            .steps([together([
                vec![request("a")],
                vec![after_a_tensor, fill_volume(0)],
            ])])
            .steps(journey),
    ]
}

/// A view is read while its file is cut: the map is there, its pages are not.
fn held_while_cut() -> Case {
    let cut = Attack::Cut {
        at: Place {
            model: "a".into(),
            tensor: "t1".into(),
            spot: Spot::Middle,
        },
    };
    case("mapped", "view_of_a_cut_file", 32, vec![model()])
        .needs(Capability::Views)
        .steps(to_file())
        .steps([
            hold("a", "t0", "whole"),
            hold("a", "t1", "cut"),
            read_held("cut"),
            attack(cut),
            fails(read_held("cut"), ErrorKind::Corrupt),
            or_fails(read_held("whole"), ErrorKind::Corrupt),
            drop_model("a"),
            fails(read_held("cut"), ErrorKind::Corrupt),
            release("whole"),
            release("cut"),
            load("a"),
            request("a"),
        ])
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
