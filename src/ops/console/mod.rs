//! `/console`: a page in the browser that shows notifications, publishes events and says how the gateway is.
//!
//! The page itself holds no secret, and whoever may reach the listener gets it. All that it reads and does goes by
//! [`api`], which needs the admin token ([`guard`]), or in `herald dev` a header that no other page can send.
//! The script and the styles in `page/` are made from `sdk/js/console` by `npm run console`.

mod api;
mod guard;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

pub(super) use self::guard::Hosts;
use super::health::Health;
use crate::codes::ProblemDetails;
use crate::event::WorkspaceSlug;
use crate::server::Acceptor;
use crate::setup::LiveSettings;

/// What the page's server knows. One for the process.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) hosts: Hosts,
    pub(super) sockets: SocketUrl,
    /// The routes of HTTP publishing, where it is on.
    pub(super) publishing: Option<Router>,
    /// In `herald dev` alone.
    pub(super) development: Option<Development>,
    pub(super) live: LiveSettings,
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) health: Arc<Health>,
    pub(super) gateway: Arc<str>,
}

/// What the page gets from `herald dev`, so that nobody has to paste a token.
pub struct Development {
    pub user: String,
    pub workspace: String,
    /// For the page's events.
    pub publish_token: String,
    pub sign: Box<SignToken>,
}

/// From a user's name and a workspace to a token of that user for it.
pub type SignToken = dyn Fn(&str, &WorkspaceSlug) -> Option<String> + Send + Sync;

impl fmt::Debug for Development {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Development")
            .field("user", &self.user)
            .field("workspace", &self.workspace)
            .finish_non_exhaustive()
    }
}

/// Where browsers find the sockets.
#[derive(Debug)]
pub(super) enum SocketUrl {
    Configured(String),
    /// At the host of the page: the rest of the URL.
    SameHost {
        is_tls: bool,
        /// Where the listener is.
        address: SocketAddr,
        path: String,
    },
}

impl SocketUrl {
    /// For a page at `host`, which may have a port.
    fn at(&self, host: &str) -> String {
        match self {
            Self::Configured(url) => url.clone(),
            Self::SameHost {
                is_tls,
                address,
                path,
            } => {
                let scheme = if *is_tls { "wss" } else { "ws" };
                let (name, port) = (socket_host(host, address.ip()), address.port());
                format!("{scheme}://{name}:{port}{path}")
            }
        }
    }

    /// The origin of that URL, as a content security policy has it.
    fn origin(&self, host: &str) -> String {
        let mut url = self.at(host);
        let path = url.find("://").and_then(|scheme| {
            let rest = url.get(scheme + 3..)?;
            Some(scheme + 3 + rest.find('/')?)
        });
        url.truncate(path.unwrap_or(url.len()));
        url
    }
}

/// The name under which a page at `host` finds a listener that is bound to `bound`. A page that is reached by a name has
/// that name: a certificate may be for it. No content security policy can name an address of IPv6.
fn socket_host(host: &str, bound: IpAddr) -> String {
    let name = guard::without_port(host);
    let address = guard::address(name);
    let is_name = address.is_none() && !guard::is_local(name);
    let at = match bound.is_unspecified() {
        true => address,
        false => Some(bound).filter(|_| !is_name),
    };
    match at {
        None => name.to_owned(),
        Some(IpAddr::V6(at)) if at.is_loopback() => "localhost".to_owned(),
        Some(IpAddr::V6(at)) => format!("[{at}]"),
        Some(IpAddr::V4(at)) => at.to_string(),
    }
}

/// The files of the page, with their paths and types.
const FILES: [(&str, &str, &str); 4] = [
    (
        "/console",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "/console/app.js",
        "text/javascript; charset=utf-8",
        include_str!("page/app.js"),
    ),
    (
        "/console/style.css",
        "text/css; charset=utf-8",
        include_str!("page/style.css"),
    ),
    (
        "/console/icon.svg",
        "image/svg+xml",
        include_str!("page/icon.svg"),
    ),
];

/// All routes under `/console`. `shared` are routes of the admin listener's that the page reads, too.
pub(super) fn router(console: Console, shared: Router) -> Router {
    let console = Arc::new(console);
    let publishing = console.publishing.clone();
    let guarded = from_fn_with_state(Arc::clone(&console), guard::guard);
    let publishing = publishing.map_or_else(Router::new, |routes| {
        Router::new().nest("/console/publish", routes.layer(guarded.clone()))
    });
    let authorized = from_fn_with_state(Arc::clone(&console), guard::authorize);
    let api = api::router(&console).merge(shared).layer(authorized);
    let mut router =
        Router::new().route("/console/", get(async || Redirect::permanent("/console")));
    for (path, content_type, text) in FILES {
        let answer = ([(header::CONTENT_TYPE, content_type)], text);
        router = router.route(path, get(move || async move { answer }));
    }
    router
        .nest("/console/api", api)
        // Of these routes alone: the rest of the admin listener answers under any name.
        .route_layer(guarded)
        // It has its own tokens.
        .merge(publishing)
}

/// Why a request of the page is not fulfilled, in the form of RFC 9457.
#[derive(Debug, PartialEq, Eq)]
struct ConsoleProblem {
    status: StatusCode,
    /// The last word of the problem's type.
    kind: &'static str,
    detail: String,
}

impl ConsoleProblem {
    fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            status,
            kind,
            detail,
        }
    }
}

impl IntoResponse for ConsoleProblem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or_default();
        let (status, no_more) = (self.status.as_u16(), ());
        ProblemDetails::new(self.kind, title, status, &self.detail, no_more).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_at_the_host_of_the_page_or_where_the_settings_say() {
        let bound = |address: &str, is_tls| SocketUrl::SameHost {
            is_tls,
            address: address.parse().unwrap(),
            path: "/live".to_owned(),
        };
        let at = |is_tls| bound("0.0.0.0:8080", is_tls);
        let configured = || SocketUrl::Configured("wss://ws.example.com/live".to_owned());
        for (sockets, host, url, origin) in [
            (
                at(false),
                "127.0.0.1:9090",
                "ws://127.0.0.1:8080/live",
                "ws://127.0.0.1:8080",
            ),
            (
                at(true),
                "localhost:9090",
                "wss://localhost:8080/live",
                "wss://localhost:8080",
            ),
            (
                at(false),
                "[::1]:9090",
                "ws://localhost:8080/live",
                "ws://localhost:8080",
            ),
            (
                bound("[::1]:8080", false),
                "[::1]:9090",
                "ws://localhost:8080/live",
                "ws://localhost:8080",
            ),
            (
                bound("127.0.0.2:8080", false),
                "localhost:9090",
                "ws://127.0.0.2:8080/live",
                "ws://127.0.0.2:8080",
            ),
            (
                bound("10.0.0.7:8080", true),
                "console.example.com",
                "wss://console.example.com:8080/live",
                "wss://console.example.com:8080",
            ),
            (
                at(true),
                "example.com",
                "wss://example.com:8080/live",
                "wss://example.com:8080",
            ),
            (
                configured(),
                "localhost:9090",
                "wss://ws.example.com/live",
                "wss://ws.example.com",
            ),
        ] {
            assert_eq!(
                (sockets.at(host).as_str(), sockets.origin(host).as_str()),
                (url, origin)
            );
        }
    }
}
