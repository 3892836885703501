//! Nobody gets anything of `/console` without the token, under another name, or for another page.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

use super::{ADMIN_TOKEN, gateway_with_console, with_console};
use crate::support::gateway::{Gateway, exchange};
use crate::support::nats::Nats;
use crate::support::production::Production;
use crate::support::token::{at, publisher, signed, token, with_key};

/// What the page reads.
const API: [&str; 6] = [
    "about",
    "token",
    "sessions",
    "dead-letters?since=60",
    "metrics",
    "schemas/record.created",
];

/// The whole answer to a request with exactly these header lines.
async fn answer(gateway: &Gateway, method: &str, path: &str, headers: &str) -> String {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
    );
    let answer = exchange(&gateway.admin, request.as_bytes()).await;
    answer.expect("an answer")
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).expect("a status line");
    status.parse().expect("a status")
}

#[tokio::test]
async fn all_but_the_files_of_the_page_needs_the_admin_token() {
    let nats = Nats::jetstream().await;
    let (gateway, _folder) = gateway_with_console(&nats).await;
    let host = format!("Host: {}\r\n", gateway.admin);
    for path in ["", "/app.js", "/style.css", "/icon.svg"] {
        let answer = answer(&gateway, "GET", &format!("/console{path}"), &host).await;
        assert_eq!(status(&answer), 200, "{path}");
        assert!(!answer.contains(ADMIN_TOKEN), "{path}");
    }
    let good = format!("{host}Authorization: Bearer {ADMIN_TOKEN}\r\n");
    for api in API {
        let path = format!("/console/api/{api}");
        for bad in [
            host.clone(),
            format!("{host}Herald-Console: 1\r\n"),
            format!("{host}Authorization: Bearer {ADMIN_TOKEN}x\r\n"),
            format!("{host}Cookie: token={ADMIN_TOKEN}\r\n"),
        ] {
            let answer = answer(&gateway, "GET", &path, &bad).await;
            assert_eq!(status(&answer), 401, "{api} {bad}: {answer}");
        }
        let answer = answer(&gateway, "GET", &path, &good).await;
        let wanted = if api == "token" { 400 } else { 200 };
        assert_eq!(status(&answer), wanted, "{api}: {answer}");
    }
    let preview = "/console/api/preview/acme/record.created";
    assert_eq!(status(&answer(&gateway, "POST", preview, &host).await), 401);
}

#[tokio::test]
async fn another_name_another_page_and_a_token_in_the_url_are_refused_everywhere() {
    let nats = Nats::jetstream().await;
    let (gateway, _folder) = gateway_with_console(&nats).await;
    let token = format!("Authorization: Bearer {ADMIN_TOKEN}\r\n");
    let local = format!("Host: {}\r\n", gateway.admin);
    let port = gateway.admin.rsplit_once(':').expect("a port").1;
    let paths: Vec<String> = API
        .map(|api| format!("/console/api/{api}"))
        .into_iter()
        .chain(["/console".to_owned(), "/console/app.js".to_owned()])
        .collect();
    for path in &paths {
        for (headers, wanted) in [
            // A name that was rebound to this address.
            (format!("Host: evil.example:{port}\r\n"), 421),
            (format!("Host: localhost.evil.example:{port}\r\n"), 421),
            ("Host: 127.0.0.1\r\n".to_owned(), 421),
            (String::new(), 400),
            (format!("{local}Origin: http://evil.example\r\n"), 403),
            (format!("{local}Origin: http://localhost:3000\r\n"), 403),
            (format!("{local}Origin: null\r\n"), 403),
            (format!("{local}Sec-Fetch-Site: cross-site\r\n"), 403),
            (format!("{local}Sec-Fetch-Site: same-site\r\n"), 403),
        ] {
            // Even with the token.
            let answer = answer(&gateway, "GET", path, &(headers.clone() + &token)).await;
            let got = status(&answer);
            // Some answer is HTTP's own, where there is no host at all.
            let is_refused = got == wanted || (headers.is_empty() && got == 421);
            assert!(is_refused, "{path} {headers}: {answer}");
            let lower = answer.to_lowercase();
            assert!(!lower.contains("access-control-"), "{answer}");
        }
        let separator = if path.contains('?') { '&' } else { '?' };
        for name in ["token", "access_token", "bearer", "Authorization"] {
            let path = format!("{path}{separator}{name}={ADMIN_TOKEN}");
            let answer = answer(&gateway, "GET", &path, &local).await;
            assert_eq!(status(&answer), 400, "{path}: {answer}");
            assert!(!answer.contains(ADMIN_TOKEN), "{answer}");
        }
        let named =
            "Host: Console.Example.com\r\nOrigin: https://console.example.com\r\n".to_owned();
        let answer = answer(&gateway, "GET", path, &(named + &token)).await;
        assert!(matches!(status(&answer), 200 | 400), "{path}: {answer}");
    }
    // The rest of the listener answers under any name, as without the page.
    for (path, wanted) in [("/metrics", 200), ("/nothing", 404)] {
        let answer = answer(&gateway, "GET", path, "Host: evil.example\r\n").await;
        assert_eq!(status(&answer), wanted, "{path}: {answer}");
    }
    // What a browser asks before a request that is not simple.
    let preflight = format!(
        "{local}Origin: http://evil.example\r\nAccess-Control-Request-Method: GET\r\n\
         Access-Control-Request-Headers: authorization\r\n"
    );
    let answer = answer(&gateway, "OPTIONS", "/console/api/about", &preflight).await;
    assert_eq!(status(&answer), 403, "{answer}");
    assert!(!gateway.output().contains(ADMIN_TOKEN));
}

/// The page's route of HTTP publishing takes what the listener of HTTP publishing takes, from the page alone.
#[tokio::test]
async fn only_a_token_for_publishing_publishes_by_the_page() {
    let nats = Nats::jetstream().await;
    let (builder, _folder) = with_console(Gateway::builder(&nats));
    let gateway = builder
        .set("server.publish_listen", "127.0.0.1:0")
        .ready()
        .await;
    let event = "/console/publish/v1/workspaces/acme/events/custom.x";
    let post = async |headers: &str, path: &str| {
        let answer = gateway.admin_with(headers, "POST", path, "{}").await;
        answer.expect("an answer")
    };
    let publisher = publisher("ci", &json!("*"), &json!("*"));
    let publisher = format!("Authorization: Bearer {publisher}\r\n");
    let socket = token("ada", "acme");
    for (headers, path, wanted, problem) in [
        (
            format!("Authorization: Bearer {socket}\r\n"),
            event.to_owned(),
            401,
            "bad-token",
        ),
        (
            format!("Authorization: Bearer {ADMIN_TOKEN}\r\n"),
            event.to_owned(),
            401,
            "bad-token",
        ),
        (String::new(), event.to_owned(), 401, "no-token"),
        (
            publisher.clone(),
            format!("{event}?bearer={socket}"),
            400,
            "token-in-url",
        ),
        (
            format!("{publisher}Origin: http://evil.example\r\n"),
            event.to_owned(),
            403,
            "origin",
        ),
        (
            format!("{publisher}Sec-Fetch-Site: cross-site\r\n"),
            event.to_owned(),
            403,
            "origin",
        ),
    ] {
        let answer = post(&headers, &path).await;
        assert_eq!(status(&answer), wanted, "{problem}: {answer}");
        let problem = format!("urn:herald:problem:{problem}\"");
        assert!(answer.contains(&problem), "{problem}: {answer}");
        assert!(!answer.contains(&socket), "{answer}");
    }
    let answer = post(&publisher, event).await;
    assert_eq!(status(&answer), 201, "{answer}");
    assert!(answer.contains("\"sequence\":1,"), "{answer}");
}

#[tokio::test]
async fn each_answer_says_what_a_page_may_do() {
    let nats = Nats::jetstream().await;
    let (gateway, _folder) = gateway_with_console(&nats).await;
    let host = format!("Host: {}\r\n", gateway.admin);
    for (path, headers) in [
        ("/console", host.clone()),
        ("/console/app.js", host.clone()),
        ("/console/api/about", host.clone()),
        ("/console", "Host: evil.example\r\n".to_owned()),
    ] {
        let answer = answer(&gateway, "GET", path, &headers).await.to_lowercase();
        let policy = answer
            .lines()
            .find_map(|line| line.strip_prefix("content-security-policy: "))
            .unwrap_or_else(|| panic!("{path}: {answer}"));
        for part in [
            "default-src 'none'; script-src 'self'; style-src 'self';",
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none';",
            "require-trusted-types-for 'script'; trusted-types 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(
            !policy.contains("unsafe") && !policy.contains('*'),
            "{policy}"
        );
        let connect = policy
            .split("; ")
            .find(|part| part.starts_with("connect-src"));
        let sockets = format!("connect-src 'self' ws://127.0.0.1:{}", gateway.port());
        let is_refused = headers.contains("evil");
        let wanted = if is_refused {
            "connect-src 'self' "
        } else {
            &sockets
        };
        assert_eq!(connect, Some(wanted), "{path}");
        for header in [
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-opener-policy: same-origin",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-store",
        ] {
            assert!(answer.contains(header), "{path} {header}: {answer}");
        }
    }
}

/// It is off unless it is set, whatever the token.
#[tokio::test]
async fn a_gateway_has_no_page_of_itself() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    for path in ["/console", "/console/api/about"] {
        assert_eq!(gateway.admin("GET", path, "").await.0, 404, "{path}");
    }
}

/// With the permissions of production one is missing: the answer names it, and the gateway serves on.
#[tokio::test]
async fn dead_letters_need_a_permission_that_the_answer_names() {
    let production = Production::migrated().await;
    let (builder, _folder) = with_console(production.gateway("gateway"));
    let gateway = builder.set("server.unready_after", "0s").ready().await;
    let read = async || {
        let path = "/console/api/dead-letters?since=60";
        gateway.admin_as(ADMIN_TOKEN, "GET", path, "").await
    };
    let (status, told) = read().await;
    assert_eq!(status, 403, "{told}");
    assert!(told.contains("$JS.API.DIRECT.GET.DEAD"), "{told}");
    for _ in 0..10 {
        assert_eq!(read().await.0, 403);
        assert_eq!(gateway.get("/readyz").await.0, 200);
    }
    assert_eq!(gateway.log_lines("nats permission missing"), 0);
}

#[tokio::test]
async fn a_token_is_explained_as_the_gateway_judges_it() {
    let nats = Nats::jetstream().await;
    let (gateway, _folder) = gateway_with_console(&nats).await;
    let explain = async |token: &str| {
        let headers = format!("Authorization: Bearer {ADMIN_TOKEN}\r\nHerald-Token: {token}\r\n");
        let answer = gateway
            .admin_with(&headers, "GET", "/console/api/token", "")
            .await;
        let answer = answer.expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str::<serde_json::Value>(body).expect("JSON")
    };
    let claims = json!({ "sub": "ada", "workspaces": ["acme", "globex"], "exp": at(3600) });
    let good = signed(&claims);
    let told = explain(&good).await;
    assert_eq!(told["issuer"], "auth");
    assert_eq!(told["verdict"]["good"], true, "{told}");
    assert_eq!(told["verdict"]["user"], "ada");
    assert_eq!(told["verdict"]["workspaces"], json!(["acme", "globex"]));
    let other = EncodingKey::from_secret(b"another secret of thirty-two bytes");
    let foreign = with_key(&claims, Algorithm::HS256, &other);
    for (token, code, reason) in [
        (foreign.as_str(), 4001, "signature"),
        ("swordfish", 4001, "invalid token"),
    ] {
        let told = explain(token).await;
        assert_eq!(told["verdict"]["good"], false, "{told}");
        assert_eq!(told["verdict"]["code"], code, "{told}");
        let said = told["verdict"]["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{told}");
        assert!(!told.to_string().contains("swordfish"), "{told}");
    }
}
