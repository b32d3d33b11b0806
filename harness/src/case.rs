//! Cases: experiments as pure data.

pub use crate::{
    faults::Faults,
    gpu::{CuFile, CuFileFault, Gpu},
};

use crate::{
    attack::Attack,
    lanes::{Lane, Moment},
    world::{Event, World},
};
use spillproof_faults::Plan;
use spillproof_protocol::{
    Capability, Digest, DigestAlgorithm, ErrorKind, Fill, Manifest, RequestedBytes, Tier,
    TransferPath,
};
use std::{path::PathBuf, time::Duration};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// A named experiment on one device.
#[derive(Clone, Debug)]
pub struct Case {
    /// The family, also the name of the file that holds the case.
    pub family: &'static str,
    /// The name within the family.
    pub name: String,
    /// Models the steps refer to.
    pub models: Vec<Model>,
    /// What the device looks like.
    pub gpu: Gpu,
    /// What `open` asks for, or `None` for the device under test.
    pub device_name: Option<String>,
    /// Settings, as environment variables of the subject.
    pub settings: Vec<(&'static str, String)>,
    /// What `open` must answer.
    pub open: Expect,
    /// What happens after the baseline.
    pub steps: Vec<Step>,
    /// What is allowed.
    pub limits: Limits,
    /// What the subject must be able to do.
    pub requires: Vec<Capability>,
    /// Where the case lives.
    pub world: World,
    /// The way that everything between device and files must take; any when absent.
    pub path: Option<TransferPath>,
    /// Calls that fail.
    pub faults: Option<Faults>,
    /// How thoroughly what no invariant needs is measured.
    pub pace: Pace,
}

/// A model under a name.
#[derive(Clone, Debug)]
pub struct Model {
    /// The name used in steps.
    pub name: String,
    /// Storages, tensors and expected contents.
    pub manifest: Manifest,
    /// Load this file instead of the manifest; the manifest then describes the file's contents.
    pub file: Option<ModelFile>,
}

/// A `.safetensors` file and what the harness read from it.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// The file.
    pub path: PathBuf,
    /// Of each tensor, in the manifest's order.
    pub digests: Vec<TensorDigests>,
}

/// The digests of a tensor by every algorithm that a subject may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorDigests {
    /// By [`DigestAlgorithm::Sha256`].
    pub sha256: Digest,
    /// By [`DigestAlgorithm::Xxh3_128`].
    pub xxh3_128: Digest,
}

impl TensorDigests {
    /// The one by this algorithm.
    #[must_use]
    pub fn by(&self, algorithm: DigestAlgorithm) -> &Digest {
        match algorithm {
            DigestAlgorithm::Sha256 => &self.sha256,
            DigestAlgorithm::Xxh3_128 => &self.xxh3_128,
        }
    }
}

/// How thoroughly what no invariant needs is measured: the unique set size, for which the kernel walks over every page, and the
/// journey that brings a subject to its working size before the baseline is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pace {
    /// Unique set sizes are read. A model larger than a slot of staging goes on the journey, which is watched like any step.
    #[default]
    Usual,
    /// For runs by the thousand over tiny models: no unique set sizes; some pages go on the journey, and only its success is looked at.
    Brisk,
}

/// What is allowed during a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest time for one call, the bound of every recovery.
    pub call: Duration,
    /// Longest time until resources are back at the baseline.
    pub settle: Duration,
    /// Most staging memory that the subject may declare, bytes.
    pub staging_bytes: u64,
    /// Anonymous and shared memory over baseline and staging, bytes.
    pub slack_bytes: u64,
    /// Bytes that the case's settings send to RAM.
    pub ram_tier_bytes: u64,
    /// File bytes that may be written in vain, by a way that fails half way through a block.
    pub rewritten_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(60),
            settle: Duration::from_secs(5),
            staging_bytes: 48 * MIB,
            slack_bytes: 8 * MIB,
            ram_tier_bytes: 0,
            rewritten_bytes: 0,
        }
    }
}

/// An action and what must come of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// What must come back.
    pub expect: Expect,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make a model known.
    Load {
        /// Its name.
        model: String,
    },
    /// One inference request.
    Request {
        /// The model.
        model: String,
        /// Device memory the request itself needs, bytes.
        workspace_bytes: u64,
        /// Whether every tensor is digested on the device. Without that nothing is known of the bytes, and the time is
        /// the engine's own.
        digests: bool,
    },
    /// Overwrite a tensor on the device.
    Modify {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
        /// Its new bytes.
        fill: Fill,
    },
    /// Ask for device memory back.
    Free {
        /// How much.
        bytes: Amount,
        /// From which model; all when absent.
        model: Option<String>,
        /// Where what leaves must go.
        to: Destinations,
    },
    /// Digest what the host sees; every tensor must be among them.
    ReadBack {
        /// The model.
        model: String,
    },
    /// Forget a model.
    Drop {
        /// The model.
        model: String,
    },
    /// Another process takes device memory, until it leaves this many bytes free.
    Ballast {
        /// What stays free, bytes.
        leave_bytes: u64,
    },
    /// The other process gives everything back.
    ReleaseBallast,
    /// Something happens around the subject, or to it.
    World(Event),
    /// Keep a view of a tensor's host copy.
    Hold {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
        /// What the case calls the view.
        view: String,
    },
    /// Digest what a view shows: the bytes of the moment when it was taken.
    ReadHeld {
        /// The view.
        view: String,
    },
    /// Let go of a view.
    Release {
        /// The view.
        view: String,
    },
    /// Somebody does something to the offload files.
    Attack(Attack),
    /// Lanes of steps beside each other; what is read around the step is around all of them.
    Together(Vec<Lane>),
    /// A lane waits.
    Wait(Moment),
    /// A lane asks for the end of what another one has asked last.
    Cancel {
        /// The other lane, from 0.
        lane: usize,
    },
}

/// How much `free_memory` asks for. Relative amounts are resolved when the step runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// No number at all: everything.
    Unsaid,
    /// This.
    Of(RequestedBytes),
    /// Exactly what is loaded at that moment.
    Loaded,
    /// One byte less than what is loaded.
    LoadedButOne,
}

impl Amount {
    /// This many bytes.
    #[must_use]
    pub fn whole(bytes: u64) -> Self {
        Self::Of(RequestedBytes::Whole(bytes))
    }

    /// This number, as a float.
    #[must_use]
    pub fn float(bytes: f64) -> Self {
        Self::Of(RequestedBytes::Float(bytes))
    }
}

/// Where freed tensors must be afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destinations {
    /// Anywhere.
    Any,
    /// All in this tier.
    All(Tier),
    /// In files, mapped or not.
    Files,
    /// As many bytes in RAM as this, the rest in this tier.
    Split {
        /// Bytes in RAM.
        ram_bytes: u64,
        /// Where the rest is.
        rest: Tier,
    },
}

/// What a step must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Success.
    Ok,
    /// A failure of this kind.
    Error(ErrorKind),
    /// Either, where a disturbance comes at a moment that nobody chose.
    OkOrError(ErrorKind),
}

impl Case {
    /// `family::name`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}::{}", self.family, self.name)
    }

    /// Its fault plan.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.faults.as_ref().map(|faults| &faults.plan)
    }

    /// The case under this plan in place of its own, in force when that one is; throughout where it has none.
    #[must_use]
    pub fn under(&self, plan: &Plan) -> Self {
        let own = self.faults.clone();
        let own = own.unwrap_or_else(|| Faults::throughout(Plan::default()));
        let faults = Faults {
            plan: plan.clone(),
            records: false,
            ..own
        };
        Self {
            faults: Some(faults),
            ..self.clone()
        }
    }

    /// The model of that name.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }
}

impl Action {
    /// The model that must be loaded for this to be asked.
    #[must_use]
    pub fn needed_model(&self) -> Option<&str> {
        match self {
            Self::Request { model, .. }
            | Self::Modify { model, .. }
            | Self::ReadBack { model }
            | Self::Drop { model }
            | Self::Hold { model, .. } => Some(model),
            Self::Free { model, .. } => model.as_deref(),
            Self::Load { .. }
            | Self::Ballast { .. }
            | Self::ReleaseBallast
            | Self::World(_)
            | Self::ReadHeld { .. }
            | Self::Release { .. }
            | Self::Attack(_)
            | Self::Together(_)
            | Self::Wait(_)
            | Self::Cancel { .. } => None,
        }
    }

    /// A short description for logs and goldens.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Load { model } => format!("load {model}"),
            Self::Request {
                model,
                workspace_bytes,
                digests,
            } => {
                let seen = if *digests { "" } else { ", unseen" };
                format!("request {model} workspace={workspace_bytes}{seen}")
            }
            Self::Modify { model, tensor, .. } => format!("modify {model}.{tensor}"),
            Self::Free { bytes, model, .. } => {
                let scope = model.as_deref().unwrap_or("all");
                match bytes {
                    Amount::Unsaid => format!("free {scope} everything"),
                    Amount::Of(RequestedBytes::Whole(bytes)) => format!("free {scope} {bytes}"),
                    Amount::Of(RequestedBytes::Float(bytes)) => format!("free {scope} {bytes:e}"),
                    Amount::Loaded => format!("free {scope} loaded"),
                    Amount::LoadedButOne => format!("free {scope} loaded-1"),
                }
            }
            Self::ReadBack { model } => format!("read_back {model}"),
            Self::Drop { model } => format!("drop {model}"),
            Self::Ballast { leave_bytes } => format!("ballast leaves {leave_bytes}"),
            Self::ReleaseBallast => "ballast released".into(),
            Self::World(event) => event.to_string(),
            Self::Hold {
                model,
                tensor,
                view,
            } => format!("hold {model}.{tensor} as {view}"),
            Self::ReadHeld { view } => format!("read_held {view}"),
            Self::Release { view } => format!("release {view}"),
            Self::Attack(attack) => format!("attack: {attack}"),
            Self::Together(lanes) => format!("{} lanes together", lanes.len()),
            Self::Wait(moment) => format!("wait until {moment}"),
            Self::Cancel { lane } => format!("cancel lane {lane}"),
        }
    }
}
