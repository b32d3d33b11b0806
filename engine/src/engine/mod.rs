//! The engine: what is where, and every way in which that changes.
//!
//! One lock and one turn, which two may share. The lock is held for looking at the state and for committing a move, never while bytes travel or
//! a caller's code runs: `status` and `map` never wait for a transfer. The turn is had by whoever moves bytes, in the
//! order of asking; a request has it while it brings a block in and pins it, not while its visitor runs.
//!
//! Nobody waits for ever as long as visitors return: pins are made with the turn and given up without it, so whoever has
//! the turn may wait for pins; who waits for memory that another request holds lets the turn go, and is not waited for.

mod blocks;
mod device_tensor;
mod load;
mod monitor;
mod offload;
mod operation;
mod pins;
mod reload;
mod reports;
mod request;
mod state;
#[cfg(test)]
mod tests;
mod turn;
mod unless;
mod view;
mod workspace;
mod write;

pub use device_tensor::DeviceTensor;
pub use load::ModelSource;
pub use reports::{
    FileStatus, FreeReport, LoadReport, ModelStatus, Moved, RequestReport, ResidentReport, Status,
    TensorStatus, Tier, TierBytes,
};
pub use unless::Unless;
pub use view::TensorView;

use crate::{
    CuFileUse, Error, Settings,
    cancellation::Stop,
    cuda::Context,
    cufile,
    spill::SpillDirectory,
    transfer::{CuFile, Staged, Traffic, Transfer, Unusable},
};
use monitor::Owned;
use state::{Model, State};
use std::{
    path::Path,
    sync::{Arc, MutexGuard},
};
use turn::Moves;

/// Moves the tensors of models between device memory, RAM and files.
///
/// Methods take `&self` and may be called from any thread; moves run one after the other, in the order of asking, but for one model that
/// leaves beside one that arrives, and visitors of requests beside them. The device's primary context is left current on the calling thread. Dropping an
/// engine is [`Engine::close`] without the report.
pub struct Engine {
    // In the order of dropping: models give back device memory and files, then the I/O threads end, then the context
    // goes, then the directory.
    monitor: Owned,
    /// The way between device and file.
    transfer: Arc<dyn Transfer>,
    /// Why that is not cuFile's, where it might have been.
    cufile_refusal: Option<String>,
    staged: Arc<Staged>,
    context: Arc<Context>,
    traffic: Arc<Traffic>,
    directory: SpillDirectory,
    settings: Settings,
}

impl Engine {
    /// Opens the device and the offload directory, and removes what dead owners left there.
    ///
    /// # Errors
    /// No CUDA library, one that lacks a symbol, a failing `cuInit`, no such device; a directory that cannot be used;
    /// no host memory for staging.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let context = Context::open(settings.device().ordinal())?;
        let driver = match settings.cufile() {
            CuFileUse::Off => None,
            CuFileUse::Auto | CuFileUse::On => {
                Some(cufile::Driver::shared(settings.cufile_open_bound()))
            }
        };
        Self::open_with(context, settings, driver)
    }

    #[cfg(test)]
    fn open_on(context: Arc<Context>, settings: Settings) -> Result<Self, Error> {
        Self::open_with(context, settings, None)
    }

    /// `driver` is cuFile's, or the reason why there is none; `None` when it was not asked for.
    fn open_with(
        context: Arc<Context>,
        settings: Settings,
        driver: Option<Result<Arc<cufile::Driver>, String>>,
    ) -> Result<Self, Error> {
        let directory = SpillDirectory::open(&settings)?;
        let traffic = Arc::new(Traffic::default());
        let staged = Arc::new(Staged::new(
            &context,
            settings.io_threads(),
            settings.slot_bytes(),
            settings.file_io(),
            Arc::clone(&traffic),
        )?);
        let by_cufile = driver.map(|driver| {
            let use_ = settings.cufile();
            let driver = driver.map_err(Unusable::Here)?;
            CuFile::open(driver, &context, &directory, &staged, &traffic, use_)
        });
        let (transfer, cufile_refusal): (Arc<dyn Transfer>, _) = match by_cufile {
            Some(Ok(cufile)) => (Arc::new(cufile), None),
            Some(Err(Unusable::Here(reason))) => (Arc::clone(&staged) as _, Some(reason)),
            Some(Err(Unusable::Untried(error))) => return Err(error),
            None => (Arc::clone(&staged) as _, None),
        };
        // What ended the context while cuFile was tried out is no reason to do without cuFile alone.
        context.bind()?;
        Ok(Self {
            monitor: Owned::default(),
            transfer,
            cufile_refusal,
            staged,
            context,
            traffic,
            directory,
            settings,
        })
    }

    /// The settings that it was opened with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The most pinned and staging host memory that it ever holds, bytes.
    #[must_use]
    pub fn staging_bytes(&self) -> u64 {
        self.settings.staging_bytes()
    }

    /// The directory of its own in which its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Leftovers of dead owners removed when it was opened.
    #[must_use]
    pub fn reaped_orphans(&self) -> u64 {
        self.directory.reaped_orphans()
    }

    /// What it holds. Moves nothing and waits for no operation. A forked child of the engine's process holds nothing: it
    /// gets an empty status with a note that says so.
    #[must_use]
    pub fn status(&self) -> Status {
        if let Err(refusal) = self.monitor.0.refuse_child() {
            return Status {
                notes: vec![refusal.to_string()],
                ..Status::default()
            };
        }
        let mut notes = self.staged.pageable_reasons();
        notes.extend(self.context.last_note());
        notes.extend(
            self.cufile_refusal
                .iter()
                .map(|reason| format!("cuFile is not used: {reason}")),
        );
        notes.extend(self.transfer.notes());
        let (models, tiers, files) = {
            let state = self.state();
            let models = state.models.iter().filter(|model| !model.is_loading);
            let files = state.live_files();
            (
                models.map(model_status).collect(),
                state.tier_bytes(),
                files,
            )
        };
        Status {
            models,
            tiers,
            // Without the lock: one of them may go with this very look.
            files: files
                .into_iter()
                .map(|file| FileStatus {
                    path: file.path().to_owned(),
                    bytes: file.len(),
                })
                .collect(),
            written_bytes: self.traffic.written_bytes(),
            read_bytes: self.traffic.read_bytes(),
            direct_written_bytes: self.traffic.direct_written_bytes(),
            direct_read_bytes: self.traffic.direct_read_bytes(),
            reaped_orphans: self.directory.reaped_orphans(),
            pending_unlinks: self.directory.pending_unlinks(),
            unreleased_bytes: self.context.unreleased_bytes(),
            notes,
        }
    }

    /// Forgets a model: its device memory, RAM, maps, descriptors and files go, the latter with the last view. Requests of
    /// it that run get [`Error::UnknownModel`] at their next step; a block that a visitor looks at is waited for.
    ///
    /// # Errors
    /// No such model, or the driver refuses to take memory back; the model is forgotten then, too.
    pub fn drop_model(&self, name: &str) -> Result<(), Error> {
        self.forget(&Stop::never(), name)
    }

    fn forget(&self, stop: &Stop, name: &str) -> Result<(), Error> {
        let operation = self.begin_release(stop, Moves::Any)?;
        let blocks = self.state().find(name)?.block_ids();
        self.wait_for_pins(&operation, &blocks)?;
        let model = {
            let mut state = self.state();
            let number = state.find(name)?.number;
            state.remove(number)
        };
        model.map_or(Ok(()), release)
    }

    /// Gives everything back and tells what could not be.
    ///
    /// # Errors
    /// The first thing that could not be given back; everything else is.
    pub fn close(self) -> Result<(), Error> {
        // A forked child leaves everything to its parent.
        self.monitor.0.refuse_child()?;
        let Self {
            monitor,
            transfer,
            cufile_refusal: _,
            staged,
            context,
            traffic: _,
            directory,
            settings: _,
        } = self;
        let state = monitor.take_state().unwrap_or_default();
        drop(monitor);
        let mut outcome = Ok(());
        for model in state.models {
            outcome = outcome.and(release(model));
        }
        drop(transfer);
        drop(staged);
        outcome = outcome.and(context.close());
        outcome.and(directory.close())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.monitor.0.lock()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("settings", &self.settings)
            .field("directory", &self.directory())
            .finish_non_exhaustive()
    }
}

/// Gives back all of a model's device memory; the first refusal is told.
fn release(mut model: Model) -> Result<(), Error> {
    let mut outcome = Ok(());
    for buffer in model
        .blocks
        .iter_mut()
        .filter_map(|block| block.device.take())
    {
        outcome = outcome.and(buffer.release());
    }
    outcome
}

fn model_status(model: &Model) -> ModelStatus {
    let device_bytes = model.device_bytes();
    let empty_tier = if device_bytes > 0 {
        Tier::Vram
    } else {
        Tier::Ram
    };
    ModelStatus {
        name: model.name.clone(),
        device_bytes,
        tensors: model
            .layout
            .tensors
            .iter()
            .map(|tensor| {
                let block = tensor.block.map(|block| &model.blocks[block]);
                TensorStatus {
                    name: tensor.name.clone(),
                    tier: block.and_then(|block| block.tier()).unwrap_or(empty_tier),
                    path: block.and_then(|block| block.path),
                }
            })
            .collect(),
    }
}
