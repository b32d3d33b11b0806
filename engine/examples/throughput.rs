//! How fast this machine stores and loads: one model of one tensor, then two models that change places.
//!
//! ```text
//! OFFLOAD_DIR=/var/tmp cargo run --release -p spillproof-engine --example throughput -- 4294967296 3
//! ```
//! The arguments are bytes of the tensor, rounds, and tensors of each of the two models (1), which have the same bytes together. Other settings
//! come from the environment as [`spillproof_engine::SettingsBuilder::environment`] has them, but everything goes to files. `spillproof bench`
//! compares with other engines and with the machine's own limits.
#![allow(clippy::unwrap_used)]

use spillproof_engine::{
    Dtype, Engine, Error, Fill, Manifest, ManifestStorage, ManifestTensor, MemoryRequest,
    ModelSource, Settings, Threshold,
};
use std::{
    fs::File,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

fn main() -> Result<(), Error> {
    let number = |index: usize, default: u64| {
        let word = std::env::args().nth(index);
        word.map_or(default, |word| word.parse().unwrap())
    };
    let (bytes, rounds, tensors) = (number(1, 1 << 30), number(2, 3), number(3, 1));
    let settings = Settings::builder()
        .environment()
        .threshold(Threshold::Below(u64::MAX))
        .build()?;
    println!("settings: {settings:?}");
    let engine = Engine::open(settings)?;
    engine.load("a", model(bytes, tensors))?;
    for _ in 0..rounds {
        let stored = timed(|| engine.free_memory(Some("a"), MemoryRequest::Full).map(drop))?;
        drop_caches(&engine);
        let cold = timed(|| engine.make_resident("a").map(drop))?;
        engine.free_memory(Some("a"), MemoryRequest::Full)?;
        fill_caches(&engine);
        let warm = timed(|| engine.make_resident("a").map(drop))?;
        println!(
            "store {:.2}  cold load {:.2}  warm load {:.2} GB/s",
            rate(bytes, stored),
            rate(bytes, cold),
            rate(bytes, warm)
        );
        // Written anew in the next round.
        engine.drop_model("a")?;
        engine.load("a", model(bytes, tensors))?;
    }
    for _ in 0..rounds {
        engine.load("b", model(bytes, tensors))?;
        engine.free_memory(Some("b"), MemoryRequest::Full)?;
        drop_caches(&engine);
        let swapped = timed(|| {
            thread::scope(|scope| {
                let leaving = scope.spawn(|| engine.free_memory(Some("a"), MemoryRequest::Full));
                engine.make_resident("b")?;
                leaving.join().unwrap().map(drop)
            })
        })?;
        println!("swap {:.2} GB/s each way", rate(bytes, swapped));
        engine.drop_model("a")?;
        engine.drop_model("b")?;
        engine.load("a", model(bytes, tensors))?;
    }
    let status = engine.status();
    println!(
        "direct: {} of {} bytes written, {} of {} read",
        status.direct_written_bytes,
        status.written_bytes,
        status.direct_read_bytes,
        status.read_bytes
    );
    engine.close()
}

fn model(bytes: u64, tensors: u64) -> ModelSource {
    let each = bytes / tensors / 4 * 4;
    let names = (0..tensors).map(|index| format!("t{index}"));
    let storages = names.clone().zip(1..).map(|(name, seed)| ManifestStorage {
        name,
        bytes: each,
        fill: Fill::Seed(seed),
    });
    let views = names.map(|name| ManifestTensor {
        storage: name.clone(),
        name,
        dtype: Dtype::F32,
        shape: vec![each / 4],
        strides: None,
        byte_offset: 0,
    });
    ModelSource::Manifest(Manifest {
        storages: storages.collect(),
        tensors: views.collect(),
    })
}

fn timed(act: impl FnOnce() -> Result<(), Error>) -> Result<Duration, Error> {
    let start = Instant::now();
    act().map(|()| start.elapsed())
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e9
}

fn spill_files(engine: &Engine) -> impl Iterator<Item = PathBuf> {
    engine.status().files.into_iter().map(|file| file.path)
}

fn drop_caches(engine: &Engine) {
    for path in spill_files(engine) {
        let file = File::open(path).unwrap();
        file.sync_data().unwrap();
        nix::fcntl::posix_fadvise(
            &file,
            0,
            0,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )
        .unwrap();
    }
}

fn fill_caches(engine: &Engine) {
    for path in spill_files(engine) {
        std::io::copy(&mut File::open(path).unwrap(), &mut std::io::sink()).unwrap();
    }
}
