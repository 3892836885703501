//! A certificate authority for one test, the certificate of a gateway on `localhost`, and a TLS
//! client that believes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What the certificate is for.
const NAME: &str = "localhost";

/// The files of one authority and one certificate of it.
#[derive(Debug)]
pub(crate) struct Certificates {
    folder: TempDir,
    public_key: Vec<u8>,
}

impl Certificates {
    /// Makes them.
    pub(crate) fn new() -> Self {
        Self::of([NAME.to_owned()])
    }

    /// Makes them for hosts of these names.
    pub(crate) fn of(names: impl Into<Vec<String>>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut authority = CertificateParams::default();
        // A name of its own: a certificate whose issuer has its own name counts as self-signed.
        let name = "Herald's tests";
        authority.distinguished_name.push(DnType::CommonName, name);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("a key");
        let root = authority.self_signed(&authority_key).expect("a root");
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(names)
            .and_then(|params| params.signed_by(&key, &issuer))
            .expect("a certificate");
        for (name, text) in [
            ("ca.pem", root.pem()),
            ("cert.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
        ] {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        Self {
            folder,
            public_key: key.subject_public_key_info(),
        }
    }

    /// The authority's certificate, which a client has to trust.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The gateway's certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The gateway's key.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// The certificate's SubjectPublicKeyInfo (RFC 5280), by which a browser can be told to trust it.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

/// A TLS client that trusts `authority` alone.
pub(crate) fn client(authority: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(authority).expect("a certificate");
    roots.add(root).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A TLS connection to `address`, trusting `authority` alone.
pub(crate) async fn connect(address: &str, authority: &Path) -> Option<TlsStream<TcpStream>> {
    let name = ServerName::try_from(NAME).expect("a name");
    let tcp = TcpStream::connect(address).await.ok()?;
    let connecting = TlsConnector::from(client(authority)).connect(name, tcp);
    connecting.await.ok()
}

/// What takes TLS connections with this certificate.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(certificate).expect("a file");
    let chain = chain.collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they fit");
    TlsAcceptor::from(Arc::new(config))
}
