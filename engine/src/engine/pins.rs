//! Blocks that a visitor looks at: they stay where they are, unchanged, until it returns.

use super::{Engine, monitor::Monitor, operation::Operation, state::BlockId};
use crate::Error;

/// A block that stays. Made with the turn, so that whoever has the turn sees pins only go; given up without it, so that
/// he may wait for that.
pub(super) struct Pin<'e> {
    monitor: &'e Monitor,
    id: BlockId,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.monitor.change(|state| {
            if let Ok(block) = state.block(self.id) {
                block.pins -= 1;
            }
        });
    }
}

impl Engine {
    /// Pins a block that is on the device; its device address, too.
    pub(super) fn pin(&self, id: BlockId) -> Result<(u64, Pin<'_>), Error> {
        let mut state = self.state();
        state.touch(id)?;
        let block = state.block(id)?;
        let span = block.span().ok_or_else(|| {
            Error::Internal("a block just brought in is not on the device".into())
        })?;
        block.pins += 1;
        let monitor = &*self.monitor.0;
        Ok((span.address, Pin { monitor, id }))
    }

    /// Keeps the turn and waits until no visitor looks at any of `blocks`; whether there were any.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(super) fn wait_for_pins(
        &self,
        operation: &Operation<'_>,
        blocks: &[BlockId],
    ) -> Result<bool, Error> {
        let mut waited = false;
        self.monitor.0.wait_until(operation.stop(), |state| {
            let is_free = blocks.iter().all(|id| !state.is_pinned(*id));
            waited |= !is_free;
            is_free.then_some(())
        })?;
        Ok(waited)
    }

    /// As [`Self::wait_for_pins`], until one of them is free.
    pub(super) fn wait_for_a_pin(
        &self,
        operation: &Operation<'_>,
        blocks: &[BlockId],
    ) -> Result<(), Error> {
        self.monitor.0.wait_until(operation.stop(), |state| {
            let has_free = blocks.iter().any(|id| !state.is_pinned(*id));
            has_free.then_some(())
        })
    }
}
