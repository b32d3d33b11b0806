//! The subject protocol: messages, model manifests, seeded contents and digests.
//!
//! `PROTOCOL.md` beside this crate is the specification; the types here are its Rust form, used by
//! the harness and by subjects written in Rust. The harness computes every expected digest from
//! this crate alone, never from an engine.

mod contents;
mod digest;
mod hasher;
mod manifest;
mod message;
mod request;
mod requested;
mod words;

pub use contents::{Fill, FillError};
pub use digest::{Digest, tensor_digest};
pub use hasher::Hasher;
pub use manifest::{Dtype, Manifest, ManifestError, Storage, Tensor};
pub use message::*;
pub use request::{ErrorReply, ReplyLine, Request, RequestError, RequestLine};
pub use requested::RequestedBytes;
pub use words::{Capability, DigestAlgorithm, ErrorKind, Extent, Tier, TransferPath};

/// The protocol version that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Environment variable that holds the number of the subject's end of the socket.
pub const SOCKET_FD_VARIABLE: &str = "SPILLPROOF_SOCKET_FD";

/// Longest line, in bytes, that either side sends or accepts.
pub const MAX_LINE_BYTES: usize = 16 << 20;
