//! OpenID providers that people use, each behind the same proxy, and what can be done to their keys.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::faults::FaultProxy;
use crate::support::clients::script::Script;
use crate::support::clients::{CLIENTS, node};
use crate::support::eventually;
use crate::support::nats::Guard;
use crate::support::token::remember;

/// A provider whose public address is the proxy's.
pub(super) struct Provider {
    pub(super) issuer: String,
    /// Where a token is asked for, behind its public address.
    token_path: &'static str,
    port: u16,
    proxy_port: u16,
    http: reqwest::Client,
    kind: Kind,
}

enum Kind {
    OidcProvider(Mutex<Script>),
    Keycloak(Keycloak),
}

impl Provider {
    /// npm's `oidc-provider`.
    pub(super) async fn oidc(proxy: &FaultProxy) -> Self {
        let issuer = format!("http://127.0.0.1:{}", proxy.port);
        let mut command = node();
        command
            .arg("provider.mjs")
            .arg(&issuer)
            .current_dir(CLIENTS);
        let mut script = Script::start(command);
        let line = script.until("its port", |line| line["port"].is_u64()).await;
        let port = u16::try_from(line["port"].as_u64().expect("a number")).expect("a port");
        proxy.to(port);
        Self {
            issuer,
            token_path: "/token",
            port,
            proxy_port: proxy.port,
            http: client(),
            kind: Kind::OidcProvider(Mutex::new(script)),
        }
    }

    /// Keycloak, of the folder in `HERALD_TEST_KEYCLOAK`.
    pub(super) async fn keycloak(proxy: &FaultProxy, folder: &Path) -> Self {
        let (keycloak, port) = Keycloak::start(folder).await;
        proxy.to(port);
        Self {
            issuer: format!("http://127.0.0.1:{}/realms/herald", proxy.port),
            token_path: "/realms/herald/protocol/openid-connect/token",
            port,
            proxy_port: proxy.port,
            http: client(),
            kind: Kind::Keycloak(keycloak),
        }
    }

    /// A good token, for a user of its own. It does not come by the proxy.
    pub(super) async fn token(&self) -> String {
        let body = "grant_type=client_credentials&resource=urn:herald";
        let url = format!("http://127.0.0.1:{}{}", self.port, self.token_path);
        let request = self
            .http
            .post(url)
            // It names its issuer by this.
            .header("host", format!("127.0.0.1:{}", self.proxy_port))
            .header("content-type", "application/x-www-form-urlencoded")
            .basic_auth("herald", Some("a-secret-of-the-tests"));
        let answer = request.body(body).send().await.expect("an answer");
        let text = answer.text().await.expect("a body");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let token = answer["access_token"].as_str();
        remember(
            token
                .unwrap_or_else(|| panic!("no token: {text}"))
                .to_owned(),
        )
    }

    /// A new key signs from now on. The old ones stay in the key set.
    pub(super) async fn rotate(&self) {
        match &self.kind {
            Kind::OidcProvider(script) => order(script, "rotate").await,
            Kind::Keycloak(keycloak) => keycloak.rotate().await,
        }
    }

    /// Only the key that signs stays in the key set.
    pub(super) async fn withdraw(&self) {
        match &self.kind {
            Kind::OidcProvider(script) => order(script, "withdraw").await,
            Kind::Keycloak(keycloak) => keycloak.withdraw().await,
        }
    }
}

async fn order(script: &Mutex<Script>, order: &str) {
    let mut script = script.lock().await;
    script.command(&json!(order));
    script.until(order, |line| line["done"] == order).await;
}

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    builder.build().expect("a client")
}

/// A Keycloak process, and its administrator.
struct Keycloak {
    /// Ends it should the tests be killed: it does not look at its input. Gone before the process is.
    _guard: Guard,
    _process: Script,
    base: String,
    http: reqwest::Client,
    /// The key providers that sign, the newest last.
    keys: Mutex<Vec<String>>,
}

impl Keycloak {
    /// It starts in some 25 s, and has the realm `herald` then.
    async fn start(folder: &Path) -> (Self, u16) {
        let port = free_port();
        let mut command = Command::new(folder.join("bin/kc.sh"));
        command
            .args(["start-dev", "--http-host=127.0.0.1", "--cache=local"])
            .arg(format!("--http-port={port}"))
            .arg(format!("--http-management-port={}", free_port()))
            .env("KC_BOOTSTRAP_ADMIN_USERNAME", "admin")
            .env("KC_BOOTSTRAP_ADMIN_PASSWORD", "admin")
            .stdin(Stdio::null());
        let process = Script::start(command);
        let keycloak = Self {
            _guard: Guard::new(&format!("kill -9 {}", process.pid())),
            _process: process,
            base: format!("http://127.0.0.1:{port}"),
            http: client(),
            keys: Mutex::new(Vec::new()),
        };
        let is_up = eventually(Duration::from_secs(120), async || {
            let realm = format!("{}/realms/master", keycloak.base);
            keycloak
                .http
                .get(realm)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
        });
        assert!(is_up.await, "Keycloak does not answer");
        keycloak
            .admin(
                "POST",
                "",
                json!({"realm": "herald", "enabled": true, "accessTokenLifespan": 600}),
            )
            .await;
        keycloak
            .admin("POST", "/herald/clients", client_of_realm())
            .await;
        let first = keycloak.key_providers().await;
        *keycloak.keys.lock().await = first;
        (keycloak, port)
    }

    async fn rotate(&self) {
        let realm = self.admin("GET", "/herald", Value::Null).await;
        let mut keys = self.keys.lock().await;
        let priority = (200 + keys.len()).to_string();
        let key = json!({
            "name": format!("key-{priority}"),
            "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
            "parentId": realm["id"],
            "config": {
                "priority": [priority], "enabled": ["true"], "active": ["true"],
                "algorithm": ["RS256"], "keySize": ["2048"],
            },
        });
        self.admin("POST", "/herald/components", key).await;
        let all = self.key_providers().await;
        let new: Vec<String> = all.into_iter().filter(|id| !keys.contains(id)).collect();
        keys.extend(new);
    }

    async fn withdraw(&self) {
        let mut keys = self.keys.lock().await;
        let last = keys.pop().expect("a key");
        for old in std::mem::replace(&mut *keys, vec![last]) {
            self.admin("DELETE", &format!("/herald/components/{old}"), Value::Null)
                .await;
        }
    }

    /// The ids of those that sign with RSA.
    async fn key_providers(&self) -> Vec<String> {
        let path = "/herald/components?type=org.keycloak.keys.KeyProvider";
        let all = self.admin("GET", path, Value::Null).await;
        let all = all.as_array().expect("a list");
        let signs = all
            .iter()
            .filter(|key| key["providerId"] == "rsa-generated");
        signs
            .map(|key| key["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// One request to its administration of realms.
    async fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}/realms/master/protocol/openid-connect/token", self.base);
        let form = "client_id=admin-cli&username=admin&password=admin&grant_type=password";
        let login = self
            .http
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded");
        let login = login.body(form).send().await.expect("an answer");
        let login: Value =
            serde_json::from_str(&login.text().await.expect("a body")).expect("JSON");
        let token = login["access_token"].as_str().expect("a token");
        let method = method.parse().expect("a method");
        let mut request = self
            .http
            .request(method, format!("{}/admin/realms{path}", self.base))
            .bearer_auth(token);
        if !body.is_null() {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        serde_json::from_str(&answer.text().await.expect("a body")).unwrap_or_default()
    }
}

fn client_of_realm() -> Value {
    let mapper = |name: &str, kind: &str, config: Value| json!({"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": config});
    json!({
        "clientId": "herald",
        "secret": "a-secret-of-the-tests",
        "serviceAccountsEnabled": true,
        "publicClient": false,
        "standardFlowEnabled": false,
        "protocolMappers": [
            mapper("workspaces", "oidc-hardcoded-claim-mapper", json!({
                "claim.name": "workspaces", "claim.value": "acme", "jsonType.label": "String",
                "access.token.claim": "true",
            })),
            mapper("audience", "oidc-audience-mapper", json!({
                "included.custom.audience": "herald", "access.token.claim": "true",
            })),
        ],
    })
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A copy of the Keycloak of `HERALD_TEST_KEYCLOAK`, whose data is of this test alone.
pub(super) fn keycloak_folder() -> (tempfile::TempDir, PathBuf) {
    let from = std::env::var_os("HERALD_TEST_KEYCLOAK");
    let from =
        from.expect("HERALD_TEST_KEYCLOAK names the folder of Keycloak: see CONTRIBUTING.md");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(from)
        .arg(folder.path())
        .status();
    assert!(copied.expect("cp runs").success());
    let inside = std::fs::read_dir(folder.path()).expect("a folder").next();
    let keycloak = inside.expect("a folder").expect("a folder").path();
    // What somebody else's Keycloak has stored.
    let _ = std::fs::remove_dir_all(keycloak.join("data"));
    (folder, keycloak)
}
