//! The shortest way through a call, which nearly all take: no rule is about it, nothing is recorded, and what it is about is known without
//! a question. Everything else takes the long way, which knows all of it.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use spillproof_faults::{Attached, Entering, Kind, Named};

use crate::brief::{
    Brief, CHANGES_NOTHING, CLOSES, DESCRIPTOR, ENDS, LAST, MAKES, NAME, NO_ARGUMENT, OPENS,
};
use crate::caller;
use crate::descriptor;
use crate::dispatch::{Frame, How};
use crate::effect;
use crate::target::{self, Plain};

/// What a wrapper is to do, where the short way leads to the call; nothing is done where it does not.
///
/// # Safety
/// The arguments must be lawful for a function of that kind, and in the frame.
#[inline]
pub(crate) unsafe fn before(
    shared: &'static Attached,
    brief: Brief,
    frame: *mut Frame,
    caller: usize,
) -> Option<How> {
    if brief.effect == 0 || !shared.is_quiet(brief.site) {
        return None;
    }
    // The thread is not asked whether it is inside the interposer's work: that calls nothing which is counted, and the call of a signal
    // handler that comes in between is a call.
    // SAFETY: the wrapper has saved the registers.
    let argument = |index: u8| unsafe { Frame::argument(frame, index) };
    let mut name = None;
    let mut is_inside = true;
    if brief.target & DESCRIPTOR != 0 {
        let number = argument(brief.file) as i32;
        // What the ledger has was opened inside; asking the kernel once more takes longer than to close it.
        let is_marked = brief.effect & CLOSES != 0 && descriptor::is_marked(number);
        is_inside = is_marked
            || match descriptor::known(number) {
                Some(is_inside) => is_inside,
                None => target::known_by_name(number, shared)?,
            };
    }
    if brief.target & NAME != 0 {
        let path = argument(brief.file) as *const c_char;
        if path.is_null() {
            return None;
        }
        // SAFETY: not null, so a terminated string, which outlives the call.
        let path = unsafe { CStr::from_ptr(path) }.to_bytes();
        let plain = Plain::of(path, shared)?;
        is_inside = plain.is_inside();
        // Flags stand behind the name. A file without a name is opened by that of its directory.
        let flags = argument(brief.file + 1) as i32;
        if brief.effect & OPENS != 0 && flags & libc::O_TMPFILE == libc::O_TMPFILE {
            return None;
        }
        name = Some(plain);
    }
    let mut taken = None;
    if brief.effect & ENDS != 0 {
        taken = shared.take(brief.kind, argument(brief.key) as u64);
    }
    if brief.effect & CLOSES != 0 {
        taken = effect::close(shared, argument(brief.file) as i32);
    }
    let nth = match is_inside {
        true => shared.count_by(brief.site, (brief.nth != LAST).then_some(brief.nth)),
        false => 0,
    };
    if brief.effect & CHANGES_NOTHING != 0 {
        return Some(How::Pass);
    }
    // Nothing is made, so nothing has to be looked at behind the call.
    if brief.effect & (ENDS | CLOSES) != 0 && taken.is_none() {
        return Some(How::Pass);
    }
    // SAFETY: the frame is the wrapper's. Field by field: no reference may be to what holds anything.
    unsafe {
        (&raw mut (*frame).shared).write(shared);
        (&raw mut (*frame).caller).write(caller);
        (&raw mut (*frame).brief).write(brief);
        (&raw mut (*frame).nth).write(nth);
        (&raw mut (*frame).taken).write(taken);
        (&raw mut (*frame).name).write(name);
    }
    Some(How::Call)
}

/// Brings the ledger up to date with a result.
///
/// # Safety
/// [`before`] must have filled the frame for the same call, which has returned that result.
#[inline]
pub(crate) unsafe fn after(frame: *const Frame, result: usize) {
    // SAFETY: filled; what only the long way fills holds anything.
    let (shared, brief) = unsafe { ((*frame).shared, (*frame).brief) };
    // SAFETY: the wrapper has saved the registers.
    let argument = |index: u8| unsafe { Frame::argument(frame, index) };
    let is_failed = match brief.is_minus_one {
        true => result == usize::MAX || result == u32::MAX as usize,
        false => result as u32 != 0,
    };
    if brief.effect & (ENDS | CLOSES) != 0 {
        // SAFETY: as above.
        let Some(taken) = (unsafe { (*frame).taken }) else {
            return;
        };
        if !is_failed {
            return shared.end(taken);
        }
        shared.restore(taken);
        if brief.effect & CLOSES != 0 {
            descriptor::mark(argument(brief.file) as i32, true);
        }
        return;
    }
    if is_failed {
        return;
    }
    if brief.effect & MAKES != 0 {
        let out = argument(brief.key) as *const usize;
        if out.is_null() {
            return;
        }
        let bytes = match brief.size {
            NO_ARGUMENT => 0,
            index => argument(index) as u64,
        };
        // SAFETY: a lawful argument of a call that succeeded.
        let key = unsafe { out.read_unaligned() } as u64;
        // SAFETY: as above.
        return unsafe { enter(frame, brief.kind, key, bytes, b"") };
    }
    if brief.effect & OPENS != 0
        // SAFETY: as above.
        && let (nth, Some(name)) = unsafe { ((*frame).nth, (*frame).name) }
    {
        let number = result as i32;
        effect::opened(shared, number, nth != 0, Some(name));
        if let Some(path) = name.relative() {
            let key = u64::from(number.unsigned_abs());
            // SAFETY: as above.
            unsafe { enter(frame, Kind::Descriptor, key, 0, path) };
        }
    }
}

/// # Safety
/// As [`after`].
#[inline(always)]
unsafe fn enter(frame: *const Frame, kind: Kind, key: u64, bytes: u64, path: &[u8]) {
    // SAFETY: as above.
    let (shared, brief, nth, caller) = unsafe {
        (
            (*frame).shared,
            (*frame).brief,
            (*frame).nth,
            (*frame).caller,
        )
    };
    shared.enter(&Entering {
        kind,
        key,
        bytes,
        site: brief.site,
        nth,
        path: Named::Path(path),
        caller: caller::library_at(caller).as_bytes(),
    });
}
