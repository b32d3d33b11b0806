//! Short texts in fixed memory.

use std::ffi::CStr;

/// Bytes that fit a text, its terminator included.
const CAPACITY_BYTES: usize = 512;

/// A terminated text. What does not fit is cut.
#[derive(Debug)]
pub(crate) struct Text {
    bytes: [u8; CAPACITY_BYTES],
    length: usize,
}

impl Text {
    pub(crate) fn of(start: &[u8]) -> Text {
        let text = Text {
            bytes: [0; CAPACITY_BYTES],
            length: 0,
        };
        text.and(start)
    }

    pub(crate) fn push(&mut self, more: &[u8]) {
        let fitting = more.len().min(CAPACITY_BYTES - 1 - self.length);
        let end = self.length + fitting;
        self.bytes[self.length..end].copy_from_slice(&more[..fitting]);
        self.length = end;
    }

    pub(crate) fn and(mut self, more: &[u8]) -> Text {
        self.push(more);
        self
    }

    pub(crate) fn and_number(self, number: u32) -> Text {
        let mut digits = [0u8; 10];
        let mut start = digits.len();
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return self.and(&digits[start..]);
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}
