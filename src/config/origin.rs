//! Origins as browsers send them (RFC 6454 section 6.2): `https://app.example.com`, `http://localhost:3000`. In
//! the settings the first label of a host may be `*`, which stands for exactly one label.

use axum::http::Uri;

/// What stands between scheme and domain where any one label is allowed.
const WILDCARD: &str = "://*.";
/// Bytes of a label (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;

/// Whether `allowed`, as configured, stands for `origin`. Scheme and port must be the same.
pub(crate) fn allows(allowed: &str, origin: &[u8]) -> bool {
    let Some((scheme, domain)) = allowed.split_once(WILDCARD) else {
        return origin.eq_ignore_ascii_case(allowed.as_bytes());
    };
    let parts = str::from_utf8(origin).ok().and_then(|origin| {
        let (scheme, host) = origin.split_once("://")?;
        let (label, domain) = host.split_once('.')?;
        Some((scheme, label, domain))
    });
    parts.is_some_and(|(its_scheme, label, its_domain)| {
        its_scheme.eq_ignore_ascii_case(scheme)
            && is_label(label)
            && its_domain.eq_ignore_ascii_case(domain)
    })
}

/// Whether `origin` is that of a page at `host`, by HTTP or by HTTPS. Both may have a port.
pub(crate) fn is_of_host(origin: &[u8], host: &[u8]) -> bool {
    let mut schemes = [&b"http://"[..], b"https://"].into_iter();
    schemes.any(|scheme| {
        let name = origin.strip_prefix(scheme);
        name.is_some_and(|name| name.eq_ignore_ascii_case(host))
    })
}

/// A label of a host as browsers write it: ASCII, with `xn--` where it was not.
fn is_label(text: &str) -> bool {
    let is_of_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=LABEL_MAX).contains(&text.len()) && text.bytes().all(is_of_label)
}

/// What is wrong with an origin that no browser would send, and that therefore would let nobody in, or with a
/// `*` that would let too many in.
pub(super) fn problem(text: &str) -> Option<String> {
    let wrong = |why: &str| Some(format!("server.allowed_origins: `{text}` {why}"));
    // What browsers send for a page without an origin, such as a sandboxed frame.
    if text == "null" {
        return None;
    }
    // As one of the origins that it stands for.
    let one = text.replacen(WILDCARD, "://x.", 1);
    if one.contains('*') {
        return wrong(
            "is a pattern whose `*` is not the whole first label: write for example https://*.example.com, \
             name each origin, or set none to let all in",
        );
    }
    let Some((scheme, rest)) = one.split_once("://") else {
        return wrong("has no scheme: write for example https://app.example.com");
    };
    let Some(authority) = one
        .parse::<Uri>()
        .ok()
        .filter(|uri| !rest.contains(['/', '?', '#', '@']) && !uri.host().unwrap_or("").is_empty())
        .and_then(|uri| uri.into_parts().authority)
    else {
        return wrong("is no origin: scheme, host and port alone, with nothing after them");
    };
    if one != text && !authority.host().strip_prefix("x.").is_some_and(is_domain) {
        return wrong(
            "has a `*` before what is no domain of two labels at least: write for example https://*.example.com",
        );
    }
    let default = match scheme.to_ascii_lowercase().as_str() {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    match authority.port_u16() {
        Some(port) if Some(port) == default => {
            wrong("names its scheme's own port, which browsers leave out")
        }
        _ => None,
    }
}

/// Two labels or more, and no end of an IPv4 address.
fn is_domain(text: &str) -> bool {
    let is_name = |last: &str| last.starts_with(|c: char| c.is_ascii_alphabetic());
    text.split('.').all(is_label) && text.rsplit_once('.').is_some_and(|(_, last)| is_name(last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_browsers_send_is_right() {
        for text in [
            "https://app.example.com",
            "HTTPS://App.example.com",
            "http://localhost:3000",
            "https://[::1]:8443",
            "https://xn--bcher-kva.example",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
            "null",
            "https://*.example.app",
            "https://*.Example.app:8443",
            "http://*.preview.example.app",
            "https://*.xn--bcher-kva.example",
        ] {
            assert_eq!(problem(text), None, "{text}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for (text, part) in [
            ("*", "pattern"),
            ("https://*", "pattern"),
            ("https://**.example.com", "pattern"),
            ("https://*.*.example.com", "pattern"),
            ("https://app.*.com", "pattern"),
            ("https://app-*.example.com", "pattern"),
            ("https://*app.example.com", "pattern"),
            ("*://app.example.com", "pattern"),
            ("*.example.com", "pattern"),
            ("https://*.example.com:*", "pattern"),
            ("https://*.com", "two labels"),
            ("https://*.localhost", "two labels"),
            ("https://*.", "two labels"),
            ("https://*.example.", "two labels"),
            ("https://*..example.com", "two labels"),
            ("https://*.0.0.1", "two labels"),
            ("https://*.0.0x1", "two labels"),
            ("https://*.[::1]", "two labels"),
            ("https://*.example.com/", "nothing after"),
            ("https://*.example.com:443", "own port"),
            ("app.example.com", "no scheme"),
            ("https://app.example.com/", "nothing after"),
            ("https://app.example.com/path", "nothing after"),
            ("https://app.example.com?a", "nothing after"),
            ("https://user@app.example.com", "nothing after"),
            ("https://app.example.com:443", "own port"),
            ("http://app.example.com:80", "own port"),
            ("https://bücher.example", "nothing after"),
            ("https://app example.com", "nothing after"),
            ("https://", "nothing after"),
            ("https://:8443", "nothing after"),
        ] {
            let said = problem(text).unwrap_or_else(|| panic!("{text}"));
            assert!(said.contains(part) && said.contains(text), "{said}");
        }
    }

    #[test]
    fn a_star_is_one_label_and_all_else_is_exact() {
        for (allowed, origin, is_allowed) in [
            ("https://*.example.app", "https://x.example.app", true),
            ("https://*.example.app", "HTTPS://X.Example.APP", true),
            ("https://*.example.app", "https://pr-12_a.example.app", true),
            (
                "https://*.example.app",
                "https://xn--bcher-kva.example.app",
                true,
            ),
            ("https://*.example.app", "https://1.example.app", true),
            (
                "https://*.example.app:8443",
                "https://x.example.app:8443",
                true,
            ),
            ("https://*.example.app", "https://example.app", false),
            ("https://*.example.app", "https://.example.app", false),
            ("https://*.example.app", "https://*.example.app", false),
            ("https://*.example.app", "https://a.b.example.app", false),
            ("https://*.example.app", "https://evil-example.app", false),
            ("https://*.example.app", "https://evil.example-app", false),
            ("https://*.example.app", "https://x.example.app.evil", false),
            (
                "https://*.example.app",
                "https://x.example.app.evil.com",
                false,
            ),
            ("https://*.example.app", "https://x.example.app.", false),
            ("https://*.example.app", "https://x.example.app:8443", false),
            ("https://*.example.app:8443", "https://x.example.app", false),
            ("https://*.example.app", "http://x.example.app", false),
            ("https://*.example.app", "xhttps://x.example.app", false),
            ("https://*.example.app", "https://x.example.app/", false),
            (
                "https://*.example.app",
                "https://evil.com/.example.app",
                false,
            ),
            ("https://*.example.app", "https://evil@x.example.app", false),
            ("https://*.example.app", "https://evil:1.example.app", false),
            ("https://*.example.app", "https://evil#.example.app", false),
            ("https://*.example.app", "https://x .example.app", false),
            ("https://*.example.app", "https://x.example.app x", false),
            ("https://*.example.app", "https://[::1].example.app", false),
            ("https://*.example.app", "https://ü.example.app", false),
            ("https://*.example.app", "//x.example.app", false),
            ("https://*.example.app", "x.example.app", false),
            ("https://*.example.app", "null", false),
            ("https://*.example.app", "", false),
            ("https://app.example.com", "https://App.example.com", true),
            (
                "https://app.example.com",
                "https://x.app.example.com",
                false,
            ),
            ("https://[::1]:8443", "https://[::1]:8443", true),
            ("null", "null", true),
        ] {
            assert_eq!(
                allows(allowed, origin.as_bytes()),
                is_allowed,
                "{allowed} {origin}"
            );
        }
    }

    #[test]
    fn a_label_has_63_bytes_at_most_and_is_ascii() {
        let label = |length| format!("https://{}.example.app", "a".repeat(length));
        assert!(allows("https://*.example.app", label(63).as_bytes()));
        assert!(!allows("https://*.example.app", label(64).as_bytes()));
        assert!(!allows(
            "https://*.example.app",
            b"https://\xff.example.app"
        ));
    }

    proptest! {
        /// As a regular expression would say it, which the settings do not have.
        #[test]
        fn what_a_star_lets_in_is_a_host_just_below_the_domain(
            label in "[a-z0-9_-]{1,20}",
            domain in "[a-z0-9-]{1,10}\\.[a-z][a-z0-9-]{0,10}(:[1-9][0-9]{3})?",
            other in "[a-zA-Z0-9:/?#@.*\\[\\] _-]{0,40}",
        ) {
            let allowed = format!("https://*.{domain}");
            prop_assume!(problem(&allowed).is_none());
            let origin = format!("https://{label}.{domain}");
            prop_assert!(allows(&allowed, origin.as_bytes()));
            prop_assert!(problem(&origin).is_none());
            for origin in [
                other.clone(),
                format!("https://{other}.{domain}"),
                format!("https://{other}{domain}"),
                format!("https://{label}.{domain}{other}"),
            ] {
                if allows(&allowed, origin.as_bytes()) {
                    let below = origin.strip_prefix("https://").and_then(|host| {
                        host.to_ascii_lowercase().strip_suffix(&format!(".{domain}")).map(str::to_owned)
                    });
                    prop_assert!(below.is_some_and(|label| is_label(&label)), "{origin}");
                }
            }
        }
    }
}
