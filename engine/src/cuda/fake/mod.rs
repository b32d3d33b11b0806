//! A driver inside the test process whose calls can be told to fail: what the emulated driver, being a faithful one,
//! does not do by itself. Device memory is a map of host vectors; copies are done when the call returns, or as late as they may.
#![allow(unsafe_code)]

mod calls;

use super::{Context, result::RawResult};
use crate::Error;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One test at a time has the driver.
static TURN: Mutex<()> = Mutex::new(());
static BOARD: Mutex<Option<Board>> = Mutex::new(None);

#[derive(Default)]
struct Board {
    capacity: u64,
    next_address: u64,
    memory: BTreeMap<u64, Vec<u8>>,
    registered: usize,
    streams: usize,
    calls: BTreeMap<&'static str, u64>,
    plans: Vec<Failure>,
    meanwhile: Vec<Meanwhile>,
    /// The copy to the host that is queued and then denied, by its number.
    denied: Option<u64>,
    /// Whether copies to the device are queued.
    is_late: bool,
    queued: Vec<Queued>,
    ever_queued: u64,
    /// The stream of each, and what had been queued when it was recorded.
    events: BTreeMap<usize, (usize, u64)>,
    violations: Vec<String>,
}

struct Failure {
    call: &'static str,
    first: u64,
    last: u64,
    code: u32,
}

/// A copy that lands when its stream, or the context, or an event behind it, is waited for.
struct Queued {
    number: u64,
    stream: usize,
    what: Copy,
}

enum Copy {
    ToHost {
        to: u64,
        contents: Vec<u8>,
    },
    /// Reads its source only when it lands.
    ToDevice {
        to: u64,
        from: u64,
        len: usize,
    },
}

/// What happens elsewhere while a call runs.
struct Meanwhile {
    call: &'static str,
    nth: u64,
    act: Box<dyn FnOnce() + Send>,
}

/// The driver of one test.
pub(crate) struct FakeDriver {
    _turn: MutexGuard<'static, ()>,
}

fn board() -> MutexGuard<'static, Option<Board>> {
    BOARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the call, and does it unless it is to fail.
fn call(name: &'static str, act: impl FnOnce(&mut Board) -> RawResult) -> RawResult {
    let mut guard = board();
    let Some(board) = guard.as_mut() else {
        return RawResult(4);
    };
    let count = board.calls.entry(name).or_default();
    *count += 1;
    let count = *count;
    let due = board
        .meanwhile
        .iter()
        .position(|each| each.call == name && each.nth == count);
    if let Some(due) = due {
        let meanwhile = board.meanwhile.remove(due);
        drop(guard);
        (meanwhile.act)();
    } else {
        drop(guard);
    }
    done(name, count, act)
}

fn done(name: &str, count: u64, act: impl FnOnce(&mut Board) -> RawResult) -> RawResult {
    let mut guard = board();
    let Some(board) = guard.as_mut() else {
        return RawResult(4);
    };
    let failure = board
        .plans
        .iter()
        .find(|plan| plan.call == name && (plan.first..=plan.last).contains(&count));
    match failure {
        Some(failure) => RawResult(failure.code),
        None => act(board),
    }
}

impl Board {
    /// All copies that are queued end.
    fn land(&mut self) {
        self.land_some(|_| true);
    }

    /// Those of a stream that were among the first `count` ever queued end.
    fn land_stream(&mut self, stream: usize, count: u64) {
        self.land_some(|copy| copy.stream == stream && copy.number <= count);
    }

    fn land_some(&mut self, is_due: impl Fn(&Queued) -> bool) {
        let (due, rest): (Vec<_>, Vec<_>) = self.queued.drain(..).partition(is_due);
        self.queued = rest;
        for copy in due {
            match copy.what {
                Copy::ToHost { to, contents } => {
                    let to = to as *mut u8;
                    // SAFETY: the lane keeps the slot for as long as a copy may be under way, which is what is tested.
                    unsafe { std::ptr::copy_nonoverlapping(contents.as_ptr(), to, contents.len()) };
                }
                Copy::ToDevice { to, from, len } => {
                    let Some(target) = self.find(to, len) else {
                        let gone = format!("a copy to {to:#x} landed after its memory was freed");
                        self.violations.push(gone);
                        continue;
                    };
                    // SAFETY: as above.
                    target.copy_from_slice(unsafe {
                        std::slice::from_raw_parts(from as *const u8, len)
                    });
                }
            }
        }
    }

    fn queue(&mut self, stream: usize, what: Copy) {
        self.ever_queued += 1;
        let number = self.ever_queued;
        self.queued.push(Queued {
            number,
            stream,
            what,
        });
    }

    fn used(&self) -> u64 {
        self.memory.values().map(|bytes| bytes.len() as u64).sum()
    }

    fn find(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        let (start, bytes) = self.memory.range_mut(..=address).next_back()?;
        let from = (address - start) as usize;
        bytes.get_mut(from..from.checked_add(len)?)
    }
}

impl FakeDriver {
    pub(crate) fn new(capacity: u64) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        *board() = Some(Board {
            capacity,
            next_address: 1 << 32,
            ..Board::default()
        });
        Self { _turn: turn }
    }

    pub(crate) fn context(&self) -> Arc<Context> {
        self.try_context(0).expect("the fake driver opens")
    }

    pub(crate) fn try_context(&self, ordinal: u32) -> Result<Arc<Context>, Error> {
        Context::open_with(calls::symbols(), ordinal)
    }

    /// Lets the `first`th to `last`th call from now on fail.
    pub(crate) fn fail(&self, name: &'static str, first: u64, last: u64, code: u32) {
        self.with(|board| {
            let before = board.calls.get(name).copied().unwrap_or(0);
            board.plans.push(Failure {
                call: name,
                first: before + first,
                last: last.saturating_add(before),
                code,
            });
        });
    }

    /// Does `act` inside the `nth` call from now on, before the call does anything.
    pub(crate) fn meanwhile(
        &self,
        name: &'static str,
        nth: u64,
        act: impl FnOnce() + Send + 'static,
    ) {
        self.with(|board| {
            let before = board.calls.get(name).copied().unwrap_or(0);
            board.meanwhile.push(Meanwhile {
                call: name,
                nth: before + nth,
                act: Box::new(act),
            });
        });
    }

    /// The `nth` copy to the host is queued, and said to have failed: it lands when somebody waits.
    pub(crate) fn deny(&self, nth: u64) {
        self.with(|board| board.denied = Some(nth));
    }

    /// Copies to the device land when somebody waits, no sooner.
    pub(crate) fn be_late(&self) {
        self.with(|board| board.is_late = true);
    }

    pub(crate) fn stop_failing(&self) {
        self.with(|board| board.plans.clear());
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.with(|board| board.used())
    }

    pub(crate) fn registered(&self) -> usize {
        self.with(|board| board.registered)
    }

    pub(crate) fn streams(&self) -> usize {
        self.with(|board| board.streams)
    }

    /// Copies that have not landed.
    pub(crate) fn queued(&self) -> usize {
        self.with(|board| board.queued.len())
    }

    pub(crate) fn events(&self) -> usize {
        self.with(|board| board.events.len())
    }

    pub(crate) fn calls(&self, name: &'static str) -> u64 {
        self.with(|board| board.calls.get(name).copied().unwrap_or(0))
    }

    /// Device memory as another library in the process sees it: out of it, or `None` where there is none.
    pub(crate) fn peek(address: u64, len: usize) -> Option<Vec<u8>> {
        board()
            .as_mut()?
            .find(address, len)
            .map(|bytes| bytes.to_vec())
    }

    /// Into it; `false` where there is none.
    pub(crate) fn poke(address: u64, contents: &[u8]) -> bool {
        board()
            .as_mut()
            .and_then(|board| board.find(address, contents.len()))
            .map(|bytes| bytes.copy_from_slice(contents))
            .is_some()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.with(|board| board.violations.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Board) -> T) -> T {
        act(board().as_mut().expect("the driver lives"))
    }
}

impl Drop for FakeDriver {
    fn drop(&mut self) {
        *board() = None;
    }
}
