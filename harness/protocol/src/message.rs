//! Arguments and results, each its own struct, so that an unknown field is an error.

use crate::{
    Capability, Digest, DigestAlgorithm, Extent, Fill, Manifest, RequestedBytes, Tier, TransferPath,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $field:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$item])* pub $field: $type,)* })*
    };
}

messages! {
    /// Arguments of `hello`.
    HelloArgs {
        /// The version the harness speaks.
        protocol: u32,
    }
    /// Arguments of `open`.
    OpenArgs {
        /// `cuda:N`.
        device: String,
    }
    /// Arguments of `load`: a manifest or a safetensors file, exactly one.
    LoadArgs {
        /// The model's name from here on.
        model: String,
        /// Seeded contents.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifest: Option<Manifest>,
        /// A file to load.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        safetensors: Option<PathBuf>,
    }
    /// Arguments of `request`.
    RequestArgs {
        /// The model.
        model: String,
        /// Device memory that the request itself needs, bytes.
        workspace_bytes: u64,
        /// Whether to digest every tensor.
        digests: bool,
    }
    /// Arguments of `modify`.
    ModifyArgs {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
        /// Its new bytes.
        fill: Fill,
    }
    /// Arguments of `free_memory`.
    FreeMemoryArgs {
        /// How much; absent means all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<RequestedBytes>,
        /// From which model; absent means all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    }
    /// Arguments of the verbs that take a model only.
    ModelArgs {
        /// The model.
        model: String,
    }
    /// Arguments of `hold`.
    HoldArgs {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
    }
    /// Arguments of the verbs that take a handle only.
    HandleArgs {
        /// What `hold` answered.
        handle: u64,
    }
    /// Arguments of `cancel`.
    CancelArgs {
        /// The id of the request to cancel.
        id: u64,
    }
    /// Arguments of the verbs that take none.
    NoArgs {}

    /// Result of `hello`.
    HelloReply {
        /// The version the subject speaks.
        protocol: u32,
        /// The engine's name.
        engine: String,
        /// The engine's version.
        version: String,
        /// What it can do.
        capabilities: Vec<Capability>,
        /// What all its digests are made with; absent means SHA-256.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<DigestAlgorithm>,
    }
    /// Result of `open`.
    OpenReply {
        /// The device that was opened.
        device: String,
        /// Most pinned and staging host memory that the engine will hold, bytes.
        staging_bytes: u64,
    }
    /// Result of `load`.
    LoadReply {
        /// Device memory that the model now takes, bytes.
        device_bytes: u64,
    }
    /// Result of `request`.
    RequestReply {
        /// By tensor; empty unless asked for.
        digests: BTreeMap<String, Digest>,
        /// How often device OOM was met and recovered from.
        recoveries: u64,
    }
    /// Result of `free_memory`.
    FreeMemoryReply {
        /// How much of what was loaded left.
        extent: Extent,
        /// Device memory released, bytes.
        freed_bytes: u64,
        /// What left, in order.
        moves: Vec<Move>,
    }
    /// One thing that left the device.
    Move {
        /// The tensors that share its bytes.
        tensors: Vec<String>,
        /// Its size, bytes.
        bytes: u64,
        /// Where it is now.
        to: Tier,
        /// File bytes written for it.
        written_bytes: u64,
        /// How they travelled.
        path: TransferPath,
    }
    /// Result of `read_back`.
    ReadBackReply {
        /// By tensor; those on the device are left out.
        digests: BTreeMap<String, Digest>,
    }
    /// Result of `hold`.
    HoldReply {
        /// Names the view until it is released; never used again in the subject's life.
        handle: u64,
    }
    /// Result of `read_held`.
    ReadHeldReply {
        /// Of what the view shows.
        digest: Digest,
    }
    /// Result of `status`.
    StatusReply {
        /// Every model, in load order.
        models: Vec<ModelStatus>,
        /// Bytes per tier.
        tiers: TierBytes,
        /// Every offload file.
        files: Vec<FileStatus>,
        /// File bytes written since `open`.
        written_bytes: u64,
        /// File bytes read since `open`.
        read_bytes: u64,
        /// Leftovers of dead owners removed at `open`.
        reaped_orphans: u64,
    }
    /// One model in `status`.
    ModelStatus {
        /// Its name.
        name: String,
        /// Device memory that it takes, bytes.
        device_bytes: u64,
        /// Its tensors, in the manifest's order.
        tensors: Vec<TensorStatus>,
    }
    /// One tensor in `status`.
    TensorStatus {
        /// Its name.
        name: String,
        /// Highest tier that holds it.
        tier: Tier,
        /// How its last transfer travelled.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<TransferPath>,
    }
    /// Bytes per tier, each byte counted once, in the highest.
    TierBytes {
        /// Device memory.
        vram: u64,
        /// Anonymous host memory.
        ram: u64,
        /// Mapped files.
        mapped: u64,
        /// Files that are not mapped.
        file: u64,
    }
    /// One offload file in `status`.
    FileStatus {
        /// Where it is.
        path: PathBuf,
        /// Its length, bytes.
        bytes: u64,
    }
    /// Result of the verbs that return nothing.
    Done {}
}

impl HelloReply {
    /// What all digests of this subject are made with.
    #[must_use]
    pub fn digest_algorithm(&self) -> DigestAlgorithm {
        self.digest.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    //! The field of `hello` that older subjects do not have.
    use super::*;

    fn hello(field: &str) -> Result<HelloReply, serde_json::Error> {
        serde_json::from_str(&format!(
            r#"{{"protocol":1,"engine":"e","version":"0","capabilities":[]{field}}}"#
        ))
    }

    #[test]
    fn a_subject_that_names_no_algorithm_uses_sha256() {
        let algorithm = |field: &str| hello(field).unwrap().digest_algorithm();
        assert_eq!(algorithm(""), DigestAlgorithm::Sha256);
        assert_eq!(algorithm(r#","digest":null"#), DigestAlgorithm::Sha256);
        assert_eq!(algorithm(r#","digest":"sha256""#), DigestAlgorithm::Sha256);
        let xxh3 = algorithm(r#","digest":"xxh3_128""#);
        assert_eq!(xxh3, DigestAlgorithm::Xxh3_128);
        let error = hello(r#","digest":"md5""#).unwrap_err().to_string();
        for word in ["md5", "sha256", "xxh3_128"] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn what_is_not_named_is_not_sent() {
        let sent = serde_json::to_string(&hello("").unwrap()).unwrap();
        assert!(!sent.contains("digest"), "{sent}");
    }
}
