//! Joining the harness at the start of the process: nobody shall believe that faults were on where they were not.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::fmt::{self, Write};
use std::sync::OnceLock;

use spillproof_faults::{Attached, FAULTS_VARIABLE, NOT_ATTACHED_STATUS, SPELLING_COUNT};

use crate::brief::{BRIEFS, Brief};
use crate::caller::Table;
use crate::leaving::exit_group;
use crate::real::{self, Functions};
use crate::text::Text;

static JOINED: Joined = Joined {
    shared: OnceLock::new(),
    functions: Functions::unknown(),
    briefs: BRIEFS,
    callers: Table::empty(),
};

/// Together, so that a call looks at few pages: after a system call each has to be found anew.
#[repr(C, align(4096))]
struct Joined {
    shared: OnceLock<Attached>,
    functions: Functions,
    briefs: [Brief; SPELLING_COUNT],
    callers: Table,
}

/// The memory shared with the harness; `None` before the process has joined.
#[inline]
pub(crate) fn shared() -> Option<&'static Attached> {
    JOINED.shared.get()
}

/// The functions behind the wrappers.
#[inline]
pub(crate) fn functions() -> &'static Functions {
    &JOINED.functions
}

/// What the spellings are.
#[inline]
pub(crate) fn briefs() -> &'static [Brief; SPELLING_COUNT] {
    &JOINED.briefs
}

/// The libraries that have called.
#[inline]
pub(crate) fn callers() -> &'static Table {
    &JOINED.callers
}

/// Run by the loader when it has bound this library, with the program's arguments.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = start;

extern "C" fn start(_: c_int, _: *const *const c_char, environment: *const *const c_char) {
    if !real::find_all() {
        refuse(b"this libc has no dlsym to ask; a glibc is needed");
    }
    if is_second() {
        refuse(b"another copy of the interposer is in this process, and each call would count twice; leave one of them in LD_PRELOAD");
    }
    // SAFETY: glibc passes the program's environment, as to `main`.
    let Some(path) = (unsafe { variable(environment) }) else {
        refuse(b"it is not set; start the process through the harness, or without this library in LD_PRELOAD");
    };
    match Attached::open(path) {
        Ok(attached) => {
            attached.attach();
            // The loader runs this once.
            let _ = JOINED.shared.set(attached);
        }
        Err(error) => {
            let mut text = Formatted(Text::of(path.to_bytes()).and(b": "));
            // Texts are cut, not refused.
            let _ = write!(text, "{error}");
            refuse(text.0.as_bytes());
        }
    }
    // SAFETY: the handler lives in a library that is never unloaded, and does nothing that a forked child may not.
    unsafe { libc::pthread_atfork(None, None, Some(join_forked)) };
}

/// By this name copies of the library find one another. A function, because only those are bound to their own library.
#[unsafe(no_mangle)]
extern "C" fn spillproof_interposer() {}

/// Whether another copy comes before this one in the order of lookup.
fn is_second() -> bool {
    // SAFETY: the name is a terminated string.
    let first = unsafe { real::real_dlsym(libc::RTLD_DEFAULT, c"spillproof_interposer".as_ptr()) };
    first != 0 && first != spillproof_interposer as *const () as usize
}

/// Run in each forked child.
unsafe extern "C" fn join_forked() {
    if let Some(shared) = shared() {
        shared.attach();
    }
}

/// The variable's value.
///
/// # Safety
/// `environment` must be null or an array of terminated strings that ends with null.
unsafe fn variable(environment: *const *const c_char) -> Option<&'static CStr> {
    if environment.is_null() {
        return None;
    }
    let mut at = environment;
    // SAFETY: within the array; the strings stay, nothing has run yet that could change them.
    unsafe {
        while !(*at).is_null() {
            let entry = CStr::from_ptr(*at);
            let value = entry.to_bytes().strip_prefix(FAULTS_VARIABLE.as_bytes());
            if let Some([b'=', ..]) = value {
                return Some(CStr::from_ptr((*at).add(FAULTS_VARIABLE.len() + 1)));
            }
            at = at.add(1);
        }
    }
    None
}

/// Says why, and ends the process.
fn refuse(reason: &[u8]) -> ! {
    let text = Text::of(b"spillproof: the interposer cannot join the harness by ")
        .and(FAULTS_VARIABLE.as_bytes())
        .and(b": ")
        .and(reason)
        .and(b"\n");
    // Where standard error is closed, the status has to do.
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    // Nothing has run yet that would want to be told.
    exit_group(NOT_ATTACHED_STATUS)
}

/// Formatting into fixed memory.
struct Formatted(Text);

impl Write for Formatted {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push(text.as_bytes());
        Ok(())
    }
}
