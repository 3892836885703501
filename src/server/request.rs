//! What a WebSocket request carries: token, workspace, subprotocol, origin. Pure.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};

use super::refusal::Refusal;
use crate::auth::{AuthError, PresentedToken, cookie_token, offered_subprotocols, presented_token};
use crate::codes::{CloseReason, HttpRefusal};
use crate::config::allows;
use crate::event::WorkspaceSlug;

/// What a client may offer beside its token, and gets selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subprotocol {
    /// Notifications and nothing else, as without a subprotocol.
    V1,
    /// Control messages, too.
    V2,
}

impl Subprotocol {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V1 => "herald.v1",
            Self::V2 => "herald.v2",
        }
    }
}

/// The token of a request. The cookie of that name counts only where it is given in no other place.
///
/// # Errors
/// None, two different ones, or one in a cookie without an `Origin`: a browser sends its cookies with every
/// page's connection, and only the origin says whose page it is.
pub(super) fn token(request: &Parts, cookie: Option<&str>) -> Result<PresentedToken, Refusal> {
    let given = presented_token(request.uri.query(), &request.headers);
    let (Err(AuthError::Missing), Some(name)) = (&given, cookie) else {
        return Ok(given?);
    };
    let in_cookie = cookie_token(&request.headers, name);
    let has_cookie = !matches!(in_cookie, Err(AuthError::Missing));
    if has_cookie && !request.headers.contains_key(header::ORIGIN) {
        return Err(HttpRefusal::NoOrigin.into());
    }
    Ok(in_cookie?)
}

/// The workspace of a request.
///
/// # Errors
/// None, one that is no slug, or more than one.
pub(super) fn workspace(uri: &Uri) -> Result<WorkspaceSlug, CloseReason> {
    let mut slugs = values(uri, "workspaceSlug");
    let slug = slugs.next().ok_or(CloseReason::NoWorkspace)?;
    if slugs.next().is_some() {
        return Err(CloseReason::BadWorkspace);
    }
    if slug.is_empty() {
        return Err(CloseReason::NoWorkspace);
    }
    WorkspaceSlug::parse(&slug).map_err(|_| CloseReason::BadWorkspace)
}

/// What comes of the subprotocols that a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubprotocolOffer {
    /// It offers none, and expects none.
    Nothing,
    /// It offers one of ours, which is then the one to select.
    Ours(Subprotocol),
    /// It offers others only. A browser fails the connection if none of its offers is selected, and
    /// must if another one is (RFC 6455 section 4.1).
    Others,
}

/// Which of them a request has. Names are compared as they are: a client compares the answer so, too. The
/// newest wins, in whatever order they stand: who offers it understands it.
pub(super) fn offer(headers: &HeaderMap) -> SubprotocolOffer {
    let mut offer = SubprotocolOffer::Nothing;
    for offered in offered_subprotocols(headers) {
        let is = |ours: Subprotocol| offered == ours.name().as_bytes();
        offer = match offer {
            SubprotocolOffer::Ours(Subprotocol::V2) => break,
            _ if is(Subprotocol::V2) => SubprotocolOffer::Ours(Subprotocol::V2),
            SubprotocolOffer::Ours(Subprotocol::V1) => offer,
            _ if is(Subprotocol::V1) => SubprotocolOffer::Ours(Subprotocol::V1),
            SubprotocolOffer::Nothing | SubprotocolOffer::Others => SubprotocolOffer::Others,
        };
    }
    offer
}

/// Whether a page of this request's origin may connect. Only browsers send an origin.
pub(super) fn origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    // A browser sends one. Of several, none is another's to hide behind.
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let is_known = |origin: &[u8]| allowed.iter().any(|known| allows(known, origin));
    allowed.is_empty() || origins.all(|origin| is_known(origin.as_bytes()))
}

/// All values of a query parameter, percent-decoded once.
fn values<'a>(uri: &'a Uri, name: &'a str) -> impl Iterator<Item = String> + 'a {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .filter(move |(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn uri(query: &str) -> Uri {
        format!("/?{query}").parse().unwrap()
    }

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    #[test]
    fn our_subprotocol_is_selected_wherever_it_stands_and_nothing_else_can_be() {
        for (lines, expected) in [
            (vec![], SubprotocolOffer::Nothing),
            (vec![""], SubprotocolOffer::Nothing),
            (vec![" , ", ""], SubprotocolOffer::Nothing),
            (vec!["herald.v1"], SubprotocolOffer::Ours(Subprotocol::V1)),
            (
                vec!["bearer.a.b.c, herald.v1"],
                SubprotocolOffer::Ours(Subprotocol::V1),
            ),
            (
                vec!["bearer.a.b.c,herald.v1"],
                SubprotocolOffer::Ours(Subprotocol::V1),
            ),
            (
                vec![",\therald.v1\t, ,graphql-ws"],
                SubprotocolOffer::Ours(Subprotocol::V1),
            ),
            (
                vec!["bearer.a.b.c", "herald.v1"],
                SubprotocolOffer::Ours(Subprotocol::V1),
            ),
            (
                vec!["herald.v1, herald.v1"],
                SubprotocolOffer::Ours(Subprotocol::V1),
            ),
            (
                vec!["\u{e9}, herald.v1"],
                SubprotocolOffer::Ours(Subprotocol::V1),
            ),
            (vec!["bearer.a.b.c"], SubprotocolOffer::Others),
            (
                vec!["bearer.a.b.c, herald.v2"],
                SubprotocolOffer::Ours(Subprotocol::V2),
            ),
            (
                vec!["herald.v1, herald.v2"],
                SubprotocolOffer::Ours(Subprotocol::V2),
            ),
            (
                vec!["herald.v2", "x", "herald.v1"],
                SubprotocolOffer::Ours(Subprotocol::V2),
            ),
            (vec!["herald.v3"], SubprotocolOffer::Others),
            (vec!["bearer.herald.v1"], SubprotocolOffer::Others),
            (vec!["graphql-ws", "bearer.a.b.c"], SubprotocolOffer::Others),
            (vec!["Herald.v1"], SubprotocolOffer::Others),
            (vec!["herald.v1 bearer.a.b.c"], SubprotocolOffer::Others),
            (vec!["herald.v1;q=1"], SubprotocolOffer::Others),
            (vec!["\"herald.v1\""], SubprotocolOffer::Others),
            (vec!["\u{e9}"], SubprotocolOffer::Others),
        ] {
            let name = header::SEC_WEBSOCKET_PROTOCOL;
            let pairs = lines.iter().map(|line| (name.clone(), *line));
            let pairs: Vec<_> = pairs.collect();
            assert_eq!(offer(&headers(&pairs)), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_workspace_is_one_slug() {
        assert_eq!(
            workspace(&uri("workspaceSlug=acme")).unwrap().as_str(),
            "acme"
        );
        assert_eq!(
            workspace(&uri("workspaceSlug=%61cme")).unwrap().as_str(),
            "acme"
        );
        assert_eq!(
            workspace(&uri("workspaceSlug=user_2NNEqL2"))
                .unwrap()
                .as_str(),
            "user_2NNEqL2"
        );
        for query in ["", "workspaceSlug=", "workspaceSlug", "workspace=acme"] {
            assert_eq!(
                workspace(&uri(query)),
                Err(CloseReason::NoWorkspace),
                "{query}"
            );
        }
        let long = format!("workspaceSlug={}", "a".repeat(65));
        for query in [
            "workspaceSlug=*",
            "workspaceSlug=%3E",
            "workspaceSlug=a.b",
            "workspaceSlug=..%2Fx",
            "workspaceSlug=_acme",
            "workspaceSlug=acme%00",
            "workspaceSlug=acme%20",
            "workspaceSlug=acme+",
            "workspaceSlug=%FF",
            "workspaceSlug=%2561cme",
            "workspaceSlug=acme&workspaceSlug=acme",
            "workspaceSlug=acme&workspaceSlug=globex",
            &long,
        ] {
            assert_eq!(
                workspace(&uri(query)),
                Err(CloseReason::BadWorkspace),
                "{query}"
            );
        }
    }

    #[test]
    fn origins_are_compared_whole_and_only_where_they_are_configured() {
        let page = headers(&[(header::ORIGIN, "https://app.example.com")]);
        let allowed = ["https://app.example.com".to_owned()];
        let other = ["https://example.com".to_owned()];
        assert!(origin_allowed(&page, &[]));
        assert!(origin_allowed(&page, &allowed));
        assert!(!origin_allowed(&page, &other));
        assert!(origin_allowed(&HeaderMap::new(), &other));
        let two = headers(&[
            (header::ORIGIN, "https://app.example.com"),
            (header::ORIGIN, "https://evil.example"),
        ]);
        assert!(!origin_allowed(&two, &allowed));
    }
}
