//! Single blocks: storing one on the host, bringing one back.

use super::{
    Engine,
    operation::Operation,
    state::{BlockId, FileCopy},
};
use crate::{
    Destination, Error, FileTier, HostCopy,
    cancellation::Stop,
    cuda::DeviceBuffer,
    transfer::{DeviceSpan, FileRange, ModelFile, StoredSpan, TransferPath},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a store did.
pub(super) struct Stored {
    pub(super) written_bytes: u64,
    pub(super) path: TransferPath,
}

impl Engine {
    /// Makes sure that the host holds the block, in its reserved range when it goes to its file. The device's copy stays
    /// as it is; on an error nothing is left on the host (E24).
    pub(super) fn store(
        &self,
        operation: &Operation<'_>,
        id: BlockId,
        destination: Destination,
        reserved: Option<FileRange>,
    ) -> Result<Stored, Error> {
        let stored = match destination {
            Destination::Release => Stored {
                written_bytes: 0,
                path: TransferPath::None,
            },
            Destination::Ram => {
                let span = self.span_of(id)?;
                let copy = Arc::new(self.staged.store_to_ram(span, operation.stop())?);
                self.state().keep_in_ram(id, copy)?;
                Stored {
                    written_bytes: 0,
                    path: TransferPath::Staged,
                }
            }
            Destination::File => {
                let range = reserved.ok_or_else(|| {
                    Error::Internal("a block goes to a file without reserved space".into())
                })?;
                self.store_to_file(operation.stop(), id, range)?
            }
        };
        self.check_file_copy(id)?;
        self.map_block(id)?;
        if stored.path != TransferPath::None {
            self.state().block(id)?.path = Some(stored.path);
        }
        Ok(stored)
    }

    fn store_to_file(&self, stop: &Stop, id: BlockId, range: FileRange) -> Result<Stored, Error> {
        let span = self.span_of(id)?;
        let range = Arc::new(range);
        let StoredSpan { checksums, path } = self.transfer.store(span, &range, stop)?;
        range.close_once()?;
        if self.settings.durable() {
            range.sync()?;
        }
        let written_bytes = range.file_bytes();
        self.state().block(id)?.file = Some(Arc::new(FileCopy { range, checksums }));
        Ok(Stored {
            written_bytes,
            path,
        })
    }

    /// Reserves space for every block that goes to a file before any byte is written (E25), in the order of the files: blocks
    /// may leave in any order, and space that was reserved backwards would lie in as many pieces as there are blocks.
    pub(super) fn reserve(
        &self,
        operation: &Operation<'_>,
        blocks: impl Iterator<Item = BlockId>,
    ) -> Result<BTreeMap<BlockId, FileRange>, Error> {
        let ordered: BTreeSet<BlockId> = blocks.collect();
        ordered
            .into_iter()
            .map(|id| {
                operation.stop().check()?;
                Ok((id, self.take_range(id)?))
            })
            .collect()
    }

    /// Space for the block in the model's file; in a new one when there is none, or when the old contents are still
    /// seen by a view.
    fn take_range(&self, id: BlockId) -> Result<FileRange, Error> {
        let (layout, current) = {
            let mut state = self.state();
            let model = state.model(id.model)?;
            (Arc::clone(&model.layout), model.file.upgrade())
        };
        let block = &layout.blocks[id.block];
        if let Some(file) = current.filter(|file| file.check_len().is_ok()) {
            let range = FileRange::take(&file, id.block, block.file_offset, block.bytes)?;
            if let Some(range) = range {
                return Ok(range);
            }
        }
        let generation = {
            let mut state = self.state();
            let model = state.model(id.model)?;
            model.next_generation += 1;
            model.next_generation - 1
        };
        let name = format!("m{}-g{generation}.spill", id.model);
        let file = Arc::new(ModelFile::new(
            self.directory.create(&name, layout.file_bytes)?,
        ));
        let range = FileRange::take(&file, id.block, block.file_offset, block.bytes)?
            .ok_or_else(|| Error::Internal(format!("{name} is new and yet in use")))?;
        let mut state = self.state();
        state.files.push(Arc::downgrade(&file));
        state.model(id.model)?.file = Arc::downgrade(&file);
        Ok(range)
    }

    /// Maps a block whose only host copy is in its file. A map that cannot be made costs speed, not data: views then
    /// read through the descriptor (F50).
    fn map_block(&self, id: BlockId) -> Result<(), Error> {
        let copy = {
            let mut state = self.state();
            let block = state.block(id)?;
            match (block.host_copy(), self.settings.file_tier(), &block.map) {
                (HostCopy::File, FileTier::Mapped, None) => block.file.clone(),
                (HostCopy::None | HostCopy::Ram | HostCopy::File, _, _) => None,
            }
        };
        if let Some(map) = copy.and_then(|copy| copy.range.map().ok()) {
            self.state().block(id)?.map = Some(Arc::new(map));
        }
        Ok(())
    }

    /// A file that somebody cut must not make the device let go of the good bytes (E22, E23): its copy is forgotten and
    /// the next offload writes another one, to another file. A block that is off the device keeps it: it has no other.
    pub(super) fn check_file_copy(&self, id: BlockId) -> Result<(), Error> {
        let copy = {
            let mut state = self.state();
            let block = state.block(id)?;
            match block.host_copy() {
                HostCopy::File => block.file.clone(),
                HostCopy::None | HostCopy::Ram => None,
            }
        };
        let Some(copy) = copy else { return Ok(()) };
        if let Err(error) = copy.range.check_len() {
            let forgotten = {
                let mut state = self.state();
                let block = state.block(id)?;
                block
                    .device
                    .is_some()
                    .then(|| block.invalidate_host_copies())
            };
            drop(forgotten);
            return Err(error);
        }
        Ok(())
    }

    /// Gives a block's device memory back. Its contents must be on the host.
    pub(super) fn release_block(&self, id: BlockId) -> Result<u64, Error> {
        let buffer = {
            let mut state = self.state();
            let block = state.block(id)?;
            if block.host_copy() == HostCopy::None {
                return Err(Error::Internal(
                    "a block without a host copy was to leave the device".into(),
                ));
            }
            block.device.take()
        };
        let Some(buffer) = buffer else { return Ok(0) };
        let bytes = buffer.bytes();
        buffer.release()?;
        Ok(bytes)
    }

    /// Fills `buffer` with the block's contents and makes it the block's device memory. Host copies stay.
    pub(super) fn load_block(
        &self,
        stop: &Stop,
        id: BlockId,
        buffer: DeviceBuffer,
    ) -> Result<(), Error> {
        let (ram, file) = {
            let mut state = self.state();
            let block = state.block(id)?;
            (block.ram.clone(), block.file.clone())
        };
        let span = DeviceSpan {
            address: buffer.address(),
            bytes: buffer.bytes(),
        };
        let path = match (ram, file) {
            (Some(copy), _) => {
                self.staged.load_from_ram(&copy, span, stop)?;
                TransferPath::Staged
            }
            (None, Some(copy)) => self
                .transfer
                .load(&copy.range, &copy.checksums, span, stop)?,
            (None, None) => {
                return Err(Error::Internal(
                    "a block is neither on the device nor on the host".into(),
                ));
            }
        };
        let mut state = self.state();
        let block = state.block(id)?;
        block.device = Some(buffer);
        block.path = Some(path);
        Ok(())
    }

    fn span_of(&self, id: BlockId) -> Result<DeviceSpan, Error> {
        self.state()
            .block(id)?
            .span()
            .ok_or_else(|| Error::Internal("a block that is to leave is not on the device".into()))
    }
}
