//! The engine on a driver that can be told to fail. Journeys over the emulated driver, in a process of their own and
//! seen from outside, are in the subjects' tests.

mod aftermath;
mod cancellation;
mod concurrency;
mod cufile;
mod damage;
mod direct;
mod faults;
mod forks;
mod host;
mod journeys;
mod recovery;
mod remains;
mod scarcity;
mod shortages;
mod stress;
mod swap;
mod waits;

use super::*;
use crate::{
    Dtype, Fill, Manifest, ManifestStorage, ManifestTensor, MemoryRequest, SettingsBuilder,
    Threshold, TmpfsPolicy, cuda::fake::FakeDriver,
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const TO_FILES: Threshold = Threshold::Below(u64::MAX);
const TO_RAM: Threshold = Threshold::Off;
/// More than any wait of a test takes; only a test that fails waits as long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    // In the order of dropping: a test that fails must not reach into the next one's driver.
    engine: Engine,
    directory: TempDir,
    driver: FakeDriver,
}

impl Fixture {
    fn new(capacity: u64, threshold: Threshold) -> Self {
        Self::with(capacity, |builder| builder.threshold(threshold))
    }

    fn with(capacity: u64, set: impl FnOnce(SettingsBuilder) -> SettingsBuilder) -> Self {
        let driver = FakeDriver::new(capacity);
        let directory = tempfile::tempdir().unwrap();
        let builder = Settings::builder()
            .directory(directory.path())
            .tmpfs(TmpfsPolicy::CountAsRam)
            .staging_bytes(4 * MIB)
            .io_threads(2);
        let settings = set(builder).build().unwrap();
        let engine = Engine::open_on(driver.context(), settings).unwrap();
        Self {
            driver,
            directory,
            engine,
        }
    }

    fn load(&self, name: &str, model: &[(&str, u64)]) {
        let source = ModelSource::Manifest(manifest(model));
        self.engine.load(name, source).unwrap();
    }

    fn free_all(&self) -> FreeReport {
        self.engine.free_memory(None, MemoryRequest::Full).unwrap()
    }

    /// Requests the model and compares what the device holds.
    fn assert_served(&self, name: &str, model: &[(&str, u64)]) -> u64 {
        let expected = contents(model);
        let mut seen = Vec::new();
        let report = self
            .engine
            .request(name, 0, &mut |tensor| {
                let mut out = vec![0; tensor.span_bytes() as usize];
                tensor.read_at(0, &mut out)?;
                assert!(out == expected[tensor.name()], "{}", tensor.name());
                seen.push(tensor.name().to_owned());
                Ok(())
            })
            .unwrap();
        let names: Vec<_> = model.iter().map(|(name, _)| *name).collect();
        assert_eq!(seen, names);
        report.recoveries
    }

    /// Compares what the host holds.
    fn assert_mapped(&self, name: &str, model: &[(&str, u64)]) {
        for (tensor, expected) in contents(model) {
            let view = self.engine.map(name, &tensor).unwrap();
            assert!(read(&view) == expected, "{tensor}");
        }
    }

    fn tiers(&self, name: &str) -> Vec<Tier> {
        let status = self.engine.status();
        let model = status.models.iter().find(|each| each.name == name);
        model
            .unwrap()
            .tensors
            .iter()
            .map(|tensor| tensor.tier)
            .collect()
    }

    fn spill_files(&self) -> Vec<std::path::PathBuf> {
        std::fs::read_dir(self.engine.directory())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "spill"))
            .collect()
    }

    /// Closes the engine and checks that nothing is left anywhere.
    fn finish(self) {
        self.engine.close().unwrap();
        assert_eq!(self.driver.used_bytes(), 0);
        assert_eq!(self.driver.registered(), 0);
        assert_eq!(self.driver.streams(), 0);
        assert_eq!(self.driver.events(), 0);
        assert_eq!(self.driver.violations(), Vec::<String>::new());
        assert_eq!(self.directory.path().read_dir().unwrap().count(), 0);
    }
}

fn read(view: &TensorView) -> Vec<u8> {
    let mut out = vec![0; view.span_bytes() as usize];
    view.read_at(0, &mut out).unwrap();
    out
}

/// One storage a tensor, of bytes, seeded by its place.
fn manifest(model: &[(&str, u64)]) -> Manifest {
    let storages = model.iter().enumerate().map(|(index, (name, bytes))| {
        let name = (*name).to_owned();
        let fill = Fill::Seed(index as u64);
        ManifestStorage {
            name,
            bytes: *bytes,
            fill,
        }
    });
    let tensors = model.iter().map(|(name, bytes)| ManifestTensor {
        name: (*name).to_owned(),
        dtype: Dtype::U8,
        shape: vec![*bytes],
        strides: None,
        storage: (*name).to_owned(),
        byte_offset: 0,
    });
    Manifest {
        storages: storages.collect(),
        tensors: tensors.collect(),
    }
}

fn contents(model: &[(&str, u64)]) -> BTreeMap<String, Vec<u8>> {
    let filled = model.iter().enumerate().map(|(index, (name, bytes))| {
        let mut out = vec![0; *bytes as usize];
        Fill::Seed(index as u64).write(0, &mut out);
        ((*name).to_owned(), out)
    });
    filled.collect()
}

/// Writes `byte` all over a tensor.
fn overwrite(engine: &Engine, name: &str, tensor: &str, byte: u8) {
    engine
        .write_tensor(name, tensor, &mut |_, out| {
            out.fill(byte);
            Ok(())
        })
        .unwrap();
}

/// Waits, a bounded time, until the state is so.
fn until(engine: &Engine, what: &str, is_so: impl Fn(&State) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(&engine.state()) {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// A place where a visitor stops until it is told to go on.
struct Gate {
    reached: (mpsc::SyncSender<()>, Mutex<mpsc::Receiver<()>>),
    opened: (mpsc::SyncSender<()>, Mutex<mpsc::Receiver<()>>),
}

impl Gate {
    fn new() -> Self {
        let channel = || {
            let (send, receive) = mpsc::sync_channel(1);
            (send, Mutex::new(receive))
        };
        Self {
            reached: channel(),
            opened: channel(),
        }
    }

    /// Inside the visitor.
    fn stop_here(&self) -> Result<(), Error> {
        let _ = self.reached.0.send(());
        let opened = self.opened.1.lock().unwrap().recv_timeout(PATIENCE);
        opened.map_err(|_| Error::Internal("nobody opened the gate".into()))
    }

    fn wait_until_reached(&self) {
        let reached = self.reached.1.lock().unwrap().recv_timeout(PATIENCE);
        reached.expect("the visitor comes to the gate");
    }

    fn open(&self) {
        self.opened.0.send(()).unwrap();
    }
}

/// A visitor that stops at the gate with this tensor.
fn stopping_at<'a>(
    gate: &'a Gate,
    name: &'a str,
) -> impl FnMut(&DeviceTensor<'_>) -> Result<(), Error> + 'a {
    move |tensor| {
        if tensor.name() == name {
            return gate.stop_here();
        }
        Ok(())
    }
}

/// A visitor that fails or panics at the nth tensor.
fn failing_at(
    nth: usize,
    fail: impl Fn() -> Error,
) -> impl FnMut(&DeviceTensor<'_>) -> Result<(), Error> {
    let seen = Cell::new(0);
    move |_| {
        seen.set(seen.get() + 1);
        if seen.get() == nth {
            Err(fail())
        } else {
            Ok(())
        }
    }
}
