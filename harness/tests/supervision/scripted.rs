//! A subject that moves nothing and only digests: with an algorithm that it names, or another one.

use crate::rogue::Line;
use serde::Serialize;
use serde_json::{Value, json};
use spillproof_protocol::{
    Digest, DigestAlgorithm, Done, Extent, Fill, FreeMemoryReply, HelloReply, HoldReply, LoadReply,
    Manifest, ModelStatus, OpenReply, PROTOCOL_VERSION, ReadBackReply, ReadHeldReply, Request,
    RequestReply, StatusReply, Tensor, TensorStatus, Tier, TierBytes, tensor_digest,
};
use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    process::{self, ExitCode},
};

/// Plays `NAMED/USED`: names one algorithm in `hello`, or none with `-`, and digests with the other one; `wrong` is no digest of
/// anything. Of several, by commas, the first is for the first process in the working directory, and so on.
pub(crate) fn run(parts: &str) -> ExitCode {
    let mut starts = OpenOptions::new();
    let mut starts = starts.create(true).append(true).open("starts").unwrap();
    starts.write_all(b".").unwrap();
    let before = usize::try_from(starts.metadata().unwrap().len()).unwrap() - 1;
    let part = parts.split(',').nth(before).unwrap();
    let (named, used) = part.split_once('/').unwrap();
    let mut subject = Scripted {
        named,
        used: DigestAlgorithm::ALL
            .iter()
            .copied()
            .find(|algorithm| algorithm.name() == used),
        models: BTreeMap::new(),
        views: Vec::new(),
    };
    let mut line = Line::open();
    loop {
        let request = line.next();
        let asked = serde_json::from_value(request.clone()).unwrap();
        let asked = Request::from_line(asked).unwrap();
        let is_last = matches!(asked, Request::Quit(_));
        line.ok(&request, subject.answer(asked));
        if is_last {
            return ExitCode::SUCCESS;
        }
    }
}

struct Scripted<'a> {
    named: &'a str,
    /// Nothing digests wrongly.
    used: Option<DigestAlgorithm>,
    models: BTreeMap<String, Model>,
    views: Vec<Digest>,
}

struct Model {
    manifest: Manifest,
    tier: Tier,
    modified: BTreeMap<String, Fill>,
}

fn value(reply: impl Serialize) -> Value {
    serde_json::to_value(reply).unwrap()
}

impl Scripted<'_> {
    fn answer(&mut self, request: Request) -> Value {
        match request {
            Request::Hello(_) => self.hello(),
            Request::Open(args) => value(OpenReply {
                device: args.device,
                staging_bytes: 0,
            }),
            Request::Load(args) => {
                let model = Model {
                    manifest: args.manifest.unwrap(),
                    tier: Tier::Vram,
                    modified: BTreeMap::new(),
                };
                self.models.insert(args.model, model);
                value(LoadReply { device_bytes: 0 })
            }
            Request::Request(args) => {
                self.models.get_mut(&args.model).unwrap().tier = Tier::Vram;
                value(RequestReply {
                    digests: self.digests(&args.model),
                    recoveries: 0,
                })
            }
            Request::Modify(args) => {
                let model = self.models.get_mut(&args.model).unwrap();
                model.modified.insert(args.tensor, args.fill);
                value(Done {})
            }
            Request::FreeMemory(_) => {
                for model in self.models.values_mut() {
                    model.tier = Tier::Ram;
                }
                value(FreeMemoryReply {
                    extent: Extent::Full,
                    freed_bytes: 0,
                    moves: Vec::new(),
                })
            }
            Request::ReadBack(args) => value(ReadBackReply {
                digests: self.digests(&args.model),
            }),
            Request::Hold(args) => {
                let view = self.digests(&args.model).remove(&args.tensor);
                self.views.push(view.unwrap());
                let handle = self.views.len() as u64 - 1;
                value(HoldReply { handle })
            }
            Request::ReadHeld(args) => value(ReadHeldReply {
                digest: self.views[args.handle as usize].clone(),
            }),
            Request::Status(_) => self.status(),
            Request::Drop(args) => {
                self.models.remove(&args.model);
                value(Done {})
            }
            Request::Release(_) | Request::Cancel(_) | Request::Quit(_) => value(Done {}),
        }
    }

    fn hello(&self) -> Value {
        let mut hello = value(HelloReply {
            protocol: PROTOCOL_VERSION,
            engine: "scripted".into(),
            version: process::id().to_string(),
            capabilities: Vec::new(),
            digest: None,
        });
        if self.named != "-" {
            hello["digest"] = json!(self.named);
        }
        hello
    }

    fn digests(&self, model: &str) -> BTreeMap<String, Digest> {
        let model = &self.models[model];
        let tensors = model.manifest.tensors.iter();
        tensors
            .map(|tensor| (tensor.name.clone(), self.digest(model, tensor)))
            .collect()
    }

    fn digest(&self, model: &Model, tensor: &Tensor) -> Digest {
        let Some(algorithm) = self.used else {
            return serde_json::from_value(json!("0123456789abcdef0123")).unwrap();
        };
        let Some(fill) = model.modified.get(&tensor.name) else {
            return tensor_digest(&model.manifest, tensor, algorithm).unwrap();
        };
        let mut contents = vec![0; tensor.span_bytes().unwrap() as usize];
        fill.write(0, &mut contents).unwrap();
        algorithm.digest(&contents)
    }

    fn status(&self) -> Value {
        let models = self.models.iter().map(|(name, model)| {
            let tensor = |tensor: &Tensor| TensorStatus {
                name: tensor.name.clone(),
                tier: model.tier,
                path: None,
            };
            ModelStatus {
                name: name.clone(),
                device_bytes: 0,
                tensors: model.manifest.tensors.iter().map(tensor).collect(),
            }
        });
        value(StatusReply {
            models: models.collect(),
            tiers: TierBytes {
                vram: 0,
                ram: 0,
                mapped: 0,
                file: 0,
            },
            files: Vec::new(),
            written_bytes: 0,
            read_bytes: 0,
            reaped_orphans: 0,
        })
    }
}
