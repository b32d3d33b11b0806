//! The closed lists of the protocol.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$item:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $type { $($(#[$item])* #[serde(rename = $text)] $name,)* }

        impl $type {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word used on the wire.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

words! {
    /// The closed list of error kinds.
    ErrorKind {
        /// A field is unknown, missing or ill-typed.
        BadRequest = "bad_request",
        /// The verb is unknown.
        UnknownVerb = "unknown_verb",
        /// No model of that name.
        UnknownModel = "unknown_model",
        /// No tensor of that name.
        UnknownTensor = "unknown_tensor",
        /// An argument outside its range.
        InvalidArgument = "invalid_argument",
        /// A manifest or safetensors file that cannot be used.
        InvalidModel = "invalid_model",
        /// A setting that cannot be used.
        InvalidSetting = "invalid_setting",
        /// The offload directory cannot be used.
        Directory = "directory",
        /// No CUDA library.
        CudaMissing = "cuda_missing",
        /// A CUDA library without a needed symbol.
        CudaTooOld = "cuda_too_old",
        /// cuInit failed.
        CudaInit = "cuda_init",
        /// No such device.
        NoDevice = "no_device",
        /// Not a CUDA device.
        UnsupportedDevice = "unsupported_device",
        /// Device memory is exhausted and recovery did not suffice.
        DeviceOom = "device_oom",
        /// Another failing CUDA call.
        DeviceError = "device_error",
        /// No place in RAM or files.
        HostMemory = "host_memory",
        /// The filesystem or a quota is full.
        DiskFull = "disk_full",
        /// Another failing file call.
        Io = "io",
        /// Length or checksum mismatch.
        Corrupt = "corrupt",
        /// The operation was cancelled.
        Cancelled = "cancelled",
        /// A defect of the engine.
        Internal = "internal",
    }
}

words! {
    /// What a subject may or may not be able to do.
    Capability {
        /// The verb `modify`.
        Modify = "modify",
        /// The setting `OFFLOAD_RAM_LIMIT_GB`.
        RamLimit = "ram_limit",
        /// `OFFLOAD_FILE_TIER=file`.
        FileOnly = "file_only",
        /// Loading `.safetensors` files.
        Safetensors = "safetensors",
        /// The setting `OFFLOAD_CUFILE`.
        CuFile = "cufile",
        /// The verbs `hold`, `read_held` and `release`.
        Views = "views",
        /// Several requests at a time, answered in any order.
        Concurrent = "concurrent",
        /// The verb `cancel`.
        Cancel = "cancel",
    }
}

words! {
    /// Where bytes live.
    Tier {
        /// Device memory.
        Vram = "vram",
        /// Anonymous host memory.
        Ram = "ram",
        /// A file, mapped.
        Mapped = "mapped",
        /// A file, not mapped.
        File = "file",
    }
}

words! {
    /// How bytes travelled between device and file.
    TransferPath {
        /// They did not.
        None = "none",
        /// Through pinned host memory.
        Staged = "staged",
        /// By cuFile, directly between device and storage.
        CuFile = "cufile",
        /// By cuFile, through its own buffers in host memory.
        CuFileCompat = "cufile_compat",
    }
}

words! {
    /// How much of what was loaded left the device.
    Extent {
        /// Nothing.
        Nothing = "nothing",
        /// Some of it.
        Partial = "partial",
        /// All of it.
        Full = "full",
    }
}

words! {
    /// What a subject makes its digests with.
    #[derive(Default)]
    DigestAlgorithm {
        /// SHA-256, which every language has.
        #[default]
        Sha256 = "sha256",
        /// XXH3 with 128 bits and seed 0, as fast as memory.
        Xxh3_128 = "xxh3_128",
    }
}
