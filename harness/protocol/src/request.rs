//! The lines of the protocol, and the verbs they carry.

use crate::ErrorKind;
use crate::message::*;
use serde::{Deserialize, Serialize, de};
use serde_json::Value;

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
    /// Keep a view of a tensor's host copy.
    Hold(HoldArgs),
    /// Digest what a view shows.
    ReadHeld(HandleArgs),
    /// Let go of a view.
    Release(HandleArgs),
    /// Stop a request that has not been answered yet.
    Cancel(CancelArgs),
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
            Self::Hold(_) => "hold",
            Self::ReadHeld(_) => "read_held",
            Self::Release(_) => "release",
            Self::Cancel(_) => "cancel",
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
            Self::Hold(args) => serde_json::to_value(args),
            Self::ReadHeld(args) | Self::Release(args) => serde_json::to_value(args),
            Self::Cancel(args) => serde_json::to_value(args),
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
            "hold" => Self::Hold(args(verb, line.args)?),
            "read_held" => Self::ReadHeld(args(verb, line.args)?),
            "release" => Self::Release(args(verb, line.args)?),
            "cancel" => Self::Cancel(args(verb, line.args)?),
            "quit" => Self::Quit(args(verb, line.args)?),
            _ => return Err(RequestError::UnknownVerb(line.verb)),
        })
    }
}

#[cfg(test)]
mod tests {
    //! The wire format: what must survive a round trip, and what must be refused.
    use super::*;
    use crate::RequestedBytes;

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
