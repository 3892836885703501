//! The WebSocket address that a command connects to: what the user gave, with the token and the workspace as the query
//! parameters of the contract. Pure, but for [`Target::trusted`], which reads certificates.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::tungstenite::http::Uri;

use super::{CliError, tls};
use crate::config::Secret;

const TOKEN: &str = "token";
const WORKSPACE: &str = "workspaceSlug";

/// An address without its token.
pub(super) struct Target {
    /// Scheme, authority and path.
    base: String,
    /// Parameters as given, still encoded, the token taken out.
    query: Vec<String>,
    token: Option<Secret>,
    /// Host and port, for people; without what may stand before an `@`.
    host: String,
    is_tls: bool,
}

/// The address cannot be used. The text contains no part of it, since a token may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address must be a URL such as ws://127.0.0.1:8080/ or wss://ws.example.com/")]
pub(super) struct TargetError;

impl From<TargetError> for CliError {
    fn from(error: TargetError) -> Self {
        Self::usage(error)
    }
}

impl Target {
    /// Reads `url`, and adds `workspace` unless the address names one already.
    ///
    /// # Errors
    /// [`TargetError`] where `url` is not a ws: or wss: URL (RFC 6455 section 3).
    pub(super) fn parse(url: &str, workspace: Option<&str>) -> Result<Self, TargetError> {
        // RFC 6455 section 3: a fragment is meaningless here.
        let url = url.trim().split('#').next().unwrap_or_default();
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let uri: Uri = base.parse().map_err(|_| TargetError)?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(TargetError),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or(TargetError)?;
        // The library takes a port over 65535 for none, and would connect to the default one.
        let has_port = uri
            .authority()
            .is_some_and(|authority| !authority.as_str().ends_with(host));
        if has_port && uri.port_u16().is_none() {
            return Err(TargetError);
        }
        let host = uri
            .port_u16()
            .map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let mut token = None;
        let mut has_workspace = false;
        let mut parameters = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let pair = form_urlencoded::parse(parameter.as_bytes()).next();
            match pair {
                Some((name, value)) if name == TOKEN => {
                    token = Some(value.into_owned()).filter(|token| !token.is_empty());
                }
                Some((name, _)) => {
                    has_workspace |= name == WORKSPACE;
                    parameters.push(parameter.to_owned());
                }
                None => {}
            }
        }
        if let Some(workspace) = workspace
            && !has_workspace
        {
            parameters.push(encoded(WORKSPACE, workspace));
        }
        let slash = if uri.path().starts_with('/') && base.ends_with(uri.path()) {
            ""
        } else {
            "/"
        };
        let target = Self {
            base: format!("{base}{slash}"),
            query: parameters,
            token: token.map(Secret::from),
            host,
            is_tls,
        };
        // With its parameters it must be a URL as well.
        target
            .url_with("x")
            .parse::<Uri>()
            .map(|_| target)
            .map_err(|_| TargetError)
    }

    /// The token in the address.
    pub(super) fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// What a wss: address is connected to with: the system's certificates are trusted, and those of the file `ca`.
    ///
    /// # Errors
    /// [`CliError::Usage`] where there is a `ca` and no TLS; as [`tls::client`].
    pub(super) async fn trusted(
        &self,
        ca: Option<PathBuf>,
    ) -> Result<Option<Arc<ClientConfig>>, CliError> {
        match (self.is_tls, ca) {
            (true, ca) => tls::client(ca).await.map(Some),
            (false, None) => Ok(None),
            (false, Some(_)) => Err(CliError::usage("--ca goes with a wss:// address")),
        }
    }

    /// The whole address. Not to be printed.
    pub(super) fn url_with(&self, token: &str) -> String {
        let mut parameters = vec![encoded(TOKEN, token)];
        parameters.extend(self.query.iter().cloned());
        format!("{}?{}", self.base, parameters.join("&"))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.host)
    }
}

fn encoded(name: &str, value: &str) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair(name, value)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_and_workspace_become_query_parameters() {
        for (url, workspace, expected) in [
            (
                "ws://h:8080",
                Some("acme"),
                "ws://h:8080/?token=T&workspaceSlug=acme",
            ),
            (
                "ws://h:8080/",
                Some("acme"),
                "ws://h:8080/?token=T&workspaceSlug=acme",
            ),
            (" wss://h/ ", None, "wss://h/?token=T"),
            ("wss://h/path#part", None, "wss://h/path?token=T"),
            (
                "ws://h?a=1&b",
                Some("x"),
                "ws://h/?token=T&a=1&b&workspaceSlug=x",
            ),
            (
                "ws://h/?workspaceSlug=a%62",
                Some("x"),
                "ws://h/?token=T&workspaceSlug=a%62",
            ),
            ("ws://h/?token=old&x=%26", None, "ws://h/?token=T&x=%26"),
            (
                "ws://h/?token=",
                Some("a b&c"),
                "ws://h/?token=T&workspaceSlug=a+b%26c",
            ),
            ("ws://[::1]:8080", None, "ws://[::1]:8080/?token=T"),
        ] {
            let target = Target::parse(url, workspace).unwrap();
            assert_eq!(target.url_with("T"), expected, "{url}");
        }
        let target = Target::parse("ws://h/", None).unwrap();
        assert_eq!(
            target.url_with("a+b/c=&d"),
            "ws://h/?token=a%2Bb%2Fc%3D%26d"
        );
    }

    #[test]
    fn a_token_in_the_address_is_taken_out_of_it() {
        let target = Target::parse("wss://u:p@h:1/?token=a%2Eb&x=1", None).unwrap();
        assert_eq!(target.token().unwrap().expose(), "a.b");
        assert_eq!(target.host(), "h:1");
        assert!(target.is_tls);
        assert_eq!(format!("{target:?}"), "Target(h:1)");
        assert!(
            Target::parse("ws://h/?token=", None)
                .unwrap()
                .token()
                .is_none()
        );
    }

    #[test]
    fn what_is_no_websocket_address_is_refused() {
        for url in [
            "",
            "h:8080",
            "/path",
            "http://h/",
            "https://h/",
            "ftp://h",
            "ws://",
            "ws:///path",
            "ws://h:99999/",
            "ws://a b/",
            "ws://h/?x=a b",
            "ws://h/?x=\n&y",
        ] {
            assert!(Target::parse(url, None).is_err(), "{url:?}");
        }
    }
}
