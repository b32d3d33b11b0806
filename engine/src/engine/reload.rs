//! Bringing blocks to the device, with recovery from device OOM.

use super::{
    Engine,
    operation::Operation,
    state::{BlockId, State},
};
use crate::{Error, ErrorKind, HostCopy, MemoryRequest, cuda::DeviceBuffer};

impl Engine {
    /// Allocates device memory. On OOM the blocks that `leaving` names leave, as many as are needed and in that
    /// order, until the allocation succeeds; each round frees something, so rounds are bounded by blocks (F2, F10).
    /// Those that a visitor looks at are waited for when nothing else is left. Where the host has no room for them, those
    /// that it has copies of leave alone, which takes none; after them the RAM copies go that walks keep for their rollback.
    ///
    /// # Errors
    /// Device OOM when nothing may leave any more, whatever keeps blocks from leaving, or [`Error::Cancelled`].
    pub(super) fn allocate(
        &self,
        operation: &Operation<'_>,
        bytes: u64,
        leaving: &dyn Fn(&mut State) -> Result<Vec<BlockId>, Error>,
        recoveries: &mut u64,
    ) -> Result<DeviceBuffer, Error> {
        let mut met_oom = false;
        let mut keeps_copies = true;
        loop {
            operation.stop().check()?;
            let (wanted, free, total) = match DeviceBuffer::new(&self.context, bytes) {
                Ok(buffer) => {
                    *recoveries += u64::from(met_oom);
                    return Ok(buffer);
                }
                Err(Error::DeviceOom {
                    wanted,
                    free,
                    total,
                }) => (wanted, free, total),
                Err(error) => return Err(error),
            };
            met_oom = true;
            if operation.widen()? {
                // What left meanwhile may do.
                continue;
            }
            let oom = Error::DeviceOom {
                wanted,
                free,
                total,
            };
            if total > 0 && wanted > total {
                return Err(oom);
            }
            let (pinned, candidates): (Vec<_>, Vec<_>) = {
                let mut state = self.state();
                let candidates = leaving(&mut state)?;
                candidates.into_iter().partition(|id| state.is_pinned(*id))
            };
            // Free memory may be in pieces, or a lie: then the next block has to do.
            let short = wanted.saturating_sub(free).max(1);
            let request = MemoryRequest::AtLeast(short);
            let unserved = match self.offload(operation, &candidates, request) {
                Err(shortage)
                    if matches!(shortage.kind(), ErrorKind::HostMemory | ErrorKind::DiskFull) =>
                {
                    let costless = self.with_host_copies(&candidates)?;
                    match self.offload(operation, &costless, request)? {
                        0 => shortage,
                        _ => continue,
                    }
                }
                outcome => match outcome? {
                    0 => oom,
                    _ => continue,
                },
            };
            if !pinned.is_empty() {
                self.wait_for_a_pin(operation, &pinned)?;
            } else if unserved.kind() == ErrorKind::HostMemory && keeps_copies {
                keeps_copies = false;
                let unneeded = self.state().settle_all();
                drop(unneeded);
            } else {
                return Err(unserved);
            }
        }
    }

    /// Those of `candidates` that leave without taking any room on the host.
    fn with_host_copies(&self, candidates: &[BlockId]) -> Result<Vec<BlockId>, Error> {
        let mut state = self.state();
        let mut found = Vec::new();
        for id in candidates {
            if state.block(*id)?.host_copy() != HostCopy::None {
                found.push(*id);
            }
        }
        Ok(found)
    }

    /// Takes blocks that an operation brought in off the device again. They have kept their host copies, so nothing
    /// is written, unless room had to be made for others. One that another request's visitor looks at stays: that request
    /// would have brought it in. Everything is given back, then the first error is told.
    pub(super) fn send_back(
        &self,
        operation: &Operation<'_>,
        brought: &[BlockId],
    ) -> Result<(), Error> {
        let mut outcome = Ok(());
        for id in brought {
            let may_leave = {
                let mut state = self.state();
                let is_there = state.block(*id).is_ok_and(|block| block.device.is_some());
                is_there && !state.is_pinned(*id)
            };
            if may_leave {
                let left = self.offload(operation, &[*id], MemoryRequest::Full);
                outcome = outcome.and(left.map(|_| ()));
            }
        }
        outcome
    }

    /// Ends what a walk kept of blocks that it brought in: RAM copies and maps of what is on the device go (E31).
    pub(super) fn settle(&self, brought: &[BlockId]) {
        let unneeded = self.state().end_claims(brought);
        drop(unneeded);
    }
}
