//! "Did you mean": a known name for an unknown one, where one is near enough to have been meant.

use strsim::damerau_levenshtein;

/// The nearest of `known`, if it is near.
pub(crate) fn near<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .filter_map(|known| Some((distance(unknown, known)?, known)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How far two names are from each other, if one can be a slip for the other: at most one letter in three is
/// another, missing, too many or swapped. Case does not count.
pub(super) fn distance(unknown: &str, known: &str) -> Option<usize> {
    let distance = damerau_levenshtein(&unknown.to_lowercase(), &known.to_lowercase());
    let longer = unknown.chars().count().max(known.chars().count());
    (distance * 3 <= longer).then_some(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_name_is_meant() {
        let known = ["title", "message", "type", "url"];
        for (unknown, meant) in [
            ("titel", Some("title")),
            ("Title", Some("title")),
            ("tilte", Some("title")),
            ("mesage", Some("message")),
            ("tpye", Some("type")),
            ("ulr", Some("url")),
            ("top", None),
            ("amount", None),
            ("id", None),
            ("", None),
            ("a", None),
        ] {
            assert_eq!(near(unknown, known), meant, "{unknown}");
        }
    }
}
