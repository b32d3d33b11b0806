//! Words for writing cases: steps and settings as they are said in the families.

use spillproof_harness::{
    attack::Attack,
    case::{Action, Amount, Case, Destinations, Expect, Gpu, Limits, MIB, Model, Pace, Step},
    lanes::{Lane, Moment},
    world::World,
};
use spillproof_protocol::{Capability, ErrorKind, Fill, Tier};

/// A small staging budget, so that small models already pass through several slots.
pub const STAGING_MIB: u64 = 8;

/// A case with two I/O threads, files mapped, and everything to files.
#[must_use]
pub fn case(
    family: &'static str,
    name: impl Into<String>,
    vram_mib: u64,
    models: Vec<Model>,
) -> Case {
    Case {
        family,
        name: name.into(),
        models,
        gpu: Gpu::with_vram(vram_mib * MIB),
        device_name: None,
        settings: vec![
            ("MMAP_MEM_THRESHOLD_GB", "512".into()),
            ("OFFLOAD_STAGING_MB", STAGING_MIB.to_string()),
            ("OFFLOAD_IO_THREADS", "2".into()),
            // A real machine may have it; the family gds says what becomes of it.
            ("OFFLOAD_CUFILE", "off".into()),
        ],
        open: Expect::Ok,
        steps: Vec::new(),
        limits: Limits {
            staging_bytes: STAGING_MIB * MIB,
            ..Limits::default()
        },
        requires: Vec::new(),
        world: World::default(),
        path: None,
        faults: None,
        pace: Pace::default(),
    }
}

/// Changes of a case, in the order in which they are read.
pub trait CaseWords: Sized {
    /// With these steps.
    #[must_use]
    fn steps(self, steps: impl IntoIterator<Item = Step>) -> Self;
    /// With another value of a setting.
    #[must_use]
    fn set(self, name: &'static str, value: impl ToString) -> Self;
    /// With this much of the models going to RAM by the case's settings, bytes.
    #[must_use]
    fn in_ram(self, bytes: u64) -> Self;
    /// Only for subjects that can do this.
    #[must_use]
    fn needs(self, capability: Capability) -> Self;
    /// With files kept unmapped.
    #[must_use]
    fn file_only(self) -> Self;
    /// With these faults from the first step on.
    ///
    /// # Panics
    /// The plan is malformed: the case is wrong.
    #[must_use]
    fn failing(self, plan: &str) -> Self;
}

impl CaseWords for Case {
    fn steps(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }

    fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.to_string()));
        self
    }

    fn in_ram(mut self, bytes: u64) -> Self {
        self.limits.ram_tier_bytes = bytes;
        self
    }

    fn needs(mut self, capability: Capability) -> Self {
        self.requires.push(capability);
        self
    }

    fn file_only(self) -> Self {
        self.set("OFFLOAD_FILE_TIER", "file")
            .needs(Capability::FileOnly)
    }

    fn failing(mut self, plan: &str) -> Self {
        let plan = plan
            .parse()
            .unwrap_or_else(|error| panic!("{}: {plan}: {error}", self.name));
        self.faults = Some(plan);
        self
    }
}

/// The step must succeed.
fn ok(action: Action) -> Step {
    Step {
        action,
        expect: Expect::Ok,
    }
}

/// Makes a step one that must fail with this kind.
#[must_use]
pub fn fails(step: Step, kind: ErrorKind) -> Step {
    Step {
        expect: Expect::Error(kind),
        ..step
    }
}

/// Loads a model.
#[must_use]
pub fn load(model: &str) -> Step {
    ok(Action::Load {
        model: model.into(),
    })
}

/// One request with a small workspace.
#[must_use]
pub fn request(model: &str) -> Step {
    request_with(model, MIB)
}

/// One request with this workspace, bytes.
#[must_use]
pub fn request_with(model: &str, workspace_bytes: u64) -> Step {
    ok(Action::Request {
        model: model.into(),
        workspace_bytes,
        digests: true,
    })
}

/// One request with a small workspace, whose tensors nobody digests: quick on large models.
#[must_use]
pub fn request_unseen(model: &str) -> Step {
    ok(Action::Request {
        model: model.into(),
        workspace_bytes: MIB,
        digests: false,
    })
}

/// Frees this much from all models; what leaves must go there.
#[must_use]
pub fn free(bytes: Amount, to: Destinations) -> Step {
    ok(Action::Free {
        bytes,
        model: None,
        to,
    })
}

/// Frees this much from one model, to mapped files.
#[must_use]
pub fn free_from(model: &str, bytes: Amount) -> Step {
    ok(Action::Free {
        bytes,
        model: Some(model.into()),
        to: Destinations::All(Tier::Mapped),
    })
}

/// The parent project's out-of-memory request: 1e30 bytes, everything to mapped files.
#[must_use]
pub fn free_1e30() -> Step {
    free(Amount::float(1e30), Destinations::All(Tier::Mapped))
}

/// Reads a model back from the host's side.
#[must_use]
pub fn read_back(model: &str) -> Step {
    ok(Action::ReadBack {
        model: model.into(),
    })
}

/// Overwrites a tensor with seeded bytes.
#[must_use]
pub fn modify(model: &str, tensor: &str, seed: u64) -> Step {
    ok(Action::Modify {
        model: model.into(),
        tensor: tensor.into(),
        fill: Fill::Seed(seed),
    })
}

/// Forgets a model.
#[must_use]
pub fn drop_model(model: &str) -> Step {
    ok(Action::Drop {
        model: model.into(),
    })
}

/// Another process leaves only this much device memory free, bytes.
#[must_use]
pub fn ballast_leaves(leave_bytes: u64) -> Step {
    ok(Action::Ballast { leave_bytes })
}

/// The other process gives everything back.
#[must_use]
pub fn release_ballast() -> Step {
    ok(Action::ReleaseBallast)
}

/// Keeps a view of a tensor's host copy.
#[must_use]
pub fn hold(model: &str, tensor: &str, view: &str) -> Step {
    ok(Action::Hold {
        model: model.into(),
        tensor: tensor.into(),
        view: view.into(),
    })
}

/// Reads what a view shows.
#[must_use]
pub fn read_held(view: &str) -> Step {
    ok(Action::ReadHeld { view: view.into() })
}

/// Lets go of a view.
#[must_use]
pub fn release(view: &str) -> Step {
    ok(Action::Release { view: view.into() })
}

/// Somebody does something to the offload files.
#[must_use]
pub fn attack(attack: Attack) -> Step {
    ok(Action::Attack(attack))
}

/// Lanes of steps beside each other.
#[must_use]
pub fn together(lanes: impl IntoIterator<Item = Vec<Step>>) -> Step {
    let lanes = lanes.into_iter().map(|steps| Lane { steps });
    ok(Action::Together(lanes.collect()))
}

/// A lane goes on when this has come.
#[must_use]
pub fn wait(moment: Moment) -> Step {
    ok(Action::Wait(moment))
}

/// Asks for the end of what a lane has asked last.
#[must_use]
pub fn cancel(lane: usize) -> Step {
    ok(Action::Cancel { lane })
}

/// The step may also fail with this kind.
#[must_use]
pub fn or_fails(step: Step, kind: ErrorKind) -> Step {
    Step {
        expect: Expect::OkOrError(kind),
        ..step
    }
}

/// A number of MiB as the fraction of a GiB that settings take.
#[must_use]
pub fn gib(mib: f64) -> String {
    (mib / 1024.0).to_string()
}
