//! Values of rules.

use std::fmt;
use std::str::FromStr;

use super::error::GlobError;

/// A pattern of paths or names, as the module `glob` describes. Never empty, without control characters and surrounding
/// blanks; the characters that separate rules are taken as they are behind a `\`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pattern that matches just this text.
    pub fn literal(text: &str) -> Result<Glob, GlobError> {
        let special = |c: char| "*?[]\\:;,".contains(c);
        let escaped: String = text
            .chars()
            .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
            .collect();
        escaped.parse()
    }
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Glob, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err(GlobError::Blanks);
        }
        let mut is_escaped = false;
        for c in text.chars() {
            if !is_escaped && matches!(c, ':' | ';') {
                return Err(GlobError::Separator);
            }
            is_escaped = !is_escaped && c == '\\';
        }
        if is_escaped {
            return Err(GlobError::Dangling);
        }
        Ok(Glob(text.to_owned()))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
