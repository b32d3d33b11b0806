//! How a row is written: what a call is by itself, and what sets it apart.

use crate::error::FaultError;
use crate::site::{After, Effect, Failure, Key, Kind, Library, Short, Site, Size, Target};

/// A call that fails with −1 and `errno`, may be reported as failed after it was done, and changes nothing else.
pub(super) const fn libc(arity: u8, errors: &'static [FaultError]) -> Site {
    row(Library::Libc, arity, Failure::MinusOne, errors)
}

/// The same with a `CUresult`.
pub(super) const fn cuda(arity: u8, errors: &'static [FaultError]) -> Site {
    row(Library::Cuda, arity, Failure::CudaResult, errors)
}

/// The same with a `CUfileError_t`.
pub(super) const fn cufile(arity: u8, errors: &'static [FaultError]) -> Site {
    row(Library::CuFile, arity, Failure::CuFileError, errors)
}

const fn row(library: Library, arity: u8, failure: Failure, errors: &'static [FaultError]) -> Site {
    Site {
        name: "",
        library,
        spellings: &[],
        arity,
        failure,
        errors,
        after: After::Allowed,
        short: Short::None,
        target: Target::None,
        size: Size::None,
        offset_arg: None,
        effect: Effect::Nothing,
    }
}

impl Site {
    pub(super) const fn named(
        mut self,
        name: &'static str,
        spellings: &'static [&'static str],
    ) -> Site {
        self.name = name;
        self.spellings = spellings;
        self
    }

    pub(super) const fn fails_as(mut self, failure: Failure) -> Site {
        self.failure = failure;
        self
    }

    pub(super) const fn after(mut self, after: After) -> Site {
        self.after = after;
        self
    }

    pub(super) const fn on(mut self, target: Target) -> Site {
        self.target = target;
        self
    }

    pub(super) const fn sized(mut self, size: Size) -> Site {
        self.size = size;
        self
    }

    /// Moves as many bytes as an argument says, or fewer.
    pub(super) const fn counted(mut self, size_arg: u8) -> Site {
        self.size = Size::Arg(size_arg);
        self.short = Short::Count { size_arg };
        self
    }

    /// Moves as many bytes as an array of `iovec` holds, or fewer.
    pub(super) const fn vectored(mut self, iov_arg: u8, count_arg: u8) -> Site {
        self.size = Size::Vector { iov_arg, count_arg };
        self.short = Short::Vector { iov_arg, count_arg };
        self
    }

    pub(super) const fn at(mut self, offset_arg: u8) -> Site {
        self.offset_arg = Some(offset_arg);
        self
    }

    pub(super) const fn does(mut self, effect: Effect) -> Site {
        self.effect = effect;
        self
    }

    /// Makes something, which nobody could give back after a failure.
    pub(super) const fn makes(mut self, kind: Kind, key: Key) -> Site {
        self.effect = Effect::Makes { kind, key };
        self.after = After::Never;
        self
    }

    pub(super) const fn ends(mut self, kind: Kind, key: Key) -> Site {
        self.effect = Effect::Ends { kind, key };
        self
    }

    /// Returns a descriptor, which nobody could close after a failure.
    pub(super) const fn opens(mut self) -> Site {
        self.effect = Effect::Opens;
        self.after = After::Never;
        self
    }
}

/// Collects the rows of one library.
macro_rules! collect {
    ($library:ident; $($name:ident [$($spelling:ident)+] = $row:expr;)+) => {
        pub(super) const SITES: &[$crate::site::Site] = &[
            $($row.named(stringify!($name), &[$(stringify!($spelling)),+])),+
        ];
    };
}
pub(super) use collect;
