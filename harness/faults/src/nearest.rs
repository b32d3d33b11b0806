//! The nearest of some words, for messages that propose what was meant.

/// The word that needs the fewest edits, if these are at most a third of its letters (one edit is always forgiven).
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (edits, found) = known
        .map(|candidate| (distance(word, candidate), candidate))
        .min_by_key(|(edits, candidate)| (*edits, *candidate))?;
    (edits <= (found.len() / 3).max(1)).then_some(found)
}

/// Insertions, deletions and replacements between two words, case apart. Words longer than any name are cut: a plan is
/// untrusted, and nothing that long is near.
fn distance(left: &str, right: &str) -> usize {
    let fold = |word: &str| -> Vec<u8> {
        let bytes = word.bytes().take(64);
        bytes.map(|byte| byte.to_ascii_lowercase()).collect()
    };
    let (left, right) = (fold(left), fold(right));
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, from) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in right.iter().enumerate() {
            let replaced = previous[column] + usize::from(from != to);
            current.push(
                replaced
                    .min(previous[column + 1] + 1)
                    .min(current[column] + 1),
            );
        }
        previous = current;
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    //! What counts as near.
    use super::*;

    #[test]
    fn a_typo_finds_its_word_and_noise_finds_none() {
        let known = || ["pwrite", "pread", "fsync", "cuMemAlloc"].into_iter();
        assert_eq!(nearest("pwirte", known()), Some("pwrite"));
        assert_eq!(nearest("cumemaloc", known()), Some("cuMemAlloc"));
        assert_eq!(nearest("frobnicate", known()), None);
        assert_eq!(nearest(&"x".repeat(100_000), known()), None);
        assert_eq!(nearest("", [].into_iter()), None);
    }
}
