//! Which requests are not looked at: with a token where it is logged, for no host or for two, of another site's page. Pure.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Version, header};

use super::problem::PublishProblem;
use super::request::malformed;
use crate::auth::has_token;
use crate::codes::ProblemType;
use crate::config::is_of_host;

/// Refuses what no right client sends, before anything else is looked at: a token in the URL, since logs and histories
/// keep URLs; and a request that is not for one host (RFC 9112, section 3.2).
///
/// # Errors
/// [`ProblemType::TokenInUrl`], [`ProblemType::Malformed`].
pub(super) fn check_head(parts: &Parts) -> Result<(), PublishProblem> {
    if has_token(&parts.uri, &parts.headers) {
        return Err(PublishProblem::new(
            ProblemType::TokenInUrl,
            "a token in a URL ends in logs: send it as Authorization: Bearer <token>, and replace this one",
        ));
    }
    let hosts = parts.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && parts.version >= Version::HTTP_11) {
        return Err(malformed("a request has one Host header"));
    }
    Ok(())
}

/// Refuses what another site's page sends.
///
/// # Errors
/// [`ProblemType::Origin`].
pub(super) fn check_origin(headers: &HeaderMap) -> Result<(), PublishProblem> {
    if is_of_another_page(headers) {
        return Err(PublishProblem::new(
            ProblemType::Origin,
            "another site's page cannot publish: send the event to your own server, which publishes it",
        ));
    }
    Ok(())
}

/// Whether a browser says that a page of another origin makes the request. A proxy may have changed the `Host`, but not
/// what the browser itself thinks of the two.
fn is_of_another_page(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let host = headers.get(header::HOST);
    let host = host.map_or(&b""[..], HeaderValue::as_bytes);
    let mut origins = headers.get_all(header::ORIGIN).iter();
    !origins.all(|origin| is_of_host(origin.as_bytes(), host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_for_one_host_and_of_no_other_page() {
        let host = ("host", "publish.example.com");
        for (all, wanted) in [
            (&[host][..], Ok(())),
            (&[host, ("origin", "https://Publish.example.com")], Ok(())),
            (&[host, ("sec-fetch-site", "same-origin")], Ok(())),
            // Behind a proxy that has another name for this host.
            (
                &[
                    host,
                    ("origin", "https://example.com"),
                    ("sec-fetch-site", "same-origin"),
                ],
                Ok(()),
            ),
            (&[], Err(ProblemType::Malformed)),
            (&[host, host], Err(ProblemType::Malformed)),
            (
                &[host, ("origin", "https://evil.example")],
                Err(ProblemType::Origin),
            ),
            (&[host, ("origin", "null")], Err(ProblemType::Origin)),
            (
                &[host, ("sec-fetch-site", "cross-site")],
                Err(ProblemType::Origin),
            ),
            (
                &[host, ("sec-fetch-site", "same-site")],
                Err(ProblemType::Origin),
            ),
        ] {
            let (mut parts, ()) = axum::http::Request::new(()).into_parts();
            for (name, value) in all {
                parts.headers.append(*name, HeaderValue::from_static(value));
            }
            let got = check_head(&parts).and_then(|()| check_origin(&parts.headers));
            let got = got.map_err(|problem| problem.problem);
            assert_eq!(got, wanted, "{all:?}");
        }
    }
}
