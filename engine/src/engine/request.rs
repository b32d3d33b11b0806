//! Serving requests: walking over a model that may be larger than the device, and making one wholly resident.

use super::{
    DeviceTensor, Engine,
    reports::{RequestReport, ResidentReport},
    state::{BlockId, State},
};
use crate::{Error, cuda::DeviceBuffer, model::Layout};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

/// What a visitor is.
type Visitor<'a> = dyn FnMut(&DeviceTensor<'_>) -> Result<(), Error> + 'a;

impl Engine {
    /// Serves one request: reserves `workspace_bytes` of device memory, then visits every tensor on the device in the
    /// manifest's order, bringing in what is not there, and gives the workspace back.
    ///
    /// On device OOM blocks leave: other models' first, the one longest unused before the others, then this model's
    /// already visited ones, the most recent first, then those still to be visited, the last first. A visitor may look
    /// but not write: what it changes on the device is lost when the block leaves.
    ///
    /// Addresses, the workspace's too, are valid only during the visit that gets them. The device's primary context is
    /// current on the calling thread, and is left so. A visitor must not wait for another thread that calls the engine:
    /// that one waits for this request to end. Errors of its own it gives as [`Error::Caller`].
    ///
    /// # Errors
    /// No such model; device OOM that letting go did not cure; the visitor's error; a failing transfer. Blocks that
    /// the request brought in leave the device again, nothing is written for that, and the request can be repeated
    /// (E28). The same goes for a panic of the visitor, which is passed on.
    pub fn request(
        &self,
        name: &str,
        workspace_bytes: u64,
        visit: &mut Visitor<'_>,
    ) -> Result<RequestReport, Error> {
        let _operation = self.begin()?;
        let mut walk = self.begin_walk(name)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let workspace = self.reserve_workspace(&mut walk, workspace_bytes)?;
            let workspace_address = workspace.as_ref().map_or(0, DeviceBuffer::address);
            let visited = self.visit_all(&mut walk, workspace_address, visit);
            let released = workspace.map_or(Ok(()), DeviceBuffer::release);
            visited.and(released)
        }));
        self.end_walk(&walk, outcome)?;
        Ok(RequestReport {
            recoveries: walk.recoveries,
        })
    }

    /// Brings all of a model to the device: everything is allocated first, then loaded. On device OOM other models'
    /// blocks leave, this one's do not.
    ///
    /// # Errors
    /// As [`Engine::request`]; what was allocated is given back (E28).
    pub fn make_resident(&self, name: &str) -> Result<ResidentReport, Error> {
        let _operation = self.begin()?;
        let mut walk = self.begin_walk(name)?;
        let outcome = self.bring_all(&mut walk);
        self.end_walk(&walk, Ok(outcome))?;
        Ok(ResidentReport {
            recoveries: walk.recoveries,
        })
    }

    fn begin_walk(&self, name: &str) -> Result<Walk, Error> {
        let mut state = self.state();
        let model = state.find(name)?.number;
        let now = state.tick();
        let entry = state.model(model)?;
        entry.last_use = now;
        Ok(Walk {
            model,
            layout: Arc::clone(&entry.layout),
            brought: Vec::new(),
            recoveries: 0,
        })
    }

    /// Keeps what was brought in, or sends it back.
    fn end_walk(
        &self,
        walk: &Walk,
        outcome: std::thread::Result<Result<(), Error>>,
    ) -> Result<(), Error> {
        match outcome {
            Ok(Ok(())) => self.settle(walk.model),
            Ok(Err(error)) => {
                // The error that began it tells more than one that the rollback meets; what stays is seen in the status.
                let _ = self.send_back(&walk.brought);
                let _ = self.settle(walk.model);
                Err(error)
            }
            Err(panic) => {
                let _ = self.send_back(&walk.brought);
                let _ = self.settle(walk.model);
                resume_unwind(panic)
            }
        }
    }

    fn reserve_workspace(
        &self,
        walk: &mut Walk,
        bytes: u64,
    ) -> Result<Option<DeviceBuffer>, Error> {
        if bytes == 0 {
            return Ok(None);
        }
        let model = walk.model;
        self.allocate(
            model,
            bytes,
            &|state| others_then_own(state, model),
            &mut walk.recoveries,
        )
        .map(Some)
    }

    fn visit_all(
        &self,
        walk: &mut Walk,
        workspace_address: u64,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Error> {
        let layout = Arc::clone(&walk.layout);
        for tensor in &layout.tensors {
            let address = match tensor.block {
                Some(block) => self.bring_in(walk, block)? + tensor.offset_bytes,
                None => 0,
            };
            visit(&DeviceTensor::new(
                &self.staged,
                tensor,
                address,
                workspace_address,
            ))?;
        }
        Ok(())
    }

    /// Makes a block resident and returns its device address.
    fn bring_in(&self, walk: &mut Walk, block: usize) -> Result<u64, Error> {
        let id = BlockId {
            model: walk.model,
            block,
        };
        let is_there = self.state().block(id)?.device.is_some();
        if !is_there {
            let model = walk.model;
            let buffer = self.allocate(
                model,
                walk.layout.blocks[block].bytes,
                &|state| others_then_own(state, model),
                &mut walk.recoveries,
            )?;
            self.load_block(id, buffer)?;
            walk.brought.push(id);
        }
        let mut state = self.state();
        state.touch(id)?;
        let span = state.block(id)?.span();
        span.map(|span| span.address)
            .ok_or_else(|| Error::Internal("a block just brought in is not on the device".into()))
    }

    fn bring_all(&self, walk: &mut Walk) -> Result<(), Error> {
        let missing: Vec<BlockId> = {
            let mut state = self.state();
            let model = state.model(walk.model)?;
            (0..model.blocks.len())
                .filter(|block| model.blocks[*block].device.is_none())
                .map(|block| model.id(block))
                .collect()
        };
        let model = walk.model;
        let buffers = missing
            .iter()
            .map(|id| {
                self.allocate(
                    model,
                    walk.layout.blocks[id.block].bytes,
                    &|state| Ok(state.leaving_order(Some(model))),
                    &mut walk.recoveries,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        for (id, buffer) in missing.into_iter().zip(buffers) {
            self.load_block(id, buffer)?;
            walk.brought.push(id);
            self.state().touch(id)?;
        }
        Ok(())
    }
}

/// One walk over a model.
struct Walk {
    model: u64,
    layout: Arc<Layout>,
    /// Blocks that were not on the device before; all have host copies until the walk ends.
    brought: Vec<BlockId>,
    recoveries: u64,
}

/// What leaves for a block of `model`, in order.
pub(super) fn others_then_own(state: &mut State, model: u64) -> Result<Vec<BlockId>, Error> {
    let mut order = state.leaving_order(Some(model));
    order.extend(state.model(model)?.leaving_order());
    Ok(order)
}
