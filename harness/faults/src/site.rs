//! What can be made to fail: the shape of one row of the table, and how rows are found.

use crate::error::FaultError;
use crate::nearest::nearest;
use crate::table::{SITES, SPELLINGS};

/// Most arguments that a wrapped function takes.
pub const MAX_ARITY: usize = 9;

/// The library that exports a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// The C library.
    Libc,
    /// The CUDA driver, `libcuda.so.1`.
    Cuda,
    /// GPUDirect Storage, `libcufile.so.0`.
    CuFile,
}

/// How a failed call looks to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// −1 and `errno`.
    MinusOne,
    /// `MAP_FAILED` and `errno`.
    MapFailed,
    /// The error number itself; `errno` is untouched.
    ReturnsErrno,
    /// A `CUresult`.
    CudaResult,
    /// `CUfileError_t`: cuFile's code in the low half of the register, CUDA's in the high half.
    CuFileError,
    /// A count of bytes: −1 with `errno`, or cuFile's code negated.
    CuFileBytes,
    /// `syscall`: −1 and `errno`; calls belong to the site that the number means.
    RawSyscall,
    /// Returns nothing, so it cannot fail; it can be delayed and interrupted.
    Void,
}

/// Whether a call may be done and then reported as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum After {
    /// No: success makes a handle or memory that nobody could give back.
    Never,
    /// Yes, when the rule says `after`.
    Allowed,
    /// A failure is always reported after the call: Linux frees the descriptor whatever `close` returns (close(2)).
    Always,
}

/// How a call can be made to move fewer bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Short {
    /// It cannot.
    None,
    /// By a smaller count.
    Count {
        /// The argument that holds the count, bytes.
        size_arg: u8,
    },
    /// By fewer or shorter buffers.
    Vector {
        /// The argument that points at the array of `iovec`.
        iov_arg: u8,
        /// The argument that holds its length.
        count_arg: u8,
    },
}

/// How the file of a call is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The call names no file: it always counts.
    None,
    /// A path, relative to the working directory.
    Path(u8),
    /// A path, relative to a directory's descriptor. An empty path means the descriptor itself.
    PathAt {
        /// The argument that holds the directory.
        dir_arg: u8,
        /// The argument that holds the path.
        path_arg: u8,
    },
    /// Two paths; either of them counts.
    TwoPaths(u8, u8),
    /// Two paths, each relative to a directory's descriptor; either of them counts.
    TwoPathsAt {
        /// The directory of the first.
        first_dir_arg: u8,
        /// The first path.
        first_path_arg: u8,
        /// The directory of the second.
        second_dir_arg: u8,
        /// The second path.
        second_path_arg: u8,
    },
    /// An open descriptor.
    Fd(u8),
    /// Two open descriptors; either of them counts.
    TwoFds(u8, u8),
    /// Every open descriptor from the first argument named to the second (without one: to the last); any of them counts.
    FdRange {
        /// The first descriptor.
        first_arg: u8,
        /// The last descriptor, itself included.
        last_arg: Option<u8>,
    },
    /// The file mapped at an address.
    Mapping {
        /// The argument that holds the address.
        address_arg: u8,
    },
}

/// How many bytes a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// None.
    None,
    /// An argument holds them.
    Arg(u8),
    /// An argument points at them (`size_t`).
    Pointed(u8),
    /// The sum of an array of `iovec`.
    Vector {
        /// The argument that points at the array.
        iov_arg: u8,
        /// The argument that holds its length.
        count_arg: u8,
    },
    /// An argument points at a pitch (`size_t`, known after the call), times the rows in another.
    PitchTimes {
        /// The argument that points at the pitch.
        pitch_arg: u8,
        /// The argument that holds the rows.
        rows_arg: u8,
    },
}

/// How a thing is told from others of its kind within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// By what the call returned.
    Returned,
    /// By the word that an argument points at, after the call.
    Out(u8),
    /// By an argument.
    Arg(u8),
}

/// What the ledger keeps account of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Device memory, by address.
    DeviceMemory = 1,
    /// Host memory that CUDA allocated, by address.
    PinnedMemory = 2,
    /// Host memory registered with CUDA, by address.
    RegisteredMemory = 3,
    /// A CUDA stream.
    Stream = 4,
    /// A CUDA event.
    Event = 5,
    /// A memory pool.
    MemoryPool = 6,
    /// A context made, or a primary one retained (by device).
    Context = 7,
    /// Reserved device addresses, by their start.
    AddressRange = 8,
    /// Physical device memory (`cuMemCreate`), by handle.
    PhysicalMemory = 9,
    /// Physical memory mapped, by address.
    DeviceMapping = 10,
    /// A file handle of cuFile.
    CuFileHandle = 11,
    /// A buffer registered with cuFile, by address.
    CuFileBuffer = 12,
    /// A stream registered with cuFile.
    CuFileStream = 13,
    /// A batch of cuFile.
    CuFileBatch = 14,
    /// An open descriptor inside the scope.
    Descriptor = 15,
    /// A mapping of a file inside the scope, by address.
    FileMapping = 16,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 16] = [
        Kind::DeviceMemory,
        Kind::PinnedMemory,
        Kind::RegisteredMemory,
        Kind::Stream,
        Kind::Event,
        Kind::MemoryPool,
        Kind::Context,
        Kind::AddressRange,
        Kind::PhysicalMemory,
        Kind::DeviceMapping,
        Kind::CuFileHandle,
        Kind::CuFileBuffer,
        Kind::CuFileStream,
        Kind::CuFileBatch,
        Kind::Descriptor,
        Kind::FileMapping,
    ];

    /// From a number out of shared memory.
    pub fn checked(number: u64) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u64 == number)
    }
}

/// What a successful call changes in the ledger. Sizes are the site's own [`Size`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Something exists now.
    Makes {
        /// What.
        kind: Kind,
        /// Which.
        key: Key,
    },
    /// Something is gone.
    Ends {
        /// What.
        kind: Kind,
        /// Which.
        key: Key,
    },
    /// The returned descriptor is open on the call's target.
    Opens,
    /// The descriptor in an argument is closed.
    Closes(u8),
    /// All descriptors from the first argument to the second (without one: to the last) are closed; of `close_range`,
    /// flags in the third may mean another thing (`CLOSE_RANGE_CLOEXEC`).
    ClosesRange {
        /// The first descriptor.
        first_arg: u8,
        /// The last descriptor, itself included.
        last_arg: Option<u8>,
    },
    /// The returned descriptor is open on what the first one is; what it was open on before is closed.
    Duplicates,
    /// As [`Effect::Duplicates`] where the second argument is `F_DUPFD` or `F_DUPFD_CLOEXEC`, else nothing.
    DuplicatesByCommand,
    /// The returned address maps the target; its length is the size.
    Maps,
    /// The addresses from the argument on, as many as the size, are mapped no longer.
    Unmaps {
        /// The argument that holds the address.
        address_arg: u8,
    },
    /// A name means another thing than before, or may be a symbolic link.
    Names,
}

/// A function that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// The word of plans and reports.
    pub name: &'static str,
    /// Who exports it.
    pub library: Library,
    /// Exported symbols that mean it. A spelling may take further arguments behind the site's own.
    pub spellings: &'static [&'static str],
    /// Arguments, the most that any spelling takes.
    pub arity: u8,
    /// How a failed call looks.
    pub failure: Failure,
    /// What it can fail with, most telling first.
    pub errors: &'static [FaultError],
    /// Whether it may be done and then reported as failed.
    pub after: After,
    /// Whether and how it moves fewer bytes.
    pub short: Short,
    /// How its file is found.
    pub target: Target,
    /// How many bytes it is about.
    pub size: Size,
    /// The argument that holds the offset in the file, where one does.
    pub offset_arg: Option<u8>,
    /// What its success changes in the ledger.
    pub effect: Effect,
}

impl Site {
    /// The nearest word that plans know, for messages.
    pub fn nearest(word: &str) -> Option<&'static str> {
        nearest(word, SITES.iter().map(|site| site.name))
    }

    /// Whether a call of this site can return the error.
    pub fn can_return(&self, error: FaultError) -> bool {
        self.errors.contains(&error)
    }

    /// Whether a call writes to the name in its argument: the `mk…temp…` functions, of which not all take flags behind it.
    pub const fn rewrites_name(&self) -> bool {
        matches!(self.effect, Effect::Opens) && matches!(self.name.as_bytes(), [b'm', b'k', ..])
    }

    /// Whether plans may name it: a raw `syscall` is always one of the others.
    pub fn is_plannable(&self) -> bool {
        self.failure != Failure::RawSyscall
    }
}

/// A site, by its index in [`SITES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub u16);

impl SiteId {
    /// The site of that word. For constants: an unknown word does not compile there.
    ///
    /// # Panics
    /// When no site has that name.
    pub const fn named(name: &str) -> SiteId {
        let mut index = 0;
        while index < SITES.len() {
            if is_same(SITES[index].name, name) {
                return SiteId(index as u16);
            }
            index += 1;
        }
        panic!("no site has this name")
    }

    /// The site that a plan means: by its word, or by one of its exported symbols.
    pub fn find(word: &str) -> Option<SiteId> {
        let named = SITES.iter().position(|site| site.name == word);
        let spelled = || SITES.iter().position(|site| site.spellings.contains(&word));
        Some(SiteId(named.or_else(spelled)? as u16))
    }

    /// From a number out of shared memory.
    pub fn checked(index: u64) -> Option<SiteId> {
        (index < SITES.len() as u64).then_some(SiteId(index as u16))
    }

    /// Its row.
    #[inline]
    pub const fn site(self) -> &'static Site {
        &SITES[self.0 as usize]
    }

    /// All sites, in the table's order.
    pub fn all() -> impl Iterator<Item = SiteId> {
        (0..SITES.len() as u16).map(SiteId)
    }
}

/// An exported symbol and the site that it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spelling {
    /// The symbol.
    pub name: &'static str,
    /// What it means.
    pub site: SiteId,
    /// Which of its site's, from 0.
    pub nth: u8,
    /// Whether it is the last of its site's: on 64-bit Linux the one that programs of today call.
    pub is_last: bool,
}

/// A spelling, by its index in [`SPELLINGS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpellingId(pub u16);

impl SpellingId {
    /// The spelling of that name. For constants: an unknown name does not compile there.
    ///
    /// # Panics
    /// When no spelling has that name.
    pub const fn named(name: &str) -> SpellingId {
        let mut index = 0;
        while index < SPELLINGS.len() {
            if is_same(SPELLINGS[index].name, name) {
                return SpellingId(index as u16);
            }
            index += 1;
        }
        panic!("no spelling has this name")
    }

    /// The spelling of that name, if it is one.
    pub fn find(name: &[u8]) -> Option<SpellingId> {
        let found = SPELLINGS
            .iter()
            .position(|spelling| spelling.name.as_bytes() == name)?;
        Some(SpellingId(found as u16))
    }

    /// Its row.
    #[inline]
    pub const fn spelling(self) -> &'static Spelling {
        &SPELLINGS[self.0 as usize]
    }

    /// The site that it means.
    #[inline]
    pub const fn site(self) -> SiteId {
        self.spelling().site
    }
}

/// `==` of strings, for constants.
const fn is_same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}
