//! Who may ask anything of `/console`, and the headers of each answer.
//!
//! Pages of other sites run in the operator's browser, which reaches this listener even where they cannot. Three things
//! stop them. A name of theirs that leads here (DNS rebinding) is another `Host`. A request from their origin says so
//! in `Origin` and `Sec-Fetch-Site`. And no answer has a CORS header, so that a browser sends no request that needs
//! one.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use super::{Console, ConsoleProblem};
use crate::auth::has_token;
use crate::config::is_of_host;

/// What a request to `herald dev` has in place of a token. A page of another origin cannot send it.
const DEVELOPMENT: HeaderName = HeaderName::from_static("herald-console");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// What the page's host may be called.
#[derive(Debug)]
pub(in crate::ops) struct Hosts {
    /// The listener's.
    pub(in crate::ops) port: u16,
    /// `server.console_hosts`.
    pub(in crate::ops) named: Vec<String>,
}

impl Hosts {
    fn allow(&self, host: &str) -> bool {
        let port = match host.strip_prefix(without_port(host)) {
            Some("") | None => Some(80),
            Some(port) => port.trim_start_matches(':').parse().ok(),
        };
        let name = without_port(host);
        is_local(name) && port == Some(self.port)
            || self
                .named
                .iter()
                .any(|named| named.eq_ignore_ascii_case(host))
    }
}

/// Whether this is the machine itself. No other site's name is an address.
pub(super) fn is_local(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || address(name).is_some_and(|it| it.is_loopback())
}

/// The address that stands in place of a name.
pub(super) fn address(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
    }
}

/// The name of a `Host`, or its address.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// Lets nobody in but the page itself and programs that say no origin, and gives each answer its headers.
pub(super) async fn guard(
    State(console): State<Arc<Console>>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let sockets = match check(&console.hosts, &parts) {
        Ok(host) => console.sockets.origin(host),
        Err(problem) => {
            // Neither a host nor an origin is repeated: both may be anything.
            warn!(
                status = problem.status.as_u16(),
                reason = problem.kind,
                "console request refused"
            );
            return with_headers(problem.into_response(), "");
        }
    };
    let answer = next.run(Request::from_parts(parts, body)).await;
    with_headers(answer, &sockets)
}

/// Lets in who brings the admin token; in `herald dev`, who sends a header that other pages cannot.
pub(super) async fn authorize(
    State(console): State<Arc<Console>>,
    request: Request,
    next: Next,
) -> Response {
    if console.development.is_some() {
        return match request.headers().contains_key(DEVELOPMENT) {
            true => next.run(request).await,
            false => unauthorized("this needs the header Herald-Console: 1"),
        };
    }
    // The settings need a token where they have a console.
    match &console.live.now().admin_token {
        Some(token) if token.is_in(request.headers()) => {}
        _ => return unauthorized("this needs the token of server.admin_token_file"),
    }
    next.run(request).await
}

fn unauthorized(detail: &str) -> Response {
    let problem = ConsoleProblem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
    let realm = [(header::WWW_AUTHENTICATE, "Bearer realm=\"herald admin\"")];
    (realm, problem).into_response()
}

/// The host of a request that may be looked at.
///
/// # Errors
/// It has another host, is another page's, or has a token where it would be logged.
fn check<'a>(hosts: &Hosts, request: &'a Parts) -> Result<&'a str, ConsoleProblem> {
    let host = host(request).filter(|host| hosts.allow(host)).ok_or_else(|| {
        ConsoleProblem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "host",
            format!(
                "this name is not this gateway's: use localhost or 127.0.0.1 with the port {}, or name it in server.console_hosts",
                hosts.port
            ),
        )
    })?;
    if is_of_another_page(request, host) {
        let detail = "another site's page cannot use the console";
        return Err(ConsoleProblem::new(StatusCode::FORBIDDEN, "origin", detail));
    }
    if has_token(&request.uri, &request.headers) {
        let detail = "a token belongs in the header Authorization, never in the URL";
        return Err(ConsoleProblem::new(
            StatusCode::BAD_REQUEST,
            "token-in-url",
            detail,
        ));
    }
    Ok(host)
}

/// The one host that a request names. A target with a host of its own must name the same.
fn host(request: &Parts) -> Option<&str> {
    let host = only(&request.headers, &header::HOST)?;
    let authority = request.uri.authority();
    authority
        .is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(host))
        .then_some(host)
}

/// Whether a browser says that a page of another origin makes the request. To follow a link to the page is no such
/// request: it is opened for itself, and shows nobody anything.
fn is_of_another_page(request: &Parts, host: &str) -> bool {
    let headers = &request.headers;
    let mut origins = headers.get_all(header::ORIGIN).iter();
    if !origins.all(|origin| is_of_host(origin.as_bytes(), host.as_bytes())) {
        return true;
    }
    let is_followed = request.method == Method::GET
        && request.uri.path() == "/console"
        && only(headers, &FETCH_MODE) == Some("navigate");
    let sites = headers.get_all(FETCH_SITE);
    let mut sites = sites.iter().map(HeaderValue::as_bytes);
    !is_followed && !sites.all(|site| matches!(site, b"same-origin" | b"none"))
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The page runs its own script and no other, and connects to this listener and the sockets alone.
fn with_headers(mut response: Response, sockets: &str) -> Response {
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {sockets}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'"
    );
    // What is in it was checked.
    let policy =
        HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = axum::http::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let hosts = Hosts {
            port: 9090,
            named: vec!["console.example.com".to_owned()],
        };
        check(&hosts, &parts).map_or_else(|problem| problem.status.as_u16(), |_| 200)
    }

    #[test]
    fn only_this_gateways_own_names_are_answered() {
        for host in [
            "localhost:9090",
            "LOCALHOST:9090",
            "127.0.0.1:9090",
            "[::1]:9090",
            "127.0.0.2:9090",
            "console.example.com",
            "Console.Example.com",
        ] {
            assert_eq!(status("/console", &[("host", host)]), 200, "{host}");
        }
        for host in [
            "localhost",
            "localhost:80",
            "localhost:8080",
            "127.0.0.1",
            "10.0.0.1:9090",
            "127.0.0.1.evil.example:9090",
            "127.1:9090",
            "0x7f000001:9090",
            "evil.example:9090",
            "localhost.evil.example:9090",
            "localhost:9090.evil.example",
            "evil@localhost:9090",
            "console.example.com:9090",
            "console.example.com.",
            "x.console.example.com",
            "::1:9090",
            "",
        ] {
            assert_eq!(status("/console", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(status("/console", &[]), 421);
        let twice = [("host", "localhost:9090"), ("host", "localhost:9090")];
        assert_eq!(status("/console", &twice), 421);
        let local = [("host", "localhost:9090")];
        assert_eq!(status("http://evil.example/console", &local), 421);
        assert_eq!(status("http://localhost:9090/console", &local), 200);
    }

    #[test]
    fn another_sites_page_is_refused_and_a_link_to_the_page_is_followed() {
        let with = |path: &str, more: &[(&str, &str)]| {
            status(path, &[&[("host", "localhost:9090")], more].concat())
        };
        let api = "/console/api/about";
        for good in [
            &[("origin", "http://localhost:9090")] as &[_],
            &[("origin", "https://localhost:9090")],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[],
        ] {
            assert_eq!(with(api, good), 200, "{good:?}");
        }
        for bad in [
            &[("origin", "http://evil.example")] as &[_],
            &[("origin", "http://localhost:3000")],
            &[("origin", "http://127.0.0.1:9090")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "localhost:9090")],
            &[("origin", "http://localhost:9090/")],
            &[
                ("origin", "http://localhost:9090"),
                ("origin", "http://evil.example"),
            ],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "")],
            &[
                ("origin", "http://localhost:9090"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
            ],
        ] {
            assert_eq!(with(api, bad), 403, "{bad:?}");
        }
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
        ];
        assert_eq!(with("/console", &link), 200);
        let embedded = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "no-cors"),
        ];
        assert_eq!(with("/console", &embedded), 403);
        let with_origin = [link.as_slice(), &[("origin", "http://evil.example")]].concat();
        assert_eq!(with("/console", &with_origin), 403);
    }

    #[test]
    fn a_token_in_the_url_is_refused_whatever_else_is_there() {
        let host = ("host", "localhost:9090");
        for query in [
            "token=x",
            "a=b&token=",
            "access_token=x",
            "TOKEN=x",
            "%74oken=x",
        ] {
            let target = format!("/console/api/about?{query}");
            let headers = [host, ("authorization", "Bearer good")];
            assert_eq!(status(&target, &headers), 400, "{query}");
        }
        assert_eq!(status("/console/api/about?user=token", &[host]), 200);
    }
}
