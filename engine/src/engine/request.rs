//! Serving requests: walking over a model that may be larger than the device, and making one wholly resident.

use super::{
    DeviceTensor, Engine,
    operation::Operation,
    pins::Pin,
    reports::{RequestReport, ResidentReport},
    state::{BlockId, State},
    turn::Moves,
    workspace::Workspace,
};
use crate::{Error, cancellation::Stop, model::Layout};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

/// What a visitor is.
pub(super) type Visitor<'a> = dyn FnMut(&DeviceTensor<'_>) -> Result<(), Error> + 'a;

impl Engine {
    /// Serves one request: reserves `workspace_bytes` of device memory, then visits every tensor on the device in the
    /// manifest's order, bringing in what is not there, and gives the workspace back.
    ///
    /// On device OOM blocks leave: other models' first, the one longest unused before the others, then this model's
    /// already visited ones, the most recent first, then those still to be visited, the last first. A visitor may look
    /// but not write: what it changes on the device is lost when the block leaves.
    ///
    /// Requests run beside each other: one has the engine's turn while it brings a block in, and not while its visitor
    /// runs. The visited block stays where it is, unchanged, until the visitor returns. Where nothing else may leave any
    /// more, memory is waited for: first until other visitors return, then, without the turn, until a request ends that
    /// holds a workspace. When all of those wait themselves, the one that would be the last to wait gets device OOM. While
    /// somebody waits so, other requests get no workspace but queue behind him.
    ///
    /// Addresses, the workspace's too, are valid only during the visit that gets them. The device's primary context is
    /// current on the calling thread, and is left so. A visitor must not wait for another thread that calls the engine:
    /// that one may wait for this visitor to return. Errors of its own it gives as [`Error::Caller`].
    ///
    /// # Errors
    /// No such model, also when it is dropped meanwhile; device OOM that letting go did not cure; the visitor's error; a
    /// failing transfer. Blocks that the request brought in leave the device again, but for one that another request
    /// visits just then; nothing is written for that, and the request can be repeated (E28). The same goes for a panic of
    /// the visitor, which is passed on.
    pub fn request(
        &self,
        name: &str,
        workspace_bytes: u64,
        visit: &mut Visitor<'_>,
    ) -> Result<RequestReport, Error> {
        self.serve(&Stop::never(), name, workspace_bytes, visit)
    }

    pub(super) fn serve(
        &self,
        stop: &Stop,
        name: &str,
        workspace_bytes: u64,
        visit: &mut Visitor<'_>,
    ) -> Result<RequestReport, Error> {
        let mut operation = self.begin_with(stop, name, arriving)?;
        let mut walk = self.begin_walk(name)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let workspace = self.reserve_workspace(&mut operation, &mut walk, workspace_bytes)?;
            let address = workspace.as_ref().map_or(0, Workspace::address);
            let visited = self.visit_all(&mut operation, &mut walk, address, visit);
            let released = workspace.map_or(Ok(()), Workspace::release);
            visited.and(released)
        }));
        self.end_walk(operation, &walk, outcome)?;
        Ok(RequestReport {
            recoveries: walk.recoveries,
        })
    }

    /// Brings all of a model to the device: everything is allocated first, then loaded. On device OOM other models'
    /// blocks leave, this one's do not; then memory is waited for as in [`Engine::request`].
    ///
    /// # Errors
    /// As [`Engine::request`]; what was allocated is given back (E28).
    pub fn make_resident(&self, name: &str) -> Result<ResidentReport, Error> {
        self.bring_model(&Stop::never(), name)
    }

    pub(super) fn bring_model(&self, stop: &Stop, name: &str) -> Result<ResidentReport, Error> {
        let mut operation = self.begin_with(stop, name, arriving)?;
        let mut walk = self.begin_walk(name)?;
        let outcome = self.with_memory(&mut operation, |operation| {
            self.bring_all(operation, &mut walk)
        });
        self.end_walk(operation, &walk, Ok(outcome))?;
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
            name: name.to_owned(),
            model,
            layout: Arc::clone(&entry.layout),
            brought: Vec::new(),
            recoveries: 0,
        })
    }

    /// Keeps what was brought in, or sends it back; neither can be cancelled.
    fn end_walk(
        &self,
        mut operation: Operation<'_>,
        walk: &Walk,
        outcome: std::thread::Result<Result<(), Error>>,
    ) -> Result<(), Error> {
        if !walk.brought.is_empty() {
            operation.persist();
            operation.enter()?;
            if !matches!(outcome, Ok(Ok(()))) {
                // The error that began it tells more than one that the rollback meets; what stays is seen in the status.
                let _ = self.send_back(&operation, &walk.brought);
            }
            self.settle(&walk.brought);
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn reserve_workspace(
        &self,
        operation: &mut Operation<'_>,
        walk: &mut Walk,
        bytes: u64,
    ) -> Result<Option<Workspace<'_>>, Error> {
        if bytes == 0 {
            return Ok(None);
        }
        self.with_memory_in_line(operation, |operation| {
            self.state().still_has(walk.model, &walk.name)?;
            let model = walk.model;
            let leaving = |state: &mut State| others_then_own(state, model);
            let buffer = self.allocate(operation, bytes, &leaving, &mut walk.recoveries)?;
            Ok(Some(self.workspace(operation, buffer)))
        })
    }

    fn visit_all(
        &self,
        operation: &mut Operation<'_>,
        walk: &mut Walk,
        workspace_address: u64,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Error> {
        let layout = Arc::clone(&walk.layout);
        for tensor in &layout.tensors {
            let (address, pin) = match tensor.block {
                Some(block) => {
                    let brought_in = self
                        .with_memory(operation, |operation| self.bring_in(operation, walk, block));
                    let (address, pin) = brought_in?;
                    (address + tensor.offset_bytes, Some(pin))
                }
                None => (0, None),
            };
            operation.leave();
            let tensor = DeviceTensor::new(&self.staged, tensor, address, workspace_address);
            let visited = visit(&tensor);
            drop(pin);
            visited?;
        }
        Ok(())
    }

    /// Makes a block resident and pins it; its device address, too.
    fn bring_in(
        &self,
        operation: &Operation<'_>,
        walk: &mut Walk,
        block: usize,
    ) -> Result<(u64, Pin<'_>), Error> {
        let model = walk.model;
        let id = BlockId { model, block };
        let is_there = {
            let mut state = self.state();
            state.still_has(model, &walk.name)?;
            state.block(id)?.device.is_some()
        };
        if !is_there {
            let buffer = self.allocate(
                operation,
                walk.layout.blocks[block].bytes,
                &|state| others_then_own(state, model),
                &mut walk.recoveries,
            )?;
            self.load_block(operation.stop(), id, buffer)?;
            self.claim(walk, id)?;
        }
        self.pin(id)
    }

    fn bring_all(&self, operation: &Operation<'_>, walk: &mut Walk) -> Result<(), Error> {
        let model = walk.model;
        let missing: Vec<BlockId> = {
            let mut state = self.state();
            state.still_has(model, &walk.name)?;
            let model = state.model(model)?;
            (0..model.blocks.len())
                .filter(|block| model.blocks[*block].device.is_none())
                .map(|block| model.id(block))
                .collect()
        };
        let buffers = missing
            .iter()
            .map(|id| {
                self.allocate(
                    operation,
                    walk.layout.blocks[id.block].bytes,
                    &|state| Ok(state.leaving_order(Some(model))),
                    &mut walk.recoveries,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        for (id, buffer) in missing.into_iter().zip(buffers) {
            self.load_block(operation.stop(), id, buffer)?;
            self.claim(walk, id)?;
            self.state().touch(id)?;
        }
        Ok(())
    }

    /// Notes that this walk brought the block in.
    fn claim(&self, walk: &mut Walk, id: BlockId) -> Result<(), Error> {
        self.state().block(id)?.claims += 1;
        walk.brought.push(id);
        Ok(())
    }
}

/// One walk over a model.
struct Walk {
    name: String,
    model: u64,
    layout: Arc<Layout>,
    /// Blocks that were not on the device before; all have host copies until the walk ends.
    brought: Vec<BlockId>,
    recoveries: u64,
}

/// What a walk over this model moves, as long as nothing has to leave for it.
fn arriving(model: u64) -> Moves {
    Moves::Arriving(Some(model))
}

/// What leaves for a block of `model`, in order.
pub(super) fn others_then_own(state: &mut State, model: u64) -> Result<Vec<BlockId>, Error> {
    let mut order = state.leaving_order(Some(model));
    order.extend(state.model(model)?.leaving_order());
    Ok(order)
}
