//! Element types, with the names of the subject protocol and of safetensors.

use serde::Deserialize;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident $text:literal $bits:literal;)*) => {
        /// Element types.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
        pub enum Dtype { $($(#[$doc])* #[serde(rename = $text)] $name,)* }

        impl Dtype {
            /// Every element type.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Bits per element; 4-bit elements are packed two to a byte.
            #[must_use]
            pub fn bits(self) -> u64 {
                match self { $(Self::$name => $bits,)* }
            }

            /// The name used in manifests.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The type of that name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

dtypes! {
    /// IEEE double.
    F64 "f64" 64;
    /// IEEE single.
    F32 "f32" 32;
    /// IEEE half.
    F16 "f16" 16;
    /// bfloat16.
    Bf16 "bf16" 16;
    /// 8-bit float, 4 exponent bits.
    F8E4m3 "f8_e4m3" 8;
    /// 8-bit float, 5 exponent bits.
    F8E5m2 "f8_e5m2" 8;
    /// 8-bit scale, 8 exponent bits.
    F8E8m0 "f8_e8m0" 8;
    /// 4-bit float, packed.
    F4E2m1 "f4_e2m1" 4;
    /// Signed 64-bit.
    I64 "i64" 64;
    /// Signed 32-bit.
    I32 "i32" 32;
    /// Signed 16-bit.
    I16 "i16" 16;
    /// Signed 8-bit.
    I8 "i8" 8;
    /// Signed 4-bit, packed.
    I4 "i4" 4;
    /// Unsigned 64-bit.
    U64 "u64" 64;
    /// Unsigned 32-bit.
    U32 "u32" 32;
    /// Unsigned 16-bit.
    U16 "u16" 16;
    /// Unsigned 8-bit.
    U8 "u8" 8;
    /// Unsigned 4-bit, packed.
    U4 "u4" 4;
    /// One byte per truth value.
    Bool "bool" 8;
    /// Complex of two singles.
    C64 "c64" 64;
}

impl Dtype {
    /// The type that a safetensors header means; `None` for the 6-bit and FNUZ floats, which this engine cannot name.
    pub(crate) fn from_safetensors(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "F8_E4M3" => Self::F8E4m3,
            "F8_E5M2" => Self::F8E5m2,
            "F8_E8M0" => Self::F8E8m0,
            "F4" => Self::F4E2m1,
            "I64" => Self::I64,
            "I32" => Self::I32,
            "I16" => Self::I16,
            "I8" => Self::I8,
            "U64" => Self::U64,
            "U32" => Self::U32,
            "U16" => Self::U16,
            "U8" => Self::U8,
            "BOOL" => Self::Bool,
            "C64" => Self::C64,
            _ => return None,
        })
    }
}
