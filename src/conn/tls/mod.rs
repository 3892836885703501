//! TLS for the public listener: a certificate and its key from PEM files, read again when the files change. Owns the rustls configuration in force; a connection keeps the one it began with,
//! so that a new certificate drops no socket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, InconsistentKeys, ServerConfig};
use tokio_util::sync::CancellationToken;

use crate::config::read_bounded;
use crate::json::without_bom;

/// How often the files are looked at. Their contents are compared, not their times: a swapped
/// symbolic link (Kubernetes) or a rewrite within one tick of the clock shows in nothing else.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// What is spoken inside: the WebSocket handshake of RFC 6455 is HTTP/1.1's. Without this, a client
/// that offers h2 (RFC 7301) might take silence for consent.
const PROTOCOL: &[u8] = b"http/1.1";

/// Why a certificate and key cannot be used. `Display` names the setting and the file, and holds
/// nothing of the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The file is missing, cannot be read, or is longer than any of its kind.
    #[error("{file} {problem}")]
    Unreadable { file: TlsFile, problem: String },
    /// There is no PEM block of the kind wanted.
    #[error("{file} holds no PEM {wanted}")]
    Absent { file: TlsFile, wanted: &'static str },
    /// There is a PEM block, but it is cut off or not base64.
    #[error("{0} is damaged: a PEM block in it is cut off or not base64")]
    Damaged(TlsFile),
    /// The key needs a password, which nobody could type.
    #[error("{0} is encrypted: `openssl pkey -in FILE` removes the password")]
    Encrypted(TlsFile),
    /// The certificate is another key's.
    #[error("{cert} and {key} do not belong together: the certificate is not of this key")]
    Mismatch { cert: TlsFile, key: TlsFile },
    /// The pair is well-formed but rustls does not take it.
    #[error("{cert} with {key} cannot be used: {source}")]
    Refused {
        cert: TlsFile,
        key: TlsFile,
        source: Box<rustls::Error>,
    },
}

/// A file and the setting that names it.
#[derive(Debug, Clone)]
pub(crate) struct TlsFile {
    setting: &'static str,
    path: PathBuf,
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting, self.path.display())
    }
}

/// The certificate in force. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ServerCertificate(Arc<CertificateFiles>);

struct CertificateFiles {
    cert: TlsFile,
    key: TlsFile,
    /// Held for the copy of an `Arc` only.
    current: RwLock<Arc<ServerConfig>>,
    /// Used by the watch alone.
    seen: Mutex<SeenFiles>,
}

impl fmt::Debug for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.cert, self.key)
    }
}

/// A hash of both files' contents, so that a key is not kept a second time.
type Fingerprint = [u8; 32];

#[derive(Debug)]
struct SeenFiles {
    in_force: Fingerprint,
    /// What the last look found, or why it found nothing.
    last: Result<Fingerprint, String>,
}

/// What a look at the files came to.
#[derive(Debug)]
enum ReloadOutcome {
    /// Nothing new since the last look.
    Unchanged,
    /// A new pair is in force.
    Reloaded,
    /// Something new that cannot be used; the pair in force stays.
    Kept(TlsError),
}

impl ServerCertificate {
    /// Reads the pair for the first time. Reads files, so for the start only.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let file = |setting, path: &Path| TlsFile {
            setting,
            path: path.to_owned(),
        };
        let cert = file("server.tls_cert", cert);
        let key = file("server.tls_key", key);
        let pair = Pair::read(&cert, &key)?;
        let in_force = pair.fingerprint();
        let current = RwLock::new(pair.config(&cert, &key)?);
        let last = Ok(in_force);
        Ok(Self(Arc::new(CertificateFiles {
            cert,
            key,
            current,
            seen: Mutex::new(SeenFiles { in_force, last }),
        })))
    }

    /// What accepts the next connection. Cheap: call it for each connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.0.current.read();
        TlsAcceptor::from(Arc::clone(&current.unwrap_or_else(PoisonError::into_inner)))
    }

    fn look_and_log(&self) {
        let CertificateFiles { cert, key, .. } = &*self.0;
        match self.look() {
            ReloadOutcome::Unchanged => {}
            ReloadOutcome::Reloaded => {
                tracing::info!(cert = %cert.path.display(), "certificate reloaded");
            }
            ReloadOutcome::Kept(error) => {
                tracing::warn!(
                    cert = %cert.path.display(),
                    key = %key.path.display(),
                    %error,
                    "certificate not reloaded, old one stays in force"
                );
            }
        }
    }

    /// Looks at the files once. The same bad contents are reported once, since the two files of a pair
    /// are rarely written in the same moment and may stay half done for long.
    fn look(&self) -> ReloadOutcome {
        let CertificateFiles {
            cert,
            key,
            current,
            seen,
        } = &*self.0;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = Pair::read(cert, key);
        let found = pair
            .as_ref()
            .map(Pair::fingerprint)
            .map_err(ToString::to_string);
        if found == seen.last {
            return ReloadOutcome::Unchanged;
        }
        seen.last = found;
        let pair = match pair {
            Ok(pair) => pair,
            Err(error) => return ReloadOutcome::Kept(error),
        };
        let fingerprint = pair.fingerprint();
        if fingerprint == seen.in_force {
            return ReloadOutcome::Unchanged;
        }
        match pair.config(cert, key) {
            Ok(config) => {
                seen.in_force = fingerprint;
                *current.write().unwrap_or_else(PoisonError::into_inner) = config;
                ReloadOutcome::Reloaded
            }
            Err(error) => ReloadOutcome::Kept(error),
        }
    }
}

/// Follows the files of the pair that is the `current` one, if there is one, until `cancel`. To be run as
/// one task.
pub(crate) async fn watch(
    current: impl Fn() -> Option<ServerCertificate>,
    cancel: CancellationToken,
) {
    watch_every(WATCH_INTERVAL, current, cancel).await;
}

async fn watch_every(
    interval: Duration,
    current: impl Fn() -> Option<ServerCertificate>,
    cancel: CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // The end first: a look that hangs on a dead disk must not hold it up.
            biased;
            () = cancel.cancelled() => return,
            () = async {
                ticks.tick().await;
                let Some(tls) = current() else { return };
                // Files block, and a new pair is checked with public-key arithmetic.
                if tokio::task::spawn_blocking(move || tls.look_and_log()).await.is_err() {
                    tracing::warn!("check of the certificate files did not end");
                }
            } => {}
        }
    }
}

/// Both files' contents, not yet judged.
struct Pair {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    fn read(cert: &TlsFile, key: &TlsFile) -> Result<Self, TlsError> {
        Ok(Self {
            cert: read(cert)?,
            key: read(key)?,
        })
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update((self.cert.len() as u64).to_be_bytes());
        hash.update(&self.cert);
        hash.update(&self.key);
        hash.finalize().into()
    }

    fn config(&self, cert: &TlsFile, key: &TlsFile) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = CertificateDer::pem_slice_iter(without_bom(&self.cert))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| TlsError::Damaged(cert.clone()))?;
        if chain.is_empty() {
            return Err(TlsError::Absent {
                file: cert.clone(),
                wanted: "certificate",
            });
        }
        let private_key = self.private_key(key)?;
        let refused = |source| match source {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
                cert: cert.clone(),
                key: key.clone(),
            },
            source => TlsError::Refused {
                cert: cert.clone(),
                key: key.clone(),
                source: Box::new(source),
            },
        };
        // The provider is named: a process-wide default would be whichever crate came first.
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&TLS13, &TLS12])
                .and_then(|builder| {
                    builder
                        .with_no_client_auth()
                        .with_single_cert(chain, private_key)
                })
                .map_err(refused)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }

    fn private_key(&self, file: &TlsFile) -> Result<PrivateKeyDer<'static>, TlsError> {
        let label = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
        match PrivateKeyDer::pem_slice_iter(without_bom(&self.key)).next() {
            Some(Ok(key)) => Ok(key),
            Some(Err(_)) => Err(TlsError::Damaged(file.clone())),
            None if self.key.windows(label.len()).any(|window| window == label) => {
                Err(TlsError::Encrypted(file.clone()))
            }
            None => Err(TlsError::Absent {
                file: file.clone(),
                wanted: "private key",
            }),
        }
    }
}

fn read(file: &TlsFile) -> Result<Vec<u8>, TlsError> {
    read_bounded(&file.path).map_err(|error| TlsError::Unreadable {
        file: file.clone(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
