//! Several callers at a time: requests, frees, readers, writers, loads and drops of shared and of separate models, in up to eight
//! lanes, and calls that are cancelled. Whatever the order in which they are served, each answer is one that the same calls one after
//! the other could have got, the bytes are right, nobody waits for ever, and nothing is left behind (E37, E38).

use crate::{
    models::plain,
    steps::{
        CaseWords as _, cancel, case, drop_model, free, free_1e30, free_from, hold, load, modify,
        or_fails, read_back, read_held, release, request, request_with, together, wait,
    },
};
use spillproof_harness::{
    case::{Amount, Case, Destinations, MIB, Model, Step},
    lanes::Moment,
};
use spillproof_protocol::{Capability, ErrorKind, Tier};
use std::time::Duration;

/// Seeds of the moments that nobody sees from outside.
const SEEDS: [u64; 3] = [0x5eed, 0xca5e, 0xface];

/// The family.
#[must_use]
pub fn cases() -> Vec<Case> {
    let cases = [shared(), separate(), coming_and_going(), cancelled()].concat();
    let concurrent = cases.into_iter();
    concurrent
        .map(|case| case.needs(Capability::Concurrent))
        .collect()
}

/// Six tensors of 1 MiB.
fn six(name: &str, seed: u64) -> Model {
    plain(name, seed, &[MIB; 6])
}

/// `a` to `h`, as many as asked for.
fn several(count: usize) -> (Vec<&'static str>, Vec<Model>) {
    let names: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"][..count].into();
    let models = names.iter().zip(1..).map(|(name, seed)| six(name, seed));
    let models = models.collect();
    (names, models)
}

fn free_bytes(bytes: u64) -> Step {
    free(Amount::whole(bytes), Destinations::All(Tier::Mapped))
}

fn twice(steps: Vec<Step>) -> Vec<Step> {
    [steps.clone(), steps].concat()
}

fn thrice(steps: Vec<Step>) -> Vec<Step> {
    [steps.clone(), steps.clone(), steps].concat()
}

/// Everybody uses one model.
fn shared() -> Vec<Case> {
    let lanes = || {
        [
            vec![request("a"); 5],
            vec![request("a"); 5],
            vec![request("a"); 5],
            vec![free_1e30(); 5],
            vec![free_bytes(2 * MIB); 5],
            vec![read_back("a"); 5],
            vec![read_back("a"); 5],
            vec![free_from("a", Amount::whole(MIB)); 5],
        ]
    };
    let shared = |name: &str| {
        case("concurrency", name, 16, vec![six("a", 1)]).steps([
            load("a"),
            together(lanes()),
            request("a"),
            free(Amount::float(1e30), Destinations::Any),
            read_back("a"),
        ])
    };
    vec![
        shared("shared_model"),
        shared("shared_model_single_io_thread").set("OFFLOAD_IO_THREADS", "1"),
        case("concurrency", "free_storm", 16, vec![six("a", 1)]).steps([
            load("a"),
            together([
                vec![request("a"); 4],
                vec![request("a"); 4],
                vec![free_1e30(); 12],
                vec![free_1e30(); 12],
                vec![free_1e30(); 12],
                vec![free_bytes(1); 12],
                vec![free_bytes(3 * MIB + 1); 12],
                vec![free_from("a", Amount::float(1e30)); 12],
            ]),
            request("a"),
        ]),
    ]
}

/// Everybody has a model, and not all of them fit.
fn separate() -> Vec<Case> {
    let (names, models) = several(8);
    let journeys = names.iter().map(|name| {
        let served = vec![request(name); 3];
        [vec![load(name)], served, vec![drop_model(name)]].concat()
    });
    let served = names.iter().map(|name| vec![request(name); 3]);
    let loads = names.iter().map(|name| load(name));
    // Four workspaces of 5 MiB at most fit at a time.
    let large = |name: &&str| {
        let request = or_fails(request_with(name, 5 * MIB), ErrorKind::DeviceOom);
        vec![request; 2]
    };
    let scarce = names.iter().map(large);
    let (four, _) = several(4);
    let writers = four.iter().zip(1u64..).map(|(name, seed)| {
        let written = |round| [modify(name, "t2", seed * 100 + round), request(name)];
        (0..4u64).flat_map(written).collect()
    });
    let freed = (0..4).map(|_| vec![free_1e30(); 6]);
    vec![
        case("concurrency", "separate_models", 24, models.clone())
            .steps([together(journeys)])
            .steps(names.iter().map(|name| load(name)))
            .steps([together(served)])
            .steps(names.iter().map(|name| request(name))),
        case(
            "concurrency",
            "workspaces_that_do_not_fit_together",
            24,
            models.clone(),
        )
        .steps(loads)
        .steps([together(scarce)])
        .steps(names.iter().map(|name| request(name))),
        case("concurrency", "written_by_one_freed_by_all", 32, models)
            .needs(Capability::Modify)
            .steps(four.iter().map(|name| load(name)))
            .steps([together(writers.chain(freed))])
            .steps(four.iter().map(|name| read_back(name)))
            .steps(four.iter().map(|name| request(name)))
            .steps([free_1e30()])
            .steps(four.iter().map(|name| read_back(name))),
    ]
}

/// Models come and go under those who use them.
fn coming_and_going() -> Vec<Case> {
    let unknown = |step| or_fails(step, ErrorKind::UnknownModel);
    let journey = || {
        thrice(vec![
            or_fails(load("a"), ErrorKind::InvalidArgument),
            unknown(request("a")),
            unknown(drop_model("a")),
        ])
    };
    let viewed = |view: &str| vec![read_held(view); 6];
    let taken = |lane: &str| {
        let taken = |round| {
            let view = format!("{lane}{round}");
            [hold("b", "t3", &view), read_held(&view), release(&view)]
        };
        (0..4).flat_map(taken).collect::<Vec<_>>()
    };
    let going = thrice(vec![
        drop_model("a"),
        load("a"),
        free_from("a", Amount::Unsaid),
    ]);
    vec![
        case(
            "concurrency",
            "loads_and_drops_of_one_name",
            16,
            vec![six("a", 1)],
        )
        .steps([
            together([
                journey(),
                journey(),
                journey(),
                journey(),
                vec![unknown(request("a")); 5],
                vec![free_1e30(); 5],
                vec![unknown(read_back("a")); 5],
                vec![unknown(free_from("a", Amount::whole(2 * MIB))); 5],
            ]),
            or_fails(drop_model("a"), ErrorKind::UnknownModel),
            load("a"),
            request("a"),
        ]),
        case(
            "concurrency",
            "views_while_models_go",
            32,
            vec![six("a", 1), six("b", 2)],
        )
        .needs(Capability::Views)
        .steps([
            load("a"),
            load("b"),
            free_1e30(),
            hold("a", "t0", "first"),
            hold("a", "t5", "last"),
            together([
                viewed("first"),
                viewed("last"),
                taken("one"),
                taken("two"),
                going,
                vec![read_back("b"); 6],
            ]),
            drop_model("a"),
            read_held("first"),
            release("first"),
            read_held("last"),
            release("last"),
            request("b"),
        ]),
    ]
}

fn or_cancelled(step: Step) -> Step {
    or_fails(step, ErrorKind::Cancelled)
}

/// One lane works, another one cancels what it asked last at this moment.
fn cancelled_at(work: Step, moment: Moment) -> Step {
    together([vec![or_cancelled(work)], vec![wait(moment), cancel(0)]])
}

/// Calls that are ended early: what is there then is the old state or the new one, and the same call succeeds.
fn cancelled() -> Vec<Case> {
    let model = || plain("a", 1, &[2 * MIB; 8]);
    let case = |name: String| {
        case("concurrency", name, 32, vec![model(), six("b", 2)]).needs(Capability::Cancel)
    };
    let holds = |mib: u64| Moment::DeviceHolds {
        more_bytes: mib * MIB,
    };
    let at_once = Moment::Begun { lane: 0, steps: 1 };
    let on_the_way = [at_once, holds(3), holds(9)];
    let requests = on_the_way.map(|moment| [free_1e30(), cancelled_at(request("a"), moment)]);
    let loads = on_the_way.map(|moment| {
        [
            cancelled_at(load("a"), moment),
            or_fails(drop_model("a"), ErrorKind::UnknownModel),
        ]
    });
    let written = Moment::Written { bytes: 3 * MIB };
    let released = Moment::DeviceLacks {
        fewer_bytes: 4 * MIB,
    };
    let frees = [at_once, written, released].map(|moment| {
        [
            load("a"),
            cancelled_at(free_1e30(), moment),
            read_back("a"),
            request("a"),
            free_1e30(),
            read_back("a"),
            drop_model("a"),
        ]
    });
    let mut cases = vec![
        case("request_cancelled".into())
            .steps([load("a")])
            .steps(twice(requests.concat()))
            .steps([request("a"), free_1e30(), read_back("a")]),
        case("load_cancelled".into())
            .steps([load("b")])
            .steps(twice(loads.concat()))
            .steps([load("a"), request("a"), request("b")]),
        case("free_cancelled".into()).steps(twice(frees.concat())),
    ];
    cases.extend(
        SEEDS.map(|seed| case(format!("cancelled_any_time_{seed:x}")).steps(any_time(seed))),
    );
    cases
}

/// Four lanes work, four cancel them at moments that only the seed knows.
fn any_time(seed: u64) -> Vec<Step> {
    let mut moments = Moments(seed);
    let work = [
        vec![or_cancelled(request("a")); 4],
        vec![or_cancelled(request("b")); 4],
        vec![or_cancelled(free_1e30()); 4],
        vec![
            or_cancelled(request("a")),
            or_cancelled(free_bytes(3 * MIB)),
            or_cancelled(request("a")),
        ],
    ];
    let cancels = (0..work.len()).map(|lane| {
        let at = moments.next(4);
        at.into_iter()
            .flat_map(|at| [wait(Moment::Passed(at)), cancel(lane)])
            .collect()
    });
    let cancels: Vec<Vec<Step>> = cancels.collect();
    vec![
        load("a"),
        load("b"),
        together(work.into_iter().chain(cancels)),
        request("a"),
        request("b"),
        free_1e30(),
        read_back("a"),
        read_back("b"),
    ]
}

/// Times by a seed: SplitMix64, as the contents of models.
struct Moments(u64);

impl Moments {
    /// So many, in order, within 120 ms.
    fn next(&mut self, count: usize) -> Vec<Duration> {
        let mut times: Vec<Duration> = (0..count)
            .map(|_| {
                self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut z = self.0;
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                Duration::from_micros((z ^ (z >> 31)) % 120_000)
            })
            .collect();
        times.sort_unstable();
        times
    }
}
