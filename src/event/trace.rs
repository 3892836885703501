//! W3C Trace Context and Baggage: what of a publisher's headers is taken as one. Pure.

use async_nats::HeaderMap;
use percent_encoding::percent_decode_str;

/// Longest `tracestate` taken, in bytes, all its headers together: what Trace Context (section
/// 3.3.1.5) has everyone pass on at least. A longer one is dropped, and the trace goes on without it.
pub const TRACESTATE_MAX: usize = 512;
/// Longest `baggage` taken, in bytes: what W3C Baggage (section 3.3.2) has everyone pass on at least.
const BAGGAGE_MAX: usize = 8192;
/// Most members of a `baggage` that are looked at; the same section's minimum.
const BAGGAGE_MEMBERS: usize = 64;

/// A `traceparent`, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    /// Not zero.
    pub trace: u128,
    /// The publisher's span; not zero.
    pub span: u64,
    /// Whether the publisher recorded its span.
    pub sampled: bool,
}

impl Traceparent {
    /// Reads a `traceparent` of version 00: `00-<trace id>-<parent id>-<flags>` in lower-case
    /// hexadecimal, with neither id all zero (W3C Trace Context, section 3.2.2).
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut hex = |len: usize| {
            let part = parts.next()?;
            let is_hex = part.len() == len
                && part
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            u128::from_str_radix(part, 16).ok().filter(|_| is_hex)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let is_whole = version == 0 && trace != 0 && span != 0 && parts.next().is_none();
        is_whole.then_some(Self {
            trace,
            span: u64::try_from(span).ok()?,
            sampled: flags & 1 == 1,
        })
    }
}

/// Whether `text` is a `traceparent`, as [`Traceparent::parse`] has it.
pub fn is_traceparent(text: &str) -> bool {
    Traceparent::parse(text).is_some()
}

/// The publisher's `traceparent`, if it is valid and the only one.
///
/// Of several, none is taken: they say that something on the way added a second instead of
/// replacing the first, and the specification has a receiver start a new trace then. It is also the
/// only choice that does not depend on the order of header names that differ in case. The name is
/// matched in any case (section 3.2.1).
pub fn traceparent(headers: &HeaderMap) -> Option<&str> {
    only(headers, "traceparent")
}

/// The same of a CloudEvent's header: what is known of the trace of one that cannot be decoded.
pub fn ce_traceparent(headers: &HeaderMap) -> Option<&str> {
    only(headers, "ce-traceparent")
}

fn only<'a>(headers: &'a HeaderMap, name: &'a str) -> Option<&'a str> {
    let mut values = values(headers, name);
    let value = values.next()?;
    (values.next().is_none() && is_traceparent(value)).then_some(value)
}

/// The publisher's `tracestate`: all headers of the name, joined (section 3.3.1.1). Its members are
/// not looked at.
pub fn tracestate(headers: &HeaderMap) -> Option<String> {
    joined(headers, "tracestate", TRACESTATE_MAX)
}

/// The publisher's `baggage`: all headers of the name, joined; `None` if they are too long.
pub fn baggage(headers: &HeaderMap) -> Option<String> {
    joined(headers, "baggage", BAGGAGE_MAX)
}

/// The members of a `baggage`: key and percent-decoded value, without properties. What is malformed is
/// left out.
pub fn baggage_members(baggage: &str) -> Vec<(String, String)> {
    baggage
        .split(',')
        .take(BAGGAGE_MEMBERS)
        .filter_map(|member| {
            let (member, _properties) = member.split_once(';').unwrap_or((member, ""));
            key_value(member)
        })
        .collect()
}

/// One `key=value` of W3C Baggage (section 3.3.1), its value percent-decoded; `None` if it is none.
fn key_value(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    let key = key.trim();
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    is_key.then(|| (key.to_owned(), value.into_owned()))
}

fn joined(headers: &HeaderMap, name: &str, most: usize) -> Option<String> {
    let mut text = String::new();
    for value in values(headers, name) {
        if !text.is_empty() {
            text.push(',');
        }
        if text.len() + value.len() > most {
            return None;
        }
        text.push_str(value);
    }
    (!text.is_empty()).then_some(text)
}

fn values<'a>(headers: &'a HeaderMap, wanted: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |(name, _)| AsRef::<str>::as_ref(*name).eq_ignore_ascii_case(wanted))
        .flat_map(|(_, values)| values)
        .map(async_nats::HeaderValue::as_str)
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

    #[test]
    fn a_traceparent_is_taken_apart() {
        let parsed = Traceparent::parse(GOOD).unwrap();
        assert_eq!(parsed.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(parsed.span, 0x00f0_67aa_0ba9_02b7);
        assert!(parsed.sampled);
        assert!(
            !Traceparent::parse(&GOOD.replace("-01", "-02"))
                .unwrap()
                .sampled
        );
    }

    #[test]
    fn a_tracestate_is_joined_and_dropped_where_it_is_too_long() {
        let mut map = HeaderMap::new();
        map.append("tracestate", "a=1");
        map.append("Tracestate", "b=2");
        let joined = tracestate(&map).unwrap();
        assert!(matches!(joined.as_str(), "a=1,b=2" | "b=2,a=1"), "{joined}");
        map.append("tracestate", format!("c={}", "x".repeat(10 * 1024)));
        assert_eq!(tracestate(&map), None);
    }

    #[test]
    fn baggage_is_read_as_far_as_it_is_right() {
        let mut map = HeaderMap::new();
        map.append(
            "baggage",
            "tenant=a%20b;ttl=1, plan = pro ,bad,=x,n%C3=1,e=",
        );
        let found = baggage_members(&baggage(&map).unwrap());
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            found,
            [("tenant", "a b"), ("plan", "pro"), ("n%C3", "1"), ("e", "")]
        );
        map.append("baggage", "x".repeat(BAGGAGE_MAX));
        assert_eq!(baggage(&map), None);
    }
}
