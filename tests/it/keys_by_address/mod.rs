//! Verifies that keys which are fetched from an address follow their provider: nobody with a good token is refused, nobody
//! with a bad one gets in, and one fetch at a time is under way, whatever the provider does.
//!
//! npm's `oidc-provider` in every run; Keycloak, which takes half a minute to start, in `make check-long`.

mod faults;
mod foreign_keys;
mod provider;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use self::faults::{Fault, FaultProxy};
use self::provider::{Provider, keycloak_folder};
use crate::support::client::{Client, Refused};
use crate::support::command::herald;
use crate::support::gateway::{Builder, Gateway, file};
use crate::support::nats::Nats;
use crate::support::tls::{Certificates, acceptor};
use crate::support::token::{at, remember};
use crate::support::{PATIENCE, eventually};

/// A key that is missing is withdrawn by answers that are 30 s apart, and gateways look each 10 s.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(90);

fn settings(nats: &Nats, issuer: &str) -> Builder {
    Gateway::builder(nats)
        .unset("auth.hmac_secret")
        .set("auth.issuer", issuer)
        .set("auth.discovery", true)
        .set("auth.audience", "herald")
        // A user of its own for each token: nobody replaces anybody.
        .set("auth.user_claim", "jti")
}

/// What came of a join.
#[derive(Debug)]
enum Joined {
    Open(Box<Client>),
    Closed(u16),
    Refused(Refused),
}

async fn join(gateway: &Gateway, token: &str) -> Joined {
    let query = format!("token={token}&workspaceSlug=acme");
    match Client::attempt(gateway, &query).await {
        Err(refused) => Joined::Refused(refused),
        Ok(mut client) => {
            // A refusal closes first; an open socket answers.
            client.stream.send(Message::Ping("".into())).await.ok();
            let first = timeout(PATIENCE, client.stream.next()).await;
            match first.expect("something comes in time") {
                Some(Ok(Message::Close(Some(frame)))) => Joined::Closed(frame.code.into()),
                Some(Ok(_)) => Joined::Open(Box::new(client)),
                Some(Err(_)) | None => Joined::Closed(1006),
            }
        }
    }
}

async fn joined(gateway: &Gateway, token: &str) -> Client {
    match join(gateway, token).await {
        Joined::Open(client) => *client,
        other => panic!("{other:?}"),
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys");
    std::fs::read(keys.join(name)).expect("a fixture")
}

fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "sub": "mallory", "jti": "mallory", "aud": "herald", "workspaces": "*", "exp": at(600),
    })
}

/// A token of the key of this name.
fn signed(key: &str, kid: Option<&str>, claims: &Value) -> String {
    let key = EncodingKey::from_rsa_pem(&fixture(&format!("{key}.private.pem")));
    let mut header = Header::new(Algorithm::RS256);
    header.kid = kid.map(str::to_owned);
    remember(encode(&header, claims, &key.expect("a key")).expect("a token"))
}

/// Bad tokens of this issuer: of a key that nobody has, and of a name that a good key has.
fn bad_tokens(issuer: &str, good: &str) -> [String; 2] {
    let known = jsonwebtoken::decode_header(good).expect("a header").kid;
    let unknown = Some(format!("unknown-{}", at(0)));
    [known, unknown].map(|kid| signed("rsa-other", kid.as_deref(), &claims(issuer)))
}

/// Joins all the time, with good tokens and with bad ones.
struct Clients {
    stop: Arc<AtomicBool>,
    joins: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Clients {
    fn start(gateway: &Arc<Gateway>, provider: &Arc<Provider>) -> Self {
        let (stop, joins) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let mut tasks = JoinSet::new();
        for is_good in [true, false] {
            let (gateway, provider) = (Arc::clone(gateway), Arc::clone(provider));
            let (stop, joins) = (Arc::clone(&stop), Arc::clone(&joins));
            tasks.spawn(async move {
                let mut tick = interval(Duration::from_millis(100));
                let mut tries = JoinSet::new();
                while !stop.load(Ordering::Relaxed) {
                    tick.tick().await;
                    let (gateway, joins) = (Arc::clone(&gateway), Arc::clone(&joins));
                    let token = provider.token().await;
                    let issuer = provider.issuer.clone();
                    tries.spawn(async move {
                        if is_good {
                            let outcome = join(&gateway, &token).await;
                            assert!(matches!(outcome, Joined::Open(_)), "{outcome:?}");
                            joins.fetch_add(1, Ordering::Relaxed);
                        } else {
                            for token in bad_tokens(&issuer, &token) {
                                refused(&join(&gateway, &token).await);
                            }
                        }
                    });
                }
                while let Some(tried) = tries.join_next().await {
                    tried.expect("as it should be");
                }
            });
        }
        Self { stop, joins, tasks }
    }

    /// Waits until so many good ones have come in since now.
    async fn come_in(&self, count: usize) {
        let before = self.joins.load(Ordering::Relaxed);
        let came = eventually(PATIENCE, async || {
            self.joins.load(Ordering::Relaxed) >= before + count
        });
        assert!(came.await, "good tokens do not come in");
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("every token as it should be");
        }
    }
}

/// For good, or because the keys cannot be fetched just now.
fn refused(outcome: &Joined) {
    match outcome {
        Joined::Closed(4001) => {}
        Joined::Refused(Refused {
            status: 503,
            retry_after: Some(_),
            ..
        }) => {}
        other => panic!("a bad token: {other:?}"),
    }
}

async fn whatever_the_provider_does(proxy: FaultProxy, provider: Provider) {
    let nats = Nats::jetstream().await;
    let gateway = Arc::new(settings(&nats, &provider.issuer).ready().await);
    let provider = Arc::new(provider);
    let clients = Clients::start(&gateway, &provider);
    clients.come_in(10).await;
    // A new key, twice in a row: its first tokens wait for the one fetch.
    for _ in 0..2 {
        provider.rotate().await;
        clients.come_in(10).await;
    }
    for (fault, result) in Fault::ALL {
        let label = format!("result=\"{result}\"");
        let name = "herald_keys_fetches_total";
        let before = gateway.metric(name, &label).await;
        proxy.set(fault);
        let seen = eventually(PATIENCE, async || {
            gateway.metric(name, &label).await > before
        });
        assert!(seen.await, "{fault:?}: {}", gateway.output());
        clients.come_in(5).await;
    }
    // It answers, but slowly, and signs with a key that nobody has fetched.
    proxy.set(Fault::Slow);
    let ok = gateway
        .metric("herald_keys_fetches_total", "result=\"ok\"")
        .await;
    provider.rotate().await;
    clients.come_in(20).await;
    assert!(
        gateway
            .metric("herald_keys_fetches_total", "result=\"ok\"")
            .await
            > ok
    );
    proxy.set(Fault::None);
    clients.end().await;
    assert_eq!(proxy.most(), 1, "fetches at a time");
    let age = gateway
        .metric("herald_keys_age_seconds", "issuer=\"auth\"")
        .await;
    assert!(age < 60.0, "{age}");
    assert_eq!(gateway.metric("herald_keys_withdrawn_total", "").await, 0.0);
}

async fn a_withdrawn_key_ends_its_sockets(provider: Provider) {
    let nats = Nats::jetstream().await;
    let mut old = String::new();
    let gateway = settings(&nats, &provider.issuer).ready().await;
    let mut of_old = JoinSet::new();
    for _ in 0..3 {
        old = provider.token().await;
        let mut client = joined(&gateway, &old).await;
        of_old.spawn(async move { (client.closed().await, Instant::now()) });
    }
    provider.rotate().await;
    let mut of_new = joined(&gateway, &provider.token().await).await;
    provider.withdraw().await;
    gateway.signal("HUP");
    let mut closed = Vec::new();
    let all_closed = timeout(WITHDRAWN_WITHIN + Duration::from_secs(60), async {
        while !of_old.is_empty() {
            if let Ok(Some(one)) = timeout(Duration::from_secs(5), of_old.join_next()).await {
                closed.push(one.expect("closed"));
            }
            // It answers pings, too.
            assert!(of_new.is_open().await);
        }
    });
    all_closed.await.expect("its sockets are closed");
    for (close, _) in &closed {
        assert_eq!(*close, (4003, "token expired".to_owned()));
    }
    let times = closed.iter().map(|(_, at)| *at);
    let spread = times.clone().max().expect("three") - times.min().expect("three");
    let wanted = Duration::from_secs(10)..=Duration::from_secs(60);
    assert!(wanted.contains(&spread), "{spread:?}");
    gateway.logged("key withdrawn, its sockets end").await;
    assert!(gateway.metric("herald_keys_withdrawn_total", "").await > 0.0);
    assert!(matches!(join(&gateway, &old).await, Joined::Closed(4001)));
    joined(&gateway, &provider.token().await).await;
}

#[tokio::test]
async fn nobody_with_a_good_token_is_refused_and_nobody_with_a_bad_one_gets_in() {
    let proxy = FaultProxy::start().await;
    let provider = Provider::oidc(&proxy).await;
    Box::pin(whatever_the_provider_does(proxy, provider)).await;
}

#[tokio::test]
async fn the_sockets_of_a_withdrawn_key_end_and_others_stay() {
    let proxy = FaultProxy::start().await;
    let provider = Provider::oidc(&proxy).await;
    Box::pin(a_withdrawn_key_ends_its_sockets(provider)).await;
}

#[tokio::test]
#[ignore = "Keycloak is 150 MB, and starts in half a minute: make check-long"]
async fn keycloak_is_followed_through_every_fault() {
    let (_folder, keycloak) = keycloak_folder();
    let proxy = FaultProxy::start().await;
    let provider = Provider::keycloak(&proxy, &keycloak).await;
    Box::pin(whatever_the_provider_does(proxy, provider)).await;
}

#[tokio::test]
#[ignore = "Keycloak is 150 MB, and starts in half a minute: make check-long"]
async fn keycloak_withdraws_a_key() {
    let (_folder, keycloak) = keycloak_folder();
    let proxy = FaultProxy::start().await;
    let provider = Provider::keycloak(&proxy, &keycloak).await;
    Box::pin(a_withdrawn_key_ends_its_sockets(provider)).await;
}

#[tokio::test]
async fn a_gateway_waits_for_its_keys_and_says_for_which() {
    let nats = Nats::jetstream().await;
    let proxy = FaultProxy::start().await;
    let provider = Provider::oidc(&proxy).await;
    proxy.set(Fault::Error);
    let gateway = settings(&nats, &provider.issuer).start().await;
    let wanted = format!(
        "waiting for the keys of auth ({}/.well-known/openid-configuration) answers with status 500",
        provider.issuer
    );
    let says = eventually(PATIENCE, async || {
        let (status, body) = gateway.get("/readyz").await;
        status == 503 && body.contains(&wanted)
    });
    assert!(says.await, "{:?}", gateway.get("/readyz").await);
    let token = provider.token().await;
    let outcome = join(&gateway, &token).await;
    assert!(
        matches!(&outcome, Joined::Refused(refused) if refused.status == 503),
        "{outcome:?}"
    );
    proxy.set(Fault::None);
    let ready = eventually(PATIENCE, async || gateway.get("/readyz").await.0 == 200);
    assert!(ready.await, "{}", gateway.output());
    joined(&gateway, &token).await;
}

/// However many tokens of unknown keys come at once: they wait for the same fetch, and nobody else waits with them.
#[tokio::test]
async fn a_flood_of_unknown_keys_makes_one_fetch_in_five_seconds() {
    let nats = Nats::jetstream().await;
    let proxy = FaultProxy::start().await;
    let provider = Provider::oidc(&proxy).await;
    let gateway = Arc::new(settings(&nats, &provider.issuer).ready().await);
    let good = provider.token().await;
    let (before, began) = (proxy.all(), Instant::now());
    let mut flood = JoinSet::new();
    for number in 0..200 {
        let gateway = Arc::clone(&gateway);
        let claims = claims(&provider.issuer);
        let token = signed("rsa-other", Some(&format!("unknown-{number}")), &claims);
        flood.spawn(async move {
            // One after the other, so that some come in each interval.
            sleep(Duration::from_millis(40 * number)).await;
            refused(&join(&gateway, &token).await);
        });
    }
    while !flood.is_empty() {
        let asked = Instant::now();
        joined(&gateway, &good).await;
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        // What has ended has ended well.
        while let Some(ended) = flood.try_join_next() {
            ended.expect("refused");
        }
        sleep(Duration::from_millis(100)).await;
    }
    // A fetch is that of a document and that of the keys.
    let fetches = (proxy.all() - before) as u64 / 2;
    let intervals = began.elapsed().as_secs() / 5;
    assert!(
        (1..=intervals + 1).contains(&fetches),
        "{fetches} in {intervals}"
    );
    assert_eq!(proxy.most(), 1, "fetches at a time");
}

#[tokio::test]
async fn keys_that_are_too_old_let_nobody_in_and_close_nobody() {
    let nats = Nats::jetstream().await;
    let proxy = FaultProxy::start().await;
    let provider = Provider::oidc(&proxy).await;
    let builder = settings(&nats, &provider.issuer).set("auth.jwks_max_stale", "3s");
    let gateway = builder.ready().await;
    let mut client = joined(&gateway, &provider.token().await).await;
    proxy.set(Fault::Reset);
    sleep(Duration::from_secs(4)).await;
    let token = provider.token().await;
    let outcome = join(&gateway, &token).await;
    let Joined::Refused(refused) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(refused.status, 503);
    assert!(
        refused.retry_after.is_some_and(|seconds| seconds <= 5),
        "{refused:?}"
    );
    assert!(client.is_open().await);
    proxy.set(Fault::None);
    joined(&gateway, &token).await;
}

#[tokio::test]
async fn a_reload_with_an_address_without_keys_is_refused_as_a_whole() {
    let nats = Nats::jetstream().await;
    let proxy = FaultProxy::start().await;
    let provider = Provider::oidc(&proxy).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |url: &str, issuer: &str| {
        let text = format!(
            "[auth]\nissuer = \"{issuer}\"\njwks_url = \"{url}\"\naudience = \"herald\"\nuser_claim = \"jti\"\n"
        );
        file(folder.path(), "herald.toml", text)
    };
    let path = write(&format!("{}/jwks", provider.issuer), &provider.issuer);
    let builder = Gateway::builder(&nats).unset("auth.hmac_secret");
    let gateway = builder.file(path.as_ref()).ready().await;
    joined(&gateway, &provider.token().await).await;
    write(
        &format!("{}/none?apikey=swordfish", provider.issuer),
        &provider.issuer,
    );
    gateway.signal("HUP");
    let refused = "configuration not reloaded, the old one stays in force";
    let line = gateway.logged(refused).await;
    assert!(
        line.contains("keys of auth (") && line.contains("answers with status 404"),
        "{line}"
    );
    assert!(!gateway.output().contains("swordfish"));
    joined(&gateway, &provider.token().await).await;
    // The same keys, by another address that has some.
    write(&format!("{}/jwks?other", provider.issuer), &provider.issuer);
    gateway.signal("HUP");
    gateway.logged("configuration reloaded").await;
    joined(&gateway, &provider.token().await).await;
}

#[tokio::test]
async fn a_check_says_what_would_be_fetched_and_with_keys_fetches_it() {
    let nats = Nats::start("").await;
    let proxy = FaultProxy::start().await;
    let provider = Provider::oidc(&proxy).await;
    let settings = [
        ("HERALD_AUTH__ISSUER", provider.issuer.as_str()),
        ("HERALD_AUTH__DISCOVERY", "true"),
    ];
    let before = proxy.all();
    let output = herald(&nats, &settings, &["check"]).await.ok();
    let document = format!("{}/.well-known/openid-configuration", provider.issuer);
    let wanted = format!("by auth.discovery, to be fetched from {document}");
    assert!(output.stdout.contains(&wanted), "{output:?}");
    assert_eq!(proxy.all(), before, "nothing is fetched");
    let output = herald(&nats, &settings, &["check", "--keys", "--json"])
        .await
        .ok();
    let findings = output.json()["findings"].clone();
    let keys: Vec<&Value> = findings
        .as_array()
        .expect("a list")
        .iter()
        .filter(|finding| finding["part"] == "key")
        .collect();
    assert_eq!(keys.len(), 1, "{findings}");
    let detail = keys[0]["detail"].as_str().expect("a text");
    assert!(detail.starts_with("auth: kid \"key-"), "{detail}");
    assert!(detail.contains(", for RS256, thumbprint "), "{detail}");
    proxy.set(Fault::Html);
    let output = herald(&nats, &settings, &["check", "--keys"]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output.stderr.contains("is no discovery document"),
        "{output:?}"
    );
}

#[tokio::test]
async fn an_address_that_cannot_be_trusted_is_refused_before_anything_is_fetched() {
    let nats = Nats::start("").await;
    let wrong = [
        (
            vec![("HERALD_AUTH__JWKS_URL", "http://id.example.com/jwks")],
            "auth.jwks_url is not https",
        ),
        (
            vec![(
                "HERALD_AUTH__JWKS_URL",
                "https://ada:swordfish@id.example.com/",
            )],
            "auth.jwks_url has a user",
        ),
        (
            vec![("HERALD_AUTH__DISCOVERY", "true")],
            "auth.discovery needs auth.issuer",
        ),
        (
            vec![
                ("HERALD_AUTH__DISCOVERY", "true"),
                ("HERALD_AUTH__ISSUER", "acme"),
            ],
            "auth.discovery is fetched from auth.issuer, which is not an address",
        ),
        (
            vec![
                ("HERALD_AUTH__DISCOVERY", "true"),
                ("HERALD_AUTH__JWKS_URL", "https://id.example.com/"),
            ],
            "only one key source may be set, not auth.jwks_url and auth.discovery",
        ),
    ];
    for (settings, part) in wrong {
        let output = herald(&nats, &settings, &["check", "--keys"]).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains(part), "{part}: {output:?}");
        assert!(!format!("{output:?}").contains("swordfish"), "{output:?}");
    }
}

const DOWNGRADE: &str =
    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";

/// Answers with the key set of a provider, by TLS. One path leaves it.
async fn serve_by_tls(certificates: &Certificates) -> u16 {
    let acceptor = acceptor(&certificates.certificate(), &certificates.key());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let body = include_str!("../../fixtures/providers/clerk.json");
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            // One that does not trust the certificate goes away.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut request = [0; 4096];
                let came = stream.read(&mut request).await.unwrap_or_default();
                if came > 0 {
                    let answer = if request.starts_with(b"GET /downgraded") {
                        DOWNGRADE
                    } else {
                        &answer
                    };
                    stream.write_all(answer.as_bytes()).await.ok();
                    stream.shutdown().await.ok();
                }
            }
        }
    });
    port
}

#[tokio::test]
async fn by_tls_only_a_trusted_certificate_is_taken() {
    let nats = Nats::start("").await;
    let certificates = Certificates::new();
    let port = serve_by_tls(&certificates).await;
    let authority = certificates.authority().display().to_string();
    let check_path = async |host: &str, path: &str, more: &[(&str, &str)]| {
        let url = format!("https://{host}:{port}/{path}");
        let settings = [&[("HERALD_AUTH__JWKS_URL", url.as_str())], more].concat();
        herald(&nats, &settings, &["check", "--keys"]).await
    };
    let check = async |host: &str, more: &[(&str, &str)]| check_path(host, "jwks.json", more).await;
    let trusted = ("SSL_CERT_FILE", authority.as_str());
    let output = check_path("localhost", "downgraded", &[trusted]).await;
    assert!(
        output.stderr.contains("redirects to another scheme"),
        "{output:?}"
    );
    let output = check("localhost", &[trusted]).await.ok();
    assert!(
        output.stdout.contains("key: auth: kid \"ins_"),
        "{output:?}"
    );
    for (host, more) in [("localhost", &[][..]), ("127.0.0.1", &[trusted][..])] {
        let output = check(host, more).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(
            output
                .stderr
                .contains("cannot be reached: invalid peer certificate"),
            "{output:?}"
        );
    }
}

#[tokio::test]
async fn a_proxy_is_used_for_other_hosts_alone() {
    let nats = Nats::start("").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.expect("a request");
        stream.write_all(b"HTTP/1.1 502 No\r\n\r\n").await.ok();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let check = async |url: &str| {
        let settings = [
            ("HERALD_AUTH__JWKS_URL", url),
            ("HTTPS_PROXY", proxy.as_str()),
            ("HTTP_PROXY", proxy.as_str()),
            ("NO_PROXY", ""),
        ];
        herald(&nats, &settings, &["check", "--keys"]).await
    };
    // Nobody listens there.
    let output = check("http://127.0.0.1:1/").await;
    assert!(output.stderr.contains("Connection refused"), "{output:?}");
    let output = check("https://id.example.com/jwks").await;
    assert!(output.stderr.contains("cannot be reached"), "{output:?}");
    let asked = asked.await.expect("a request");
    assert!(asked.starts_with("CONNECT id.example.com:443 "), "{asked}");
}
