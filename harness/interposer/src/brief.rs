//! What the shortest way needs to know of a call, in as few bytes as that takes: after a system call each page has to be found anew, and the
//! table of sites is many.

use spillproof_faults::{
    Effect, Failure, Key, Kind, SPELLING_COUNT, SPELLINGS, Site, SiteId, Size, Target,
};

use crate::trampoline::ARGUMENT_REGISTERS;

/// What a spelling is, briefly. Bits, because of tests of bits no table of jumps is made: where that leads is not predicted behind a system
/// call, and costs as much as all the rest.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Brief {
    pub(crate) site: SiteId,
    /// Which of its site's spellings, or [`LAST`].
    pub(crate) nth: u8,
    /// One of `CHANGES_NOTHING` to `CLOSES`, or 0 for what takes the long way.
    pub(crate) effect: u8,
    /// One of `NO_FILE` to `NAME`.
    pub(crate) target: u8,
    /// Whether it fails with −1; otherwise with anything but 0.
    pub(crate) is_minus_one: bool,
    /// The argument of the target.
    pub(crate) file: u8,
    /// The argument that is or points at the key, or [`NO_ARGUMENT`] where that is returned.
    pub(crate) key: u8,
    /// The argument that holds the size, or [`NO_ARGUMENT`].
    pub(crate) size: u8,
    /// What it makes or ends; of other calls a descriptor.
    pub(crate) kind: Kind,
}

pub(crate) const LAST: u8 = u8::MAX;
pub(crate) const NO_ARGUMENT: u8 = u8::MAX;

pub(crate) const CHANGES_NOTHING: u8 = 1;
pub(crate) const MAKES: u8 = 2;
pub(crate) const ENDS: u8 = 4;
pub(crate) const OPENS: u8 = 8;
pub(crate) const CLOSES: u8 = 16;

pub(crate) const NO_FILE: u8 = 1;
pub(crate) const DESCRIPTOR: u8 = 2;
pub(crate) const NAME: u8 = 4;

/// By spelling.
pub(crate) const BRIEFS: [Brief; SPELLING_COUNT] = {
    let mut all = [Brief::long(SiteId(0)); SPELLING_COUNT];
    let mut index = 0;
    while index < SPELLING_COUNT {
        let spelling = &SPELLINGS[index];
        all[index] = Brief::of(spelling.site);
        all[index].nth = if spelling.is_last { LAST } else { spelling.nth };
        index += 1;
    }
    all
};

impl Brief {
    /// What takes the long way.
    pub(crate) const fn long(site: SiteId) -> Brief {
        Brief {
            site,
            nth: LAST,
            effect: 0,
            target: 0,
            is_minus_one: false,
            file: 0,
            key: NO_ARGUMENT,
            size: NO_ARGUMENT,
            kind: Kind::Descriptor,
        }
    }

    const fn of(id: SiteId) -> Brief {
        let site: &Site = id.site();
        let long = Brief::long(id);
        // The short way keeps the name during the call, and reads flags behind it.
        if site.rewrites_name() {
            return long;
        }
        if site.arity as usize > ARGUMENT_REGISTERS && !matches!(site.effect, Effect::Nothing) {
            return long;
        }
        let (target, file) = match site.target {
            Target::None => (NO_FILE, 0),
            Target::Fd(index) => (DESCRIPTOR, index),
            Target::Path(index)
            | Target::PathAt {
                path_arg: index, ..
            } => (NAME, index),
            _ => return long,
        };
        let is_minus_one = match site.failure {
            Failure::MinusOne => true,
            Failure::CudaResult | Failure::CuFileError => false,
            Failure::RawSyscall => return long,
            _ if matches!(site.effect, Effect::Nothing) => false,
            _ => return long,
        };
        let brief = Brief {
            target,
            file,
            is_minus_one,
            ..long
        };
        match site.effect {
            Effect::Nothing => Brief {
                effect: CHANGES_NOTHING,
                ..brief
            },
            Effect::Makes {
                kind,
                key: Key::Out(key),
            } if target == NO_FILE => {
                let size = match site.size {
                    Size::None => NO_ARGUMENT,
                    Size::Arg(index) => index,
                    _ => return long,
                };
                Brief {
                    effect: MAKES,
                    key,
                    size,
                    kind,
                    ..brief
                }
            }
            Effect::Ends {
                kind,
                key: Key::Arg(key),
            } if target == NO_FILE => Brief {
                effect: ENDS,
                key,
                kind,
                ..brief
            },
            Effect::Opens if target == NAME => Brief {
                effect: OPENS,
                ..brief
            },
            Effect::Closes(index) if target == DESCRIPTOR && index == file => Brief {
                effect: CLOSES,
                ..brief
            },
            _ => long,
        }
    }
}
