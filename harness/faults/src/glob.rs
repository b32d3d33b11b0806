//! Patterns for paths and names of libraries.
//!
//! `*` is any run of characters, `/` too; `?` is one character; `[a-z]` one of a set, `[!a-z]` one that is not in it; `\`
//! takes the next character as it is. A pattern that starts with `/` is compared with the whole path, any other with every
//! tail of it that starts a component: `spill/*.block` finds `/tmp/case/spill/7.block`.

/// Whether the pattern matches the path or, unless it starts with `/`, one of its tails. Untrusted patterns cost at most
/// length × length steps per tail and never panic.
pub fn matches_path(pattern: &[u8], path: &[u8]) -> bool {
    if matches(pattern, path) {
        return true;
    }
    if pattern.first() == Some(&b'/') {
        return false;
    }
    let tails = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    tails
        .map(|(index, _)| &path[index + 1..])
        .any(|tail| matches(pattern, tail))
}

/// Whether the pattern matches the whole text. Only the last `*` is ever gone back to, which suffices, because a shorter
/// run for an earlier one would leave the later more to choose from, never less.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at + 1, position));
            at += 1;
            continue;
        }
        let next = match text.get(position) {
            Some(byte) => one(&pattern[at..], *byte),
            None if at == pattern.len() => return true,
            None => return false,
        };
        if let Some(length) = next {
            at += length;
            position += 1;
        } else if let Some((after_star, from)) = retry {
            at = after_star;
            position = from + 1;
            retry = Some((after_star, position));
        } else {
            return false;
        }
    }
}

/// The length of the pattern's first element, if that matches the character.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'\\' => match pattern.get(1) {
            Some(literal) => (*literal == byte).then_some(2),
            None => (byte == b'\\').then_some(1),
        },
        b'[' => match set(pattern) {
            Some((is_in, length)) => is_in(byte).then_some(length),
            None => (byte == b'[').then_some(1),
        },
        literal => (*literal == byte).then_some(1),
    }
}

/// The set that a pattern starts with, and its length; a set that is not closed is none.
fn set(pattern: &[u8]) -> Option<(impl Fn(u8) -> bool, usize)> {
    let is_negated = pattern.get(1) == Some(&b'!');
    let start = if is_negated { 2 } else { 1 };
    // A bracket that comes first is a member.
    let length = pattern
        .get(start + 1..)?
        .iter()
        .position(|byte| *byte == b']')?
        + 1;
    let members = &pattern[start..start + length];
    let is_in = move |byte: u8| {
        let mut index = 0;
        while index < members.len() {
            let from = members[index];
            let is_range = index + 2 < members.len() && members[index + 1] == b'-';
            let to = if is_range { members[index + 2] } else { from };
            if (from..=to).contains(&byte) {
                return !is_negated;
            }
            index += if is_range { 3 } else { 1 };
        }
        is_negated
    };
    Some((is_in, start + length + 1))
}

#[cfg(test)]
mod tests {
    //! What patterns match, and that hostile ones end.
    use super::*;

    #[test]
    fn patterns_match_as_documented() {
        let yes: &[(&str, &str)] = &[
            ("", ""),
            ("*", ""),
            ("*", "/a/b"),
            ("a?c", "abc"),
            ("*.block", "7.block"),
            ("a*b*c", "a-b-b-c"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[a", "[a"),
            ("\\*", "*"),
            ("a\\:b", "a:b"),
            ("**a**", "bab"),
        ];
        for (pattern, text) in yes {
            assert!(
                matches(pattern.as_bytes(), text.as_bytes()),
                "{pattern} {text}"
            );
        }
        let no: &[(&str, &str)] = &[
            ("", "a"),
            ("a", ""),
            ("a?c", "ac"),
            ("[a-c]x", "dx"),
            ("[!a-c]x", "bx"),
            ("\\*", "a"),
            ("a*b", "a-b-c"),
        ];
        for (pattern, text) in no {
            assert!(
                !matches(pattern.as_bytes(), text.as_bytes()),
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn a_relative_pattern_matches_tails_and_an_absolute_one_the_whole() {
        let path = b"/tmp/case/spill/7.block";
        for pattern in ["7.block", "spill/*", "*.block", "/tmp/*", "/*block"] {
            assert!(matches_path(pattern.as_bytes(), path), "{pattern}");
        }
        assert!(!matches_path(b"/x", b"/tmp//x"));
        for pattern in ["block", "/spill/*", "ill/7.block", "/7.block"] {
            assert!(!matches_path(pattern.as_bytes(), path), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_ends_soon() {
        let pattern = b"*a".repeat(90);
        let text = b"a"
            .repeat(89)
            .into_iter()
            .chain(b"b".repeat(4000))
            .collect::<Vec<u8>>();
        assert!(!matches(&pattern, &text));
    }
}
