//! Making a model known and putting its bytes on the device.

use super::{
    Engine, operation::Operation, reports::LoadReport, request::others_then_own, state::State,
    turn::Moves,
};
use crate::{
    Error,
    cancellation::Stop,
    model::{self, Manifest, Source},
    transfer::{DeviceSpan, SourceRead},
};
use std::{path::PathBuf, sync::Arc};

/// Where a model comes from.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// Names, dtypes and shapes with generated contents.
    Manifest(Manifest),
    /// A `.safetensors` file; it is read once and not looked at again.
    Safetensors(PathBuf),
}

impl Engine {
    /// Loads a model under `name`. What the device does not hold whole is let go again while loading: other models'
    /// blocks first, then this one's, the most recently loaded first.
    ///
    /// # Errors
    /// The name is taken; the manifest or file is not valid; device OOM that letting go did not cure; no place on the
    /// host for what has to leave. Everything of the new model is gone again then.
    pub fn load(&self, name: &str, source: ModelSource) -> Result<LoadReport, Error> {
        self.load_model(&Stop::never(), name, source)
    }

    pub(super) fn load_model(
        &self,
        stop: &Stop,
        name: &str,
        source: ModelSource,
    ) -> Result<LoadReport, Error> {
        // Before the turn: a slow disk or a long header keeps nobody else waiting.
        let (layout, source) = match source {
            ModelSource::Manifest(manifest) => model::from_manifest(&manifest)?,
            ModelSource::Safetensors(path) => model::from_safetensors(&path)?,
        };
        let mut operation = self.begin(stop, Moves::Arriving(None))?;
        let number = self.state().add_loading(name, Arc::new(layout))?;
        let loaded = self.load_blocks(&mut operation, number, &Arc::new(source));
        if let Err(error) = loaded {
            // With the turn: others may just be letting blocks of it leave.
            operation.persist();
            operation.enter()?;
            let model = self.state().remove(number);
            // Buffers that the driver does not take back are noted by their drop.
            drop(model);
            return Err(error);
        }
        let mut state = self.state();
        let model = state.model(number)?;
        model.is_loading = false;
        Ok(LoadReport {
            device_bytes: model.device_bytes(),
        })
    }

    fn load_blocks(
        &self,
        operation: &mut Operation<'_>,
        number: u64,
        source: &Arc<Source>,
    ) -> Result<(), Error> {
        let layout = Arc::clone(&self.state().model(number)?.layout);
        for (block, block_layout) in layout.blocks.iter().enumerate() {
            let buffer = self.with_memory(operation, |operation| {
                let leaving = |state: &mut State| others_then_own(state, number);
                self.allocate(operation, block_layout.bytes, &leaving, &mut 0)
            })?;
            let source = Arc::clone(source);
            let read: SourceRead = Arc::new(move |offset, out| source.read(block, offset, out));
            let span = DeviceSpan {
                address: buffer.address(),
                bytes: buffer.bytes(),
            };
            self.staged.load_from_source(read, span, operation.stop())?;
            let mut state = self.state();
            let id = state.model(number)?.id(block);
            state.block(id)?.device = Some(buffer);
            state.touch(id)?;
        }
        Ok(())
    }
}
