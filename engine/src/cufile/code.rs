//! What cuFile's codes are called, and how far a failure with one of them reaches.

use std::fmt;

/// A code of the library, `CUfileOpError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(super) i32);

/// What is not to be tried again after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// This transfer.
    Transfer,
    /// This file.
    File,
    /// cuFile in this engine: what it does cannot be relied on.
    Engine,
    /// cuFile in this process: the driver is gone or does not work.
    Process,
}

macro_rules! codes {
    ($(($number:literal, $name:literal, $reach:ident);)*) => {
        impl Code {
            /// Its name in `cufile.h`, in words.
            fn name(self) -> &'static str {
                match self.0 { $($number => $name,)* _ => "unknown code" }
            }

            /// How far it reaches. One that is not in the table is the file's: nothing is known of it that would
            /// condemn the driver, nor that would let the same call succeed the next time.
            pub(crate) fn reach(self) -> Reach {
                match self.0 { $($number => Reach::$reach,)* _ => Reach::File }
            }
        }
    };
}

codes! {
    (5001, "driver not initialised", Process);
    (5002, "driver: invalid properties", Process);
    (5003, "driver: unsupported limit", Transfer);
    (5004, "driver: version mismatch", Process);
    (5005, "driver: version not readable", Process);
    (5006, "driver is closing", Process);
    (5007, "platform not supported", Process);
    (5008, "I/O not supported on this file", File);
    (5009, "device not supported", Process);
    (5010, "nvidia-fs driver error", Process);
    (5011, "CUDA driver error", Transfer);
    (5012, "CUDA pointer invalid", Transfer);
    (5013, "CUDA memory type invalid", Transfer);
    (5014, "CUDA pointer range error", Transfer);
    (5015, "CUDA context mismatch", Transfer);
    (5016, "invalid mapping size", Transfer);
    (5017, "invalid mapping range", Transfer);
    (5018, "invalid file type", File);
    (5019, "invalid file open flag", File);
    (5020, "direct I/O not set", File);
    (5022, "invalid value", File);
    (5023, "memory already registered", Transfer);
    (5024, "memory not registered", Transfer);
    (5025, "permission denied", File);
    (5026, "driver already open", Transfer);
    (5027, "handle not registered", File);
    (5028, "handle already registered", File);
    (5029, "device not found", Process);
    (5030, "internal error", File);
    (5031, "no new descriptor", File);
    (5033, "nvidia-fs setup error", Process);
    (5034, "I/O disabled", Process);
    (5035, "batch submission failed", Transfer);
    (5036, "device memory pinning failed", Transfer);
    (5037, "batch full", Transfer);
    (5038, "asynchronous I/O not supported", Transfer);
    (5039, "internal batch setup error", Transfer);
    (5040, "internal batch submission error", Transfer);
    (5041, "internal batch status error", Transfer);
    (5042, "internal batch cancel error", Transfer);
    (5043, "no memory", Transfer);
    (5044, "I/O error", Transfer);
    (5045, "internal buffer registration error", Transfer);
    (5046, "hash operation error", File);
    (5047, "invalid context", Transfer);
    (5048, "internal nvidia-fs driver error", Process);
    (5049, "batch without compat mode", Transfer);
    (5050, "end of the codes", File);
}

impl Code {
    /// Not a failure of opening it: somebody else in the process was first.
    pub(super) const MEMORY_NOT_REGISTERED: Self = Self(5024);
    pub(super) const DRIVER_ALREADY_OPEN: Self = Self(5026);

    /// Codes begin here; errnos are below (`CUFILEOP_BASE_ERR`).
    const FIRST: isize = 5000;

    /// As long as nobody has codes beyond.
    const END: isize = 6000;

    /// The code that a number is, if it is one.
    pub(super) fn from_number(number: isize) -> Option<Self> {
        (Self::FIRST..Self::END)
            .contains(&number)
            .then(|| Self(i32::try_from(number).unwrap_or(0)))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.name())
    }
}
