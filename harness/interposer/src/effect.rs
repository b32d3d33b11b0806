//! What a call changes: the ledger, and what is remembered of descriptors and mappings.
//!
//! What ends is taken out of the ledger before the call, because its key may be another's, of another thread, before this call returns; a
//! call that failed puts it back.
#![allow(unsafe_code)]

use spillproof_faults::{Attached, Effect, Entering, Key, Kind, Named, Taken};

use crate::call::Call;
use crate::caller;
use crate::descriptor::Opened;
use crate::names::{Moment, Name};
use crate::path::PathText;
use crate::target::Plain;
use crate::{descriptor, mapping, target};

/// `CLOSE_RANGE_CLOEXEC`: the descriptors stay open until the process becomes another.
const CLOSE_ON_EXEC: usize = 4;

/// Takes out of the ledger what the call is about to end, and says that names are about to mean another thing.
///
/// # Safety
/// The arguments must be lawful.
#[inline]
pub(crate) unsafe fn begin(shared: &Attached, call: &Call) -> Option<Taken> {
    // One by one: where a table of jumps leads is not predicted behind a system call, and costs as much as all the rest here.
    let effect = call.site().effect;
    if let Effect::Makes { .. } | Effect::Opens | Effect::Nothing = effect {
        return None;
    }
    if let Effect::Ends { kind, key } = effect {
        // SAFETY: lawful arguments; what ends is never told by a result.
        let key = unsafe { key_of(call, key, 0) }?;
        return shared.take(kind, key);
    }
    if let Effect::Closes(index) = effect {
        return close(shared, call.descriptor(index));
    }
    begin_others(shared, call)
}

#[inline(never)]
fn begin_others(shared: &Attached, call: &Call) -> Option<Taken> {
    match call.site().effect {
        Effect::ClosesRange {
            first_arg,
            last_arg,
        } => {
            if last_arg.is_some() && call.argument(2) & CLOSE_ON_EXEC != 0 {
                return None;
            }
            let last = last_arg.map_or(u32::MAX, |index| call.argument(index) as u32);
            for number in descriptor::seen(call.argument(first_arg) as u32, last) {
                end(shared, close(shared, number));
            }
            None
        }
        // `dup2` and `dup3` close what the number was before; `dup` has no second argument.
        Effect::Duplicates if call.site().arity > 1 => {
            let (from, to) = (call.descriptor(0), call.descriptor(1));
            match from == to {
                true => None,
                false => close(shared, to),
            }
        }
        Effect::Unmaps { address_arg } => {
            let start = call.argument(address_arg);
            if start.is_multiple_of(rustix::param::page_size()) {
                unmap(shared, start, call.argument(address_arg + 1));
            }
            None
        }
        Effect::Maps => {
            if call.descriptor(3) & libc::MAP_FIXED != 0 {
                unmap(shared, call.argument(0), call.argument(1));
            }
            None
        }
        // Behind the call once more: a process that is killed inside it has said so at least once.
        Effect::Names => {
            shared.give_name();
            None
        }
        Effect::Nothing
        | Effect::Makes { .. }
        | Effect::Ends { .. }
        | Effect::Opens
        | Effect::Closes(_)
        | Effect::Duplicates
        | Effect::DuplicatesByCommand => None,
    }
}

/// Enters what a successful call has made. `nth` is its number in the scope, if it is there.
///
/// # Safety
/// The arguments must be lawful, and the call must have succeeded with that result.
pub(crate) unsafe fn finish(
    shared: &Attached,
    call: &Call,
    result: usize,
    nth: Option<u64>,
    name: Option<Plain<'_>>,
) {
    // As in `begin`.
    let effect = call.site().effect;
    if let Effect::Ends { .. } | Effect::Closes(_) | Effect::Nothing = effect {
        return;
    }
    if let Effect::Makes { kind, key } = effect {
        // SAFETY: as above.
        if let (Some(key), Some(nth)) = (unsafe { key_of(call, key, result) }, nth) {
            // SAFETY: as above.
            unsafe { enter_at(shared, call, kind, key, nth, Named::Path(b"")) };
        }
        return;
    }
    if effect == Effect::Opens {
        return open(shared, call, result, nth, name);
    }
    // SAFETY: as above.
    unsafe { finish_others(shared, call, result, nth) };
}

/// # Safety
/// As [`finish`].
#[inline(never)]
unsafe fn finish_others(shared: &Attached, call: &Call, result: usize, nth: Option<u64>) {
    match call.site().effect {
        Effect::Duplicates if call.site().arity > 1 && call.descriptor(0) == call.descriptor(1) => {
        }
        Effect::Duplicates => open(shared, call, result, nth, None),
        Effect::DuplicatesByCommand => match call.descriptor(1) {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => open(shared, call, result, nth, None),
            _ => {}
        },
        Effect::Maps => {
            if let Some(nth) = nth {
                mapping::add(result, call.argument(1));
                // SAFETY: as above.
                unsafe { map(shared, call, result as u64, nth) };
            }
        }
        Effect::Names => shared.give_name(),
        Effect::Nothing
        | Effect::Makes { .. }
        | Effect::Ends { .. }
        | Effect::Opens
        | Effect::Closes(_)
        | Effect::ClosesRange { .. }
        | Effect::Unmaps { .. } => {}
    }
}

/// Strikes what was taken out.
pub(crate) fn end(shared: &Attached, taken: Option<Taken>) {
    if let Some(taken) = taken {
        shared.end(taken);
    }
}

/// Puts back what was taken out.
pub(crate) fn restore(shared: &Attached, call: &Call, taken: Taken) {
    shared.restore(taken);
    match call.site().effect {
        Effect::Closes(index) => descriptor::mark(call.descriptor(index), true),
        Effect::Duplicates => descriptor::mark(call.descriptor(1), true),
        Effect::Nothing
        | Effect::Makes { .. }
        | Effect::Ends { .. }
        | Effect::Opens
        | Effect::ClosesRange { .. }
        | Effect::DuplicatesByCommand
        | Effect::Maps
        | Effect::Unmaps { .. }
        | Effect::Names => {}
    }
}

fn open(shared: &Attached, call: &Call, result: usize, nth: Option<u64>, name: Option<Plain<'_>>) {
    let number = result as i32;
    let name = match call.site().effect {
        // SAFETY: the arguments are lawful.
        Effect::Opens => name.or_else(|| unsafe { target::plain_name(call, shared) }),
        _ => None,
    };
    opened(shared, number, nth.is_some(), name);
    let Some(nth) = nth else {
        return;
    };
    let key = u64::from(number.unsigned_abs());
    // SAFETY: a descriptor has no size, so no argument is looked at.
    unsafe {
        match name.and_then(Plain::relative) {
            Some(path) => {
                enter_at(shared, call, Kind::Descriptor, key, nth, Named::Path(path));
            }
            None => enter_file(shared, call, Kind::Descriptor, key, nth, number),
        }
    }
}

/// Remembers a descriptor that was opened.
#[inline(always)]
pub(crate) fn opened(shared: &Attached, number: i32, is_entered: bool, name: Option<Plain<'_>>) {
    // Closed unseen, inside libc, if it is still there.
    if descriptor::is_entered(number) {
        end(shared, close(shared, number));
    }
    // A child's descriptors are not its parent's, and this memory may be both's.
    let name = match name {
        Some(name) if shared.has_own_memory() => Some((Name::of(name.whole()), name.is_inside())),
        _ => None,
    };
    descriptor::open(number, Opened { is_entered, name });
}

/// Enters a mapping of the file behind a descriptor.
///
/// # Safety
/// As [`finish`].
unsafe fn map(shared: &Attached, call: &Call, address: u64, nth: u64) {
    let number = call.descriptor(4);
    let (kind, key) = (Kind::FileMapping, address);
    let is_named = descriptor::is_marked(number)
        && shared.has_own_memory()
        && descriptor::is_called(number, Moment::now(shared));
    let row = match is_named {
        true => shared.find(Kind::Descriptor, u64::from(number.unsigned_abs())),
        false => None,
    };
    // SAFETY: as above.
    unsafe {
        match row {
            Some(row) => enter_at(shared, call, kind, key, nth, Named::AsIn(row)),
            None => enter_file(shared, call, kind, key, nth, number),
        }
    }
}

/// Enters what is made of the file behind a descriptor. A function of its own, because the path takes room on the stack.
///
/// # Safety
/// As [`finish`].
#[inline(never)]
unsafe fn enter_file(shared: &Attached, call: &Call, kind: Kind, key: u64, nth: u64, number: i32) {
    let mut path = PathText::new();
    target::ask(number, shared, &mut path);
    let relative = shared.scope(path.as_bytes()).map(|path| path.relative);
    let path = Named::Path(relative.unwrap_or_default());
    // SAFETY: as above.
    unsafe { enter_at(shared, call, kind, key, nth, path) };
}

/// # Safety
/// As [`finish`].
unsafe fn enter_at(
    shared: &Attached,
    call: &Call,
    kind: Kind,
    key: u64,
    nth: u64,
    path: Named<'_>,
) {
    shared.enter(&Entering {
        kind,
        key,
        // SAFETY: as above.
        bytes: unsafe { call.size_bytes(call.site().size) },
        site: call.id(),
        nth,
        path,
        caller: caller::library_at(call.caller).as_bytes(),
    });
}

/// Takes a descriptor out of the ledger.
pub(crate) fn close(shared: &Attached, number: i32) -> Option<Taken> {
    if !descriptor::is_entered(number) {
        descriptor::mark(number, false);
        return None;
    }
    let taken = shared.take(Kind::Descriptor, u64::from(number.unsigned_abs()));
    // A child made by `vfork` finds nothing of its own, and must leave its parent's mark.
    descriptor::mark(number, taken.is_none());
    taken
}

fn unmap(shared: &Attached, start: usize, bytes: usize) {
    mapping::remove(start, bytes, |start| {
        end(shared, shared.take(Kind::FileMapping, start as u64));
    });
}

/// # Safety
/// The arguments must be lawful, and for a key behind an argument the call must have succeeded.
unsafe fn key_of(call: &Call, key: Key, result: usize) -> Option<u64> {
    match key {
        Key::Returned => Some(result as u64),
        Key::Arg(index) => Some(call.argument(index) as u64),
        // SAFETY: as above.
        Key::Out(index) => unsafe { call.pointed(index) }.map(|word| word as u64),
    }
}
