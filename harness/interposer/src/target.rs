//! Which file a call is about.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use spillproof_faults::{Attached, Effect, Target};

use crate::call::Call;
use crate::names::{Moment, Name};
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
#[derive(Debug, Clone, Copy)]
pub(crate) enum Inside<'a> {
    No,
    Yes,
    /// By a name that means what it says.
    Named(Plain<'a>),
}

impl Inside<'_> {
    #[inline]
    pub(crate) fn counts(self) -> bool {
        match self {
            Inside::No => false,
            Inside::Yes => true,
            Inside::Named(name) => name.is_inside(),
        }
    }
}

impl From<bool> for Inside<'_> {
    #[inline]
    fn from(is_inside: bool) -> Self {
        match is_inside {
            true => Inside::Yes,
            false => Inside::No,
        }
    }
}

/// A name that means what it says, but for links: absolute, without parts to leave out (empty, `.`, `..`), and no link to a descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain<'a> {
    whole: &'a [u8],
    /// Where the part inside the scope begins; behind the end where there is none.
    inside: usize,
}

impl<'a> Plain<'a> {
    /// Nothing where it takes more to know what the name means.
    #[inline]
    pub(crate) fn of(whole: &'a [u8], shared: &Attached) -> Option<Plain<'a>> {
        let inside = match plain_inside(whole, shared) {
            Some(relative) => whole.len() - relative.len(),
            None if is_plain(whole) => usize::MAX,
            None => return None,
        };
        Some(Plain { whole, inside })
    }

    /// All of it.
    #[inline]
    pub(crate) fn whole(self) -> &'a [u8] {
        self.whole
    }

    /// The part of it inside the scope.
    #[inline]
    pub(crate) fn relative(self) -> Option<&'a [u8]> {
        self.whole.get(self.inside..)
    }

    #[inline]
    pub(crate) fn is_inside(self) -> bool {
        self.inside <= self.whole.len()
    }
}

/// Whether a call counts.
///
/// # Safety
/// The arguments must be lawful. What they point at must outlive the result.
#[inline]
pub(crate) unsafe fn inside<'a>(call: &Call, shared: &Attached) -> Inside<'a> {
    // One by one, as in `effect::begin`.
    let site = call.site();
    if site.target == Target::None {
        return Inside::Yes;
    }
    if let Target::Fd(index) = site.target
        && site.effect != Effect::Maps
    {
        let number = call.descriptor(index);
        // What the ledger has was opened inside; asking the kernel once more takes longer than to close it.
        let is_ending = matches!(site.effect, Effect::Closes(_));
        let is_inside =
            (is_ending && descriptor::is_marked(number)) || is_descriptor_inside(number, shared);
        return is_inside.into();
    }
    // SAFETY: lawful arguments are null or terminated strings, which live as long as the call.
    unsafe {
        match only_name(call) {
            Some((directory, name)) => name_inside(directory, name, shared),
            None => is_inside(call, shared).into(),
        }
    }
}

/// The directory and the name of a call that has one name.
#[inline]
fn only_name(call: &Call) -> Option<(i32, *const c_char)> {
    let (directory, path_arg) = match call.site().target {
        Target::Path(path_arg) => (libc::AT_FDCWD, path_arg),
        Target::PathAt { dir_arg, path_arg } => (call.descriptor(dir_arg), path_arg),
        _ => return None,
    };
    Some((directory, call.argument(path_arg) as *const c_char))
}

/// # Safety
/// The arguments must be lawful.
#[inline(never)]
unsafe fn is_inside(call: &Call, shared: &Attached) -> bool {
    match call.site().target {
        Target::None => true,
        Target::FdRange {
            first_arg,
            last_arg,
        } => range(call, first_arg, last_arg).any(|number| is_descriptor_inside(number, shared)),
        Target::Mapping { address_arg } => is_mapping_inside(call, address_arg),
        Target::Path(_)
        | Target::PathAt { .. }
        | Target::TwoPaths(..)
        | Target::TwoPathsAt { .. }
        | Target::Fd(_)
        | Target::TwoFds(..) => places(call).into_iter().flatten().any(|place| match place {
            Place::Open(number) => is_descriptor_inside(number, shared),
            // SAFETY: lawful arguments are null or terminated strings.
            Place::Named { directory, name } => unsafe {
                name_inside(directory, name, shared).counts()
            },
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
                        let asked = descriptor::asked(number);
                        text.set_descriptor(number);
                        descriptor::remember(asked, scope(text.as_bytes()));
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
    number >= 0
        && descriptor::known(number)
            .or_else(|| known_by_name(number, shared))
            .unwrap_or_else(|| look_up_descriptor(number, shared))
}

/// Whether a descriptor that was not used yet is open inside, by the name that opened it.
#[inline]
pub(crate) fn known_by_name(number: i32, shared: &Attached) -> Option<bool> {
    match shared.has_own_memory() {
        true => descriptor::known_by_name(number, Moment::now(shared)),
        false => None,
    }
}

/// Asks the kernel what a descriptor is open on. Where that is the name that opened it, the name is known to lead to itself.
pub(crate) fn ask(number: i32, shared: &Attached, path: &mut PathText) {
    // Before the question: what happens meanwhile is later.
    let moment = Moment::now(shared);
    path.set_descriptor(number);
    if let Some(name) = descriptor::opened_by(number)
        && !path.is_deleted()
        && name == Name::of(path.as_bytes())
    {
        descriptor::called(number, name, moment);
    }
}

#[cold]
#[inline(never)]
fn look_up_descriptor(number: i32, shared: &Attached) -> bool {
    let asked = descriptor::asked(number);
    let mut path = PathText::new();
    ask(number, shared, &mut path);
    let is_inside = shared.scope(path.as_bytes()).is_some();
    descriptor::remember(asked, is_inside);
    is_inside
}

/// # Safety
/// The name must be null or a terminated string.
#[inline]
unsafe fn name_inside<'a>(directory: i32, name: *const c_char, shared: &Attached) -> Inside<'a> {
    if name.is_null() {
        return Inside::No;
    }
    // SAFETY: not null, so a terminated string.
    unsafe {
        match Plain::of(CStr::from_ptr(name).to_bytes(), shared) {
            Some(name) => Inside::Named(name),
            None => look_up_name(directory, name, shared).into(),
        }
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

/// Whether a call that opens makes a file without a name (`O_TMPFILE`), and names its directory.
pub(crate) fn is_nameless(call: &Call) -> bool {
    match call.site().target {
        // Flags stand behind the name; where there are none, the register holds anything, and the kernel is asked.
        Target::Path(path_arg) | Target::PathAt { path_arg, .. } => {
            call.descriptor(path_arg + 1) & libc::O_TMPFILE == libc::O_TMPFILE
        }
        _ => false,
    }
}

/// The name of the file that a call opens, where that means what it says: asking the kernel for it takes longer than all the rest. Not of a
/// file without a name, whose directory is named.
///
/// # Safety
/// The arguments must be lawful. What they point at must outlive the result.
pub(crate) unsafe fn plain_name<'a>(call: &Call, shared: &Attached) -> Option<Plain<'a>> {
    let (_, name) = only_name(call)?;
    if name.is_null() || is_nameless(call) {
        return None;
    }
    // SAFETY: not null, so a terminated string, which lives as long as the call.
    Plain::of(unsafe { CStr::from_ptr(name) }.to_bytes(), shared)
}

/// Where a name leads in the scope, if it begins with a directory of the scope and is what it means from there on.
fn plain_inside<'a>(name: &'a [u8], shared: &Attached) -> Option<&'a [u8]> {
    let relative = shared.scope(name)?.relative;
    if relative.is_empty() {
        return (!name.ends_with(b"/")).then_some(relative);
    }
    let is_kept = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
    // The directory of the scope is what its name means.
    let (_, from_slash) = name.split_at(name.len() - relative.len() - 1);
    let is_plain = has_only_names(relative)
        || is_plain(from_slash)
        || relative.split(|byte| *byte == b'/').all(is_kept);
    is_plain.then_some(relative)
}

/// Whether no part of a short name is to be left out, as is seen at once.
#[inline]
fn has_only_names(relative: &[u8]) -> bool {
    let mut before = b'/';
    if relative.len() > 32 {
        return false;
    }
    for byte in relative {
        if before == b'/' && matches!(byte, b'/' | b'.') {
            return false;
        }
        before = *byte;
    }
    before != b'/'
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
