//! From a line to an outcome: everything that can be wrong with a reply as text.

use super::finding::{CallOutcome, Finding};
use serde_json::Value;
use spillproof_protocol::{ErrorKind, PROTOCOL_VERSION, ReplyLine};

const EXCERPT_BYTES: usize = 200;

/// The line's beginning, for a message.
pub(super) fn excerpt(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(EXCERPT_BYTES)]).into_owned();
    if line.len() > EXCERPT_BYTES {
        format!("{text}…")
    } else {
        text
    }
}

/// Judges the reply to the request `id`, a line without its end.
pub(super) fn judge(verb: &'static str, id: u64, line: &[u8]) -> Result<CallOutcome, Finding> {
    let value: Value = serde_json::from_slice(line).map_err(|_| Finding::Garbage {
        verb,
        line: excerpt(line),
    })?;
    let malformed = |reason: String| Finding::MalformedReply {
        verb,
        reason,
        line: excerpt(line),
    };
    let Some(object) = value.as_object() else {
        return Err(malformed("it is not an object".into()));
    };
    let present = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
    match (present("ok"), present("error")) {
        (true, true) => return Err(Finding::BothOkAndError { verb }),
        (false, false) => return Err(Finding::NeitherOkNorError { verb }),
        (true, false) | (false, true) => {}
    }
    if let Some(got) = object
        .get("id")
        .and_then(Value::as_u64)
        .filter(|&got| got != id)
    {
        return Err(Finding::WrongId {
            verb,
            expected: id,
            got,
        });
    }
    if let Some(kind) = object
        .get("error")
        .and_then(|error| error.get("kind"))
        .and_then(Value::as_str)
        .filter(|kind| ErrorKind::ALL.iter().all(|known| known.name() != *kind))
    {
        return Err(Finding::UnknownErrorKind {
            verb,
            kind: kind.into(),
        });
    }
    let reply: ReplyLine =
        serde_json::from_value(value).map_err(|error| malformed(error.to_string()))?;
    match (reply.ok, reply.error) {
        (Some(ok), _) if !ok.is_object() => Err(malformed("`ok` is not an object".into())),
        (Some(ok), _) if verb == "hello" => match ok.get("protocol") {
            Some(version) if version.as_u64() == Some(PROTOCOL_VERSION.into()) => {
                Ok(CallOutcome::Ok(ok))
            }
            Some(version) => Err(Finding::WrongProtocol {
                expected: PROTOCOL_VERSION,
                got: version.to_string(),
            }),
            None => Err(malformed("`protocol` is missing".into())),
        },
        (Some(ok), _) => Ok(CallOutcome::Ok(ok)),
        (None, Some(error)) => Ok(CallOutcome::Error(error)),
        (None, None) => Err(Finding::NeitherOkNorError { verb }),
    }
}

#[cfg(test)]
mod tests {
    //! Lines that subjects send. What needs a process is in `tests/rogues.rs`.
    use super::*;

    fn of(line: &str) -> Result<CallOutcome, Finding> {
        judge("status", 7, line.as_bytes())
    }

    #[test]
    fn replies_of_both_kinds_are_taken() {
        assert_eq!(
            of(r#"{"id":7,"ok":{"a":1}}"#),
            Ok(CallOutcome::Ok(serde_json::json!({"a": 1})))
        );
        let Ok(CallOutcome::Error(error)) =
            of(r#"{"id":7,"error":{"kind":"device_oom","message":"full"}}"#)
        else {
            panic!("not an error")
        };
        assert_eq!(error.kind, ErrorKind::DeviceOom);
        // A subject whose language prints absent fields as null is not wrong.
        assert!(of(r#"{"id":7,"ok":{},"error":null}"#).is_ok());
    }

    #[test]
    fn each_wrong_line_is_its_own_finding() {
        let verb = "status";
        assert!(matches!(of("hello?"), Err(Finding::Garbage { line, .. }) if line == "hello?"));
        assert!(matches!(of("\u{0}"), Err(Finding::Garbage { .. })));
        assert!(matches!(of("[]"), Err(Finding::MalformedReply { .. })));
        assert_eq!(
            of(r#"{"id":7,"ok":{},"error":{"kind":"io","message":""}}"#),
            Err(Finding::BothOkAndError { verb })
        );
        assert_eq!(of(r#"{"id":7}"#), Err(Finding::NeitherOkNorError { verb }));
        assert_eq!(
            of(r#"{"id":8,"ok":{}}"#),
            Err(Finding::WrongId {
                verb,
                expected: 7,
                got: 8
            })
        );
        assert_eq!(
            of(r#"{"id":7,"error":{"kind":"tired","message":""}}"#),
            Err(Finding::UnknownErrorKind {
                verb,
                kind: "tired".into()
            })
        );
        for (line, reason) in [
            (r#"{"ok":{}}"#, "id"),
            (r#"{"id":"7","ok":{}}"#, "string"),
            (r#"{"id":7,"ok":{},"more":1}"#, "more"),
            (r#"{"id":7,"ok":5}"#, "object"),
            (r#"{"id":7,"error":{"kind":"io"}}"#, "message"),
        ] {
            assert!(
                matches!(of(line), Err(Finding::MalformedReply { reason: got, .. }) if got.contains(reason)),
                "{line}: {:?}",
                of(line)
            );
        }
    }

    #[test]
    fn a_hello_of_another_version_is_found() {
        for (line, got) in [
            (r#"{"id":7,"ok":{"protocol":2}}"#, "2"),
            (r#"{"id":7,"ok":{"protocol":"1"}}"#, "\"1\""),
        ] {
            assert_eq!(
                judge("hello", 7, line.as_bytes()),
                Err(Finding::WrongProtocol {
                    expected: 1,
                    got: got.into()
                })
            );
        }
    }

    #[test]
    fn a_long_line_is_shown_in_part() {
        let line = "x".repeat(100_000);
        assert!(matches!(of(&line), Err(Finding::Garbage { line, .. }) if line.len() < 300));
    }
}
