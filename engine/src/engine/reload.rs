//! Bringing blocks to the device, with recovery from device OOM.

use super::{
    Engine,
    state::{BlockId, State},
};
use crate::{Error, ErrorKind, HostCopy, MemoryRequest, cuda::DeviceBuffer};

impl Engine {
    /// Allocates device memory. On OOM the blocks that `leaving` names leave, as many as are needed and in that
    /// order, until the allocation succeeds; each round frees something, so rounds are bounded by blocks (F2, F10).
    /// Where the host has no room for them, those that it has copies of leave alone, which takes none; after them the
    /// RAM copies go that `model`'s walk keeps for its rollback.
    ///
    /// # Errors
    /// Device OOM when nothing may leave any more, or whatever keeps blocks from leaving.
    pub(super) fn allocate(
        &self,
        model: u64,
        bytes: u64,
        leaving: &dyn Fn(&mut State) -> Result<Vec<BlockId>, Error>,
        recoveries: &mut u64,
    ) -> Result<DeviceBuffer, Error> {
        let mut met_oom = false;
        let mut keeps_copies = true;
        loop {
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
            let oom = Error::DeviceOom {
                wanted,
                free,
                total,
            };
            if total > 0 && wanted > total {
                return Err(oom);
            }
            let candidates = leaving(&mut self.state())?;
            // Free memory may be in pieces, or a lie: then the next block has to do.
            let short = wanted.saturating_sub(free).max(1);
            let request = MemoryRequest::AtLeast(short);
            let report = match self.offload(&candidates, request) {
                Err(shortage)
                    if matches!(shortage.kind(), ErrorKind::HostMemory | ErrorKind::DiskFull) =>
                {
                    let costless = self.with_host_copies(&candidates)?;
                    let report = self.offload(&costless, request)?;
                    if report.freed_bytes == 0 {
                        if !matches!(shortage, Error::HostMemory { .. }) || !keeps_copies {
                            return Err(shortage);
                        }
                        keeps_copies = false;
                        self.settle(model)?;
                        continue;
                    }
                    report
                }
                outcome => outcome?,
            };
            if report.freed_bytes == 0 {
                return Err(oom);
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
    /// is written, unless room had to be made for others. Everything is given back, then the first error is told.
    pub(super) fn send_back(&self, brought: &[BlockId]) -> Result<(), Error> {
        let mut outcome = Ok(());
        for id in brought {
            let is_there = self.state().block(*id)?.device.is_some();
            if is_there {
                outcome = outcome.and(self.offload(&[*id], MemoryRequest::Full).map(|_| ()));
            }
        }
        outcome
    }

    /// Ends an operation that brought blocks of a model in: RAM copies and maps of what is on the device go (E31).
    pub(super) fn settle(&self, model: u64) -> Result<(), Error> {
        for block in &mut self.state().model(model)?.blocks {
            block.settle_on_device();
        }
        Ok(())
    }
}
