//! The recipes for identity providers in docs/tokens.md: all of them in one gateway, as they are, with what each provider
//! publishes at its own address. Each with a token of the shape that its provider documents, and with those that must not
//! pass.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::client::Client;
use crate::support::command::finish;
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::tls::{Certificates, acceptor};
use crate::support::token::{at, remember};

const TOKENS: &str = include_str!("../../docs/tokens.md");

/// The code block of this name.
fn example(name: &str) -> &'static str {
    let start = format!("<!-- example: {name} -->\n```");
    let (_, block) = TOKENS.split_once(&start).expect("an example");
    let (_, block) = block.split_once('\n').expect("its first line");
    block.split_once("\n```").expect("its end").0
}

fn key_file(name: &str) -> Vec<u8> {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys");
    std::fs::read(keys.join(name)).expect("a fixture")
}

/// What the provider publishes. Of Supabase there is no document of its own among the fixtures.
fn key_set(provider: &str) -> Vec<u8> {
    if provider != "supabase" {
        return published(&format!("{provider}.json"));
    }
    let ec = DecodingKey::from_ec_pem(&key_file("p256.public.pem")).expect("a key");
    let jwk = Jwk::from_decoding_key(&ec, Some(Algorithm::ES256)).expect("a JWK");
    let mut jwk = json!(jwk);
    jwk["kid"] = "1".into();
    jwk["use"] = "sig".into();
    json!({ "keys": [jwk] }).to_string().into_bytes()
}

fn published(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers");
    std::fs::read(folder.join(name)).expect("a fixture")
}

/// The id of the provider's first key for signatures.
fn key_id(provider: &str) -> String {
    let set: Value = serde_json::from_slice(&key_set(provider)).expect("JSON");
    let keys = set["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["use"] == "sig");
    key.expect("a key")["kid"]
        .as_str()
        .expect("an id")
        .to_owned()
}

fn signed(provider: &str, claims: &Value) -> String {
    let (algorithm, key) = match provider {
        "supabase" => (
            Algorithm::ES256,
            EncodingKey::from_ec_pem(&key_file("p256.private.pem")),
        ),
        _ => (
            Algorithm::RS256,
            EncodingKey::from_rsa_pem(&published(&format!("{provider}.private.pem"))),
        ),
    };
    let mut header = Header::new(algorithm);
    header.kid = Some(key_id(provider));
    remember(jsonwebtoken::encode(&header, claims, &key.expect("a key")).expect("a token"))
}

/// `claims` with others; a null removes one.
fn with(claims: &Value, others: Value) -> Value {
    let mut claims = claims.clone();
    let Value::Object(others) = others else {
        panic!("claims");
    };
    for (name, value) in others {
        if value.is_null() {
            claims.as_object_mut().expect("claims").remove(&name);
        } else {
            claims[name] = value;
        }
    }
    claims
}

/// A provider, a token of its that enters `acme`, who that is, and what of it must not do the same.
struct Case {
    provider: &'static str,
    claims: Value,
    user: &'static str,
    refused: Vec<Value>,
}

fn auth0() -> Case {
    let claims = json!({
        "iss": "https://example.eu.auth0.com/",
        "sub": "auth0|507f1f77bcf86cd799439011",
        "aud": ["https://herald.example.com", "https://example.eu.auth0.com/userinfo"],
        "iat": at(-60), "exp": at(86_340),
        "scope": "openid profile email",
        "azp": "my_client_id",
        "permissions": ["read:all"],
        "https://example.com/workspaces": ["acme", "globex"],
    });
    Case {
        user: "auth0|507f1f77bcf86cd799439011",
        refused: vec![
            // Its ID token.
            with(
                &claims,
                json!({ "aud": "my_client_id", "nonce": "n", "scope": null }),
            ),
            with(&claims, json!({ "iss": "https://example.eu.auth0.com" })),
            with(
                &claims,
                json!({ "https://example.com/workspaces": null, "workspaces": "acme" }),
            ),
        ],
        claims,
        provider: "auth0",
    }
}

fn keycloak() -> Case {
    let claims = json!({
        "exp": at(300), "iat": at(0), "auth_time": at(-9), "jti": "onrtac:5b1c2f3a",
        "iss": "https://sso.example.com/realms/example",
        "aud": ["herald", "account"],
        "sub": "f1b0a8a4-6f1e-4d1c-9b77-3d3c1d2b7e10",
        "typ": "Bearer", "azp": "web", "sid": "2e6f2c9e", "acr": "1",
        "allowed-origins": ["https://app.example.com"],
        "realm_access": { "roles": ["default-roles-example", "offline_access", "umbrella"] },
        "resource_access": {
            "herald": { "roles": ["acme", "initech"] },
            "account": { "roles": ["manage-account", "view-profile"] },
        },
        "scope": "openid profile email",
        "email_verified": true, "preferred_username": "ada", "email": "ada@example.com",
    });
    let other_client = json!({ "web": { "roles": ["acme"] }, "herald": { "roles": ["globex"] } });
    Case {
        user: "f1b0a8a4-6f1e-4d1c-9b77-3d3c1d2b7e10",
        refused: vec![
            with(
                &claims,
                json!({ "typ": "ID", "aud": "web", "resource_access": null }),
            ),
            with(&claims, json!({ "aud": "account" })),
            with(&claims, json!({ "resource_access": other_client })),
            with(&claims, json!({ "sub": null })),
            with(
                &claims,
                json!({ "iss": "https://sso.example.com/realms/other" }),
            ),
        ],
        claims,
        provider: "keycloak",
    }
}

fn cognito() -> Case {
    let pool = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE01";
    let claims = json!({
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "cognito:groups": ["workspace-acme", "admins", "eu-west-1_EXAMPLE01_Google"],
        "iss": pool,
        "client_id": "xxxxxxxxxxxxexample",
        "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "event_id": "64f513be-32db-42b0-b78e-b02127b4f463",
        "token_use": "access", "version": 2,
        "scope": "aws.cognito.signin.user.admin openid profile",
        "auth_time": at(-9), "iat": at(-9), "exp": at(3_591),
        "jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "username": "ada",
    });
    Case {
        user: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        refused: vec![
            with(&claims, json!({ "cognito:groups": ["acme"] })),
            with(&claims, json!({ "cognito:groups": null })),
            with(&claims, json!({ "iss": format!("{pool}/") })),
        ],
        claims,
        provider: "cognito",
    }
}

fn entra() -> Case {
    let tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let claims = json!({
        "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
        "iss": format!("https://login.microsoftonline.com/{tenant}/v2.0"),
        "iat": at(0), "nbf": at(0), "exp": at(4_200),
        "aio": "AXQAi/8IAAAA", "azp": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "azpacr": "0",
        "name": "Ada", "preferred_username": "ada@example.com",
        "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
        "rh": "I", "roles": ["workspace:acme", "Task.Read"],
        "scp": "access_as_user",
        "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
        "tid": tenant, "uti": "fqiBqXLPj0eQa82S-IYFAA", "ver": "2.0",
    });
    Case {
        user: "690222be-ff1a-4d56-abd1-7e4f7d38e474",
        refused: vec![
            // For Microsoft Graph, and of version 1.
            with(
                &claims,
                json!({ "aud": "00000003-0000-0000-c000-000000000000" }),
            ),
            with(
                &claims,
                json!({ "iss": format!("https://sts.windows.net/{tenant}/"), "ver": "1.0" }),
            ),
            with(
                &claims,
                json!({ "roles": ["acme"], "groups": ["workspace:acme"] }),
            ),
            with(&claims, json!({ "oid": null })),
        ],
        claims,
        provider: "entra",
    }
}

fn firebase() -> Case {
    let claims = json!({
        "iss": "https://securetoken.google.com/example-project",
        "aud": "example-project",
        "auth_time": at(-9), "user_id": "abc123DEF456ghi789JKL012mno3", "sub": "abc123DEF456ghi789JKL012mno3",
        "iat": at(-9), "exp": at(3_591),
        "email": "ada@example.com", "email_verified": true,
        "workspaces": ["acme"],
        "firebase": { "identities": { "email": ["ada@example.com"] }, "sign_in_provider": "password" },
    });
    let custom =
        "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit";
    Case {
        user: "abc123DEF456ghi789JKL012mno3",
        refused: vec![
            // Another project's, which the same keys sign.
            with(
                &claims,
                json!({ "iss": "https://securetoken.google.com/other", "aud": "other" }),
            ),
            with(&claims, json!({ "aud": "other" })),
            with(
                &claims,
                json!({ "aud": custom, "iss": "firebase-adminsdk@example-project.iam.gserviceaccount.com" }),
            ),
            with(
                &claims,
                json!({ "workspaces": null, "firebase": { "sign_in_provider": "anonymous" } }),
            ),
        ],
        claims,
        provider: "firebase",
    }
}

fn supabase() -> Case {
    let claims = json!({
        "aal": "aal1", "amr": [{ "method": "password", "timestamp": at(-9) }],
        "app_metadata": { "provider": "email", "providers": ["email"], "workspaces": ["acme"] },
        "aud": "authenticated", "email": "ada@example.com", "phone": "",
        "iat": at(-9), "exp": at(3_591), "is_anonymous": false,
        "iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
        "role": "authenticated", "session_id": "cfa2e0d1-1b2c-4f5a-9d3e-0a1b2c3d4e5f",
        "sub": "123e4567-e89b-12d3-a456-426614174000",
        "user_metadata": { "email": "ada@example.com", "workspaces": ["globex", "*"] },
    });
    let users_own = json!({ "provider": "email", "providers": ["email"] });
    Case {
        user: "123e4567-e89b-12d3-a456-426614174000",
        refused: vec![
            with(
                &claims,
                json!({ "app_metadata": users_own, "user_metadata": { "workspaces": ["acme"] } }),
            ),
            with(
                &claims,
                json!({ "iss": "supabase", "role": "anon", "ref": "abcdefghijklmnopqrst", "sub": null }),
            ),
            with(&claims, json!({ "aud": "anon" })),
        ],
        claims,
        provider: "supabase",
    }
}

fn clerk() -> Case {
    let claims = json!({
        "azp": "https://app.example.com", "exp": at(60), "fva": [7, -1], "iat": at(0),
        "iss": "https://clerk.example.com", "jti": "a1b2c3", "nbf": at(-10),
        "sid": "sess_123", "sub": "user_2NNEqL2nrIRdJ194ndJqAHwEfxC", "v": 2,
        "pla": "o:pro", "fea": "o:dashboard", "sts": "active",
        "o": { "id": "org_123", "slg": "acme", "rol": "admin", "per": "manage", "fpm": "3" },
    });
    Case {
        user: "user_2NNEqL2nrIRdJ194ndJqAHwEfxC",
        refused: vec![
            // No active organization; another one; what only version 1 has.
            with(&claims, json!({ "o": null })),
            with(
                &claims,
                json!({ "o": { "id": "acme", "slg": "globex", "rol": "acme" } }),
            ),
            with(&claims, json!({ "o": null, "v": null, "org_slug": "acme" })),
        ],
        claims,
        provider: "clerk",
    }
}

/// The close code of a join with these claims.
async fn closed(gateway: &Gateway, provider: &str, claims: &Value) -> u16 {
    let query = format!("token={}&workspaceSlug=acme", signed(provider, claims));
    Client::connect(gateway, &query).await.closed().await.0
}

/// What is published by address: the discovery document and the key set of each provider.
fn publications(cases: &[Case]) -> BTreeMap<String, Vec<u8>> {
    let mut published = BTreeMap::new();
    for Case {
        provider, claims, ..
    } in cases
    {
        let issuer = claims["iss"].as_str().expect("an issuer");
        let document = match *provider {
            "supabase" => None,
            provider => Some(self::published(&format!("{provider}.discovery.json"))),
        };
        let keys = match &document {
            None => format!("{issuer}/.well-known/jwks.json"),
            Some(document) => {
                let document: Value = serde_json::from_slice(document).expect("JSON");
                document["jwks_uri"]
                    .as_str()
                    .expect("an address")
                    .to_owned()
            }
        };
        published.insert(keys, key_set(provider));
        if let Some(document) = document {
            let base = issuer.trim_end_matches('/');
            published.insert(format!("{base}/.well-known/openid-configuration"), document);
        }
    }
    published
}

/// The part of a URL between `https://` and its path.
fn host(url: &str) -> &str {
    let rest = url.strip_prefix("https://").expect("https");
    rest.split('/').next().expect("a host")
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    String::from_utf8(head).expect("text")
}

/// All hosts behind one proxy, by TLS.
async fn serve(published: BTreeMap<String, Vec<u8>>, certificates: &Certificates) -> String {
    let acceptor = acceptor(&certificates.certificate(), &certificates.key());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = format!("http://{}", listener.local_addr().expect("an address"));
    let published = Arc::new(published);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let (acceptor, published) = (acceptor.clone(), Arc::clone(&published));
            tokio::spawn(async move {
                let connect = head(&mut stream).await;
                let host = connect
                    .strip_prefix("CONNECT ")
                    .and_then(|rest| rest.split(':').next());
                let host = host.expect("a host").to_owned();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
                    .await
                    .expect("open");
                let mut stream = acceptor.accept(stream).await.expect("TLS");
                let request = head(&mut stream).await;
                let path = request.split(' ').nth(1).expect("a path");
                let answer = match published.get(&format!("https://{host}{path}")) {
                    None => b"HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n".to_vec(),
                    Some(body) => {
                        let length = body.len();
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                        [head.as_bytes(), body].concat()
                    }
                };
                stream.write_all(&answer).await.expect("sent");
                stream.shutdown().await.ok();
            });
        }
    });
    proxy
}

#[tokio::test]
async fn each_recipe_takes_its_providers_tokens_and_no_others() {
    let cases = [
        auth0(),
        keycloak(),
        cognito(),
        entra(),
        firebase(),
        supabase(),
        clerk(),
    ];
    let recipes: BTreeSet<&str> = TOKENS
        .split("<!-- example: ")
        .filter_map(|text| text.split_once(".toml -->").map(|(name, _)| name))
        .filter(|name| !name.contains('\n'))
        .collect();
    let tried = cases.iter().map(|case| case.provider);
    assert_eq!(
        recipes,
        tried.collect(),
        "a recipe without a test, or the other way around"
    );

    let folder = tempfile::tempdir().expect("a temporary folder");
    // All of them in one file, as they are.
    let recipes = cases
        .iter()
        .map(|case| example(&format!("{}.toml", case.provider)));
    let config = recipes.collect::<Vec<_>>().join("\n\n");
    let config = file(folder.path(), "herald.toml", config);
    let published = publications(&cases);
    let hosts: BTreeSet<String> = published.keys().map(|url| host(url).to_owned()).collect();
    let certificates = Certificates::of(Vec::from_iter(hosts));
    let proxy = serve(published, &certificates).await;
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats)
        .unset("auth.hmac_secret")
        .variable("HTTPS_PROXY", proxy)
        .variable("NO_PROXY", "")
        .variable("SSL_CERT_FILE", certificates.authority().display());
    let gateway = builder.file(Path::new(&config)).ready().await;
    let publisher = Publisher::on(&nats).await;
    for case in &cases {
        let Case {
            provider,
            claims,
            user,
            refused,
        } = case;
        let query = format!("token={}&workspaceSlug=acme", signed(provider, claims));
        let mut client = Client::connect(&gateway, &query).await;
        assert!(client.is_open().await, "{provider}: {}", gateway.output());
        let event = json!({ "title": provider, "message": "-", "recipients": [user] });
        publisher.event("acme.custom.hello", &event).await;
        assert_eq!(client.notification().await["title"], **provider);
        for wrong in refused {
            assert_eq!(
                closed(&gateway, provider, wrong).await,
                4001,
                "{provider}: {wrong}"
            );
        }
        // Of the right shape, and of another's key.
        let other = if *provider == "supabase" {
            "auth0"
        } else {
            "supabase"
        };
        assert_eq!(closed(&gateway, other, claims).await, 4001, "{provider}");
    }
}

/// A download that fails, or that is no key set, leaves the keys that are there.
#[tokio::test]
async fn a_failed_fetch_of_keys_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = file(folder.path(), "fetch-keys", example("fetch-keys"));
    let keys = file(folder.path(), "keys.json", "the old ones");
    let page = file(folder.path(), "page", "<html>come back later</html>");
    for url in [format!("file://{page}"), format!("file://{page}.none")] {
        let mut fetch = Command::new("sh");
        fetch.args([&script, &url, &keys]);
        assert_ne!(finish(fetch).await.code, Some(0));
        assert_eq!(
            std::fs::read_to_string(&keys).expect("a file"),
            "the old ones"
        );
    }
}
