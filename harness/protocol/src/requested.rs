//! A number of bytes as `free_memory` takes it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

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
