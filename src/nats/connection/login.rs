//! Who we are, as a NATS server asks for it: a user in the URL, a credentials file, a token, an nkey, a
//! certificate. The one place that reads them, for the gateway and every command.

use std::io;
use std::path::{Path, PathBuf};

use async_nats::{ConnectOptions, ServerAddr};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::connect_error::ConnectError;
use crate::config::{self, NatsConfig};

/// `options` with the way in of `config`, and the servers to go to.
///
/// # Errors
/// [`ConnectError`] where a file cannot be read or is not what it has to be.
pub(super) async fn add(
    mut options: ConnectOptions,
    config: &NatsConfig,
) -> Result<(ConnectOptions, Vec<ServerAddr>), ConnectError> {
    if let Some(path) = &config.ca_file {
        // The client reads it anew for each connection, too.
        let pem = read_pem("nats.ca_file", path).await?;
        certificates("nats.ca_file", path, &pem)?;
        options = options.add_root_certificates(path.clone());
    }
    if let (Some(cert), Some(key)) = (&config.client_cert, &config.client_key) {
        // The client reads them anew for each connection, and would go on trying with what is no certificate.
        check_certificate(cert, key).await?;
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    if let Some(path) = &config.credentials_file {
        let setting = "nats.credentials_file";
        let text = read(setting, path).await?;
        options = options.credentials(&text).map_err(|_| {
            // The client's own words do not say what was looked for.
            let text = "it is not a NATS credentials file, which has a user's JWT and seed";
            unreadable(setting, path, invalid(text))
        })?;
    }
    if let Some(path) = &config.token_file {
        options = options.token(token_of(path, &read("nats.token_file", path).await?)?);
    }
    if let Some(path) = &config.nkey_file {
        options = options.nkey(seed_of(path, &read("nats.nkey_file", path).await?)?);
    }
    let (servers, login) = servers(config)?;
    if let Some(Login { user, password }) = login {
        let other = [
            ("nats.token_file", &config.token_file),
            ("nats.nkey_file", &config.nkey_file),
        ];
        if let Some((setting, _)) = other.into_iter().find(|(_, file)| file.is_some()) {
            return Err(ConnectError::TwoWays(setting));
        }
        options = match password {
            Some(password) => options.user_and_password(user, password),
            // As other clients of NATS take it.
            None => options.token(user),
        };
    }
    Ok((options, servers))
}

/// The text of the file that `setting` names, without the mark that some editors put before it.
async fn read(setting: &'static str, path: &Path) -> Result<String, ConnectError> {
    let text = read_whole(setting, path).await?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// The same of a PEM file, which async-nats reads by itself: it would not see the line that has the mark, and
/// say no more than "IO error".
async fn read_pem(setting: &'static str, path: &Path) -> Result<String, ConnectError> {
    let text = read_whole(setting, path).await?;
    if text.starts_with("\u{feff}-----BEGIN ") {
        let problem = "it begins with a byte order mark: save it as UTF-8 without one";
        return Err(unreadable(setting, path, invalid(problem)));
    }
    Ok(text)
}

async fn read_whole(setting: &'static str, path: &Path) -> Result<String, ConnectError> {
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || config::text(config::read_bounded(&file))).await;
    read.map_err(io::Error::from)
        .and_then(|text| text)
        .map_err(|source| unreadable(setting, path, source))
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn unreadable(setting: &'static str, path: &Path, source: io::Error) -> ConnectError {
    ConnectError::File {
        setting,
        path: path.display().to_string(),
        source,
    }
}

/// Whether these are a certificate chain and its key.
async fn check_certificate(cert: &Path, key: &Path) -> Result<(), ConnectError> {
    let (cert_setting, key_setting) = ("nats.client_cert", "nats.client_key");
    let pem = read_pem(cert_setting, cert).await?;
    let chain = certificates(cert_setting, cert, &pem)?;
    let pem = read_pem(key_setting, key).await?;
    let private_key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| invalid("it holds no PEM private key"))
        .map_err(|error| unreadable(key_setting, key, error))?;
    CertifiedKey::from_der(chain, private_key, &aws_lc_rs::default_provider())
        .map(drop)
        .map_err(|error| invalid(format!("it is not the key of nats.client_cert: {error}")))
        .map_err(|error| unreadable(key_setting, key, error))
}

/// The certificates in `pem`, which are one or more.
fn certificates(
    setting: &'static str,
    path: &Path,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let problem = match read {
        Ok(certificates) if certificates.is_empty() => "it holds no PEM certificate",
        Ok(certificates) => return Ok(certificates),
        Err(_) => "its PEM is damaged",
    };
    Err(unreadable(setting, path, invalid(problem)))
}

/// What to look at where the server refuses who we are.
pub(super) fn ways(config: &NatsConfig) -> String {
    let shown = |setting: &str, path: &Option<PathBuf>| {
        let path = path.as_ref()?;
        Some(format!("{setting} {}", path.display()))
    };
    let has_user = servers(config).is_ok_and(|(_, login)| login.is_some());
    let ways: Vec<String> = [
        has_user.then(|| "the user and password in nats.url".to_owned()),
        shown("nats.credentials_file", &config.credentials_file),
        shown("nats.token_file", &config.token_file),
        shown("nats.nkey_file", &config.nkey_file),
        shown("nats.client_cert", &config.client_cert),
    ]
    .into_iter()
    .flatten()
    .collect();
    match ways.as_slice() {
        [] => "It requires a login, and none is set: set a user in nats.url, or nats.credentials_file, \
            nats.token_file, nats.nkey_file or nats.client_cert"
            .to_owned(),
        ways => format!("Check {}", ways.join(" and ")),
    }
}

/// A token is one line; white space around it is none of it.
fn token_of(path: &Path, text: &str) -> Result<String, ConnectError> {
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_control) {
        let problem = invalid("a token is one line of text");
        return Err(unreadable("nats.token_file", path, problem));
    }
    Ok(token.to_owned())
}

/// The seed in a file of `nk` or `nsc`, which may write lines around it.
fn seed_of(path: &Path, text: &str) -> Result<String, ConnectError> {
    let seed = text
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("SU"));
    let is_seed = seed.is_some_and(|seed| nkeys::KeyPair::from_seed(seed).is_ok());
    match seed.filter(|_| is_seed) {
        Some(seed) => Ok(seed.to_owned()),
        None => {
            let text = "it has no line with a user's seed, which begins with SU";
            let problem = invalid(text);
            Err(unreadable("nats.nkey_file", path, problem))
        }
    }
}

/// A user and password taken out of `nats.url`.
#[derive(PartialEq, Eq)]
struct Login {
    user: String,
    /// Without one, the user is a token.
    password: Option<String>,
}

/// The servers of `nats.url` without what may be secret in them, and the user and password they
/// name. async-nats 0.51 does not look at a URL's user and password, and prints URLs in its log.
///
/// # Errors
/// [`ConnectError::Url`], [`ConnectError::Logins`].
fn servers(config: &NatsConfig) -> Result<(Vec<ServerAddr>, Option<Login>), ConnectError> {
    let mut servers = Vec::new();
    let mut login: Option<Login> = None;
    for text in config.urls() {
        let address: ServerAddr = text.parse().map_err(|_| ConnectError::Url)?;
        if let Some(user) = address.username() {
            let found = Login {
                user: decoded(user)?,
                password: address.password().map(decoded).transpose()?,
            };
            if login.as_ref().is_some_and(|login| *login != found) {
                return Err(ConnectError::Logins);
            }
            login = Some(found);
        }
        // The client would take ws:// for a plain connection.
        if address.is_websocket() {
            return Err(ConnectError::Url);
        }
        let mut url = address.into_inner();
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        cleared.map_err(|()| ConnectError::Url)?;
        servers.push(ServerAddr::from_url(url).map_err(|_| ConnectError::Url)?);
    }
    Ok((servers, login))
}

fn decoded(text: &str) -> Result<String, ConnectError> {
    let text = percent_encoding::percent_decode_str(text).decode_utf8();
    text.map(Into::into).map_err(|_| ConnectError::Url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn read(url: &str) -> Result<(Vec<ServerAddr>, Option<Login>), ConnectError> {
        servers(&NatsConfig {
            url: Secret::from(url),
            ..NatsConfig::default()
        })
    }

    #[test]
    fn user_and_password_leave_the_url() {
        let (servers, login) =
            read("nats://u:p%40s@one:4222, nats://u:p%40s@two, three:1").unwrap();
        let login = login.unwrap();
        assert_eq!(
            (login.user.as_str(), login.password.as_deref()),
            ("u", Some("p@s"))
        );
        let token = read("nats://to%2Fken@one").unwrap().1.unwrap();
        assert_eq!((token.user.as_str(), token.password), ("to/ken", None));
        let shown = format!("{servers:?}");
        assert!(
            !shown.contains("p@s") && !shown.contains("p%40s") && shown.contains("one"),
            "{shown}"
        );
        assert_eq!(servers.len(), 3);
        assert!(read("nats://one").unwrap().1.is_none());
    }

    /// async-nats reads these files again, and would see no certificate in them.
    #[tokio::test]
    async fn a_byte_order_mark_before_pem_is_told_with_its_setting() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys");
        let file = |name: &str, mark: &str| {
            let path = folder.path().join(name);
            let pem = std::fs::read_to_string(keys.join(name)).unwrap();
            std::fs::write(&path, format!("{mark}{pem}")).unwrap();
            Some(path)
        };
        let (cert, key) = ("p256.certificate.pem", "p256.private.pem");
        for (marked, wanted) in [
            ("nats.ca_file", true),
            ("nats.client_cert", true),
            ("nats.client_key", true),
            ("none", false),
        ] {
            let mark = |setting: &str| if setting == marked { "\u{feff}" } else { "" };
            let ca_file = file(cert, mark("nats.ca_file"));
            let ca = ca_file.unwrap().with_extension("ca");
            std::fs::rename(folder.path().join(cert), &ca).unwrap();
            let config = NatsConfig {
                ca_file: Some(ca),
                client_cert: file(cert, mark("nats.client_cert")),
                client_key: file(key, mark("nats.client_key")),
                ..NatsConfig::default()
            };
            let told = add(ConnectOptions::new(), &config).await.err();
            let told = told.map(|error| error.to_string()).unwrap_or_default();
            let says = told.contains(marked) && told.contains("save it as UTF-8 without one");
            assert_eq!(says, wanted, "{marked}: {told}");
        }
    }

    #[test]
    fn different_users_in_one_setting_are_refused() {
        assert!(matches!(
            read("nats://u:p@one,nats://v:p@two"),
            Err(ConnectError::Logins)
        ));
    }
}
