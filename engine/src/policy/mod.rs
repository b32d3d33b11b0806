//! What leaves the device, and where it goes: a pure function of given numbers (E1 to E11).
//!
//! How many bytes leave depends on the request and on the loaded blocks alone; memory decides only where
//! they go (E5). Keeping those two apart is the point: one expression for both is what made the parent
//! project's out of memory endless. Amounts are integers of bytes and saturate.

#[cfg(test)]
mod properties;
mod request;
#[cfg(test)]
mod tests;

pub(crate) use request::TWO_POW_64;
pub use request::{MemoryRequest, Threshold};

/// A valid, current copy of a block that exists outside the device already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostCopy {
    /// There is none.
    None,
    /// In anonymous host memory.
    Ram,
    /// In its file.
    File,
}

/// What the plan needs to know of a loaded block. The order of a slice of them is the order of leaving (E11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockFacts {
    /// Device bytes.
    pub bytes: u64,
    /// Bytes that it takes in a file, padding included.
    pub file_bytes: u64,
    /// A copy that makes moving it needless.
    pub copy: HostCopy,
}

/// What the tiers below the device can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TierFacts {
    /// Available host memory, bytes.
    pub ram_bytes: u64,
    /// Space on the filesystem of the offload directory, bytes.
    pub disk_bytes: u64,
    /// The offload directory lives in memory (tmpfs), so what goes to files is taken from RAM too (E35).
    pub files_count_as_ram: bool,
}

/// Where a block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Nowhere: a current copy exists, only device memory is given back (E10).
    Release,
    /// To anonymous host memory.
    Ram,
    /// To its file.
    File,
}

/// One block that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlannedMove {
    /// Index into the loaded blocks.
    pub index: usize,
    /// Where it goes.
    pub destination: Destination,
}

/// How much of what was loaded leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// None of it.
    Nothing,
    /// A part.
    Partial,
    /// All of it.
    Full,
}

/// What leaves, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How much leaves.
    pub extent: Extent,
    /// The moves, in order of leaving.
    pub moves: Vec<PlannedMove>,
    /// Device bytes that the moves give back.
    pub freed_bytes: u64,
}

/// A tier that cannot take what the plan sends there. Nothing has moved (E4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{tier} cannot take {wanted} bytes, it has {available}")]
pub struct Shortfall {
    /// Which tier.
    pub tier: ShortTier,
    /// Bytes that the plan sends there, up to and including the block that does not fit.
    pub wanted: u64,
    /// Bytes that it has.
    pub available: u64,
}

/// A tier that can be short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShortTier {
    /// Anonymous host memory.
    Ram,
    /// The filesystem of the offload directory.
    Disk,
}

impl std::fmt::Display for ShortTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ram => "host memory",
            Self::Disk => "the disk",
        })
    }
}

/// Decides what leaves and where it goes.
///
/// A request of at least the loaded bytes takes every block (E1); a smaller one takes blocks in order until
/// it is reached, and equality stops (E3). A block without a current copy goes to its file exactly when
/// available − its bytes < threshold (E6), where available shrinks by what this plan already sent to RAM.
///
/// # Errors
/// A tier does not hold what would go there.
pub fn plan(
    request: MemoryRequest,
    loaded: &[BlockFacts],
    tiers: TierFacts,
    threshold: Threshold,
) -> Result<Plan, Shortfall> {
    let (leaving, extent) = choose_leaving(request, loaded);
    let mut room = Room::new(tiers);
    let moves = leaving
        .iter()
        .enumerate()
        .map(|(index, block)| {
            let destination = match block.copy {
                HostCopy::Ram | HostCopy::File => Destination::Release,
                HostCopy::None => room.place(block, threshold)?,
            };
            Ok(PlannedMove { index, destination })
        })
        .collect::<Result<Vec<_>, Shortfall>>()?;
    Ok(Plan {
        extent,
        moves,
        freed_bytes: sum_bytes(leaving),
    })
}

/// The blocks that leave are always the first ones; RAM has no say here (E5).
fn choose_leaving(request: MemoryRequest, loaded: &[BlockFacts]) -> (&[BlockFacts], Extent) {
    let loaded_bytes = sum_bytes(loaded);
    let wanted = match request {
        MemoryRequest::Full => loaded_bytes,
        MemoryRequest::AtLeast(bytes) => bytes,
    };
    if loaded.is_empty() || request == MemoryRequest::AtLeast(0) {
        return (&[], Extent::Nothing);
    }
    if wanted >= loaded_bytes {
        return (loaded, Extent::Full);
    }
    let mut freed = 0u64;
    let taken = loaded
        .iter()
        .take_while(|block| {
            let short = freed < wanted;
            freed = freed.saturating_add(block.bytes);
            short
        })
        .count();
    let extent = if taken == loaded.len() {
        Extent::Full
    } else {
        Extent::Partial
    };
    (&loaded[..taken], extent)
}

fn sum_bytes(blocks: &[BlockFacts]) -> u64 {
    blocks
        .iter()
        .fold(0, |sum, block| sum.saturating_add(block.bytes))
}

/// What is left in each tier while a plan is made.
struct Room {
    tiers: TierFacts,
    /// Bytes taken from host memory: RAM moves, and file moves where files live in memory.
    ram_taken: u64,
    disk_taken: u64,
}

impl Room {
    fn new(tiers: TierFacts) -> Self {
        Self {
            tiers,
            ram_taken: 0,
            disk_taken: 0,
        }
    }

    fn place(
        &mut self,
        block: &BlockFacts,
        threshold: Threshold,
    ) -> Result<Destination, Shortfall> {
        let available = self.tiers.ram_bytes.saturating_sub(self.ram_taken);
        let to_file = match threshold {
            Threshold::Off | Threshold::Below(0) => false,
            Threshold::Below(bytes) => available
                .checked_sub(block.bytes)
                .is_none_or(|rest| rest < bytes),
        };
        if to_file {
            self.disk_taken = take(
                self.disk_taken,
                block.file_bytes,
                self.tiers.disk_bytes,
                ShortTier::Disk,
            )?;
            if self.tiers.files_count_as_ram {
                self.take_ram(block.file_bytes)?;
            }
            Ok(Destination::File)
        } else {
            self.take_ram(block.bytes)?;
            Ok(Destination::Ram)
        }
    }

    fn take_ram(&mut self, bytes: u64) -> Result<(), Shortfall> {
        self.ram_taken = take(self.ram_taken, bytes, self.tiers.ram_bytes, ShortTier::Ram)?;
        Ok(())
    }
}

fn take(taken: u64, bytes: u64, available: u64, tier: ShortTier) -> Result<u64, Shortfall> {
    let wanted = taken.saturating_add(bytes);
    if wanted > available {
        return Err(Shortfall {
            tier,
            wanted,
            available,
        });
    }
    Ok(wanted)
}
