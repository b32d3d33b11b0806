//! One call of a wrapped function: what it means, its arguments, and doing it.
#![allow(unsafe_code)]

use std::mem::transmute;

use spillproof_faults::{Failure, MAX_ARITY, Short, Site, SiteId, Size, SpellingId};

use crate::system_call;
use crate::trampoline::ARGUMENT_REGISTERS;

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    address: usize,
    bytes: usize,
}

impl Piece {
    pub(crate) const NONE: Piece = Piece {
        address: 0,
        bytes: 0,
    };
}

const FCNTL: SiteId = SiteId::named("fcntl");
/// Commands of `fcntl`, the same on every architecture (asm-generic/fcntl.h).
const F_GETFD: usize = 1;
const F_GETFL: usize = 3;

/// Most pieces of one call (`IOV_MAX`).
pub(crate) const MAX_PIECES: usize = 1024;

pub(crate) type Arguments = [usize; MAX_ARITY];

type Function = unsafe extern "C-unwind" fn(
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
) -> usize;

/// A call that a wrapper received. Its arguments stay where the wrapper has put them: to copy words that were just written means to wait until
/// they have left for the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// What the call means: for `syscall` another function than the wrapper's.
    meaning: SpellingId,
    id: SiteId,
    site: &'static Site,
    registers: *const usize,
    stack: *const usize,
    /// Whether it is a `syscall`, whose number stands before the arguments of the site that it means.
    has_number: bool,
    /// The address that the call returns to.
    pub(crate) caller: usize,
}

impl Call {
    /// # Safety
    /// The pointers must be to the argument registers and the stack words of a call of that spelling, and outlive the value.
    #[inline]
    pub(crate) unsafe fn read(
        spelling: SpellingId,
        registers: *const usize,
        stack: *const usize,
        caller: usize,
    ) -> Call {
        let id = spelling.site();
        Call {
            meaning: spelling,
            id,
            site: id.site(),
            registers,
            stack,
            has_number: false,
            caller,
        }
    }

    /// Takes a `syscall` for what it means.
    #[cold]
    pub(crate) fn unwrap_raw(&mut self) {
        let number = self.argument(0);
        self.has_number = true;
        if let Some(meaning) = system_call::meaning(number) {
            self.meaning = meaning;
            self.id = meaning.site();
            self.site = self.id.site();
        }
    }

    /// The function that the call means.
    #[inline]
    pub(crate) fn meaning(&self) -> SpellingId {
        self.meaning
    }

    /// The site that the call means.
    #[inline]
    pub(crate) fn id(&self) -> SiteId {
        self.id
    }

    #[inline]
    pub(crate) fn site(&self) -> &'static Site {
        self.site
    }

    /// Whether it is a `syscall` that is not taken for what it means.
    #[inline]
    pub(crate) fn is_raw(&self) -> bool {
        self.site.failure == Failure::RawSyscall
    }

    /// Whether it is a system call that no site means.
    #[inline]
    pub(crate) fn is_foreign(&self) -> bool {
        self.site().failure == Failure::RawSyscall
    }

    /// Whether it only asks for the flags of a descriptor. fcntl(2) knows no error of that but EBADF, which a correct caller never
    /// gets, and Rust's library asks so in debug builds only, before each close.
    #[inline]
    pub(crate) fn is_question(&self) -> bool {
        self.id() == FCNTL && matches!(self.argument(1), F_GETFD | F_GETFL)
    }

    /// How it fails: `syscall` in its own way, whatever it means.
    pub(crate) fn failure(&self) -> Failure {
        match self.has_number {
            true => Failure::RawSyscall,
            false => self.site.failure,
        }
    }

    #[inline]
    pub(crate) fn argument(&self, index: u8) -> usize {
        let place = usize::from(index) + usize::from(self.has_number);
        // SAFETY: registers were all saved; a function of that many arguments has the rest of them on the stack.
        unsafe {
            if place < ARGUMENT_REGISTERS {
                *self.registers.add(place)
            } else if index < self.site.arity {
                *self.stack.add(place - ARGUMENT_REGISTERS)
            } else {
                0
            }
        }
    }

    /// All of them.
    pub(crate) fn arguments(&self) -> Arguments {
        std::array::from_fn(|index| self.argument(index as u8))
    }

    /// The number of a `syscall`.
    pub(crate) fn number(&self) -> Option<usize> {
        // SAFETY: registers were all saved.
        self.has_number.then(|| unsafe { *self.registers })
    }

    /// An argument of type `int`.
    #[inline]
    pub(crate) fn descriptor(&self, index: u8) -> i32 {
        self.argument(index) as i32
    }

    /// Whether all arguments are in registers, and mean what they say.
    #[inline]
    pub(crate) fn is_in_registers(&self) -> bool {
        !self.has_number && usize::from(self.site.arity) <= ARGUMENT_REGISTERS
    }

    /// Calls it with these arguments.
    ///
    /// # Safety
    /// The arguments must be those that the wrapper received, or lawful ones in their place.
    pub(crate) unsafe fn make(&self, real: usize, arguments: &Arguments) -> usize {
        let [a, b, c, d, e, f, g, h, i] = *arguments;
        // SAFETY: the address is that of the function whose arguments these are; further ones are in registers and stack words
        // that it does not look at.
        unsafe {
            let function: Function = transmute(real);
            match self.number() {
                None => function(a, b, c, d, e, f, g, h, i),
                Some(number) => function(number, a, b, c, d, e, f, g, h),
            }
        }
    }

    /// The arguments of a call for at most so many bytes.
    ///
    /// # Safety
    /// The arguments must be lawful; the call must be made before `pieces` is gone.
    pub(crate) unsafe fn shortened(
        &self,
        bytes: u64,
        pieces: &mut [Piece; MAX_PIECES],
    ) -> Arguments {
        let mut arguments = self.arguments();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        match self.site().short {
            Short::None => {}
            Short::Count { size_arg } => {
                let size = &mut arguments[usize::from(size_arg)];
                *size = bytes.min(*size);
            }
            Short::Vector { iov_arg, count_arg } => {
                let mut left = bytes;
                let mut count = 0;
                // SAFETY: the caller's array has as many pieces as it says.
                for piece in unsafe { self.pieces(iov_arg, count_arg) } {
                    pieces[count] = Piece {
                        address: piece.address,
                        bytes: piece.bytes.min(left),
                    };
                    left -= pieces[count].bytes;
                    count += 1;
                    if left == 0 {
                        break;
                    }
                }
                arguments[usize::from(iov_arg)] = pieces.as_ptr() as usize;
                arguments[usize::from(count_arg)] = count;
            }
        }
        arguments
    }

    /// The bytes it is about, as far as known; what an argument points at is read.
    ///
    /// # Safety
    /// The arguments must be lawful. For a size that is known after the call, the call must have succeeded.
    #[inline]
    pub(crate) unsafe fn size_bytes(&self, size: Size) -> u64 {
        // One by one, as in `effect::begin`.
        if size == Size::None {
            return 0;
        }
        if let Size::Arg(index) = size {
            return self.argument(index) as u64;
        }
        // SAFETY: as above.
        unsafe { self.other_size_bytes(size) }
    }

    /// # Safety
    /// As [`Self::size_bytes`].
    #[inline(never)]
    unsafe fn other_size_bytes(&self, size: Size) -> u64 {
        // SAFETY: lawful arguments are null or point at what the table says.
        let bytes = unsafe {
            match size {
                Size::None => 0,
                Size::Arg(index) => self.argument(index),
                Size::Pointed(index) => self.pointed(index).unwrap_or(0),
                Size::Vector { iov_arg, count_arg } => {
                    let pieces = self.pieces(iov_arg, count_arg);
                    pieces
                        .iter()
                        .fold(0, |sum: usize, piece| sum.saturating_add(piece.bytes))
                }
                Size::PitchTimes {
                    pitch_arg,
                    rows_arg,
                } => {
                    let pitch = self.pointed(pitch_arg).unwrap_or(0);
                    pitch.saturating_mul(self.argument(rows_arg))
                }
            }
        };
        bytes as u64
    }

    /// The word that an argument points at.
    ///
    /// # Safety
    /// The argument must be null or point at a word.
    pub(crate) unsafe fn pointed(&self, index: u8) -> Option<usize> {
        let pointer = self.argument(index) as *const usize;
        // SAFETY: not null, and lawful by the caller's word.
        (!pointer.is_null()).then(|| unsafe { pointer.read_unaligned() })
    }

    unsafe fn pieces(&self, iov_arg: u8, count_arg: u8) -> &[Piece] {
        let address = self.argument(iov_arg) as *const Piece;
        let count = self.argument(count_arg) as i32;
        match usize::try_from(count) {
            Ok(count) if !address.is_null() && count <= MAX_PIECES => {
                // SAFETY: a lawful array of that many pieces.
                unsafe { std::slice::from_raw_parts(address, count) }
            }
            _ => &[],
        }
    }
}
