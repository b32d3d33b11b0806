//! What happens at every call of a wrapped function.
//!
//! The interposer's own work is done before and behind the real call, never around it: what that one calls in its turn is looked at, too
//! (a transfer of cuFile is a `pwrite` in the end).
#![allow(unsafe_code)]

use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult as Slept, Timespec, nanosleep};
use spillproof_faults::{
    Attached, Call as Planned, Decision, Effect, Facts, Key, Outcome, Recorded, Rules, Signals,
    SpellingId, Taken, Target,
};

use crate::attach::shared;
use crate::call::{Call, MAX_PIECES, Piece};
use crate::caller::{self, Name};
use crate::guard::Thread;
use crate::target::{self, Inside, Paths};
use crate::{effect, errno, outcome};

/// Called by every wrapper: the result of the call.
///
/// # Safety
/// As [`Call::read`]; the arguments must be lawful for the function of that spelling.
pub(crate) unsafe extern "C-unwind" fn dispatch(
    spelling: u32,
    registers: *const usize,
    stack: *const usize,
    caller: usize,
) -> usize {
    // SAFETY: the wrapper saved the registers, and the arguments are those of its caller.
    unsafe {
        let mut call = Call::read(SpellingId(spelling as u16), registers, stack, caller);
        if call.is_raw() {
            call.unwrap_raw();
        }
        let Some(real) = call.real() else {
            return outcome::missing(call.failure());
        };
        match shared() {
            Some(shared) if !call.is_foreign() && !call.is_question() => watch(shared, &call, real),
            _ => call.make(real),
        }
    }
}

/// # Safety
/// As [`dispatch`].
#[inline]
unsafe fn watch(shared: &Attached, call: &Call, real: usize) -> usize {
    // SAFETY: the arguments are the caller's, and lawful.
    unsafe {
        let thread = Thread::own();
        let Some(busy) = thread.enter() else {
            return call.make(real);
        };
        let rules = shared.rules(call.id());
        if !rules.is_empty() || shared.is_recording() {
            drop(busy);
            return watch_closely(shared, thread, call, real, rules);
        }
        let inside = target::inside(call, shared);
        let nth = match inside {
            Inside::No => None,
            Inside::Yes | Inside::Named(_) => Some(shared.count(call.meaning())),
        };
        if call.site().effect == Effect::Nothing {
            drop(busy);
            return call.make(real);
        }
        let taken = effect::begin(shared, call);
        drop(busy);
        let result = call.make(real);
        let name = match inside {
            Inside::Named(relative) if !target::is_nameless(call) => Some(relative),
            Inside::No | Inside::Yes | Inside::Named(_) => None,
        };
        conclude(shared, thread, call, result, nth, name, taken);
        result
    }
}

/// With rules for the site, or while calls are recorded.
///
/// # Safety
/// As [`dispatch`].
#[cold]
unsafe fn watch_closely(
    shared: &Attached,
    thread: Thread,
    call: &Call,
    real: usize,
    rules: Rules,
) -> usize {
    let failure = call.failure();
    // SAFETY: the arguments are the caller's, and lawful.
    unsafe {
        let Some((decision, nth)) = decide(shared, thread, call, rules) else {
            return call.make(real);
        };
        wait(decision.delay_before);
        raise(decision.signals_before);
        let result = match decision.outcome {
            Outcome::Fail(_) => None,
            Outcome::Proceed | Outcome::FailAfter(_) => Some(make(shared, thread, call, real, nth)),
            Outcome::Short { bytes } => {
                Some(make_short(shared, thread, call.clone(), real, nth, bytes))
            }
        };
        let errno = errno::get();
        wait(decision.delay_after);
        raise(decision.signals_after);
        errno::set(errno);
        match (decision.outcome, result) {
            (Outcome::FailAfter(error), Some(result)) if !outcome::is_failed(failure, result) => {
                outcome::failed(failure, error)
            }
            (Outcome::Fail(error), _) => outcome::failed(failure, error),
            (_, result) => result.unwrap_or_default(),
        }
    }
}

/// # Safety
/// As [`dispatch`].
unsafe fn make(
    shared: &Attached,
    thread: Thread,
    call: &Call,
    real: usize,
    nth: Option<u64>,
) -> usize {
    // SAFETY: the arguments are the caller's, and lawful.
    unsafe {
        let taken = thread.enter().and_then(|_busy| effect::begin(shared, call));
        let result = call.make(real);
        conclude(shared, thread, call, result, nth, None, taken);
        result
    }
}

/// Makes the call for fewer bytes. A function of its own, because the pieces take room on the stack.
///
/// # Safety
/// As [`dispatch`].
#[inline(never)]
unsafe fn make_short(
    shared: &Attached,
    thread: Thread,
    mut call: Call,
    real: usize,
    nth: Option<u64>,
    bytes: u64,
) -> usize {
    let mut pieces = [Piece::NONE; MAX_PIECES];
    // SAFETY: the arguments are the caller's, and lawful; the pieces outlive the call.
    unsafe {
        call.shorten(bytes, &mut pieces);
        make(shared, thread, &call, real, nth)
    }
}

/// What happens to a call, and its number where it is in the scope. `None` where the thread is the interposer's.
///
/// # Safety
/// As [`dispatch`].
unsafe fn decide(
    shared: &Attached,
    thread: Thread,
    call: &Call,
    rules: Rules,
) -> Option<(Decision, Option<u64>)> {
    let _busy = thread.enter()?;
    let mut paths = Paths::new();
    // SAFETY: the arguments are the caller's, and lawful.
    let (is_in_scope, size) = unsafe {
        let is_in_scope = target::look_up(call, shared, &mut paths);
        (is_in_scope, call.size_bytes(call.site().size))
    };
    let nth = is_in_scope.then(|| shared.count(call.meaning()));
    let mut facts = Known {
        paths: &paths,
        ends: ended(call),
        address: call.caller,
        caller: None,
    };
    if let Some(nth) = nth
        && shared.is_recording()
    {
        let path = [&paths.first, &paths.second]
            .into_iter()
            .find_map(|path| shared.scope(path.as_bytes()));
        let offset = call
            .site()
            .offset_arg
            .map(|index| call.argument(index) as u64);
        shared.record(&Recorded {
            site: call.id(),
            nth,
            size,
            offset,
            path: path.map_or(&[], |path| path.relative),
            caller: facts.caller(),
        });
    }
    let planned = Planned {
        site: call.id(),
        is_in_scope,
        size,
    };
    let decision = match rules.is_empty() {
        true => Decision::default(),
        false => shared.decide(planned, rules, &mut facts),
    };
    Some((decision, nth))
}

/// Brings the ledger up to date with a result. `name` is the path in the scope of what the call opens, where that is known.
///
/// # Safety
/// As [`dispatch`]; the call must have returned that result.
unsafe fn conclude(
    shared: &Attached,
    thread: Thread,
    call: &Call,
    result: usize,
    nth: Option<u64>,
    name: Option<&[u8]>,
    taken: Option<Taken>,
) {
    let Some(_busy) = thread.enter() else {
        return;
    };
    if !outcome::is_failed(call.failure(), result) {
        effect::end(shared, taken);
        // SAFETY: the call succeeded, and its arguments are lawful.
        unsafe { effect::finish(shared, call, result, nth, name) };
    } else if let Some(taken) = taken {
        effect::restore(shared, call, taken);
    }
}

/// What rules may ask of a call.
struct Known<'a> {
    paths: &'a Paths,
    ends: u64,
    address: usize,
    caller: Option<Name>,
}

impl Facts for Known<'_> {
    fn paths(&mut self) -> [Option<&[u8]>; 2] {
        [&self.paths.first, &self.paths.second]
            .map(|path| Some(path.as_bytes()).filter(|path| !path.is_empty()))
    }

    fn caller(&mut self) -> &[u8] {
        let address = self.address;
        self.caller
            .get_or_insert_with(|| caller::library_at(address))
            .as_bytes()
    }

    fn key(&mut self) -> u64 {
        self.ends
    }
}

/// What the call ends, by its key in the ledger; of one that opens, its flags.
fn ended(call: &Call) -> u64 {
    match call.site().effect {
        Effect::Ends {
            key: Key::Arg(index),
            ..
        } => call.argument(index) as u64,
        Effect::Closes(index) => u64::from(call.descriptor(index) as u32),
        Effect::Opens => match call.site().target {
            // Flags stand behind the name.
            Target::Path(path_arg) | Target::PathAt { path_arg, .. } => {
                u64::from(call.descriptor(path_arg + 1) as u32)
            }
            _ => 0,
        },
        _ => 0,
    }
}

/// Sleeps, signals or not.
fn wait(delay: Duration) {
    if delay.is_zero() {
        return;
    }
    let mut left = Timespec {
        tv_sec: delay.as_secs() as i64,
        tv_nsec: i64::from(delay.subsec_nanos()),
    };
    while let Slept::Interrupted(rest) = nanosleep(&left) {
        left = rest;
    }
}

fn raise(signals: Signals) {
    for signal in signals.iter() {
        // SAFETY: sends a signal to the calling thread or its process, which is what the plan asks for. libc's own functions pass
        // no wrapper.
        unsafe {
            match signal.is_for_process() {
                true => libc::kill(libc::getpid(), signal.number()),
                false => libc::raise(signal.number()),
            }
        };
    }
}
