//! Why there is no connection to NATS, in an operator's words: which server, the cause, and the way out. The client
//! itself reports only the kind ("IO error"), what a library found, or nothing.

use std::io;
use std::time::Duration;

use async_nats::{ConnectErrorKind, ServerAddr};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a server may take to greet, or to answer what it cannot understand. Only a failure is looked into.
const LOOK: Duration = Duration::from_millis(500);
/// A greeting has some hundred bytes.
const GREETING_MAX: usize = 16 * 1024;

const NEEDS_CERTIFICATE: &str =
    "client certificate required: set nats.client_cert and nats.client_key";

/// What the client says, and what that means. The first that fits counts.
const CAUSES: [(&str, &str); 13] = [
    (
        "Connection refused",
        "connection refused: nothing listens there",
    ),
    (
        "UnknownIssuer",
        "unknown CA: the server's certificate is from an authority that is not trusted. Set nats.ca_file to \
         the PEM file with that authority's certificate",
    ),
    (
        "certificate: BadSignature",
        "unknown CA: the server's certificate is from an authority of the same name as one that is trusted, \
         with another key. Set nats.ca_file to the right one",
    ),
    (
        "CaUsedAsEndEntity",
        "self-signed certificate: the server shows the certificate of a CA as its own, and no CA is trusted \
         for it (unknown CA). Give the server a certificate that a CA has signed, and set nats.ca_file",
    ),
    ("certificate required", NEEDS_CERTIFICATE),
    ("CertificateRequired", NEEDS_CERTIFICATE),
    (
        "InvalidContentType",
        "the server does not speak TLS on this port: write nats:// instead of tls:// in nats.url, or turn \
         TLS on there",
    ),
    (
        "InvalidServerName",
        "TLS needs a host name or an address in nats.url",
    ),
    (
        "ProtocolVersion",
        "the server speaks no TLS version that is safe: it needs 1.2 or 1.3",
    ),
    (
        "no addresses resolved",
        "the name is not known: it has no address",
    ),
    ("invalid server operation", NOT_NATS),
    ("expected INFO, got", NOT_NATS),
    ("timed out", "timed out"),
];

const NOT_NATS: &str = "not a NATS server: it speaks another protocol";

/// Why there is no connection. `Display` names no URL, because a URL may carry a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file that the settings name cannot be read, or is not what it has to be.
    #[error("cannot read {setting} {path}: {source}")]
    File {
        setting: &'static str,
        path: String,
        source: io::Error,
    },
    /// A user in `nats.url`, and another way in.
    #[error("nats.url names a user, and {0} is set: these are two ways in, set one of them")]
    TwoWays(&'static str),
    /// `nats.url` has an entry that is no URL.
    #[error(
        "nats.url holds an entry that is not a NATS URL, such as nats://host:4222 or tls://host:4222"
    )]
    Url,
    /// `nats.url` has entries with different users; a connection has one, whatever server it is to.
    #[error("nats.url names different users or passwords: all its servers take the same")]
    Logins,
    /// The server refused who we are.
    #[error("NATS refused the credentials: {server}: authorization violation. {way}")]
    Refused { server: String, way: String },
    /// No server could be reached: each with its cause.
    #[error("NATS cannot be reached: {0}")]
    Unreachable(String),
}

/// `host:port` of a server. It names no user.
pub(super) fn address(server: &ServerAddr) -> String {
    let (host, port) = (server.host(), server.port());
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// `host:port: cause` of a connection that failed, looked into where the client does not know.
pub(super) async fn explained(
    server: &ServerAddr,
    error: &async_nats::ConnectError,
    shows_certificate: bool,
) -> String {
    let text = error.to_string();
    let known = cause(&text, shows_certificate);
    let is_vague = error.kind() == ConnectErrorKind::TimedOut
        || ["broken pipe", "reset", "eof", "got nothing", "EOF"]
            .iter()
            .any(|word| text.contains(word))
        || text.contains("Broken pipe");
    let cause = if is_vague {
        look(server, shows_certificate).await.unwrap_or(known)
    } else {
        known
    };
    format!("{}: {cause}", address(server))
}

/// What the text of a client's error means.
pub(super) fn cause(text: &str, shows_certificate: bool) -> String {
    if let Some((_, names)) = text.split_once("certificate not valid for name ") {
        return format!(
            "the server's certificate is for another name: not valid for {names}. Write a name of the \
             certificate in nats.url"
        );
    }
    if let Some((_, why)) = text.split_once("failed to lookup address information: ") {
        return format!("the name is not known: {why}");
    }
    if let Some((_, alert)) = text.split_once("received fatal alert: ")
        && !alert.starts_with("ProtocolVersion")
    {
        return match shows_certificate {
            true => format!("the server refuses the certificate of nats.client_cert ({alert})"),
            false if alert.contains("ertificate") || alert.starts_with("HandshakeFailure") => {
                NEEDS_CERTIFICATE.to_owned()
            }
            false => format!("the server ended the TLS handshake ({alert})"),
        };
    }
    if let Some((_, cause)) = CAUSES.iter().find(|(said, _)| text.contains(said)) {
        return (*cause).to_owned();
    }
    if let Some((_, why)) = text.split_once("invalid peer certificate: ") {
        return format!(
            "the server's certificate is not valid: {}",
            why.escape_debug()
        );
    }
    if let Some((_, said)) = text.split_once(": nats: ") {
        return format!("the server refuses the connection: {}", said.escape_debug());
    }
    // The kind says less than what follows it.
    let rest = ["IO error: ", "TLS error: ", "DNS error: "]
        .iter()
        .find_map(|kind| text.strip_prefix(kind));
    rest.unwrap_or(text).escape_debug().to_string()
}

/// What a port says to one who says nothing, and then to one who asks by HTTP.
#[derive(Debug, PartialEq, Eq)]
enum ServerGreeting {
    Nats { needs_certificate: bool },
    Http,
    Tls,
    Other,
    Silent,
}

/// The part of a NATS server's INFO that matters here.
#[derive(Deserialize)]
struct ServerInfo {
    #[serde(default)]
    tls_verify: bool,
}

/// The cause that a look at the port itself shows, if it shows one.
async fn look(server: &ServerAddr, shows_certificate: bool) -> Option<String> {
    let Some(greeting) = greeting(server).await else {
        return Some("timed out: nothing answers there".to_owned());
    };
    let cause = match greeting {
        ServerGreeting::Nats {
            needs_certificate: true,
        } => match shows_certificate {
            false => NEEDS_CERTIFICATE,
            true => {
                "the server ended the TLS handshake: it may not take the certificate of nats.client_cert"
            }
        },
        ServerGreeting::Nats { .. } => return None,
        ServerGreeting::Http => {
            "not a NATS server: it answers HTTP. Is that NATS' monitoring port? Clients use another, 4222 where \
             none is set"
        }
        ServerGreeting::Tls => {
            "it requires TLS before its greeting, which Herald does not support: turn handshake_first off there"
        }
        ServerGreeting::Other => NOT_NATS,
        ServerGreeting::Silent => {
            "timed out: it accepts connections, but sends no greeting as a NATS server does"
        }
    };
    Some(cause.to_owned())
}

/// `None` where there is no connection.
async fn greeting(server: &ServerAddr) -> Option<ServerGreeting> {
    let connecting = TcpStream::connect((server.host(), server.port()));
    let mut stream = timeout(LOOK, connecting).await.ok()?.ok()?;
    let mut said = some(&mut stream).await;
    if said.is_empty() {
        // Who has gone says nothing.
        let sent = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
        if sent.is_ok() {
            said = some(&mut stream).await;
        }
    }
    Some(read(&said))
}

/// What comes within [`LOOK`], up to a line's end.
async fn some(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let reading = async {
        while said.len() < GREETING_MAX && !said.ends_with(b"\n") {
            // The end, or a fault: what there is has to do.
            if !matches!(stream.read_buf(&mut said).await, Ok(1..)) {
                break;
            }
        }
    };
    // What came until then counts.
    let _ = timeout(LOOK, reading).await;
    said
}

fn read(said: &[u8]) -> ServerGreeting {
    if let Some(info) = said.strip_prefix(b"INFO ") {
        let info: Option<ServerInfo> = serde_json::from_slice(info.trim_ascii()).ok();
        let needs_certificate = info.is_some_and(|info| info.tls_verify);
        return ServerGreeting::Nats { needs_certificate };
    }
    match said {
        [] => ServerGreeting::Silent,
        // A TLS alert (RFC 8446 section 5.1).
        [0x15, 3, ..] => ServerGreeting::Tls,
        _ if said.starts_with(b"HTTP/") => ServerGreeting::Http,
        _ => ServerGreeting::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client says, whether a certificate is shown, and a part of what is made of it.
    const SAID: &[(&str, bool, &str)] = &[
        (
            "IO error: Connection refused (os error 111)",
            false,
            "connection refused: nothing listens there",
        ),
        (
            "DNS error: failed to lookup address information: Name or service not known",
            false,
            "the name is not known: Name or service not known",
        ),
        (
            "IO error: invalid peer certificate: UnknownIssuer",
            false,
            "unknown CA",
        ),
        (
            "IO error: invalid peer certificate: BadSignature",
            false,
            "unknown CA",
        ),
        (
            "IO error: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
            false,
            "self-signed",
        ),
        (
            "IO error: invalid peer certificate: certificate not valid for name \"127.0.0.1\"; certificate \
                 is only valid for DnsName(\"localhost\")",
            false,
            "for another name: not valid for \"127.0.0.1\"",
        ),
        (
            "IO error: received fatal alert: CertificateRequired",
            false,
            "client certificate required: set nats.client_cert",
        ),
        (
            "IO error: received fatal alert: HandshakeFailure",
            false,
            "client certificate required",
        ),
        (
            "IO error: received fatal alert: UnknownCA",
            true,
            "refuses the certificate of nats.client_cert (UnknownCA)",
        ),
        (
            "IO error: received fatal alert: ProtocolVersion",
            false,
            "no TLS version",
        ),
        (
            "IO error: received corrupt message of type InvalidContentType",
            false,
            "does not speak TLS",
        ),
        (
            "IO error: nats: maximum connections exceeded\u{1b}[2J",
            false,
            "refuses the connection: maximum connections exceeded\\u{1b}[2J",
        ),
        ("timed out", false, "timed out"),
        (
            "IO error: No route to host (os error 113)",
            false,
            "No route to host",
        ),
    ];

    #[test]
    fn what_the_client_says_becomes_a_cause_and_a_way_out() {
        for (said, shows_certificate, want) in SAID {
            let cause = cause(said, *shows_certificate);
            assert!(cause.contains(want), "{said}: {cause}");
            assert!(!cause.contains("IO error"), "{said}: {cause}");
        }
    }

    #[test]
    fn a_port_is_known_by_what_it_says() {
        let nats = |needs_certificate| ServerGreeting::Nats { needs_certificate };
        for (said, want) in [
            (&b"INFO {\"tls_verify\":true}\r\n"[..], nats(true)),
            (b"INFO {\"server_id\":\"x\"}\r\n", nats(false)),
            (b"INFO {", nats(false)),
            (b"", ServerGreeting::Silent),
            (b"HTTP/1.0 200 OK\r\n", ServerGreeting::Http),
            (&[0x15, 3, 1, 0, 2, 2, 40], ServerGreeting::Tls),
            (b"SSH-2.0-OpenSSH\r\n", ServerGreeting::Other),
        ] {
            assert_eq!(read(said), want, "{}", said.escape_ascii());
        }
    }
}
