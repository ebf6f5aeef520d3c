//! The near miss: which known word was probably meant.

/// Words longer than this are not compared: the work grows with the product of the lengths.
const WORD_MAX: usize = 64;

/// The known word nearest to `word`, if it is near enough to be worth saying.
pub(super) fn near<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_MAX {
        return None;
    }
    let lower = word.to_ascii_lowercase().replace('-', "_");
    let limit = (lower.chars().count() / 3).clamp(1, 3);
    // A beginning of the word (`warn`) is as near as one slip.
    let begins = |known: &str| lower.len() >= 3 && known.starts_with(&lower);
    known
        .map(|known| (if begins(known) { 1 } else { distance(&lower, known) }, known))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, known)| known)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&above, j) + usize::from(x != y)).min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_named_and_a_stranger_is_not() {
        let known = ["password_file", "acl_file", "port", "persistence"];
        for (word, meant) in [
            ("pasword_file", Some("password_file")),
            ("Password-File", Some("password_file")),
            ("prot", Some("port")),
            ("persistance", Some("persistence")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(near(word, known.into_iter()), meant, "{word}");
        }
    }
}
