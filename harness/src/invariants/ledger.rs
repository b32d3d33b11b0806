//! What the ledger of calls adds to `vram`, `fd` and `maps`: the call behind each thing that is left, also where the device's
//! source cannot count such things.
//!
//! A thing is left over where more of its kind and size exist than at the baseline; the newest of them are named. What was made
//! anew in place of another is none. Not judged: things of a process that has no context of the driver any more, or whose cuFile
//! was closed meanwhile, as these take them along; descriptors and maps, which `/proc` counts more truly, and which are only named
//! here.

use super::excuse;
use crate::{
    observation::{Reading, Run},
    probe::LedgerReading,
};
use spillproof_faults::{Kind, LedgerEntry};
use std::{collections::BTreeMap, fmt};

/// One mebibyte, for messages.
const MIB: f64 = 1048576.0;

/// Something that is left over.
pub(super) struct Survivor<'a> {
    entry: &'a LedgerEntry,
    /// The step after which it was first there.
    step: Option<String>,
}

/// What is left over of the device and of cuFile.
pub(super) fn of_device(run: &Run) -> Vec<Survivor<'_>> {
    let has_context = |entry: &LedgerEntry| {
        let mut held = entries(run.settled.as_ref());
        held.any(|other| other.kind == Kind::Context && other.pid == entry.pid)
    };
    let cufile_closes = |reading: &Option<Reading>| Some(ledger(reading.as_ref())?.cufile_closes);
    let is_open = cufile_closes(&run.baseline) == cufile_closes(&run.settled)
        && !run.case.gpu.cufile_closes_by_itself();
    let given_up = run.settled.as_ref();
    let given_up = given_up.map_or_else(Vec::new, |reading| excuse::given_up(run, reading));
    let is_given_up = |entry: &LedgerEntry| given_up.iter().any(|one| one.serial == entry.serial);
    survivors(run, run.settled.as_ref(), |entry| {
        match Owner::of(entry.kind) {
            Owner::Context if is_given_up(entry) => false,
            Owner::Context => has_context(entry),
            Owner::CuFile => is_open,
            Owner::Process => false,
        }
    })
}

/// Device memory that a step left over.
pub(super) fn of_device_memory<'a>(run: &'a Run, after: &'a Reading) -> Vec<Survivor<'a>> {
    let is_memory = |kind| matches!(kind, Kind::DeviceMemory | Kind::PhysicalMemory);
    survivors(run, Some(after), |entry| is_memory(entry.kind))
}

/// Descriptors of the offload directory that are left over.
pub(super) fn descriptors(run: &Run) -> Vec<Survivor<'_>> {
    survivors(run, run.settled.as_ref(), |entry| {
        entry.kind == Kind::Descriptor
    })
}

/// Maps of offload files that are left over.
pub(super) fn maps(run: &Run) -> Vec<Survivor<'_>> {
    survivors(run, run.settled.as_ref(), |entry| {
        entry.kind == Kind::FileMapping
    })
}

/// Why what is left may not be all known.
pub(crate) fn doubt(run: &Run) -> Option<String> {
    let settled = ledger(run.settled.as_ref())?;
    (settled.lost > 0).then(|| {
        format!(
            "{} things found no room in the ledger of what the subject holds; some that are left may not be known",
            settled.lost
        )
    })
}

/// With what a thing goes at the latest.
enum Owner {
    Context,
    CuFile,
    Process,
}

impl Owner {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::DeviceMemory
            | Kind::PinnedMemory
            | Kind::RegisteredMemory
            | Kind::Stream
            | Kind::Event
            | Kind::MemoryPool
            | Kind::Context
            | Kind::AddressRange
            | Kind::PhysicalMemory
            | Kind::DeviceMapping => Self::Context,
            Kind::CuFileHandle | Kind::CuFileBuffer | Kind::CuFileStream | Kind::CuFileBatch => {
                Self::CuFile
            }
            Kind::Descriptor | Kind::FileMapping => Self::Process,
        }
    }
}

fn survivors<'a>(
    run: &'a Run,
    after: Option<&'a Reading>,
    counts: impl Fn(&LedgerEntry) -> bool,
) -> Vec<Survivor<'a>> {
    let baseline = run.baseline.as_ref();
    if ledger(baseline).is_none() || ledger(after).is_none() {
        return Vec::new();
    }
    let held = |reading| entries(reading).filter(|entry| counts(entry));
    let mut before: BTreeMap<_, usize> = BTreeMap::new();
    for entry in held(baseline) {
        *before.entry(alike(entry)).or_default() += 1;
    }
    // What there was before stands for as many; those that are left over are the newest.
    let mut left: Vec<&LedgerEntry> = held(after)
        .filter(|entry| {
            let known = before.get_mut(&alike(entry)).filter(|count| **count > 0);
            known.map(|count| *count -= 1).is_none()
        })
        .collect();
    left.sort_by_key(|entry| entry.serial);
    let survivor = |entry| Survivor {
        entry,
        step: first_step(run, entry),
    };
    left.into_iter().map(survivor).collect()
}

fn ledger(reading: Option<&Reading>) -> Option<&LedgerReading> {
    reading?.ledger.as_ref()
}

fn entries(reading: Option<&Reading>) -> impl Iterator<Item = &LedgerEntry> {
    ledger(reading).into_iter().flat_map(|ledger| &ledger.held)
}

/// Things that stand for one another. Files have names of their own each time.
fn alike(entry: &LedgerEntry) -> (u32, u32, u64) {
    (entry.kind as u32, entry.pid, entry.bytes)
}

fn first_step(run: &Run, entry: &LedgerEntry) -> Option<String> {
    let mut steps = run.steps.iter();
    let step = steps.find(|step| {
        let ledger = step.after.ledger.as_ref();
        ledger.is_some_and(|ledger| ledger.held.iter().any(|one| one.serial == entry.serial))
    });
    step.map(|step| step.place())
}

impl Survivor<'_> {
    /// Whether it is device memory that is registered with cuFile.
    pub(super) fn is_cufile_buffer(&self) -> bool {
        self.entry.kind == Kind::CuFileBuffer
    }

    /// Whether it is this thing.
    pub(super) fn is(&self, entry: &LedgerEntry) -> bool {
        self.entry.serial == entry.serial
    }
}

impl fmt::Display for Survivor<'_> {
    /// `survivor: cuMemAlloc #12, 64.0 MiB, by libengine.so, serial 117 (step 3 (request a))`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.entry;
        write!(f, "survivor: {} #{}", entry.site.site().name, entry.nth)?;
        if entry.bytes > 0 {
            write!(f, ", {:.1} MiB", entry.bytes as f64 / MIB)?;
        }
        if !entry.path.is_empty() {
            write!(f, ", {}", entry.path)?;
        }
        if !entry.caller.is_empty() {
            write!(f, ", by {}", entry.caller)?;
        }
        write!(f, ", serial {}", entry.serial)?;
        match &self.step {
            Some(step) => write!(f, " ({step})"),
            None => Ok(()),
        }
    }
}
