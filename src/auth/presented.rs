//! Where a request carries its token. Pure: the query and the headers in, the token out.

use std::fmt;

use axum::http::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};

use super::AuthError;

/// The query parameter of the contract.
const QUERY_PARAMETER: &str = "token";

/// Parts of the names of query parameters in which somebody may send a token where a URL is no place for one.
const TOKEN_NAMES: [&str; 5] = ["token", "bearer", "authorization", "jwt", "apikey"];

/// What stands before the token among the offered subprotocols, as in `herald.v1, bearer.<token>`:
/// a browser can set no header of a WebSocket but this one.
const PROTOCOL_PREFIX: &[u8] = b"bearer.";

/// A token as a request brought it, not yet verified. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedToken(String);

impl PresentedToken {
    /// The token's text, for [`super::Verifier::judge`] and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Finds the token of a request: the query parameter `token`, `Authorization: Bearer`, or
/// `bearer.<token>` in `Sec-WebSocket-Protocol`. An empty one counts as none, and the same one may
/// come several times. `query` is the URL's, still percent-encoded.
///
/// # Errors
/// [`AuthError::Missing`] where there is none, [`AuthError::Invalid`] where there are two different
/// ones: which of them is meant must not depend on who reads the request.
pub fn presented_token(
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<PresentedToken, AuthError> {
    let in_query = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, _)| name == QUERY_PARAMETER)
        .map(|(_, value)| value.into_owned());
    let in_authorization = headers
        .get_all(AUTHORIZATION)
        .iter()
        .filter_map(|value| bearer(value.as_bytes()))
        .map(|token| String::from_utf8_lossy(token).into_owned());
    let in_protocols = offered_subprotocols(headers)
        .filter_map(|protocol| protocol.strip_prefix(PROTOCOL_PREFIX))
        .map(|token| String::from_utf8_lossy(token).into_owned());
    the_one(in_query.chain(in_authorization).chain(in_protocols))
}

/// The token in the cookie `name`, for a request that has none elsewhere. An empty one counts as none.
///
/// # Errors
/// As [`presented_token`]. Two cookies of one name come where a host and the domain above it set one each: any
/// other host of that domain may have set the second.
pub fn cookie_token(headers: &HeaderMap, name: &str) -> Result<PresentedToken, AuthError> {
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let named = cookies.filter_map(|cookie| {
        let equals = cookie.iter().position(|byte| *byte == b'=')?;
        let (its_name, value) = cookie.split_at_checked(equals)?;
        let value = value.strip_prefix(b"=")?.trim_ascii();
        (its_name.trim_ascii() == name.as_bytes()).then(|| unquoted(value))
    });
    the_one(named.map(|token| String::from_utf8_lossy(token).into_owned()))
}

/// The token of the one `Authorization: Bearer`, where no other place is looked at.
///
/// # Errors
/// [`AuthError::Missing`] where there is none, [`AuthError::Invalid`] where there are two headers.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let value = all.next().ok_or(AuthError::Missing)?;
    if all.next().is_some() {
        return Err(AuthError::Invalid("two Authorization headers were given"));
    }
    let token = bearer(value.as_bytes()).and_then(|token| std::str::from_utf8(token).ok());
    token
        .filter(|token| !token.is_empty())
        .ok_or(AuthError::Missing)
}

/// Whether a URL has a token in it: a parameter by its name or by its value, the token of the request itself, or a user.
/// Logs and histories keep URLs.
pub(crate) fn has_token(url: &Uri, headers: &HeaderMap) -> bool {
    let has_user = |authority: &Authority| authority.as_str().contains('@');
    if url.authority().is_some_and(has_user) {
        return true;
    }
    // Few have one, and every request comes here.
    let Some(query) = url.query() else {
        return false;
    };
    let own = bearer_token(headers).ok();
    form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let plain = plain.to_ascii_lowercase();
        // A semicolon separated parameters once.
        let mut words = value.split([';', '=', ' ']);
        TOKEN_NAMES.iter().any(|part| plain.contains(part))
            || words.any(|word| looks_like_jwt(word) || own.is_some_and(|own| own == word))
    })
}

/// A JWT's head is a JSON object, which begins so in base64 (RFC 7515, section 3).
fn looks_like_jwt(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}

/// The value of a cookie without the quotes that it may have (RFC 6265 section 4.1.1).
fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

/// The token that is given, once or several times.
fn the_one(tokens: impl Iterator<Item = String>) -> Result<PresentedToken, AuthError> {
    let mut tokens = tokens.filter(|token| !token.is_empty());
    let token = tokens.next().ok_or(AuthError::Missing)?;
    if tokens.any(|other| other != token) {
        return Err(AuthError::Invalid("two different ones were given"));
    }
    Ok(PresentedToken(token))
}

/// The subprotocols that a request offers: several lines are one list, and empty elements count for
/// nothing (RFC 9110 sections 5.3 and 5.6.1). Bytes, since a peer may send any.
pub(crate) fn offered_subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|protocol| !protocol.is_empty())
}

/// The credentials of `Authorization: Bearer`, RFC 6750 section 2.1; the scheme's case does not
/// matter (RFC 9110 section 11.1). Another scheme, as a proxy may add it, is none of ours.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, credentials) = value.split_at_checked(b"bearer".len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer")
        && credentials.first().is_none_or(u8::is_ascii_whitespace);
    is_bearer.then(|| credentials.trim_ascii())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_token_in_a_url_is_seen() {
        for (url, has) in [
            ("/v1/x", false),
            ("/v1/x?a=token", false),
            ("/v1/x?user=token", false),
            ("http://host/v1/x", false),
            ("/v1/x?token=a", true),
            ("/v1/x?a=b&access_token", true),
            ("/v1/x?a=b&token=", true),
            ("/v1/x?%74oken=a", true),
            ("/v1/x?Access_Token=", true),
            ("/v1/x?bearer=a", true),
            ("/v1/x?authorization=a", true),
            ("http://token@host/v1/x", true),
            ("/v1/x?jwt=a", true),
            ("/v1/x?api_key=a", true),
            ("/v1/x?access-token=a", true),
            ("/v1/x?x=eyJh.eyJz.c2ln", true),
            ("/v1/x?x=eyJh.eyJz", false),
            ("/v1/x?a=b;x=the-own-one", true),
            ("/v1/x?a=the-own-on", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                AUTHORIZATION,
                HeaderValue::from_static("Bearer the-own-one"),
            );
            assert_eq!(has_token(&url.parse().unwrap(), &headers), has, "{url}");
        }
    }

    fn find(query: &str, headers: &[(HeaderName, &str)]) -> Result<String, AuthError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        presented_token(Some(query), &map).map(|token| token.0)
    }

    #[test]
    fn a_token_is_found_in_each_of_its_places() {
        let protocol = SEC_WEBSOCKET_PROTOCOL;
        for (query, headers) in [
            ("token=a.b.c&workspaceSlug=acme", vec![]),
            ("workspaceSlug=acme&token=a%2Eb%2Ec", vec![]),
            ("token=a.b.c&token=a.b.c", vec![]),
            ("", vec![(AUTHORIZATION, "Bearer a.b.c")]),
            ("", vec![(AUTHORIZATION, "bearer  a.b.c ")]),
            ("token=", vec![(AUTHORIZATION, "BEARER a.b.c")]),
            ("", vec![(protocol.clone(), "herald.v1, bearer.a.b.c")]),
            ("", vec![(protocol.clone(), "bearer.a.b.c,herald.v1")]),
            (
                "",
                vec![
                    (protocol.clone(), "herald.v1"),
                    (protocol.clone(), "bearer.a.b.c"),
                ],
            ),
            ("", vec![(protocol, "\u{e9}, , bearer.a.b.c\t,")]),
            (
                "token=a.b.c",
                vec![
                    (AUTHORIZATION, "Bearer a.b.c"),
                    (AUTHORIZATION, "Basic eA=="),
                ],
            ),
        ] {
            assert_eq!(
                find(query, &headers),
                Ok("a.b.c".to_owned()),
                "{query} {headers:?}"
            );
        }
    }

    #[test]
    fn no_token_and_an_empty_one_are_missing() {
        for (query, headers) in [
            ("", vec![]),
            ("token", vec![]),
            ("token=&token=", vec![]),
            ("Token=a.b.c", vec![]),
            ("", vec![(AUTHORIZATION, "Bearer")]),
            ("", vec![(AUTHORIZATION, "Bearer ")]),
            ("", vec![(AUTHORIZATION, "Basic a.b.c")]),
            ("", vec![(AUTHORIZATION, "Bearerish a.b.c")]),
            ("", vec![(AUTHORIZATION, "a.b.c")]),
            ("", vec![(SEC_WEBSOCKET_PROTOCOL, "herald.v1, bearer.")]),
            ("", vec![(SEC_WEBSOCKET_PROTOCOL, "herald.v1, a.b.c")]),
        ] {
            assert_eq!(
                find(query, &headers),
                Err(AuthError::Missing),
                "{query} {headers:?}"
            );
        }
        assert_eq!(
            presented_token(None, &HeaderMap::new()),
            Err(AuthError::Missing)
        );
    }

    /// A proxy that reads one place and a gateway that reads another must not see two users.
    #[test]
    fn two_different_tokens_are_refused() {
        for (query, headers) in [
            ("token=a.b.c&token=a.b.d", vec![]),
            ("token=a.b.c", vec![(AUTHORIZATION, "Bearer a.b.d")]),
            (
                "token=a.b.c",
                vec![(SEC_WEBSOCKET_PROTOCOL, "bearer.a.b.d")],
            ),
            (
                "",
                vec![(SEC_WEBSOCKET_PROTOCOL, "bearer.a.b.c, bearer.a.b.d")],
            ),
            (
                "",
                vec![
                    (AUTHORIZATION, "Bearer a.b.c"),
                    (AUTHORIZATION, "Bearer a.b.d"),
                ],
            ),
            ("token=a.b.c", vec![(AUTHORIZATION, "Bearer \u{e9}")]),
            (
                "token=a.b.c",
                vec![(SEC_WEBSOCKET_PROTOCOL, "bearer.\u{e9}")],
            ),
        ] {
            let found = find(query, &headers);
            assert!(
                matches!(found, Err(AuthError::Invalid(_))),
                "{query} {headers:?}"
            );
        }
    }

    fn in_cookie(lines: &[&str]) -> Result<String, AuthError> {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        cookie_token(&map, "__Host-token").map(|token| token.0)
    }

    #[test]
    fn a_token_is_found_in_its_cookie() {
        for lines in [
            vec!["__Host-token=a.b.c"],
            vec!["a=b; __Host-token=a.b.c; c=d"],
            vec!["a=b;__Host-token=a.b.c;"],
            vec!["a=b", "__Host-token=a.b.c"],
            vec!["\t__Host-token = a.b.c \t; x"],
            vec!["__Host-token=\"a.b.c\""],
            vec!["__Host-token=a.b.c; __Host-token=a.b.c"],
            vec!["__Host-token=; __Host-token=a.b.c"],
            vec!["caf\u{e9}=\u{e9}; __Host-token=a.b.c"],
            vec![";;= ;=; __Host-token=a.b.c"],
        ] {
            assert_eq!(in_cookie(&lines), Ok("a.b.c".to_owned()), "{lines:?}");
        }
        assert_eq!(in_cookie(&["__Host-token=a=b="]), Ok("a=b=".to_owned()));
        assert_eq!(in_cookie(&["__Host-token=\""]), Ok("\"".to_owned()));
        for lines in [
            vec![],
            vec![""],
            vec!["__Host-token"],
            vec!["__Host-token="],
            vec!["__Host-token=\"\""],
            vec!["__host-token=a.b.c"],
            vec!["x__Host-token=a.b.c"],
            vec!["__Host-token2=a.b.c"],
            vec!["a=__Host-token=a.b.c"],
            vec!["a=b, __Host-token=a.b.c"],
        ] {
            assert_eq!(in_cookie(&lines), Err(AuthError::Missing), "{lines:?}");
        }
        for lines in [
            vec!["__Host-token=a.b.c; __Host-token=a.b.d"],
            vec!["__Host-token=a.b.c", "__Host-token=a.b.d"],
            vec!["__Host-token=a.b.c; __Host-token=\u{e9}"],
        ] {
            let found = in_cookie(&lines);
            assert!(matches!(found, Err(AuthError::Invalid(_))), "{lines:?}");
        }
    }

    #[test]
    fn a_presented_token_is_never_printed() {
        let token = PresentedToken("secretsecretsecret".to_owned());
        assert_eq!(format!("{token:?}"), "***");
    }
}
