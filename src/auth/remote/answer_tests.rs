//! What an address may answer: each wrong answer gives no keys, within the limits of time and size, and is named.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read(fixtures.join(name)).unwrap()
}

fn good() -> Vec<u8> {
    fixture("providers/clerk.json")
}

/// A key set that a provider could have, changed.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut set: Value = serde_json::from_slice(&good()).unwrap();
    change(&mut set);
    set.to_string().into_bytes()
}

/// What a server answers, and how.
#[derive(Debug, Clone)]
enum Answer {
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, and then these until the other side gives up.
    Endless(Vec<u8>, Vec<u8>),
    /// One byte a second.
    Slow(Vec<u8>),
    /// Redirects to this address.
    To(String),
    /// Nothing.
    Silence,
}

use Answer::{Bytes, Endless, Silence, Slow, To};

/// A 200 with these header lines and this body.
fn ok(lines: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\n{lines}content-length: {length}\r\n\r\n");
    Bytes([head.as_bytes(), body].concat())
}

fn status(line: &str) -> Answer {
    Bytes(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

fn json_body(value: &Value) -> Answer {
    ok("", value.to_string().as_bytes())
}

/// Answers each connection so; but a path `/<n>` with a redirect to the path before it.
async fn server(answer: Answer) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            // The other side may have gone.
            tokio::spawn(async move { respond(stream, answer).await.ok() });
        }
    });
    port
}

async fn respond(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut head = vec![0; 4096];
    let read = stream.read(&mut head).await?;
    let head = String::from_utf8_lossy(head.get(..read).unwrap()).into_owned();
    let number = head
        .strip_prefix("GET /")
        .and_then(|rest| rest.split(['?', ' ']).next())
        .and_then(|text| text.parse::<u32>().ok());
    let answer = match number {
        Some(number) if number > 0 => To(format!("/{}", number - 1)),
        _ => answer,
    };
    match answer {
        Bytes(bytes) => stream.write_all(&bytes).await,
        Endless(begin, more) => {
            stream.write_all(&begin).await?;
            loop {
                stream.write_all(&more).await?;
            }
        }
        Slow(bytes) => {
            for byte in bytes {
                stream.write_u8(byte).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        To(location) => {
            let answer =
                format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await
        }
        Silence => stream.read_u8().await.map(|_| ()),
    }
}

/// Fetches a key set from a server on this host, by this path: how that is counted, what is said, and how many keys there
/// are.
async fn fetched(path: &str, answer: Answer) -> (FetchResult, String, usize) {
    let port = server(answer).await;
    let url = format!("http://127.0.0.1:{port}/{path}?apikey=swordfish");
    fetch(&KeyAddress::jwks(&url).unwrap()).await
}

async fn fetch(address: &KeyAddress) -> (FetchResult, String, usize) {
    let client = KeyClient::new().unwrap();
    let began = Instant::now();
    let result = client.fetch(address).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(7), "{address}: {took:?}");
    match result {
        Ok(answer) => (FetchResult::Ok, String::new(), answer.keys.len()),
        Err(error) => (FetchResult::from(&error), error.to_string(), 0),
    }
}

/// A case, what the server answers, how it is counted, and a part of what is said.
type Case = (&'static str, Answer, FetchResult, &'static str);

/// What is taken all the same.
fn good_answers() -> Vec<(&'static str, &'static str, Answer, usize)> {
    let chunked = |body: &[u8]| {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        let length = format!("{:x}\r\n", body.len()).into_bytes();
        Bytes([&head[..], &length, body, b"\r\n0\r\n\r\n"].concat())
    };
    let twice = changed(|set| {
        let mut other: Value = serde_json::from_slice(&fixture("providers/auth0.json")).unwrap();
        other["keys"][0]["kid"] = set["keys"][0]["kid"].clone();
        let other = other["keys"][0].take();
        set["keys"].as_array_mut().unwrap().push(other);
    });
    let mixed = changed(|set| {
        let keys = set["keys"].as_array_mut().unwrap();
        let mut private = keys[0].clone();
        private["d"] = "AAAA".into();
        let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"});
        let mut weak = keys[0].clone();
        weak["n"] = format!("wQ{}", "A".repeat(169)).into();
        keys.extend([private, secret, weak, json!(7), json!({"kty": "RSA"})]);
    });
    vec![
        ("plain", "0", ok("", &good()), 1),
        (
            "of another type",
            "0",
            ok("content-type: text/html\r\n", &good()),
            1,
        ),
        ("chunked", "0", chunked(&good()), 1),
        ("after three redirects", "3", ok("", &good()), 1),
        ("two keys of one id", "0", ok("", &twice), 2),
        ("with keys that are left out", "0", ok("", &mixed), 1),
        (
            "never fresh",
            "0",
            ok("cache-control: no-store, max-age=0\r\n", &good()),
            1,
        ),
        (
            "fresh for ever",
            "0",
            ok("cache-control: max-age=99999999999999999999\r\n", &good()),
            1,
        ),
        (
            "a negative age",
            "0",
            ok("cache-control: max-age=-1\r\nage: -7\r\n", &good()),
            1,
        ),
        (
            "dates alone",
            "0",
            ok("expires: Sun, 06 Nov 1994 08:49:37 GMT\r\n", &good()),
            1,
        ),
    ]
}

fn bodies() -> Vec<Case> {
    use FetchResult::Invalid;
    let half = good();
    let half = &half[..half.len() / 2];
    vec![
        (
            "HTML",
            ok(
                "content-type: application/json\r\n",
                b"<html>sign in</html>",
            ),
            Invalid,
            "is not JSON",
        ),
        ("nothing", ok("", b""), Invalid, "is not JSON"),
        ("half of the JSON", ok("", half), Invalid, "is not JSON"),
        (
            "no key set",
            json_body(&json!({"error": "none"})),
            Invalid,
            "is not a JSON Web Key Set",
        ),
        (
            "a list",
            json_body(&json!([])),
            Invalid,
            "is not a JSON Web Key Set",
        ),
        (
            "no list of keys",
            json_body(&json!({"keys": {"a": 1}})),
            Invalid,
            "is not a JSON Web Key Set",
        ),
        (
            "one key",
            json_body(&json!({"kty": "RSA"})),
            Invalid,
            "is one JSON Web Key",
        ),
    ]
}

/// Key sets without a key that can be used.
fn unusable_keys() -> Vec<Case> {
    use FetchResult::Invalid;
    let only = |key: Value| json_body(&json!({ "keys": [key] }));
    let private = changed(|set| set["keys"][0]["d"] = "AAAA".into());
    let prime = changed(|set| set["keys"][0]["p"] = "AAAA".into());
    vec![
        (
            "no keys",
            json_body(&json!({"keys": []})),
            Invalid,
            "holds no usable key",
        ),
        (
            "a secret",
            only(json!({"kty": "oct", "k": "c2VjcmV0"})),
            Invalid,
            "it is a shared secret",
        ),
        (
            "a private key",
            ok("", &private),
            Invalid,
            "its private part is published",
        ),
        (
            "a prime",
            ok("", &prime),
            Invalid,
            "its private part is published",
        ),
        ("a weak key", ok("", &weak()), Invalid, "2048 to 8192 bits"),
        (
            "certificates",
            ok("", &fixture("providers/firebase-x509.json")),
            Invalid,
            "holds certificates",
        ),
        (
            "a PEM key",
            ok("", &fixture("keys/rsa.public.pem")),
            Invalid,
            "holds a PEM key",
        ),
    ]
}

fn weak() -> Vec<u8> {
    let pem = fixture("keys/rsa-1024.public.pem");
    let key = jsonwebtoken::DecodingKey::from_rsa_pem(&pem).unwrap();
    let key = jsonwebtoken::jwk::Jwk::from_decoding_key(&key, None).unwrap();
    json!({ "keys": [key] }).to_string().into_bytes()
}

fn transfers() -> Vec<Case> {
    use FetchResult::{Timeout, TooLarge, Unreachable};
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}").into_bytes();
    let spaces = |count: usize| vec![b' '; count];
    let chunk = [&b"400\r\n"[..], &spaces(1024), b"\r\n"].concat();
    let whole = [good(), spaces(10 * 1024 * 1024)].concat();
    let Bytes(slow) = ok("", &good()) else {
        panic!("bytes")
    };
    vec![
        (
            "a byte a second",
            Slow(slow),
            Timeout,
            "no whole answer within 5 s",
        ),
        ("silence", Silence, Timeout, "no whole answer within 5 s"),
        ("10 MB", ok("", &whole), TooLarge, "512 KiB"),
        (
            "10 MB without a length",
            Bytes([head("connection: close\r\n\r\n"), whole].concat()),
            TooLarge,
            "512 KiB",
        ),
        (
            "a length of 1 GiB",
            Bytes(head("content-length: 1073741824\r\n\r\n")),
            TooLarge,
            "512 KiB",
        ),
        (
            "an endless body",
            Endless(head("transfer-encoding: chunked\r\n\r\n"), chunk),
            TooLarge,
            "512 KiB",
        ),
        (
            "endless headers",
            Endless(head(""), b"x-more: 0123456789\r\n".to_vec()),
            Unreachable,
            "cannot be reached",
        ),
        (
            "one endless header",
            Endless(head("x-more: "), spaces(1024)),
            Unreachable,
            "cannot be reached",
        ),
        (
            "less than its length",
            Bytes(head("content-length: 100\r\n\r\n{}")),
            Unreachable,
            "cannot be reached",
        ),
        (
            "no HTTP",
            Bytes(b"SSH-2.0\r\n".to_vec()),
            Unreachable,
            "cannot be reached",
        ),
    ]
}

fn statuses(elsewhere: u16) -> Vec<Case> {
    use FetchResult::{Redirect, Status, Unreachable};
    vec![
        (
            "no answer",
            Bytes(Vec::new()),
            Unreachable,
            "cannot be reached",
        ),
        ("an error", status("500 Oops"), Status, "500"),
        ("no content", status("204 None"), Status, "204"),
        (
            "not changed, but nobody has it",
            status("304 Not Modified"),
            Status,
            "304",
        ),
        ("a part", status("206 Partial Content"), Status, "206"),
        (
            "another host",
            To(format!("http://127.0.0.1:{elsewhere}/")),
            Redirect,
            "another scheme, host or port",
        ),
        (
            "another scheme",
            To("https://127.0.0.1/".to_owned()),
            Redirect,
            "another scheme, host or port",
        ),
        ("a file", To("file:///etc/passwd".to_owned()), Status, "302"),
        ("itself", To("/0".to_owned()), Redirect, "more than 3 times"),
    ]
}

#[tokio::test]
async fn a_wrong_answer_gives_no_keys_within_its_limits_and_is_named() {
    let elsewhere = server(ok("", &good())).await;
    let all = [bodies(), unusable_keys(), transfers(), statuses(elsewhere)];
    let mut cases = JoinSet::new();
    for (case, answer, wanted, part) in all.concat() {
        cases.spawn(async move {
            let (result, text, _) = fetched("0", answer).await;
            assert_eq!(result, wanted, "{case}: {text}");
            assert!(text.contains(part), "{case}: {text}");
            assert!(!text.contains("swordfish"), "{case}: {text}");
        });
    }
    for (case, path, answer, keys) in good_answers() {
        cases.spawn(async move {
            let fetched = fetched(path, answer).await;
            assert_eq!(fetched, (FetchResult::Ok, String::new(), keys), "{case}");
        });
    }
    cases.join_all().await;
}

/// The same answers of a discovery document.
#[tokio::test]
async fn a_wrong_discovery_document_gives_no_keys_and_is_named() {
    use FetchResult::{Invalid, Ok, Redirect, Status};
    let keys = server(ok("", &good())).await;
    let keys = format!("http://127.0.0.1:{keys}/jwks");
    let none = server(status("404 None")).await;
    let none = format!("http://127.0.0.1:{none}/jwks");
    let mut cases = JoinSet::new();
    for (issuer, jwks_uri, wanted, part) in [
        (None, keys.as_str(), Ok, ""),
        (
            Some("https://id.example.com"),
            &keys,
            Invalid,
            "document of another issuer",
        ),
        (
            Some("https://login.example.com/{tenantid}/v2.0"),
            &keys,
            Invalid,
            "of many tenants",
        ),
        (
            None,
            "http://id.example.com/jwks",
            Invalid,
            "names a jwks_uri that is not https",
        ),
        (
            None,
            "jwks",
            Invalid,
            "names a jwks_uri that is not an address",
        ),
        (None, &none, Status, "404"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = format!("http://{}", listener.local_addr().unwrap());
        let theirs = issuer.unwrap_or(&ours);
        let document = json_body(&json!({"issuer": theirs, "jwks_uri": jwks_uri}));
        cases.spawn(async move {
            let serve = async {
                let (stream, _) = listener.accept().await.unwrap();
                respond(stream, document).await.ok();
            };
            let address = KeyAddress::discovery(&ours).unwrap();
            let (_, (result, text, _)) = tokio::join!(serve, fetch(&address));
            assert_eq!(result, wanted, "{part}: {text}");
            assert!(text.contains(part), "{part}: {text}");
        });
    }
    cases.join_all().await;
    let port = server(To(keys)).await;
    let address = KeyAddress::discovery(&format!("http://127.0.0.1:{port}")).unwrap();
    assert_eq!(fetch(&address).await.0, Redirect);
}

#[tokio::test]
async fn an_address_that_nobody_answers_is_unreachable() {
    // Its queue of connections is full: the system leaves the next one without an answer.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(0).unwrap();
    let hanging = full.local_addr().unwrap();
    let _first = TcpStream::connect(hanging).await.unwrap();
    for (url, part) in [
        ("http://127.0.0.1:1/".to_owned(), "Connection refused"),
        (format!("http://{hanging}/"), "no connection within 2 s"),
        ("https://nobody.invalid/".to_owned(), "cannot be reached"),
    ] {
        let (result, text, _) = fetch(&KeyAddress::jwks(&url).unwrap()).await;
        assert_eq!(result, FetchResult::Unreachable, "{url}: {text}");
        assert!(text.contains(part), "{url}: {text}");
    }
}
