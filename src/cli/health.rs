//! `herald health`: checks a gateway on this host, for containers that have no other program for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
};
use tokio_tungstenite::MaybeTlsStream;

use super::{CliError, output, tls};
use crate::config::{Config, ServerConfig};

/// How long the answer may take, all in all.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer has a line's text.
const ANSWER_MAX: u64 = 8 * 1024;

/// Arguments of `herald health`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 if the gateway is alive (or ready), 1 if it is not or does not answer. The answer is one line \
    on standard error.\n\n\
    Without --address it connects to server.listen, with TLS if server.tls_cert is set. The certificate is not \
    verified: the gateway is on this host, and nothing secret is sent."
)]
pub(super) struct Args {
    /// Check whether it is ready for sockets (/readyz), and not only alive (/healthz).
    #[arg(long)]
    ready: bool,
    /// Check the gateway at this address, and read no settings: host:port, or https://host:port on this host.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    address: Option<Endpoint>,
}

/// The gateway to check.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    /// `host:port`.
    address: String,
    is_tls: bool,
    /// This host is one of the trusted proxies, which must send a PROXY header (`server.proxy_protocol`).
    is_proxy: bool,
}

/// What a proxy sends for a connection of its own (version 1 of the PROXY protocol, section 2.1).
const PROXY_HEADER: &[u8] = b"PROXY UNKNOWN\r\n";

fn parse_address(text: &str) -> Result<Endpoint, String> {
    let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, rest) => (false, rest.unwrap_or(text)),
    };
    let address = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && !host.contains(['/', '@']))
        .ok_or("this is not host:port: write for example 127.0.0.1:8080")?;
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err("this has no port: write for example 127.0.0.1:8080".to_owned());
    }
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || ip.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if is_tls && !is_here {
        return Err(
            "https:// goes with an address of this host, whose certificate need not be verified, \
            such as https://127.0.0.1:8443"
                .to_owned(),
        );
    }
    Ok(Endpoint {
        address: address.to_owned(),
        is_tls,
        is_proxy: false,
    })
}

/// Where a gateway with these settings is reached on its own host.
fn own(server: &ServerConfig) -> Result<Endpoint, CliError> {
    let mut address: SocketAddr = server.listen;
    if address.port() == 0 {
        let text = "server.listen has port 0, which means any free port: give --address";
        return Err(CliError::Usage(text.to_owned()));
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(Endpoint {
        address: address.to_string(),
        is_tls: server.tls_cert.is_some(),
        is_proxy: server.proxy_protocol
            && server
                .trusted_proxies
                .iter()
                .any(|proxies| proxies.contains(&address.ip())),
    })
}

pub(super) async fn run(args: Args, file: Option<&Path>) -> Result<(), CliError> {
    let endpoint = match args.address {
        Some(endpoint) => endpoint,
        None => own(&Config::read(file)?.of(&["server"])?.server)?,
    };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = tokio::time::timeout(TIMEOUT, request(&endpoint, path)).await;
    let answer =
        answer.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())));
    let (status, text) =
        answer.map_err(|why| CliError::Failure(format!("{}: {why}", endpoint.address)))?;
    if status == 200 {
        eprintln!("herald: {text}");
        return Ok(());
    }
    Err(CliError::Failure(match status {
        503 => format!("not ready: {text}"),
        _ => format!(
            "{}: HTTP {status} is not an answer of a Herald gateway",
            endpoint.address
        ),
    }))
}

/// The status and the first line of the answer.
async fn request(endpoint: &Endpoint, path: &str) -> Result<(u16, String), String> {
    let stream = TcpStream::connect(&endpoint.address).await;
    let mut stream = stream.map_err(|error| format!("{error}: is herald serve running there?"))?;
    if endpoint.is_proxy {
        let sent = stream.write_all(PROXY_HEADER).await;
        sent.map_err(|error| error.to_string())?;
    }
    let mut stream = if endpoint.is_tls {
        let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
        let config = any_certificate().map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = stream.await;
        MaybeTlsStream::Rustls(
            stream.map_err(|error| format!("no TLS: {error}. Is server.tls_cert set there?"))?,
        )
    } else {
        MaybeTlsStream::Plain(stream)
    };
    let answer = exchange(&mut stream, &endpoint.address, path).await;
    read(&answer.map_err(|error| error.to_string())?)
        .ok_or_else(|| "no HTTP answer: does it speak TLS there?".to_owned())
}

async fn exchange(
    stream: &mut MaybeTlsStream<TcpStream>,
    host: &str,
    path: &str,
) -> std::io::Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_MAX).read_to_end(&mut answer).await {
        // The answer is whole even if the connection ends without a close of TLS.
        Err(error) if answer.is_empty() => Err(error),
        Ok(_) | Err(_) => Ok(answer),
    }
}

/// Reads an HTTP answer: its status, and the first line of its body, which may be another's text.
fn read(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    // The body of a gateway's answer is not chunked.
    let line = body.lines().next().unwrap_or_default();
    Some((status.parse().ok()?, output::harmless(line)))
}

/// TLS with whatever certificate there is.
fn any_certificate() -> Result<ClientConfig, CliError> {
    let verifier = Arc::new(AnyCertificate(aws_lc_rs::default_provider()));
    Ok(tls::builder()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Takes every certificate. For this host's own gateway alone: it is for another name, may be from an authority
/// that only clients know, and has to be taken on the day after it expired, too, when the answer is that all lives.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port_and_tls_stays_on_this_host() {
        for (text, want) in [
            ("127.0.0.1:8080", Some(("127.0.0.1:8080", false))),
            ("http://gateway:80/", Some(("gateway:80", false))),
            ("https://localhost:8443", Some(("localhost:8443", true))),
            ("https://[::1]:8443/", Some(("[::1]:8443", true))),
            ("https://example.com:443", None),
            ("https://10.0.0.1:443", None),
            ("127.0.0.1", None),
            ("127.0.0.1:0", None),
            ("127.0.0.1:99999", None),
            (":8080", None),
            ("http://u:p@h:80", None),
            ("ws://127.0.0.1:80/x", None),
        ] {
            let got = parse_address(text).ok();
            let want = want.map(|(address, is_tls)| Endpoint {
                address: address.to_owned(),
                is_tls,
                is_proxy: false,
            });
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn a_gateway_that_listens_everywhere_is_reached_on_loopback() {
        for (listen, want) in [
            ("0.0.0.0:8080", Some("127.0.0.1:8080")),
            ("[::]:8080", Some("[::1]:8080")),
            ("10.0.0.1:8080", Some("10.0.0.1:8080")),
            ("127.0.0.1:0", None),
        ] {
            let server = ServerConfig {
                listen: listen.parse().unwrap(),
                ..ServerConfig::default()
            };
            let got = own(&server).ok().map(|endpoint| endpoint.address);
            assert_eq!(got.as_deref(), want, "{listen}");
        }
    }

    #[test]
    fn only_an_http_answer_is_read() {
        for (answer, want) in [
            (
                &b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"[..],
                Some((200, "ok")),
            ),
            (
                b"HTTP/1.1 503 Service Unavailable\r\n\r\na\x1b[2J\nb",
                Some((503, "a\u{fffd}[2J")),
            ),
            (b"HTTP/1.1 200 OK\r\n\r\n", Some((200, ""))),
            (b"\x15\x03\x01", None),
            (b"", None),
        ] {
            let got = read(answer);
            let got = got.as_ref().map(|(status, text)| (*status, text.as_str()));
            assert_eq!(got, want, "{}", answer.escape_ascii());
        }
    }
}
