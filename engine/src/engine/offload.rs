//! Freeing device memory: facts from the state, a plan from the policy, carried out move by move.

use super::{
    Engine,
    operation::Operation,
    reports::{FreeReport, Moved, Tier},
    state::{BlockId, State},
    turn::Moves,
};
use crate::{
    BlockFacts, Destination, Error, Extent, HostCopy, MemoryRequest, Plan, ShortTier, Shortfall,
    TierFacts, cancellation::Stop, memory, plan, transfer::FileRange,
};

impl Engine {
    /// Asks device memory back, from one model or from all.
    ///
    /// Blocks leave in a fixed order (E11): the model whose last request is the longest ago first, and within a model
    /// the most recently visited block first. A block's device memory is released only when its host copy is complete
    /// (E23). A block that a request's visitor looks at is waited for; no request gets in between. On an error the blocks
    /// that have left stay away, the others stay where they are.
    ///
    /// # Errors
    /// No such model; no place in RAM or on the disk for what would go there (nothing has moved then); or a failing
    /// device or file call. When something has left before that, [`Error::FreedLess`] tells what, and the cause.
    pub fn free_memory(
        &self,
        model: Option<&str>,
        request: MemoryRequest,
    ) -> Result<FreeReport, Error> {
        self.free(&Stop::never(), model, request)
    }

    pub(super) fn free(
        &self,
        stop: &Stop,
        model: Option<&str>,
        request: MemoryRequest,
    ) -> Result<FreeReport, Error> {
        let operation = match model {
            Some(name) => self.begin_with(stop, name, Moves::Leaving)?,
            None => self.begin(stop, Moves::Any)?,
        };
        let candidates = {
            let state = self.state();
            match model {
                Some(name) => state.find(name)?.leaving_order(),
                None => state.leaving_order(None),
            }
        };
        let mut moves = Vec::new();
        let outcome = self.offload_into(&operation, &candidates, request, &mut moves);
        let report = |extent| FreeReport {
            extent,
            freed_bytes: moves.iter().map(|moved| moved.bytes).sum(),
            moves: moves.clone(),
        };
        match outcome {
            Ok(extent) => Ok(report(extent)),
            Err(cause) if moves.is_empty() => Err(cause),
            Err(cause) => Err(Error::FreedLess {
                cause: Box::new(cause),
                report: Box::new(report(Extent::Partial)),
            }),
        }
    }

    /// Lets as many of `candidates` leave, in their order, as the request takes; the bytes that left.
    pub(super) fn offload(
        &self,
        operation: &Operation<'_>,
        candidates: &[BlockId],
        request: MemoryRequest,
    ) -> Result<u64, Error> {
        let mut moves = Vec::new();
        self.offload_into(operation, candidates, request, &mut moves)?;
        Ok(moves.iter().map(|moved| moved.bytes).sum())
    }

    /// As [`Self::offload`]; `moves` tells what has left, also when an error ended it.
    fn offload_into(
        &self,
        operation: &Operation<'_>,
        candidates: &[BlockId],
        request: MemoryRequest,
        moves: &mut Vec<Moved>,
    ) -> Result<Extent, Error> {
        let plan = loop {
            let plan = self.plan(candidates, request)?;
            let leaving: Vec<BlockId> = plan
                .moves
                .iter()
                .map(|each| candidates[each.index])
                .collect();
            // What was planned holds no longer when somebody was waited for, or a file turns out to be cut.
            if !self.wait_for_pins(operation, &leaving)?
                && !self.forget_cut_files(candidates, &plan)?
            {
                break plan;
            }
        };
        let stores = |destination| match destination {
            Destination::Release => false,
            Destination::Ram | Destination::File => true,
        };
        if plan.moves.iter().any(|each| stores(each.destination)) {
            // What any stream has still to write into these blocks must be in the copies (E21).
            self.context.synchronize()?;
        }
        let to_files = plan
            .moves
            .iter()
            .filter(|each| each.destination == Destination::File);
        let mut reserved = self.reserve(operation, to_files.map(|each| candidates[each.index]))?;
        for planned in &plan.moves {
            operation.stop().check()?;
            let id = candidates[planned.index];
            moves.push(self.leave(operation, id, planned.destination, reserved.remove(&id))?);
        }
        Ok(plan.extent)
    }

    /// A file that somebody cut must not make the device let go of the only good bytes (E22, E23): its copies of blocks on
    /// the device are forgotten, and the blocks go to another file. Whether there were any.
    fn forget_cut_files(&self, candidates: &[BlockId], plan: &Plan) -> Result<bool, Error> {
        let released = plan
            .moves
            .iter()
            .filter(|each| each.destination == Destination::Release);
        let mut forgotten = Vec::new();
        for planned in released {
            let mut state = self.state();
            let block = state.block(candidates[planned.index])?;
            let copy = match block.host_copy() {
                HostCopy::File => block.file.clone(),
                HostCopy::None | HostCopy::Ram => None,
            };
            let Some(copy) = copy else { continue };
            if copy.range.check_len().is_err() {
                forgotten.extend(state.forget_copies_in(copy.range.file()));
            }
        }
        Ok(!forgotten.is_empty())
    }

    fn plan(&self, candidates: &[BlockId], request: MemoryRequest) -> Result<Plan, Error> {
        let (facts, kept_ram_bytes, files) = {
            let mut state = self.state();
            let facts = candidates
                .iter()
                .map(|id| facts_of(&mut state, *id))
                .collect::<Result<Vec<_>, _>>()?;
            let files = if self.directory.counts_as_ram() {
                state.live_files()
            } else {
                Vec::new()
            };
            (facts, state.ram_bytes(), files)
        };
        let in_memory: u64 = files.iter().map(|file| file.used_bytes()).sum();
        drop(files);
        let may_move = facts.iter().any(|block| block.copy == HostCopy::None);
        let tiers = if may_move && request != MemoryRequest::AtLeast(0) {
            self.tiers(kept_ram_bytes.saturating_add(in_memory))?
        } else {
            // Nothing moves, so no tier is asked and none can fail.
            TierFacts {
                ram_bytes: 0,
                disk_bytes: 0,
                files_count_as_ram: false,
            }
        };
        plan(request, &facts, tiers, self.settings.threshold())
            .map_err(|shortfall| self.shortfall(shortfall))
    }

    fn tiers(&self, kept_ram_bytes: u64) -> Result<TierFacts, Error> {
        let available = memory::available_bytes()?;
        let limit = self
            .settings
            .ram_limit_bytes()
            .map_or(u64::MAX, |limit| limit.saturating_sub(kept_ram_bytes));
        Ok(TierFacts {
            ram_bytes: available.min(limit),
            disk_bytes: self.directory.disk_available_bytes()?,
            files_count_as_ram: self.directory.counts_as_ram(),
        })
    }

    fn shortfall(&self, shortfall: Shortfall) -> Error {
        match shortfall.tier {
            ShortTier::Ram => Error::HostMemory {
                wanted: shortfall.wanted,
                available: shortfall.available,
            },
            ShortTier::Disk => Error::DiskFull {
                path: self.directory.path().to_owned(),
                operation: "reserve",
                wanted: shortfall.wanted,
                available: Some(shortfall.available),
                source: None,
            },
        }
    }

    fn leave(
        &self,
        operation: &Operation<'_>,
        id: BlockId,
        destination: Destination,
        reserved: Option<FileRange>,
    ) -> Result<Moved, Error> {
        let stored = self.store(operation, id, destination, reserved)?;
        let bytes = self.release_block(id)?;
        let mut state = self.state();
        let to = state.block(id)?.tier().unwrap_or(Tier::Vram);
        let model = state.model(id.model)?;
        Ok(Moved {
            tensors: model.layout.blocks[id.block]
                .tensors
                .iter()
                .map(|tensor| model.layout.tensors[*tensor].name.clone())
                .collect(),
            bytes,
            to,
            written_bytes: stored.written_bytes,
            path: stored.path,
        })
    }
}

fn facts_of(state: &mut State, id: BlockId) -> Result<BlockFacts, Error> {
    let file_bytes = state.model(id.model)?.layout.blocks[id.block].file_bytes();
    let block = state.block(id)?;
    Ok(BlockFacts {
        bytes: block.device_bytes(),
        file_bytes,
        copy: block.host_copy(),
    })
}
