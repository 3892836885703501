//! Origins as browsers send them (RFC 6454 section 6.2): `https://app.example.com`, `http://localhost:3000`.

use axum::http::Uri;

/// What is wrong with an origin that no browser would send, and that therefore would let nobody in.
pub(super) fn problem(text: &str) -> Option<String> {
    let wrong = |why: &str| Some(format!("server.allowed_origins: `{text}` {why}"));
    // What browsers send for a page without an origin, such as a sandboxed frame.
    if text == "null" {
        return None;
    }
    if text.contains('*') {
        return wrong("is a pattern: name each origin, or set none to let all in");
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong("has no scheme: write for example https://app.example.com");
    };
    let Some(authority) = text
        .parse::<Uri>()
        .ok()
        .filter(|uri| !rest.contains(['/', '?', '#', '@']) && !uri.host().unwrap_or("").is_empty())
        .and_then(|uri| uri.into_parts().authority)
    else {
        return wrong("is no origin: scheme, host and port alone, with nothing after them");
    };
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

#[cfg(test)]
mod tests {
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
        ] {
            assert_eq!(problem(text), None, "{text}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_told() {
        for (text, part) in [
            ("*", "pattern"),
            ("https://*.example.com", "pattern"),
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
            let told = problem(text).unwrap_or_else(|| panic!("{text}"));
            assert!(told.contains(part) && told.contains(text), "{told}");
        }
    }
}
