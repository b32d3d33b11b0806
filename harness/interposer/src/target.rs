//! Which file a call is about.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use spillproof_faults::{Attached, Effect, Target};

use crate::call::Call;
use crate::path::PathText;
use crate::{descriptor, mapping, maps};

/// The paths of a call's files; the second is empty where there is none.
#[derive(Debug)]
pub(crate) struct Paths {
    pub(crate) first: PathText,
    pub(crate) second: PathText,
}

impl Paths {
    pub(crate) fn new() -> Paths {
        Paths {
            first: PathText::new(),
            second: PathText::new(),
        }
    }
}

/// A descriptor, or a name relative to one.
#[derive(Clone, Copy)]
enum Place {
    Open(i32),
    Named { directory: i32, name: *const c_char },
}

/// Whether a call counts, by what is remembered of descriptors.
///
/// # Safety
/// The arguments must be lawful.
#[inline]
pub(crate) unsafe fn is_inside(call: &Call, shared: &Attached) -> bool {
    match call.site().target {
        Target::None => true,
        Target::Fd(index) if call.site().effect != Effect::Maps => {
            let number = call.descriptor(index);
            // What the ledger has was opened inside; asking the kernel once more takes longer than to close it.
            let is_ending = matches!(call.site().effect, Effect::Closes(_));
            (is_ending && descriptor::is_marked(number)) || is_descriptor_inside(number, shared)
        }
        Target::FdRange {
            first_arg,
            last_arg,
        } => range(call, first_arg, last_arg).any(|number| is_descriptor_inside(number, shared)),
        Target::Mapping { address_arg } => is_mapping_inside(call, address_arg),
        Target::Path(path) => {
            let name = call.argument(path) as *const c_char;
            // SAFETY: lawful arguments are null or terminated strings.
            unsafe { is_name_inside(libc::AT_FDCWD, name, shared) }
        }
        Target::PathAt { .. }
        | Target::TwoPaths(..)
        | Target::TwoPathsAt { .. }
        | Target::Fd(_)
        | Target::TwoFds(..) => places(call).into_iter().flatten().any(|place| match place {
            Place::Open(number) => is_descriptor_inside(number, shared),
            // SAFETY: lawful arguments are null or terminated strings.
            Place::Named { directory, name } => unsafe { is_name_inside(directory, name, shared) },
        }),
    }
}

/// Whether a call counts, by what is true now, and the paths it is about.
///
/// # Safety
/// The arguments must be lawful.
pub(crate) unsafe fn look_up(call: &Call, shared: &Attached, paths: &mut Paths) -> bool {
    let scope = |path: &[u8]| shared.scope(path).is_some();
    match call.site().target {
        Target::None => true,
        Target::FdRange {
            first_arg,
            last_arg,
        } => range(call, first_arg, last_arg).any(|number| {
            paths.first.set_descriptor(number);
            scope(paths.first.as_bytes())
        }),
        Target::Mapping { address_arg } => {
            let first = &mut paths.first;
            maps::find(call.argument(address_arg), |_, path| {
                first.set_kernel_name(path);
            });
            is_mapping_inside(call, address_arg)
        }
        Target::Path(_)
        | Target::PathAt { .. }
        | Target::TwoPaths(..)
        | Target::TwoPathsAt { .. }
        | Target::Fd(_)
        | Target::TwoFds(..) => {
            let mut is_inside = false;
            let texts = [&mut paths.first, &mut paths.second];
            for (place, text) in places(call).into_iter().zip(texts) {
                match place {
                    None => continue,
                    Some(Place::Open(number)) => {
                        text.set_descriptor(number);
                        descriptor::remember(number, scope(text.as_bytes()));
                    }
                    // SAFETY: lawful arguments are null or terminated strings.
                    Some(Place::Named { directory, name }) => unsafe {
                        text.set_named(directory, name);
                    },
                }
                is_inside |= scope(text.as_bytes());
            }
            is_inside
        }
    }
}

/// The places that a call names.
fn places(call: &Call) -> [Option<Place>; 2] {
    let open = |index| {
        let is_fileless =
            call.site().effect == Effect::Maps && call.descriptor(3) & libc::MAP_ANONYMOUS != 0;
        (!is_fileless).then(|| Place::Open(call.descriptor(index)))
    };
    let name = |index| call.argument(index) as *const c_char;
    let named = |index| {
        Some(Place::Named {
            directory: libc::AT_FDCWD,
            name: name(index),
        })
    };
    let named_at = |directory, path| {
        Some(Place::Named {
            directory: call.descriptor(directory),
            name: name(path),
        })
    };
    match call.site().target {
        Target::None | Target::FdRange { .. } | Target::Mapping { .. } => [None, None],
        Target::Path(path) => [named(path), None],
        Target::PathAt { dir_arg, path_arg } => [named_at(dir_arg, path_arg), None],
        Target::TwoPaths(first, second) => [named(first), named(second)],
        Target::TwoPathsAt {
            first_dir_arg,
            first_path_arg,
            second_dir_arg,
            second_path_arg,
        } => [
            named_at(first_dir_arg, first_path_arg),
            named_at(second_dir_arg, second_path_arg),
        ],
        Target::Fd(number) => [open(number), None],
        Target::TwoFds(first, second) => [open(first), open(second)],
    }
}

/// The descriptors of a range that were ever seen.
fn range(call: &Call, first_arg: u8, last_arg: Option<u8>) -> std::ops::RangeInclusive<i32> {
    let last = last_arg.map_or(u32::MAX, |index| call.argument(index) as u32);
    descriptor::seen(call.argument(first_arg) as u32, last)
}

fn is_mapping_inside(call: &Call, address_arg: u8) -> bool {
    // Lengths stand behind addresses.
    mapping::is_known(call.argument(address_arg), call.argument(address_arg + 1))
}

#[inline]
fn is_descriptor_inside(number: i32, shared: &Attached) -> bool {
    number >= 0 && descriptor::known(number).unwrap_or_else(|| look_up_descriptor(number, shared))
}

#[cold]
#[inline(never)]
fn look_up_descriptor(number: i32, shared: &Attached) -> bool {
    let mut path = PathText::new();
    path.set_descriptor(number);
    let is_inside = shared.scope(path.as_bytes()).is_some();
    descriptor::remember(number, is_inside);
    is_inside
}

/// # Safety
/// The name must be null or a terminated string.
unsafe fn is_name_inside(directory: i32, name: *const c_char, shared: &Attached) -> bool {
    if name.is_null() {
        return false;
    }
    // SAFETY: not null, so a terminated string.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes();
        plain_inside(bytes, shared).is_some()
            || (!is_plain(bytes) && look_up_name(directory, name, shared))
    }
}

/// # Safety
/// The name must be a terminated string.
#[inline(never)]
unsafe fn look_up_name(directory: i32, name: *const c_char, shared: &Attached) -> bool {
    let mut path = PathText::new();
    // SAFETY: as above.
    unsafe { path.set_named(directory, name) };
    shared.scope(path.as_bytes()).is_some()
}

/// The path inside the scope of the file that a call opens, where its name surely is that: asking the kernel for it takes longer than all the
/// rest. Not of a file without a name (`O_TMPFILE`), whose directory is named.
///
/// # Safety
/// The arguments must be lawful.
pub(crate) unsafe fn plain_path<'a>(call: &'a Call, shared: &Attached) -> Option<&'a [u8]> {
    let index = match call.site().target {
        Target::Path(index) => index,
        Target::PathAt { path_arg, .. } => path_arg,
        Target::None
        | Target::TwoPaths(..)
        | Target::TwoPathsAt { .. }
        | Target::Fd(_)
        | Target::TwoFds(..)
        | Target::FdRange { .. }
        | Target::Mapping { .. } => return None,
    };
    let name = call.argument(index) as *const c_char;
    // Flags stand behind the name; where there are none, the register holds anything, and the kernel is asked.
    let is_nameless = call.descriptor(index + 1) & libc::O_TMPFILE == libc::O_TMPFILE;
    if name.is_null() || is_nameless {
        return None;
    }
    // SAFETY: not null, so a terminated string, which lives as long as the call.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    plain_inside(name, shared)
}

/// Where a name leads in the scope, if it begins with a directory of the scope and is what it means from there on.
fn plain_inside<'a>(name: &'a [u8], shared: &Attached) -> Option<&'a [u8]> {
    let relative = shared.scope(name)?.relative;
    let is_kept = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
    let is_plain = match relative.is_empty() {
        _ if is_plain(name) => true,
        true => !name.ends_with(b"/"),
        false => relative.split(|byte| *byte == b'/').all(is_kept),
    };
    is_plain.then_some(relative)
}

/// Whether the name is what it means: absolute, without parts to leave out (empty, `.`, `..`), and no link to a descriptor. Without a branch
/// for each byte, so that many are looked at at a time.
fn is_plain(name: &[u8]) -> bool {
    let ([b'/', ..], Some((_, second))) = (name, name.split_first()) else {
        return false;
    };
    let ends = [&b"/"[..], b"/.", b"/.."];
    let is_place_of_links = name.starts_with(b"/proc/") || name.starts_with(b"/dev/");
    if is_place_of_links || ends.iter().any(|end| name.ends_with(end)) {
        return false;
    }
    // What is too near the end for four bytes is not more than `//x`.
    let (third, fourth) = (name.get(2..).unwrap_or(b""), name.get(3..).unwrap_or(b""));
    let is_slash = |byte: &u8| u8::from(*byte == b'/');
    let is_dot = |byte: &u8| u8::from(*byte == b'.');
    let left_out = name.iter().zip(second).zip(third).zip(fourth);
    let left_out = left_out.fold(0u8, |found, (((a, b), c), d)| {
        let after_dot = is_slash(c) | (is_dot(c) & is_slash(d));
        found | (is_slash(a) & (is_slash(b) | (is_dot(b) & after_dot)))
    });
    let tail = name.get(name.len().saturating_sub(3)..).unwrap_or(b"");
    left_out == 0 && !tail.starts_with(b"//")
}
