//! Eight threads that do anything to shared and to own models: right bytes all along, and nothing left at the end.
use super::*;
use crate::{Cancellation, ErrorKind};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

const THREADS: u64 = 8;
const STEPS: u64 = 40;
const STEPS_TO_A_CANCEL: u64 = 40;
const KIB: u64 = 1 << 10;
/// One block is larger than a chunk, one tensor empty.
const M: &[(&str, u64)] = &[
    ("a", MIB + 300 * KIB),
    ("b", 70 * KIB + 1),
    ("none", 0),
    ("c", 300 * KIB),
];
const SHARED: [&str; 2] = ["s0", "s1"];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % below
    }
}

/// A thread's share of the stress.
struct Actor<'a> {
    engine: &'a Engine,
    random: Random,
    own: String,
    loaded: bool,
    /// What a tensor of the own model was overwritten with.
    written: BTreeMap<&'static str, u8>,
    original: BTreeMap<String, Vec<u8>>,
    held: Vec<(TensorView, Vec<u8>)>,
}

impl Actor<'_> {
    /// A tensor of a shared model is as it was loaded, or wholly as somebody wrote it; of the own one it is known.
    fn check(&self, model: &str, tensor: &str, bytes: &[u8]) {
        let written = self.written.get(tensor).filter(|_| model == self.own);
        let is_original = bytes == self.original[tensor];
        let right = match written {
            Some(byte) => bytes.iter().all(|each| each == byte),
            None if model == self.own => is_original,
            None => is_original || bytes.windows(2).all(|pair| pair[0] == pair[1]),
        };
        assert!(right, "{tensor} of {model}");
    }

    fn model(&mut self) -> String {
        match self.random.next(3) {
            0 => self.own.clone(),
            at => SHARED[at as usize - 1].to_owned(),
        }
    }

    fn step(&mut self, cancellation: &Cancellation) -> Result<(), Error> {
        let engine = self.engine.unless(cancellation);
        let model = self.model();
        let tensor = M[self.random.next(4) as usize].0;
        match self.random.next(10) {
            0..=3 => {
                let workspace = [0, 0, 100 * KIB, 2 * MIB][self.random.next(4) as usize];
                let fails_at = self.random.next(12);
                let mut seen = 0;
                let report = engine.request(&model, workspace, &mut |tensor| {
                    let mut bytes = vec![0; tensor.span_bytes() as usize];
                    tensor.read_at(0, &mut bytes)?;
                    self.check(&model, tensor.name(), &bytes);
                    thread::yield_now();
                    seen += 1;
                    if seen == fails_at {
                        return Err(Error::Caller("a layer".into()));
                    }
                    Ok(())
                });
                report.map(|_| ())
            }
            4 => {
                let everything = self.random.next(2) == 0;
                let request = if everything {
                    MemoryRequest::Full
                } else {
                    MemoryRequest::AtLeast(self.random.next(2 * MIB))
                };
                let of = (self.random.next(2) == 0).then_some(model.as_str());
                engine.free_memory(of, request).map(|_| ())
            }
            5 => engine.make_resident(&model).map(|_| ()),
            6 => {
                let byte = self.random.next(256) as u8;
                let written = engine.write_tensor(&model, tensor, &mut |_, out| {
                    out.fill(byte);
                    Ok(())
                });
                if written.is_ok() && model == self.own {
                    self.written.insert(tensor, byte);
                }
                written
            }
            7 => {
                let view = self.engine.map(&model, tensor)?;
                let bytes = read(&view);
                self.check(&model, tensor, &bytes);
                if self.held.len() < 3 {
                    self.held.push((view, bytes));
                }
                Ok(())
            }
            8 => {
                assert!(self.engine.status().models.len() <= 10);
                if self.random.next(2) == 0 {
                    self.held.pop();
                }
                Ok(())
            }
            _ => {
                if self.random.next(3) > 0 && model != self.own {
                    // The shared ones come and go now and then.
                    let source = ModelSource::Manifest(manifest(M));
                    return match self.random.next(4) {
                        0 => engine.drop_model(&model),
                        _ => engine.load(&model, source).map(|_| ()),
                    };
                }
                let changed = if self.loaded {
                    engine.drop_model(&self.own)
                } else {
                    let source = ModelSource::Manifest(manifest(M));
                    engine.load(&self.own, source).map(|_| ())
                };
                if changed.is_ok() {
                    self.loaded = !self.loaded;
                    self.written.clear();
                }
                changed
            }
        }
    }

    /// How many of its steps succeeded. Whoever does the nth step of all, n a multiple of so many, cancels what runs.
    fn run(&mut self, token: &Mutex<Cancellation>, steps: &AtomicU64) -> u64 {
        let mut done = 0;
        for step in 0..STEPS {
            let nth = steps.fetch_add(1, Ordering::Relaxed);
            if nth.is_multiple_of(STEPS_TO_A_CANCEL) {
                std::mem::take(&mut *token.lock().unwrap()).cancel();
            }
            let cancellation = token.lock().unwrap().clone();
            let outcome = self.step(&cancellation);
            done += u64::from(outcome.is_ok());
            if let Err(error) = outcome {
                if matches!(&error, Error::UnknownModel(name) if *name == self.own) {
                    let source = ModelSource::Manifest(manifest(M));
                    self.loaded = self.engine.load(&self.own, source).is_ok();
                    self.written.clear();
                }
                let may_be = match error.kind() {
                    ErrorKind::UnknownModel | ErrorKind::Cancelled | ErrorKind::DeviceOom => true,
                    // The name is taken, or only the device has the tensor.
                    ErrorKind::InvalidArgument => true,
                    ErrorKind::Internal => matches!(error, Error::Caller(_)),
                    _ => false,
                };
                assert!(may_be, "{} step {step}: {error:?}", self.own);
            }
            for (view, bytes) in &self.held {
                assert!(read(view) == *bytes, "a view changed");
            }
        }
        done
    }
}

/// Everybody at once, and whatever runs is cancelled again and again.
fn stress(seed: u64, threshold: Threshold) {
    let fixture = Fixture::new(5 * MIB, threshold);
    for name in SHARED {
        fixture.load(name, M);
    }
    let token = Mutex::new(Cancellation::new());
    let steps = AtomicU64::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        let actors: Vec<_> = (0..THREADS)
            .map(|number| {
                let (engine, token, steps) = (&fixture.engine, &token, &steps);
                scope.spawn(move || {
                    let mut actor = Actor {
                        engine,
                        random: Random(seed ^ (number << 32)),
                        own: format!("own{number}"),
                        loaded: false,
                        written: BTreeMap::new(),
                        original: contents(M),
                        held: Vec::new(),
                    };
                    actor.run(token, steps)
                })
            })
            .collect();
        let outcomes: Vec<_> = actors.into_iter().map(|actor| actor.join()).collect();
        assert!(outcomes.iter().all(Result::is_ok), "seed {seed}");
        let done: u64 = outcomes.into_iter().flatten().sum();
        assert!(
            done > THREADS * STEPS / 4,
            "seed {seed}: {done} steps succeeded"
        );
    });
    assert!(begin.elapsed() < Duration::from_secs(60), "seed {seed}");
    let state = fixture.engine.state();
    assert!(state.turns.is_empty() && state.inside.is_empty());
    assert!(state.workspaces.held.is_empty() && state.workspaces.line.is_empty());
    let blocks = || state.models.iter().flat_map(|model| &model.blocks);
    assert!(blocks().all(|block| (block.pins, block.claims) == (0, 0)));
    drop(state);
    let status = fixture.engine.status();
    assert_eq!(status.tiers.vram, fixture.driver.used_bytes());
    assert_eq!(fixture.engine.state().ram_bytes(), status.tiers.ram);
    fixture.free_all();
    assert_eq!(fixture.driver.used_bytes(), 0);
    for model in status.models {
        fixture.engine.drop_model(&model.name).unwrap();
    }
    assert_eq!(fixture.spill_files().len(), 0);
    assert_eq!(fixture.engine.status().tiers, TierBytes::default());
    fixture.finish();
}

#[test]
fn eight_threads_on_shared_and_own_models_see_right_bytes_and_leave_nothing() {
    for seed in 0..3 {
        for threshold in [TO_FILES, TO_RAM] {
            stress(seed, threshold);
        }
    }
}
