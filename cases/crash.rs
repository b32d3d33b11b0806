//! Subjects that are killed or asked to end, idle and in the middle of every verb; what they leave goes with the next start, and
//! what a live process beside them owns does not (F58 to F64, F69).

use crate::{
    models::plain,
    steps::{
        CaseWords as _, attack, case, drop_model, free, free_1e30, load, modify, read_back, request,
    },
    world_steps::{
        WorldWords as _, beside, beside_dies, dies_at_start, dies_during, dies_idle, restart,
    },
};
use spillproof_harness::{
    attack::Attack,
    case::{Amount, Case, Destinations, MIB, Model, Step},
    crash::{Deadly, Moment},
    world::Volume,
};
use spillproof_protocol::{Capability, Tier};

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = killed();
    cases.extend(terminated());
    cases.extend(two_processes());
    cases
}

fn six(name: &str, seed: u64) -> Model {
    plain(name, seed, &[4 * MIB; 6])
}

/// Many small tensors: giving them up takes a while.
fn many(name: &str, seed: u64) -> Model {
    plain(name, seed, &[4096; 600])
}

/// What a subject does that was started in a dead one's place.
fn serves(model: &str) -> [Step; 5] {
    [
        load(model),
        request(model),
        free_1e30(),
        read_back(model),
        request(model),
    ]
}

fn written(mib: u64) -> Moment {
    Moment::Written { bytes: mib * MIB }
}

/// Small slots: a transfer is many short steps, between which signals come.
fn crash(name: &str, vram_mib: u64, models: Vec<Model>) -> Case {
    case("crash", name, vram_mib, models).set("OFFLOAD_STAGING_MB", "4")
}

/// Models of which each leaves a file.
const ORPHANS: [&str; 8] = ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7"];

/// SIGKILL: nothing is cleaned up by the dead one.
fn killed() -> Vec<Case> {
    let kill = Deadly::Kill;
    let during_offload = |when: Moment| {
        [load("a"), request("a")]
            .into_iter()
            .chain(dies_during(kill, free_1e30(), when))
    };
    let file = || free(Amount::float(1e30), Destinations::All(Tier::File));
    vec![
        crash("killed_idle", 32, vec![six("a", 1)])
            .steps([load("a")])
            .steps(dies_idle(kill))
            .steps([load("a"), free_1e30()])
            .steps(dies_idle(kill))
            .steps([load("a"), free_1e30(), request("a")])
            .steps(dies_idle(kill))
            .steps(serves("a")),
        // The next one finds them as the dead one had them.
        crash("killed_while_permissions_are_taken", 32, vec![six("a", 1)])
            .steps([load("a"), free_1e30(), attack(Attack::TakePermissions)])
            .steps(dies_idle(kill))
            .steps(serves("a")),
        // Early, in the middle, late, and when the first device memory is given back.
        crash("killed_during_an_offload", 32, vec![six("a", 1)])
            .steps(
                [1, 4, 8, 12, 16, 20]
                    .into_iter()
                    .flat_map(|mib| during_offload(written(mib))),
            )
            .steps(
                [4, 12, 20]
                    .into_iter()
                    .flat_map(|mib| during_offload(Moment::Freed { bytes: mib * MIB })),
            )
            .steps(serves("a")),
        // Of what is written there no page is counted.
        crash("killed_during_an_offload_to_tmpfs", 32, vec![six("a", 1)])
            .on(Volume::Memory)
            .set("OFFLOAD_TMPFS", "count")
            .in_ram(24 * MIB)
            .steps(
                [4, 12, 20]
                    .into_iter()
                    .flat_map(|mib| during_offload(written(mib))),
            )
            .steps(serves("a")),
        crash("killed_during_a_reload", 32, vec![six("a", 1)])
            .steps([1, 8, 16, 24].into_iter().flat_map(|mib| {
                let taken = Moment::Taken { bytes: mib * MIB };
                [load("a"), free_1e30()]
                    .into_iter()
                    .chain(dies_during(kill, request("a"), taken))
            }))
            .steps(serves("a")),
        crash(
            "killed_during_a_reload_from_closed_files",
            32,
            vec![six("a", 1)],
        )
        .file_only()
        .steps([1, 12, 24].into_iter().flat_map(|mib| {
            let taken = Moment::Taken { bytes: mib * MIB };
            [load("a"), file()]
                .into_iter()
                .chain(dies_during(kill, request("a"), taken))
        }))
        .steps([load("a"), file(), request("a")]),
        crash("killed_during_a_load", 32, vec![six("a", 1)])
            .steps(
                [1, 8, 16].into_iter().flat_map(|mib| {
                    dies_during(kill, load("a"), Moment::Taken { bytes: mib * MIB })
                }),
            )
            .steps(serves("a")),
        crash("killed_during_a_drop", 32, vec![many("m", 2)])
            .steps(
                [1, 50 * 4096, 150 * 4096, 300 * 4096]
                    .into_iter()
                    .flat_map(|bytes| {
                        [load("m"), request("m")].into_iter().chain(dies_during(
                            kill,
                            drop_model("m"),
                            Moment::Freed { bytes },
                        ))
                    }),
            )
            .steps([load("m"), free_1e30()])
            .steps(dies_during(
                kill,
                drop_model("m"),
                Moment::Removed { files: 1 },
            ))
            .steps(serves("m")),
        // A model larger than the device: requests let go of what they visited, and write it, to go on (F60).
        crash(
            "killed_during_recovery",
            32,
            vec![plain("a", 1, &[4 * MIB; 12])],
        )
        .steps([1, 4, 8].into_iter().flat_map(|mib| {
            [load("a")]
                .into_iter()
                .chain(dies_during(kill, request("a"), written(mib)))
        }))
        .steps([
            load("a"),
            request("a"),
            free_1e30(),
            read_back("a"),
            request("a"),
        ]),
        // The dead one's second model had changed: nothing of either is taken for anybody's later.
        crash(
            "killed_while_changed_data_is_written_again",
            32,
            vec![six("a", 1)],
        )
        .needs(Capability::Modify)
        .steps(
            [written(1), written(4), Moment::Freed { bytes: 4 * MIB }]
                .into_iter()
                .flat_map(|when| {
                    [
                        load("a"),
                        free_1e30(),
                        modify("a", "t1", 77),
                        modify("a", "t2", 78),
                        modify("a", "t4", 79),
                        modify("a", "t5", 80),
                    ]
                    .into_iter()
                    .chain(dies_during(kill, free_1e30(), when))
                }),
        )
        .steps(serves("a")),
        // F69: what was left is left again, in part, and goes with the start after that.
        crash(
            "killed_while_orphans_are_removed",
            32,
            ORPHANS.map(|name| plain(name, 2, &[64 << 10; 2])).to_vec(),
        )
        .steps(ORPHANS.map(load))
        .steps([free_1e30()])
        .steps(dies_idle(kill).into_iter().take(1))
        .steps(
            [1, 3, 5]
                .into_iter()
                .map(|files| dies_at_start(kill, Moment::Removed { files })),
        )
        .steps([restart()])
        .steps(serves(ORPHANS[0])),
    ]
}

/// SIGTERM: everything is given back (F59).
fn terminated() -> Vec<Case> {
    let terminate = Deadly::Terminate;
    vec![
        crash("terminated_idle", 32, vec![six("a", 1)])
            .steps(dies_idle(terminate))
            .steps([load("a")])
            .steps(dies_idle(terminate))
            .steps([load("a"), free_1e30()])
            .steps(dies_idle(terminate))
            .steps(serves("a")),
        crash("terminated_during_an_offload", 32, vec![six("a", 1)])
            .steps([1, 8, 16].into_iter().flat_map(|mib| {
                [load("a"), request("a")].into_iter().chain(dies_during(
                    terminate,
                    free_1e30(),
                    written(mib),
                ))
            }))
            .steps(serves("a")),
        crash("terminated_during_a_reload", 32, vec![six("a", 1)])
            .steps([1, 12, 24].into_iter().flat_map(|mib| {
                let taken = Moment::Taken { bytes: mib * MIB };
                [load("a"), free_1e30()].into_iter().chain(dies_during(
                    terminate,
                    request("a"),
                    taken,
                ))
            }))
            .steps(serves("a")),
        crash(
            "terminated_during_recovery",
            32,
            vec![plain("a", 1, &[4 * MIB; 12])],
        )
        .steps([1, 4, 8].into_iter().flat_map(|mib| {
            [load("a")]
                .into_iter()
                .chain(dies_during(terminate, request("a"), written(mib)))
        }))
        .steps([load("a"), request("a")]),
    ]
}

/// Two live processes on one directory and one device (F61).
fn two_processes() -> Vec<Case> {
    let kill = Deadly::Kill;
    let models = || vec![plain("a", 1, &[2 * MIB; 4]), plain("b", 2, &[2 * MIB; 4])];
    vec![
        crash("two_processes_on_one_directory", 32, models()).steps([
            load("a"),
            free_1e30(),
            beside(load("b")),
            beside(free_1e30()),
            read_back("a"),
            request("a"),
            beside(read_back("b")),
            beside(request("b")),
            free_1e30(),
            beside(drop_model("b")),
            request("a"),
        ]),
        crash(
            "the_dead_ones_files_go_and_the_live_ones_stay",
            32,
            models(),
        )
        .steps([
            beside(load("b")),
            beside(free_1e30()),
            load("a"),
            free_1e30(),
        ])
        .steps(dies_idle(kill))
        .steps([
            beside(read_back("b")),
            beside(request("b")),
            beside(free_1e30()),
            load("a"),
            free_1e30(),
            beside_dies(),
            beside(load("b")),
            beside(free_1e30()),
            read_back("a"),
            request("a"),
            beside(request("b")),
        ])
        .steps([load("b"), free_1e30()])
        .steps(dies_idle(kill))
        .steps([beside(request("b"))])
        .steps(serves("a")),
        crash(
            "one_is_killed_in_the_middle_of_an_offload",
            48,
            vec![six("a", 1), plain("b", 2, &[2 * MIB; 4])],
        )
        .steps([beside(load("b")), beside(free_1e30())])
        .steps([2, 10].into_iter().flat_map(|mib| {
            [load("a")]
                .into_iter()
                .chain(dies_during(kill, free_1e30(), written(mib)))
        }))
        .steps([beside(read_back("b")), beside(request("b"))])
        .steps(serves("a")),
    ]
}
