//! Requests and replies, each with its own struct, so that an unknown field is an error.

use crate::{Digest, Fill, Manifest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// One line to the subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestLine {
    /// Repeated in the reply.
    pub id: u64,
    /// The verb's name.
    pub verb: String,
    /// The verb's arguments, an object.
    pub args: Value,
}

/// One line from the subject: `ok` or `error`, never both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyLine {
    /// The request's id.
    pub id: u64,
    /// The verb's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReply>,
}

/// A typed failure of a verb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorReply {
    /// From the closed list.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

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
        /// Through cuFile.
        CuFile = "cufile",
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

/// A number of bytes asked for: any JSON number, or the three that JSON lacks as strings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RequestedBytes {
    /// A whole number, exact over all 64 bits.
    Whole(u64),
    /// Any other number, 1e30, negatives, infinities and NaN included.
    Float(f64),
}

impl Serialize for RequestedBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Whole(bytes) => serializer.serialize_u64(bytes),
            Self::Float(bytes) if bytes.is_nan() => serializer.serialize_str("NaN"),
            Self::Float(f64::INFINITY) => serializer.serialize_str("Infinity"),
            Self::Float(f64::NEG_INFINITY) => serializer.serialize_str("-Infinity"),
            Self::Float(bytes) => serializer.serialize_f64(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for RequestedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(number) => match (number.as_u64(), number.as_f64()) {
                (Some(whole), _) => Ok(Self::Whole(whole)),
                (None, Some(float)) => Ok(Self::Float(float)),
                (None, None) => Err(de::Error::custom(format!(
                    "{number} is not a number of bytes"
                ))),
            },
            Value::String(word) => match word.as_str() {
                "NaN" => Ok(Self::Float(f64::NAN)),
                "Infinity" => Ok(Self::Float(f64::INFINITY)),
                "-Infinity" => Ok(Self::Float(f64::NEG_INFINITY)),
                other => Err(de::Error::custom(format!(
                    "{other:?} is not a number of bytes"
                ))),
            },
            other => Err(de::Error::custom(format!(
                "{other} is not a number of bytes"
            ))),
        }
    }
}

/// A verb with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Who is there?
    Hello(HelloArgs),
    /// Open the engine.
    Open(OpenArgs),
    /// Make a model known and bring it to the device.
    Load(LoadArgs),
    /// One inference request.
    Request(RequestArgs),
    /// Overwrite a tensor on the device.
    Modify(ModifyArgs),
    /// Give device memory back.
    FreeMemory(FreeMemoryArgs),
    /// Digest what the host sees.
    ReadBack(ModelArgs),
    /// Where everything is.
    Status(NoArgs),
    /// Forget a model.
    Drop(ModelArgs),
    /// End.
    Quit(NoArgs),
}

/// Why a line is not a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A verb that is not in the protocol.
    #[error("unknown verb {0:?}")]
    UnknownVerb(String),
    /// Arguments of another form.
    #[error("arguments of {verb:?}: {reason}")]
    Arguments {
        /// The verb.
        verb: String,
        /// What is wrong.
        reason: String,
    },
}

impl Request {
    /// The verb's name.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Open(_) => "open",
            Self::Load(_) => "load",
            Self::Request(_) => "request",
            Self::Modify(_) => "modify",
            Self::FreeMemory(_) => "free_memory",
            Self::ReadBack(_) => "read_back",
            Self::Status(_) => "status",
            Self::Drop(_) => "drop",
            Self::Quit(_) => "quit",
        }
    }

    /// The line that asks for this.
    ///
    /// # Errors
    /// Arguments that JSON cannot hold.
    pub fn to_line(&self, id: u64) -> Result<RequestLine, serde_json::Error> {
        let args = match self {
            Self::Hello(args) => serde_json::to_value(args),
            Self::Open(args) => serde_json::to_value(args),
            Self::Load(args) => serde_json::to_value(args),
            Self::Request(args) => serde_json::to_value(args),
            Self::Modify(args) => serde_json::to_value(args),
            Self::FreeMemory(args) => serde_json::to_value(args),
            Self::ReadBack(args) | Self::Drop(args) => serde_json::to_value(args),
            Self::Status(args) | Self::Quit(args) => serde_json::to_value(args),
        }?;
        Ok(RequestLine {
            id,
            verb: self.verb().into(),
            args,
        })
    }

    /// Reads a line.
    ///
    /// # Errors
    /// An unknown verb, or arguments of another form.
    pub fn from_line(line: RequestLine) -> Result<Self, RequestError> {
        fn args<T: de::DeserializeOwned>(verb: &str, args: Value) -> Result<T, RequestError> {
            serde_json::from_value(args).map_err(|error| RequestError::Arguments {
                verb: verb.into(),
                reason: error.to_string(),
            })
        }
        let verb = line.verb.as_str();
        Ok(match verb {
            "hello" => Self::Hello(args(verb, line.args)?),
            "open" => Self::Open(args(verb, line.args)?),
            "load" => Self::Load(args(verb, line.args)?),
            "request" => Self::Request(args(verb, line.args)?),
            "modify" => Self::Modify(args(verb, line.args)?),
            "free_memory" => Self::FreeMemory(args(verb, line.args)?),
            "read_back" => Self::ReadBack(args(verb, line.args)?),
            "status" => Self::Status(args(verb, line.args)?),
            "drop" => Self::Drop(args(verb, line.args)?),
            "quit" => Self::Quit(args(verb, line.args)?),
            _ => return Err(RequestError::UnknownVerb(line.verb)),
        })
    }
}

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

#[cfg(test)]
mod tests {
    //! The wire format: what must survive a round trip, and what must be refused.
    use super::*;

    fn parse(text: &str) -> Result<Request, RequestError> {
        Request::from_line(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn numbers_of_bytes_arrive_as_sent() {
        for (text, expected) in [
            ("1e30", RequestedBytes::Float(1e30)),
            ("18446744073709551615", RequestedBytes::Whole(u64::MAX)),
            ("-1", RequestedBytes::Float(-1.0)),
            ("0", RequestedBytes::Whole(0)),
            (r#""Infinity""#, RequestedBytes::Float(f64::INFINITY)),
        ] {
            let request = parse(&format!(
                r#"{{"id":1,"verb":"free_memory","args":{{"bytes":{text}}}}}"#
            ))
            .unwrap();
            let Request::FreeMemory(args) = &request else {
                panic!("{request:?}")
            };
            assert_eq!(args.bytes, Some(expected));
            let line = serde_json::to_string(&request.to_line(1).unwrap()).unwrap();
            assert_eq!(parse(&line).unwrap(), request, "{line}");
        }
        let nan = parse(r#"{"id":1,"verb":"free_memory","args":{"bytes":"NaN"}}"#).unwrap();
        assert!(
            matches!(nan, Request::FreeMemory(FreeMemoryArgs { bytes: Some(RequestedBytes::Float(f)), .. }) if f.is_nan())
        );
    }

    #[test]
    fn unknown_verbs_and_fields_are_errors() {
        assert_eq!(
            parse(r#"{"id":1,"verb":"fly","args":{}}"#),
            Err(RequestError::UnknownVerb("fly".into()))
        );
        for bad in [
            r#"{"id":1,"verb":"status","args":{"x":1}}"#,
            r#"{"id":1,"verb":"request","args":{"model":"m"}}"#,
            r#"{"id":1,"verb":"free_memory","args":{"bytes":"lots"}}"#,
        ] {
            assert!(
                matches!(parse(bad), Err(RequestError::Arguments { .. })),
                "{bad}"
            );
        }
        assert!(
            serde_json::from_str::<RequestLine>(r#"{"id":1,"verb":"status","args":{},"x":1}"#)
                .is_err()
        );
    }
}
