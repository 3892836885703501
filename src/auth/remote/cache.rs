//! How long an answer is fresh, by its headers (RFC 9111 section 4.2). Pure.

use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use axum::http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES};
use chrono::DateTime;

/// What counts if the answer does not say.
const UNSAID: Duration = Duration::from_secs(10 * 60);

/// How long the answer is still fresh `now`. What is said, but cannot be read, counts as stale (section 4.2.1).
pub(in crate::auth) fn fresh_for(headers: &HeaderMap, now: SystemTime) -> Duration {
    let control = headers.get_all(CACHE_CONTROL).iter();
    let control = control.map(|value| value.to_str().unwrap_or("no-cache"));
    let directives = control.flat_map(|text| text.split(','));
    let mut max_age: Option<Duration> = None;
    for directive in directives {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-cache" | "no-store" => return Duration::ZERO,
            // The least of several.
            "max-age" => {
                let age = delta_seconds(value);
                max_age = Some(max_age.map_or(age, |other| other.min(age)));
            }
            _ => {}
        }
    }
    let header = |name| {
        let value: Option<&axum::http::HeaderValue> = headers.get(name);
        value.map(|value| value.to_str().unwrap_or_default())
    };
    let lifetime = match (max_age, header(EXPIRES)) {
        (Some(max_age), _) => max_age,
        (None, Some(expires)) => {
            let sent = header(DATE).and_then(date).unwrap_or(now);
            let lifetime = date(expires).and_then(|expires| expires.duration_since(sent).ok());
            lifetime.unwrap_or_default()
        }
        (None, None) => UNSAID,
    };
    lifetime.saturating_sub(header(AGE).map(delta_seconds).unwrap_or_default())
}

/// Section 1.2.2: a number that is too large is a large one.
fn delta_seconds(text: &str) -> Duration {
    let digits = text.trim().trim_matches('"');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Duration::ZERO;
    }
    Duration::from_secs(digits.parse().unwrap_or(u64::from(u32::MAX)))
}

/// RFC 9110 section 5.6.7, the form that senders must use.
fn date(text: &str) -> Option<SystemTime> {
    DateTime::parse_from_rfc2822(text)
        .ok()
        .map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn an_answer_is_as_fresh_as_its_headers_say() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let now = super::date(date).unwrap();
        type Headers = &'static [(&'static str, &'static str)];
        let cases: &[(Headers, u64)] = &[
            (&[], 600),
            (
                &[("cache-control", "public, max-age=19302, must-revalidate")],
                19_302,
            ),
            (&[("cache-control", "MAX-AGE = 60")], 60),
            (&[("cache-control", "max-age=\"60\"")], 60),
            (
                &[
                    ("cache-control", "max-age=600"),
                    ("cache-control", "max-age=60"),
                ],
                60,
            ),
            (&[("cache-control", "max-age=600"), ("age", "100")], 500),
            (&[("cache-control", "max-age=600"), ("age", "700")], 0),
            (&[("cache-control", "max-age=600"), ("age", "-7")], 600),
            // For shared caches.
            (&[("cache-control", "s-maxage=7")], 600),
            (&[("cache-control", "no-cache")], 0),
            (&[("cache-control", "max-age=600, No-Store")], 0),
            (&[("cache-control", "max-age=soon")], 0),
            (&[("cache-control", "max-age")], 0),
            (&[("cache-control", "max-age=-1")], 0),
            (
                &[("cache-control", "max-age=99999999999999999999999")],
                4_294_967_295,
            ),
            (&[("cache-control", "")], 600),
            (
                &[
                    ("expires", "Sun, 06 Nov 1994 09:49:37 GMT"),
                    ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ],
                3600,
            ),
            (
                &[
                    ("expires", "Sun, 06 Nov 1994 09:49:37 GMT"),
                    ("date", "Sun, 06 Nov 1994 09:39:37 GMT"),
                ],
                600,
            ),
            (&[("expires", "Sun, 06 Nov 1994 08:50:37 GMT")], 60),
            (&[("expires", "Sun, 06 Nov 1994 07:49:37 GMT")], 0),
            (&[("expires", "0")], 0),
            (&[("expires", "0"), ("cache-control", "max-age=60")], 60),
            (&[("age", "30")], 570),
        ];
        for (fields, seconds) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in *fields {
                let name = HeaderName::from_static(name);
                headers.append(name, HeaderValue::from_static(value));
            }
            let fresh = fresh_for(&headers, now);
            assert_eq!(fresh, Duration::from_secs(*seconds), "{fields:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(
            "cache-control",
            HeaderValue::from_bytes(b"max-age=\xff").unwrap(),
        );
        assert_eq!(fresh_for(&headers, now), Duration::ZERO);
    }
}
