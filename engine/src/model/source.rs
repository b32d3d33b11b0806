//! Where a model's bytes come from while it is loaded.

use super::{fill::Fill, layout::BlockOrigin};
use crate::error::Error;
use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf};

/// The bytes of every block at load time. Dropped after loading: an original file is not trusted later (E34).
#[derive(Debug)]
pub(crate) enum Source {
    /// Generated.
    Seeded {
        /// By storage.
        fills: Vec<Fill>,
        /// By block.
        origins: Vec<BlockOrigin>,
    },
    /// Ranges of an open safetensors file.
    File {
        /// The descriptor that the header was read from.
        file: File,
        /// Its path, for messages.
        path: PathBuf,
        /// Where each block starts in it.
        starts: Vec<u64>,
    },
}

impl Source {
    /// Fills `out` with the bytes of `block` from `offset` on; the caller stays inside the block.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file has become shorter, [`Error::Io`] when it cannot be read.
    pub(crate) fn read(&self, block: usize, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        match self {
            Self::Seeded { fills, origins } => {
                let origin = origins[block];
                fills[origin.storage].write(origin.start + offset, out);
                Ok(())
            }
            Self::File { file, path, starts } => file
                .read_exact_at(out, starts[block] + offset)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::UnexpectedEof => Error::Corrupt {
                        what: path.display().to_string(),
                        detail: "it has become shorter since its header was read".into(),
                    },
                    _ => Error::from_call("read", path, out.len() as u64, source),
                }),
        }
    }
}
