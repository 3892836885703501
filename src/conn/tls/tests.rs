//! Handshakes over an in-memory stream, before and after the files change.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client, server};

use super::*;

type Issued = CertifiedKey<KeyPair>;

fn issue() -> Issued {
    generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap()
}

/// A certificate and key file in a folder of their own.
struct Files {
    directory: TempDir,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(issued: &Issued) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Self {
            cert: directory.path().join("tls.crt"),
            key: directory.path().join("tls.key"),
            directory,
        };
        files.write(issued);
        files
    }

    fn write(&self, issued: &Issued) {
        fs::write(&self.cert, issued.cert.pem()).unwrap();
        fs::write(&self.key, issued.signing_key.serialize_pem()).unwrap();
    }

    fn load(&self) -> Result<ServerCertificate, TlsError> {
        ServerCertificate::load(&self.cert, &self.key)
    }
}

#[test]
fn a_byte_order_mark_before_certificate_and_key_is_skipped() {
    let files = Files::new(&issue());
    for file in [&files.cert, &files.key] {
        let marked = [b"\xef\xbb\xbf", &*fs::read(file).unwrap()].concat();
        fs::write(file, marked).unwrap();
    }
    assert!(files.load().is_ok());
}

type Connection = (
    client::TlsStream<DuplexStream>,
    server::TlsStream<DuplexStream>,
);

/// Connects a client that trusts any of `roots`.
async fn connect_as(
    tls: &ServerCertificate,
    roots: &[&Issued],
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> io::Result<Connection> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.cert.der().clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let (near, far) = duplex(16 * 1024);
    let name = ServerName::try_from("gateway.test").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    tokio::try_join!(connector.connect(name, near), tls.acceptor().accept(far))
}

async fn connect(tls: &ServerCertificate, roots: &[&Issued]) -> io::Result<Connection> {
    connect_as(tls, roots, &[&TLS13, &TLS12], &[]).await
}

/// Which certificate a new connection is shown.
async fn presented(tls: &ServerCertificate, roots: &[&Issued]) -> CertificateDer<'static> {
    let (client, _server) = connect(tls, roots).await.unwrap();
    client.get_ref().1.peer_certificates().unwrap()[0].clone()
}

async fn assert_talks(connection: &mut Connection) {
    let (client, server) = connection;
    for _ in 0..2 {
        let mut buffer = [0; 4];
        client.write_all(b"ping").await.unwrap();
        client.flush().await.unwrap();
        server.read_exact(&mut buffer).await.unwrap();
        server.write_all(&buffer).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"ping");
    }
}

#[tokio::test]
async fn both_versions_speak_http_1_1_and_nothing_else() {
    let issued = issue();
    let tls = Files::new(&issued).load().unwrap();
    for version in [&TLS12, &TLS13] {
        for (offered, agreed) in [
            (vec![], None),
            (vec![PROTOCOL], Some(PROTOCOL)),
            (vec![b"h2".as_slice(), PROTOCOL], Some(PROTOCOL)),
        ] {
            let mut connection = connect_as(&tls, &[&issued], &[version], &offered)
                .await
                .unwrap();
            let session = connection.0.get_ref().1;
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.alpn_protocol(), agreed);
            assert_talks(&mut connection).await;
        }
        let refused = connect_as(&tls, &[&issued], &[version], &[b"h2"]).await;
        assert!(refused.is_err(), "h2 alone");
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_drops_no_old_one() {
    let (old, new) = (issue(), issue());
    let files = Files::new(&old);
    let tls = files.load().unwrap();
    let mut open = connect(&tls, &[&old]).await.unwrap();
    assert!(matches!(tls.look(), ReloadOutcome::Unchanged));

    files.write(&new);
    assert!(matches!(tls.look(), ReloadOutcome::Reloaded));
    assert!(matches!(tls.look(), ReloadOutcome::Unchanged));
    assert_eq!(&presented(&tls, &[&old, &new]).await, new.cert.der());
    assert!(connect(&tls, &[&old]).await.is_err());
    assert_talks(&mut open).await;
}

#[tokio::test]
async fn the_watch_picks_up_a_new_certificate_and_ends_when_told() {
    let (old, new) = (issue(), issue());
    let files = Files::new(&old);
    let tls = files.load().unwrap();
    let cancel = CancellationToken::new();
    let watch = tokio::spawn({
        let tls = tls.clone();
        watch_every(
            Duration::from_millis(5),
            move || Some(tls.clone()),
            cancel.clone(),
        )
    });
    let mut open = connect(&tls, &[&old]).await.unwrap();
    files.write(&new);
    let reloaded = async {
        while &presented(&tls, &[&old, &new]).await != new.cert.der() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reloaded)
        .await
        .unwrap();
    assert_talks(&mut open).await;
    cancel.cancel();
    watch.await.unwrap();
}

/// A half-written or mismatched pair is told once, and the pair in force stays.
#[tokio::test]
async fn a_broken_new_pair_keeps_the_old_one_and_is_told_once() {
    let (old, new) = (issue(), issue());
    let files = Files::new(&old);
    let tls = files.load().unwrap();
    let new_cert = new.cert.pem();
    let half = new_cert.split_at(new_cert.len() / 2).0;
    let new_key = new.signing_key.serialize_pem();
    for (cert, key) in [
        (new_cert.as_str(), None),
        (half, None),
        ("", None),
        ("garbage", None),
        (&new_cert, Some("")),
        (&new_cert, Some(new_key.split_at(100).0)),
        (&old.cert.pem(), Some(&new_key)),
    ] {
        fs::write(&files.cert, cert).unwrap();
        if let Some(key) = key {
            fs::write(&files.key, key).unwrap();
        }
        assert!(
            matches!(tls.look(), ReloadOutcome::Kept(_)),
            "{cert} {key:?}"
        );
        for _ in 0..3 {
            assert!(
                matches!(tls.look(), ReloadOutcome::Unchanged),
                "{cert} {key:?}"
            );
        }
        assert_eq!(&presented(&tls, &[&old, &new]).await, old.cert.der());
    }
    fs::remove_file(&files.key).unwrap();
    assert!(matches!(
        tls.look(),
        ReloadOutcome::Kept(TlsError::Unreadable { .. })
    ));
    assert!(matches!(tls.look(), ReloadOutcome::Unchanged));
    // Back to what is in force: nothing to tell, and later changes are seen.
    files.write(&old);
    assert!(matches!(tls.look(), ReloadOutcome::Unchanged));
    files.write(&new);
    assert!(matches!(tls.look(), ReloadOutcome::Reloaded));
    assert_eq!(&presented(&tls, &[&old, &new]).await, new.cert.der());
}

/// The length and time of a file say nothing about its contents.
#[test]
fn a_rewrite_with_the_same_time_is_seen() {
    let (old, new) = (issue(), issue());
    let files = Files::new(&old);
    let times = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let before = [times(&files.cert), times(&files.key)];
    let tls = files.load().unwrap();
    files.write(&new);
    for (path, time) in [&files.cert, &files.key].into_iter().zip(before) {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    assert!(matches!(tls.look(), ReloadOutcome::Reloaded));
}

/// Kubernetes swaps both files of a Secret at once, by a symbolic link to their folder.
#[test]
fn a_swapped_symbolic_link_is_seen() {
    let (old, new) = (issue(), issue());
    let (old_files, new_files) = (Files::new(&old), Files::new(&new));
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("..data");
    symlink(old_files.directory.path(), &link).unwrap();
    let tls = ServerCertificate::load(&link.join("tls.crt"), &link.join("tls.key")).unwrap();
    let new_link = directory.path().join("..data_tmp");
    symlink(new_files.directory.path(), &new_link).unwrap();
    fs::rename(&new_link, &link).unwrap();
    assert!(matches!(tls.look(), ReloadOutcome::Reloaded));
}

#[test]
fn a_pair_that_cannot_be_used_is_refused_with_what_is_wrong() {
    let (one, other) = (issue(), issue());
    let cert = one.cert.pem();
    let key = one.signing_key.serialize_pem();
    let other_key = other.signing_key.serialize_pem();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
    let long = "x".repeat(1024 * 1024 + 1);
    for (cert, key, expected) in [
        (
            "",
            key.as_str(),
            "server.tls_cert {c} holds no PEM certificate",
        ),
        (
            "garbage",
            &key,
            "server.tls_cert {c} holds no PEM certificate",
        ),
        (&key, &key, "server.tls_cert {c} holds no PEM certificate"),
        (cert.split_at(300).0, &key, "server.tls_cert {c} is damaged"),
        (
            no_certificate,
            &key,
            "server.tls_cert {c} with server.tls_key {k} cannot be used",
        ),
        (
            &long,
            &key,
            "server.tls_cert {c} is longer than 1048576 bytes",
        ),
        (&cert, "", "server.tls_key {k} holds no PEM private key"),
        (&cert, &cert, "server.tls_key {k} holds no PEM private key"),
        (&cert, key.split_at(100).0, "server.tls_key {k} is damaged"),
        (&cert, encrypted, "server.tls_key {k} is encrypted"),
        (&cert, &other_key, "do not belong together"),
    ] {
        let files = Files::new(&one);
        fs::write(&files.cert, cert).unwrap();
        fs::write(&files.key, key).unwrap();
        let error = files.load().unwrap_err().to_string();
        let expected = expected
            .replace("{c}", &files.cert.display().to_string())
            .replace("{k}", &files.key.display().to_string());
        assert!(error.contains(&expected), "{error}");
        for line in key.lines().filter(|line| line.len() > 20) {
            assert!(!error.contains(line), "{error}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let files = Files::new(&issue());
    for (cert, key, setting) in [
        (
            files.directory.path().join("absent"),
            files.key.clone(),
            "server.tls_cert",
        ),
        (
            files.cert.clone(),
            files.directory.path().join("absent"),
            "server.tls_key",
        ),
        (
            files.directory.path().to_owned(),
            files.key.clone(),
            "server.tls_cert",
        ),
    ] {
        let error = ServerCertificate::load(&cert, &key)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(setting) && error.contains("cannot be read"),
            "{error}"
        );
    }
}

#[test]
fn the_key_is_never_printed() {
    let issued = issue();
    let tls = Files::new(&issued).load().unwrap();
    let printed = format!("{tls:?}");
    assert!(
        printed.starts_with("ServerCertificate(server.tls_cert "),
        "{printed}"
    );
}
