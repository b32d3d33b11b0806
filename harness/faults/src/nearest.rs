//! The nearest of some words, for messages that propose what was meant.

/// The word that needs the fewest edits, if these are at most a third of its letters (one edit is always forgiven).
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (edits, found) = known
        .map(|candidate| (distance(word, candidate), candidate))
        .min_by_key(|(edits, candidate)| (*edits, *candidate))?;
    (edits <= (found.len() / 3).max(1)).then_some(found)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words, case apart. Words longer than any name
/// are cut: a plan is untrusted, and nothing that long is near.
fn distance(left: &str, right: &str) -> usize {
    let fold = |word: &str| -> Vec<u8> {
        let bytes = word.bytes().take(64);
        bytes.map(|byte| byte.to_ascii_lowercase()).collect()
    };
    let (left, right) = (fold(left), fold(right));
    // Optimal string alignment: a row for each prefix of the left word, a column for each of the right.
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for row in 1..=left.len() {
        let mut current = vec![row];
        for column in 1..=right.len() {
            let (from, to) = (left[row - 1], right[column - 1]);
            let replaced = rows[row - 1][column - 1] + usize::from(from != to);
            let one_more = rows[row - 1][column].min(current[column - 1]) + 1;
            let mut edits = replaced.min(one_more);
            if row > 1 && column > 1 && from == right[column - 2] && to == left[row - 2] {
                edits = edits.min(rows[row - 2][column - 2] + 1);
            }
            current.push(edits);
        }
        rows.push(current);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    //! What counts as near.
    use super::*;

    #[test]
    fn a_typo_finds_its_word_and_noise_finds_none() {
        let known = || ["pwrite", "pread", "fsync", "cuMemAlloc"].into_iter();
        assert_eq!(nearest("pwirte", known()), Some("pwrite"));
        assert_eq!(nearest("fsnyc", known()), Some("fsync"));
        assert_eq!(nearest("cumemaloc", known()), Some("cuMemAlloc"));
        assert_eq!(nearest("frobnicate", known()), None);
        assert_eq!(nearest(&"x".repeat(100_000), known()), None);
        assert_eq!(nearest("", [].into_iter()), None);
    }
}
