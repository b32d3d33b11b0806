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

use crate::attach::{briefs, shared};
use crate::brief::Brief;
use crate::call::{Arguments, Call, MAX_PIECES, Piece};
use crate::caller::{self, Name};
use crate::guard::Thread;
use crate::real::Export;
use crate::target::{self, Inside, Paths, Plain};
use crate::trampoline::ARGUMENT_REGISTERS;
use crate::{effect, errno, outcome, short, system_call};

/// What a wrapper is to do. In the second register of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum How {
    /// To go to the address, and not to come back.
    Pass,
    /// To call the address, and to tell the result.
    Call,
    /// To return the address, which is a result.
    Done,
}

/// What a wrapper is to do, and with what.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Way {
    address: usize,
    how: How,
}

/// What a wrapper keeps on the stack: words, which are read as they were written. To move several at a time would mean to wait until they have
/// left for the cache.
#[repr(C, align(16))]
pub(crate) struct Frame {
    /// The first of the call's arguments.
    registers: [usize; ARGUMENT_REGISTERS],
    // The rest only of calls that the wrapper is to tell the result of.
    pub(crate) shared: &'static Attached,
    pub(crate) caller: usize,
    /// Of what goes the long way, nothing but the site.
    pub(crate) brief: Brief,
    /// 0 where the call does not count.
    pub(crate) nth: u64,
    pub(crate) taken: Option<Taken>,
    /// What the call opens. It points into the arguments, which outlive the call.
    pub(crate) name: Option<Plain<'static>>,
    /// Of what goes the long way.
    spelling: SpellingId,
    stack: *const usize,
}

impl Frame {
    /// By a pointer: the rest of the frame may hold anything.
    ///
    /// # Safety
    /// The registers must be in the frame.
    #[inline]
    pub(crate) unsafe fn argument(frame: *const Frame, index: u8) -> usize {
        // SAFETY: as above; the index is one of an array.
        unsafe {
            let registers = (&raw const (*frame).registers).cast::<usize>();
            registers
                .add(usize::from(index) % ARGUMENT_REGISTERS)
                .read()
        }
    }
}

/// Called by every wrapper, before the call.
///
/// # Safety
/// As [`Call::read`]; the arguments must be lawful for the function of that spelling, and the frame one in which the registers are.
pub(crate) unsafe extern "C-unwind" fn before(
    spelling: u32,
    frame: *mut Frame,
    stack: *const usize,
    caller: usize,
) -> Way {
    let spelling = SpellingId(spelling as u16);
    let Some(real) = Export::from(spelling).real() else {
        return missing(spelling);
    };
    let Some(shared) = shared() else {
        return Way {
            address: real,
            how: How::Pass,
        };
    };
    // SAFETY: the wrapper saved the registers, and the arguments are those of its caller.
    unsafe {
        let brief = briefs()[usize::from(spelling.0)];
        match short::before(shared, brief, frame, caller) {
            Some(how) => Way { address: real, how },
            None => watch(shared, spelling, frame, stack, caller, real),
        }
    }
}

/// Called by a wrapper that was told to, with what the call returned; that is the result.
///
/// # Safety
/// The frame must be the one of [`before`] for the same call.
pub(crate) unsafe extern "C-unwind" fn after(frame: *mut Frame, result: usize) -> usize {
    // SAFETY: `before` has filled it; the call has returned that result.
    unsafe {
        match (*frame).brief.effect {
            0 => watched(frame, result),
            _ => short::after(frame, result),
        }
    }
    result
}

#[cold]
fn missing(spelling: SpellingId) -> Way {
    Way {
        address: outcome::missing(spelling.site().site().failure),
        how: How::Done,
    }
}

/// The long way behind the call.
///
/// # Safety
/// [`watch`] must have filled the frame for the same call, which has returned that result.
#[inline(never)]
unsafe fn watched(frame: *const Frame, result: usize) {
    // SAFETY: as above: every field is filled.
    unsafe {
        let frame = &*frame;
        let registers = frame.registers.as_ptr();
        let call = Call::read(frame.spelling, registers, frame.stack, frame.caller);
        let nth = (frame.nth != 0).then_some(frame.nth);
        conclude(frame.shared, &call, result, nth, frame.name, frame.taken);
    }
}

/// # Safety
/// As [`before`].
#[inline(never)]
unsafe fn watch(
    shared: &'static Attached,
    spelling: SpellingId,
    frame: *mut Frame,
    stack: *const usize,
    caller: usize,
    real: usize,
) -> Way {
    let way = |how, address| Way { address, how };
    // SAFETY: the arguments are the caller's, and lawful.
    unsafe {
        let registers = (&raw const (*frame).registers).cast();
        let mut call = Call::read(spelling, registers, stack, caller);
        if call.is_raw() {
            call.unwrap_raw();
        }
        if call.number().is_some_and(system_call::makes_link) {
            // Before and behind the call, as in `effect`.
            shared.give_name();
            let result = call.make(real, &call.arguments());
            shared.give_name();
            return way(How::Done, result);
        }
        if call.is_foreign() || call.is_question() {
            return way(How::Pass, real);
        }
        // Not entered: a signal handler disturbs nothing here, and its calls are calls.
        let thread = Thread::own();
        if thread.is_busy() {
            return way(How::Pass, real);
        }
        let id = call.id();
        if !shared.is_quiet(id) {
            let result = watch_closely(shared, thread, &call, real, shared.rules(id));
            return way(How::Done, result);
        }
        let effect = call.site().effect;
        let mut name = None;
        let is_counted = match target::inside(&call, shared) {
            Inside::No => false,
            Inside::Yes => true,
            Inside::Named(named) => {
                name = Some(named);
                named.is_inside()
            }
        };
        let nth = match is_counted {
            true => shared.count(call.meaning()),
            false => 0,
        };
        if effect == Effect::Nothing {
            return way(How::Pass, real);
        }
        let taken = effect::begin(shared, &call);
        // Of a name that the call rewrites, what it is to be is not known before.
        if target::is_nameless(&call) || call.site().rewrites_name() {
            name = None;
        }
        if !call.is_in_registers() {
            let result = call.make(real, &call.arguments());
            conclude(
                shared,
                &call,
                result,
                (nth != 0).then_some(nth),
                name,
                taken,
            );
            return way(How::Done, result);
        }
        // Field by field: no reference may be to what holds anything.
        (&raw mut (*frame).shared).write(shared);
        (&raw mut (*frame).caller).write(caller);
        (&raw mut (*frame).brief).write(Brief::long(id));
        (&raw mut (*frame).nth).write(nth);
        (&raw mut (*frame).taken).write(taken);
        (&raw mut (*frame).name).write(name);
        (&raw mut (*frame).spelling).write(spelling);
        (&raw mut (*frame).stack).write(stack);
        way(How::Call, real)
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
            return call.make(real, &call.arguments());
        };
        wait(decision.delay_before);
        raise(decision.signals_before);
        let result = match decision.outcome {
            Outcome::Fail(_) => None,
            Outcome::Proceed | Outcome::FailAfter(_) => {
                let arguments = call.arguments();
                Some(make(shared, thread, call, &arguments, real, nth))
            }
            Outcome::Short { bytes } => Some(make_short(shared, thread, call, real, nth, bytes)),
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
    arguments: &Arguments,
    real: usize,
    nth: Option<u64>,
) -> usize {
    // SAFETY: the arguments are the caller's, and lawful.
    unsafe {
        let taken = thread.enter().and_then(|_busy| effect::begin(shared, call));
        let result = call.make(real, arguments);
        if let Some(_busy) = thread.enter() {
            conclude(shared, call, result, nth, None, taken);
        }
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
    call: &Call,
    real: usize,
    nth: Option<u64>,
    bytes: u64,
) -> usize {
    let mut pieces = [Piece::NONE; MAX_PIECES];
    // SAFETY: the arguments are the caller's, and lawful; the pieces outlive the call.
    unsafe {
        let arguments = call.shortened(bytes, &mut pieces);
        make(shared, thread, call, &arguments, real, nth)
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

/// Brings the ledger up to date with a result. `name` is that of what the call opens, where it means what it says.
///
/// # Safety
/// As [`dispatch`]; the call must have returned that result.
#[inline]
unsafe fn conclude(
    shared: &Attached,
    call: &Call,
    result: usize,
    nth: Option<u64>,
    name: Option<Plain<'_>>,
    taken: Option<Taken>,
) {
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
