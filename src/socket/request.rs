//! What a WebSocket request carries beside its token: workspace, subprotocol, origin. Pure.

use axum::http::{HeaderMap, Uri, header};

use super::CloseReason;
use crate::event::WorkspaceSlug;

/// The subprotocol of Herald's notifications.
pub(super) const SUBPROTOCOL: &str = "herald.v1";
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

/// Whether the client offers Herald's subprotocol, which is then the one to accept.
pub(super) fn offers_subprotocol(headers: &HeaderMap) -> bool {
    subprotocols(headers).any(|name| name == SUBPROTOCOL)
}

/// Whether a page of this request's origin may connect. Only browsers send an origin.
pub(super) fn origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    match headers.get(header::ORIGIN) {
        Some(origin) if !allowed.is_empty() => allowed
            .iter()
            .any(|known| origin.as_bytes().eq_ignore_ascii_case(known.as_bytes())),
        Some(_) | None => true,
    }
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
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
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn the_subprotocol_is_found_among_others() {
        let name = header::SEC_WEBSOCKET_PROTOCOL;
        assert!(offers_subprotocol(&headers(&[(
            name.clone(),
            "bearer.a.b.c, herald.v1"
        )])));
        assert!(!offers_subprotocol(&headers(&[(name, "bearer.herald.v1")])));
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
        for query in ["", "workspaceSlug=", "workspaceSlug", "workspace=acme"] {
            assert_eq!(
                workspace(&uri(query)),
                Err(CloseReason::NoWorkspace),
                "{query}"
            );
        }
        let long = format!("workspaceSlug={}", "a".repeat(64));
        for query in [
            "workspaceSlug=*",
            "workspaceSlug=%3E",
            "workspaceSlug=a.b",
            "workspaceSlug=..%2Fx",
            "workspaceSlug=Acme",
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
    }
}
