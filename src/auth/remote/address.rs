//! Where a key set is fetched from: an address that the settings name, or an OpenID provider that names it. Pure.

use std::fmt;

use reqwest::Url;

use crate::json::Value;

/// What is fetched. Two issuers with the same one share its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyAddress {
    /// The key set itself.
    Jwks(Url),
    /// The discovery document of `issuer`, which names the address of its key set.
    Discovery { issuer: String, document: Url },
}

/// Why nothing is fetched from an address. Completes a sentence that begins with the name of what has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::auth) enum AddressError {
    #[error("is not an address: write for example https://id.example.com/jwks.json")]
    NoUrl,
    #[error(
        "is not https: anybody on the way could replace the keys. http is taken for this host alone"
    )]
    NotHttps,
    #[error("has a user or a password, which no address of public keys needs")]
    Login,
    #[error("has a part behind `#`, which is never sent: leave it out")]
    Fragment,
}

/// Why a discovery document names no address to fetch keys from. Completes a sentence that begins with its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::auth) enum DiscoveryError {
    #[error("is no discovery document: a JSON object with `issuer` and `jwks_uri` is wanted")]
    NoDocument,
    #[error(
        "is the document of another issuer: its `issuer` must be that of the settings letter for letter, also a \
         slash at its end"
    )]
    OtherIssuer,
    #[error(
        "is the document of many tenants: set `issuer` to that of one tenant, with its id where the address has \
         `common` or `organizations`"
    )]
    ManyTenants,
    #[error("names a jwks_uri that {0}")]
    JwksUri(AddressError),
    #[error("names a jwks_uri on this host, but comes from another one")]
    ThisHost,
}

impl KeyAddress {
    /// The address of a key set.
    ///
    /// # Errors
    /// [`AddressError`].
    pub(super) fn jwks(url: &str) -> Result<Self, AddressError> {
        checked(url).map(Self::Jwks)
    }

    /// That of the discovery document of `issuer` (OpenID Connect Discovery 1.0 section 4).
    ///
    /// # Errors
    /// [`AddressError`] of the issuer.
    pub(super) fn discovery(issuer: &str) -> Result<Self, AddressError> {
        let base = checked(issuer)?;
        let path = base.path().trim_end_matches('/');
        let path = format!("{path}/.well-known/openid-configuration");
        let mut document = base.clone();
        document.set_path(&path);
        Ok(Self::Discovery {
            issuer: issuer.to_owned(),
            document,
        })
    }

    /// What is fetched first.
    pub(super) fn url(&self) -> &Url {
        match self {
            Self::Jwks(url) | Self::Discovery { document: url, .. } => url,
        }
    }
}

/// Without its query, which may have a secret.
impl fmt::Display for KeyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url();
        let origin = url.origin().ascii_serialization();
        write!(f, "{origin}{}", url.path())
    }
}

/// The address of the key set that the discovery document of `issuer` names. It may be on another host: that of Google is.
///
/// # Errors
/// [`DiscoveryError`].
pub(in crate::auth) fn jwks_uri(document: &[u8], issuer: &str) -> Result<Url, DiscoveryError> {
    let Ok(Value::Object(document)) = crate::json::parse(document) else {
        return Err(DiscoveryError::NoDocument);
    };
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let (Some(theirs), Some(jwks_uri)) = (text("issuer"), text("jwks_uri")) else {
        return Err(DiscoveryError::NoDocument);
    };
    // Section 4.3: they must be the same. Else one tenant's keys could pass for another's.
    if theirs != issuer {
        return Err(if theirs.contains('{') {
            DiscoveryError::ManyTenants
        } else {
            DiscoveryError::OtherIssuer
        });
    }
    let uri = checked(jwks_uri).map_err(DiscoveryError::JwksUri)?;
    // A provider must not have this host's own services answer for it.
    if is_this_host(&uri) && !checked(issuer).is_ok_and(|issuer| is_this_host(&issuer)) {
        return Err(DiscoveryError::ThisHost);
    }
    Ok(uri)
}

/// The address, if keys may be fetched from there.
fn checked(text: &str) -> Result<Url, AddressError> {
    let url = Url::parse(text).map_err(|_| AddressError::NoUrl)?;
    if !url.has_host() {
        return Err(AddressError::NoUrl);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(AddressError::Login);
    }
    if url.fragment().is_some() {
        return Err(AddressError::Fragment);
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_this_host(&url) => Ok(url),
        _ => Err(AddressError::NotHttps),
    }
}

/// Whether what is sent there does not leave this host.
pub(super) fn is_this_host(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    let ip = ip.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_by_https_or_from_this_host() {
        for (url, wanted) in [
            ("https://id.example.com/jwks.json?apikey=swordfish", Ok(())),
            ("http://127.0.0.1:8080/jwks", Ok(())),
            ("http://[::1]/jwks", Ok(())),
            ("http://localhost/jwks", Ok(())),
            ("http://id.example.com/jwks", Err(AddressError::NotHttps)),
            ("http://localhost.example.com/", Err(AddressError::NotHttps)),
            ("http://127.0.0.1.example.com/", Err(AddressError::NotHttps)),
            ("file:///etc/passwd", Err(AddressError::NoUrl)),
            ("ftp://id.example.com/", Err(AddressError::NotHttps)),
            ("id.example.com/jwks", Err(AddressError::NoUrl)),
            ("/etc/jwks.json", Err(AddressError::NoUrl)),
            ("", Err(AddressError::NoUrl)),
            ("https://", Err(AddressError::NoUrl)),
            (
                "https://ada:swordfish@id.example.com/",
                Err(AddressError::Login),
            ),
            ("https://id.example.com/#keys", Err(AddressError::Fragment)),
        ] {
            let address = KeyAddress::jwks(url);
            assert_eq!(address.clone().map(|_| ()), wanted, "{url}");
            if let Ok(address) = address {
                assert!(!address.to_string().contains("swordfish"), "{address}");
            }
        }
    }

    #[test]
    fn the_discovery_document_is_behind_the_issuer() {
        let known = "/.well-known/openid-configuration";
        for (issuer, document) in [
            ("https://id.example.com", "https://id.example.com"),
            // Auth0.
            ("https://acme.eu.auth0.com/", "https://acme.eu.auth0.com"),
            // Keycloak.
            (
                "https://id.example.com/realms/acme",
                "https://id.example.com/realms/acme",
            ),
        ] {
            let address = KeyAddress::discovery(issuer).unwrap();
            assert_eq!(
                address.to_string(),
                format!("{document}{known}"),
                "{issuer}"
            );
        }
    }

    #[test]
    fn a_discovery_document_is_taken_from_its_own_issuer_alone() {
        use DiscoveryError::*;
        let issuer = "https://id.example.com";
        let uri = |text: &str| format!(r#"{{"issuer":"{issuer}","jwks_uri":"{text}"}}"#);
        for (document, wanted) in [
            (
                uri("https://keys.example.org/jwks"),
                Ok("https://keys.example.org/jwks"),
            ),
            (
                uri("http://keys.example.org/jwks"),
                Err(JwksUri(AddressError::NotHttps)),
            ),
            (uri("jwks"), Err(JwksUri(AddressError::NoUrl))),
            (uri("http://127.0.0.1:8222/jwks"), Err(ThisHost)),
            (uri("https://localhost/jwks"), Err(ThisHost)),
            (
                format!(r#"{{"issuer":"{issuer}/","jwks_uri":"https://keys.example.org/jwks"}}"#),
                Err(OtherIssuer),
            ),
            (
                r#"{"issuer":"https://login.example.com/{tenantid}/v2.0","jwks_uri":"https://x/"}"#
                    .to_owned(),
                Err(ManyTenants),
            ),
            (format!(r#"{{"issuer":"{issuer}"}}"#), Err(NoDocument)),
            (
                r#"{"issuer":7,"jwks_uri":"https://x/"}"#.to_owned(),
                Err(NoDocument),
            ),
            ("[]".to_owned(), Err(NoDocument)),
            ("<html>".to_owned(), Err(NoDocument)),
            (String::new(), Err(NoDocument)),
        ] {
            let uri = jwks_uri(document.as_bytes(), issuer);
            let uri = uri.as_ref().map(Url::as_str).map_err(|error| *error);
            assert_eq!(uri, wanted, "{document}");
        }
    }
}
