//! W3C Trace Context: which `traceparent` is taken as one.

use async_nats::HeaderMap;

/// Whether `text` is a `traceparent` of version 00: `00-<trace id>-<parent id>-<flags>` in lower-case
/// hexadecimal, with neither id all zero (W3C Trace Context, section 3.2.2).
pub fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |len: usize| {
        parts.next().is_some_and(|part| {
            part.len() == len
                && part
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let form = text.starts_with("00-") && hex(2) && hex(32) && hex(16) && hex(2);
    let is_zero =
        |part: Option<&str>| part.is_none_or(|part| part.bytes().all(|byte| byte == b'0'));
    let ids = || (text.get(3..35), text.get(36..52));
    form && parts.next().is_none() && !is_zero(ids().0) && !is_zero(ids().1)
}

/// The publisher's `traceparent`, if it is valid and the only one.
///
/// Of several, none is taken: they say that something on the way added a second instead of
/// replacing the first, and the specification has a receiver start a new trace then. It is also the
/// only choice that does not depend on the order of header names that differ in case. The name is
/// matched in any case (section 3.2.1).
pub(super) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers
        .iter()
        .filter(|(name, _)| AsRef::<str>::as_ref(*name).eq_ignore_ascii_case("traceparent"))
        .flat_map(|(_, values)| values);
    let value = values.next()?.as_str();
    (values.next().is_none() && is_traceparent(value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_taken_only_in_the_form_of_version_00() {
        for good in [
            GOOD,
            &GOOD.replace("-01", "-00"),
            &GOOD.replace("-01", "-ff"),
        ] {
            assert!(is_traceparent(good), "{good}");
        }
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "01-", 1),
            &GOOD.replacen("00-", "ff-", 1),
            &format!("{GOOD}-x"),
            &format!("{GOOD} "),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf9", "4bg9"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn the_only_valid_header_of_the_name_is_taken_in_any_case() {
        let other = GOOD.replace("4bf9", "4bf8");
        for (headers, want) in [
            (vec![("traceparent", GOOD)], Some(GOOD)),
            (vec![("TraceParent", GOOD)], Some(GOOD)),
            (vec![("traceparent", "x")], None),
            (vec![("traceparent", GOOD), ("traceparent", &other)], None),
            (vec![("traceparent", GOOD), ("Traceparent", &other)], None),
            (vec![("tracestate", GOOD)], None),
            (vec![], None),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.append(*name, *value);
            }
            assert_eq!(traceparent(&map), want, "{headers:?}");
        }
    }
}
