//! Whole cases over subjects that digest with one algorithm or the other: each process is judged by what it named.

use crate::trial;
use libtest_mimic::Trial;
use spillproof_harness::{
    case::{Action, Amount, Case, Destinations, Expect, Gpu, Limits, Model, Pace, Step},
    crash::{Deadly, Kill, Moment},
    device::DeviceKind,
    golden,
    invariants::{self, InvariantId},
    lanes::Lane,
    observation::Run,
    run::{Bench, run_case},
    subject::SubjectCommand,
    world::{Event, World},
};
use spillproof_protocol::{Fill, Manifest};
use std::{env, path::PathBuf, time::Duration};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("digests_are_judged_by_the_algorithm_that_is_named", named),
        trial("digests_of_another_algorithm_trip_data", another),
        trial("an_unknown_algorithm_is_a_malformed_hello", unknown),
        trial("every_process_is_judged_by_its_own_hello", every_process),
        trial("goldens_are_the_same_by_every_algorithm", goldens),
    ]
}

fn model(name: &str) -> Model {
    let manifest = r#"{"storages":[{"name":"s","bytes":100000,"fill":{"seed":7}},{"name":"b","bytes":5000,"fill":{"seed":8}},
                     {"name":"e","bytes":0,"fill":{"seed":1}}],
        "tensors":[{"name":"a","dtype":"u8","shape":[100000],"storage":"s"},
                   {"name":"t","dtype":"f32","shape":[30,20],"strides":[1,30],"storage":"s","byte_offset":8},
                   {"name":"b","dtype":"u8","shape":[5000],"storage":"b"},
                   {"name":"e","dtype":"f32","shape":[0],"storage":"e"}]}"#;
    Model {
        name: name.into(),
        manifest: Manifest::from_json(manifest).unwrap(),
        file: None,
    }
}

fn load(model: &str) -> Action {
    let model = model.into();
    Action::Load { model }
}

fn request(model: &str) -> Action {
    Action::Request {
        model: model.into(),
        workspace_bytes: 0,
        digests: true,
    }
}

/// Everything that brings digests.
fn journey() -> Vec<Action> {
    let view = || "v".to_owned();
    vec![
        load("m"),
        request("m"),
        Action::Free {
            bytes: Amount::Unsaid,
            model: None,
            to: Destinations::Any,
        },
        Action::ReadBack { model: "m".into() },
        Action::Hold {
            model: "m".into(),
            tensor: "t".into(),
            view: view(),
        },
        Action::Modify {
            model: "m".into(),
            tensor: "b".into(),
            fill: Fill::Seed(9),
        },
        request("m"),
        Action::ReadHeld { view: view() },
        Action::Release { view: view() },
        // The second lane asks for what the first one is just loading.
        Action::Together(vec![lane(load("n")), lane(request("n"))]),
    ]
}

fn step(action: Action) -> Step {
    Step {
        action,
        expect: Expect::Ok,
    }
}

fn lane(action: Action) -> Lane {
    Lane {
        steps: vec![step(action)],
    }
}

/// A run of these steps over a subject that plays this.
fn run(parts: &str, steps: Vec<Action>) -> Run {
    let case = Case {
        family: "digests",
        name: parts.replace(['/', ','], "_"),
        models: vec![model("m"), model("n")],
        gpu: Gpu::Absent,
        device_name: None,
        settings: Vec::new(),
        open: Expect::Ok,
        steps: steps.into_iter().map(step).collect(),
        limits: Limits {
            // The second process writes into the first one's working directory.
            settle: Duration::from_millis(100),
            ..Limits::default()
        },
        requires: Vec::new(),
        world: World::default(),
        path: None,
        faults: None,
        pace: Pace::Brisk,
    };
    let bench = Bench {
        subject: SubjectCommand {
            program: env::current_exe().unwrap(),
            args: vec!["scripted".into(), parts.into()],
            env: Vec::new(),
        },
        ballast: PathBuf::new(),
        interposer: PathBuf::new(),
        keeps_ledger: false,
        emulator: PathBuf::new(),
        // Not a tmpfs, as the directory for temporary files may be.
        work_dir: env!("CARGO_TARGET_TMPDIR").into(),
    };
    let run = run_case(&case, &DeviceKind::Emulated, &bench);
    assert_eq!(run.infrastructure, None);
    assert_eq!(run.doubts, Vec::<String>::new());
    run
}

/// What is wrong with its data.
fn wrong(run: &Run) -> Vec<String> {
    let data = |(id, _): &&(InvariantId, _)| *id == InvariantId::Data;
    let data: Vec<_> = invariants::ALL.iter().filter(data).copied().collect();
    let violations = invariants::check(run, &data);
    let violations = violations.into_iter();
    violations.map(|violation| violation.message).collect()
}

fn assert_ran(run: &Run, steps: usize) {
    assert!(run.asides.is_empty(), "{:?}", run.asides);
    let done = run.lives().flat_map(Run::judged_steps);
    assert!(done.count() >= steps);
}

fn named() {
    for parts in ["-/sha256", "sha256/sha256", "xxh3_128/xxh3_128"] {
        let run = run(parts, journey());
        assert_ran(&run, journey().len());
        assert_eq!(wrong(&run), Vec::<String>::new(), "{parts}");
    }
}

fn another() {
    for parts in ["xxh3_128/sha256", "-/xxh3_128", "sha256/xxh3_128"] {
        let run = run(parts, journey());
        assert_ran(&run, journey().len());
        // Four tensors in four answers, and the view.
        assert!(wrong(&run).len() >= 17, "{parts}: {:#?}", wrong(&run));
    }
}

fn unknown() {
    let run = run("md5/sha256", journey());
    let asides = format!("{:?}", run.asides);
    for word in ["hello", "MalformedReply", "md5", "sha256", "xxh3_128"] {
        assert!(asides.contains(word), "{asides}");
    }
}

fn every_process() {
    let kill = Action::World(Event::Kill(Kill {
        signal: Deadly::Kill,
        during: None,
        when: Moment::Sent,
    }));
    let restart = Action::World(Event::Restart);
    let beside = |action: Action| Action::World(Event::Beside(Box::new(action)));
    let successive = [
        load("m"),
        request("m"),
        kill,
        restart,
        load("m"),
        request("m"),
    ];
    let abreast = [
        load("m"),
        beside(load("m")),
        beside(request("m")),
        request("m"),
        beside(request("m")),
    ];
    for steps in [successive.to_vec(), abreast.to_vec()] {
        for parts in ["xxh3_128/xxh3_128,-/sha256", "-/sha256,xxh3_128/xxh3_128"] {
            let run = run(parts, steps.clone());
            assert_ran(&run, steps.len());
            assert_eq!(wrong(&run), Vec::<String>::new(), "{parts}");
        }
        // By what the one before it, or beside it, named.
        for parts in ["xxh3_128/xxh3_128,-/xxh3_128", "-/sha256,xxh3_128/sha256"] {
            let run = run(parts, steps.clone());
            assert!(wrong(&run).len() >= 3, "{parts}: {:#?}", wrong(&run));
        }
    }
}

fn goldens() {
    let shown = |parts: &str| {
        let text = golden::render(&run(parts, journey()));
        text.replace(&parts.replace('/', "_"), "NAME")
    };
    let canonical = shown("-/sha256");
    for digest in ["a 5fa36b882964d374", "e e3b0c44298fc1c14"] {
        assert!(canonical.contains(digest), "{canonical}");
    }
    assert_eq!(shown("xxh3_128/xxh3_128"), canonical);
    // What was not expected is shown as it came.
    let wrong = shown("xxh3_128/wrong");
    assert!(wrong.contains("a 0123456789abcdef"), "{wrong}");
}
