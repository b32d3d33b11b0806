//! What is where. A host copy, where a block has one, is always current: whatever changes the device's bytes drops
//! the host copies, so that "modified" needs no flag. At least one current copy of a loaded block exists at any time.

use super::{
    reports::{Tier, TierBytes},
    turn::TurnQueue,
    workspace::Workspaces,
};
use crate::{
    Error, HostCopy, TransferPath,
    cuda::DeviceBuffer,
    model::Layout,
    spill::FileMap,
    transfer::{Checksums, DeviceSpan, FileRange, ModelFile, RamCopy},
};
use std::{
    sync::{Arc, Weak},
    thread::ThreadId,
};

/// Every model, and the files and RAM copies that somebody still holds, a view too.
#[derive(Default)]
pub(super) struct State {
    /// In load order.
    pub(super) models: Vec<Model>,
    pub(super) files: Vec<Weak<ModelFile>>,
    /// With their bytes: nobody who counts them becomes the last to hold one.
    ram_copies: Vec<(Weak<RamCopy>, u64)>,
    pub(super) turns: TurnQueue,
    /// Threads inside an operation, their visitors included.
    pub(super) inside: Vec<ThreadId>,
    pub(super) workspaces: Workspaces,
    next_number: u64,
    clock: u64,
}

/// A model and its blocks.
pub(super) struct Model {
    pub(super) name: String,
    /// Never used again in this engine's life.
    pub(super) number: u64,
    pub(super) layout: Arc<Layout>,
    /// In the layout's order.
    pub(super) blocks: Vec<Block>,
    /// Known to nobody but the load that makes it.
    pub(super) is_loading: bool,
    pub(super) last_use: u64,
    /// The file that the next store goes to, while anything is in it.
    pub(super) file: Weak<ModelFile>,
    pub(super) next_generation: u64,
}

impl Drop for Model {
    fn drop(&mut self) {
        let mut files: Vec<Arc<ModelFile>> = self.file.upgrade().into_iter().collect();
        for copy in self.blocks.iter().filter_map(|block| block.file.as_ref()) {
            if !files
                .iter()
                .any(|file| Arc::ptr_eq(file, copy.range.file()))
            {
                files.push(Arc::clone(copy.range.file()));
            }
        }
        files.iter().for_each(|file| file.abandon());
        self.blocks.clear();
        files.iter().for_each(|file| file.discard_unused());
    }
}

/// One unit of residency.
#[derive(Default)]
pub(super) struct Block {
    pub(super) device: Option<DeviceBuffer>,
    pub(super) ram: Option<Arc<RamCopy>>,
    /// Of `file`'s contents, and dropped before them.
    pub(super) map: Option<Arc<FileMap>>,
    pub(super) file: Option<Arc<FileCopy>>,
    pub(super) path: Option<TransferPath>,
    pub(super) last_use: u64,
    /// Visitors that look at it just now.
    pub(super) pins: u32,
    /// Walks that brought it in and still run: its host copies stay till then, so that sending it back writes nothing.
    pub(super) claims: u32,
}

/// Host copies that nobody needs any more, the map before its file. Dropped without the lock: they take their time.
pub(super) type HostCopies = (
    Option<Arc<RamCopy>>,
    Option<Arc<FileMap>>,
    Option<Arc<FileCopy>>,
);

/// A block's contents in its file, and what to verify.
pub(super) struct FileCopy {
    pub(super) range: Arc<FileRange>,
    pub(super) checksums: Checksums,
}

/// Names a block over models. Their order is that of the blocks in the models' files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlockId {
    pub(super) model: u64,
    pub(super) block: usize,
}

impl Block {
    pub(super) fn host_copy(&self) -> HostCopy {
        if self.ram.is_some() {
            HostCopy::Ram
        } else if self.file.is_some() {
            HostCopy::File
        } else {
            HostCopy::None
        }
    }

    /// The highest tier that holds it; `None` while it is loaded for the first time.
    pub(super) fn tier(&self) -> Option<Tier> {
        if self.device.is_some() {
            Some(Tier::Vram)
        } else if self.ram.is_some() {
            Some(Tier::Ram)
        } else if self.map.is_some() {
            Some(Tier::Mapped)
        } else if self.file.is_some() {
            Some(Tier::File)
        } else {
            None
        }
    }

    pub(super) fn device_bytes(&self) -> u64 {
        self.device.as_ref().map_or(0, DeviceBuffer::bytes)
    }

    pub(super) fn span(&self) -> Option<DeviceSpan> {
        self.device.as_ref().map(|buffer| DeviceSpan {
            address: buffer.address(),
            bytes: buffer.bytes(),
        })
    }

    /// Drops every host copy: the device's bytes are newer.
    #[must_use]
    pub(super) fn invalidate_host_copies(&mut self) -> HostCopies {
        (self.ram.take(), self.map.take(), self.file.take())
    }

    /// Lets go of what a block on the device does not need: RAM and map (E31). A file copy stays, so that the next
    /// offload writes nothing (E10).
    #[must_use]
    pub(super) fn settle_on_device(&mut self) -> HostCopies {
        if self.device.is_none() {
            return (None, None, None);
        }
        (self.ram.take(), self.map.take(), None)
    }
}

impl Model {
    pub(super) fn device_bytes(&self) -> u64 {
        self.blocks.iter().map(Block::device_bytes).sum()
    }

    /// Blocks on the device in the order in which they leave (E11): most recently visited first, which for a model
    /// that is visited again and again from the start keeps most of what the next visit begins with. In the middle of
    /// a visit that means: what it has visited, the latest first, then what it has still to visit, the last first.
    pub(super) fn leaving_order(&self) -> Vec<BlockId> {
        let mut loaded: Vec<usize> = (0..self.blocks.len())
            .filter(|block| self.blocks[*block].device.is_some())
            .collect();
        loaded.sort_by_key(|block| std::cmp::Reverse((self.blocks[*block].last_use, *block)));
        loaded.into_iter().map(|block| self.id(block)).collect()
    }

    pub(super) fn block_ids(&self) -> Vec<BlockId> {
        (0..self.blocks.len()).map(|block| self.id(block)).collect()
    }

    pub(super) fn id(&self, block: usize) -> BlockId {
        BlockId {
            model: self.number,
            block,
        }
    }

    pub(super) fn tensor_index(&self, tensor: &str) -> Result<usize, Error> {
        self.layout
            .index_of(tensor)
            .ok_or_else(|| Error::UnknownTensor {
                model: self.name.clone(),
                tensor: tensor.to_owned(),
            })
    }
}

impl State {
    /// A point in time, later than every earlier one.
    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Adds a model that only its load knows.
    pub(super) fn add_loading(&mut self, name: &str, layout: Arc<Layout>) -> Result<u64, Error> {
        if self.models.iter().any(|model| model.name == name) {
            return Err(Error::ModelExists(name.to_owned()));
        }
        let number = self.next_number;
        self.next_number += 1;
        let last_use = self.tick();
        self.models.push(Model {
            name: name.to_owned(),
            number,
            blocks: layout.blocks.iter().map(|_| Block::default()).collect(),
            layout,
            is_loading: true,
            last_use,
            file: Weak::new(),
            next_generation: 0,
        });
        Ok(number)
    }

    pub(super) fn find(&self, name: &str) -> Result<&Model, Error> {
        self.models
            .iter()
            .find(|model| model.name == name && !model.is_loading)
            .ok_or_else(|| Error::UnknownModel(name.to_owned()))
    }

    /// A model by its number; it is there as long as an operation on it runs.
    pub(super) fn model(&mut self, number: u64) -> Result<&mut Model, Error> {
        self.models
            .iter_mut()
            .find(|model| model.number == number)
            .ok_or_else(|| Error::Internal(format!("model number {number} is gone")))
    }

    pub(super) fn block(&mut self, id: BlockId) -> Result<&mut Block, Error> {
        Ok(&mut self.model(id.model)?.blocks[id.block])
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Model> {
        let at = self
            .models
            .iter()
            .position(|model| model.number == number)?;
        Some(self.models.remove(at))
    }

    /// Marks a block as visited now.
    pub(super) fn touch(&mut self, id: BlockId) -> Result<(), Error> {
        let now = self.tick();
        self.block(id)?.last_use = now;
        Ok(())
    }

    /// Blocks on the device of every model but `except`, in the order in which they leave: the model whose last
    /// request is the longest ago goes first.
    pub(super) fn leaving_order(&self, except: Option<u64>) -> Vec<BlockId> {
        let mut models: Vec<&Model> = self
            .models
            .iter()
            .filter(|model| Some(model.number) != except)
            .collect();
        models.sort_by_key(|model| model.last_use);
        models.into_iter().flat_map(Model::leaving_order).collect()
    }

    /// Bytes of RAM copies, those included that only views keep.
    pub(super) fn ram_bytes(&self) -> u64 {
        self.ram_copies
            .iter()
            .filter(|(copy, _)| copy.strong_count() > 0)
            .map(|(_, bytes)| bytes)
            .sum()
    }

    /// A block's copy in RAM, from now on counted.
    pub(super) fn keep_in_ram(&mut self, id: BlockId, copy: Arc<RamCopy>) -> Result<(), Error> {
        self.ram_copies.push((Arc::downgrade(&copy), copy.bytes()));
        self.block(id)?.ram = Some(copy);
        Ok(())
    }

    /// Ends the count of what nobody holds any more.
    pub(super) fn forget_unheld(&mut self) {
        self.files.retain(|file| file.strong_count() > 0);
        self.ram_copies.retain(|(copy, _)| copy.strong_count() > 0);
    }

    /// Files that somebody holds. To be let go without the lock: one of them may go with it.
    pub(super) fn live_files(&self) -> Vec<Arc<ModelFile>> {
        self.files.iter().filter_map(Weak::upgrade).collect()
    }

    /// Forgets the copies in one file of blocks that are on the device; those that are only there keep their chance.
    #[must_use]
    pub(super) fn forget_copies_in(&mut self, file: &Arc<ModelFile>) -> Vec<HostCopies> {
        let is_there = |copy: &Arc<FileCopy>| Arc::ptr_eq(copy.range.file(), file);
        self.models
            .iter_mut()
            .flat_map(|model| &mut model.blocks)
            .filter(|block| block.device.is_some() && block.file.as_ref().is_some_and(is_there))
            .map(Block::invalidate_host_copies)
            .collect()
    }

    /// Ends the claims of one walk on blocks that it brought in, and takes what they kept of those that nobody else claims.
    #[must_use]
    pub(super) fn end_claims(&mut self, brought: &[BlockId]) -> Vec<HostCopies> {
        let mut unneeded = Vec::new();
        for id in brought {
            // The model may have been dropped meanwhile.
            let Ok(block) = self.block(*id) else { continue };
            block.claims -= 1;
            if block.claims == 0 {
                unneeded.push(block.settle_on_device());
            }
        }
        unneeded
    }

    /// Takes what any block on the device does not need, claimed or not.
    #[must_use]
    pub(super) fn settle_all(&mut self) -> Vec<HostCopies> {
        self.models
            .iter_mut()
            .flat_map(|model| &mut model.blocks)
            .map(Block::settle_on_device)
            .collect()
    }

    pub(super) fn is_pinned(&self, id: BlockId) -> bool {
        self.models
            .iter()
            .find(|model| model.number == id.model)
            .is_some_and(|model| model.blocks[id.block].pins > 0)
    }

    /// Whether nobody dropped the model that had this number when it was found under `name`.
    pub(super) fn still_has(&self, number: u64, name: &str) -> Result<(), Error> {
        if self.models.iter().any(|model| model.number == number) {
            return Ok(());
        }
        Err(Error::UnknownModel(name.to_owned()))
    }

    pub(super) fn tier_bytes(&self) -> TierBytes {
        let mut tiers = TierBytes::default();
        for (bytes, block) in self.blocks() {
            match block.tier() {
                Some(Tier::Vram) => tiers.vram += bytes,
                Some(Tier::Ram) => tiers.ram += bytes,
                Some(Tier::Mapped) => tiers.mapped += bytes,
                Some(Tier::File) => tiers.file += bytes,
                None => {}
            }
        }
        tiers
    }

    fn blocks(&self) -> impl Iterator<Item = (u64, &Block)> {
        self.models.iter().flat_map(|model| {
            let bytes = model.layout.blocks.iter().map(|block| block.bytes);
            bytes.zip(&model.blocks)
        })
    }
}
