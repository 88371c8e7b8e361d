//! "Did you mean": the known name nearest to a misspelt one.

/// The candidate that was most likely meant: the one in whose table the same name stands, else the nearest by edits.
pub(super) fn nearest(name: &str, candidates: impl Iterator<Item = String> + Clone) -> Option<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    if let Some(elsewhere) = candidates.clone().find(|candidate| candidate != name && last(candidate) == last(name)) {
        return Some(elsewhere);
    }
    // Beyond a third of the letters, a suggestion is a guess. The table's name is no part of the likeness.
    let limit = (last(name).chars().count() / 3).clamp(1, 4);
    let near = candidates.map(|candidate| (edits(name, &candidate), candidate));
    near.filter(|(distance, _)| *distance <= limit).min().map(|(_, candidate)| candidate)
}

/// Levenshtein's distance. Names are short; strangers' long ones are cut.
fn edits(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)] {
            assert_eq!(edits(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_is_suggested_and_the_far_is_not() {
        let names = || ["listen", "auth.secret", "log.url", "tasks.max"].into_iter().map(str::to_owned);
        for (name, expected) in [
            ("lisen", Some("listen")),
            ("auth.sercet", Some("auth.secret")),
            ("http.secret", Some("auth.secret")),
            ("max", Some("tasks.max")),
            ("auth.token", None),
            ("channel_capacity", None),
        ] {
            assert_eq!(nearest(name, names()).as_deref(), expected, "{name}");
        }
    }
}
