//! Checks of the settings on the way to a socket: its path, the pages that may connect, the cookie with their token,
//! the proxies in front, and the console.

use axum::http::Uri;

use super::{Config, ServerConfig, origin};

/// What the gateway itself serves beside the sockets.
const TAKEN: [&str; 2] = ["/healthz", "/readyz"];
/// Bytes of the longest path, and of the longest cookie's name: far more than anybody uses.
const NAME_BYTES_MAX: usize = 256;

pub(super) fn problems(config: &Config) -> Vec<String> {
    let server = &config.server;
    let origins = server.allowed_origins.iter();
    let mut problems: Vec<String> = origins
        .filter_map(|origin| origin::problem(origin))
        .collect();
    problems.extend(of_path(&server.path));
    if server.proxy_protocol && server.trusted_proxies.is_empty() {
        problems.push(
            "server.proxy_protocol needs server.trusted_proxies: name the proxies that send the header"
                .to_owned(),
        );
    }
    problems.extend(of_console(server));
    let cookie = config.auth.cookie.as_deref();
    problems.extend(cookie.and_then(|name| of_cookie(name, &server.allowed_origins)));
    problems
}

fn of_path(path: &str) -> Option<String> {
    let wrong = |why: &str| Some(format!("server.path: `{path}` {why}"));
    let Some(rest) = path.strip_prefix('/') else {
        return wrong("does not begin with a slash: write for example /live");
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !path.bytes().all(is_plain) || path.len() > NAME_BYTES_MAX {
        return wrong(
            "is no plain path: at most 256 letters, digits, `-`, `.`, `_`, `~` and slashes, without a query",
        );
    }
    // A slash may be the last: the empty part behind it is the only one that there may be.
    let parts: Vec<&str> = rest.strip_suffix('/').unwrap_or(rest).split('/').collect();
    let is_changed = |part: &&str| matches!(*part, "" | "." | "..");
    if path != "/" && parts.iter().any(is_changed) {
        return wrong(
            "has an empty part, `.` or `..`, which clients and proxies change on the way",
        );
    }
    if TAKEN.contains(&path) {
        return wrong("is a health check of the gateway's own: name another path");
    }
    None
}

fn of_console(server: &ServerConfig) -> Vec<String> {
    let mut problems = Vec::new();
    if server.console && server.admin_token_file.is_none() {
        problems.push(
            "server.console needs server.admin_token_file: whoever uses the page brings that token"
                .to_owned(),
        );
    }
    // The token would cross the network in clear text.
    if server.console && !server.admin_listen.ip().is_loopback() && server.console_hosts.is_empty()
    {
        problems.push(format!(
            "server.console with server.admin_listen {} needs server.console_hosts: the name in the browser's \
             address, of a proxy that speaks TLS",
            server.admin_listen
        ));
    }
    let hosts = server.console_hosts.iter();
    let wrong = hosts.filter(|host| !is_host(host)).map(|host| {
        format!(
            "server.console_hosts: `{host}` is no host as a browser's address has it: write for example \
             console.example.com, with a port where it is not the scheme's own"
        )
    });
    problems.extend(wrong);
    if let Some(sockets) = &server.console_sockets
        && !is_socket_url(sockets)
    {
        problems.push(format!(
            "server.console_sockets: `{sockets}` is no URL of sockets: write for example wss://ws.example.com/"
        ));
    }
    problems
}

/// A host, and perhaps a port. It becomes a part of headers.
fn is_host(text: &str) -> bool {
    let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    let uri = text
        .bytes()
        .all(is_of_host)
        .then(|| text.parse::<Uri>().ok());
    uri.flatten().is_some_and(|uri| uri.host().is_some())
}

/// `ws://` or `wss://`, a host and a plain path.
fn is_socket_url(text: &str) -> bool {
    let rest = text.strip_prefix("ws://").or(text.strip_prefix("wss://"));
    rest.is_some_and(|rest| {
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        is_host(host) && (path.is_empty() || of_path(path).is_none())
    })
}

fn of_cookie(name: &str, allowed_origins: &[String]) -> Option<String> {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_of_token) {
        return Some(
            "auth.cookie is the name of a cookie alone: letters, digits and `-`, `.`, `_`, for example __Host-token"
                .to_owned(),
        );
    }
    // A browser sends the cookie with every page's connection: only the origin distinguishes them.
    if allowed_origins.is_empty() {
        return Some(
            "auth.cookie needs server.allowed_origins: without it any page could connect as its visitor"
                .to_owned(),
        );
    }
    if allowed_origins.iter().any(|origin| origin == "null") {
        return Some(
            "auth.cookie cannot be used with `null` in server.allowed_origins: any page can make a frame of \
             that origin"
                .to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::{load, refused};
    use super::*;

    #[test]
    fn a_path_is_compared_as_it_is_requested() {
        for path in [
            "/",
            "/live",
            "/live/",
            "/a/b-c/d.e_f~",
            "/healthz/live",
            "/Healthz",
            "/...",
            "/.well-known/x",
        ] {
            assert_eq!(of_path(path), None, "{path}");
        }
        for (path, part) in [
            ("", "begin with a slash"),
            ("live", "begin with a slash"),
            ("https://example.com/live", "begin with a slash"),
            ("/live?", "no plain path"),
            ("/live?a=b", "no plain path"),
            ("/live#a", "no plain path"),
            ("/l%69ve", "no plain path"),
            ("/{live}", "no plain path"),
            ("/*live", "no plain path"),
            ("/:live", "no plain path"),
            ("/li ve", "no plain path"),
            ("/l\u{ef}ve", "no plain path"),
            ("/live\\", "no plain path"),
            ("//", "empty part"),
            ("//live", "empty part"),
            ("/live//", "empty part"),
            ("/a//b", "empty part"),
            ("/.", "`..`"),
            ("/../a", "`..`"),
            ("/a/..", "`..`"),
            ("/a/./", "`..`"),
            ("/healthz", "health check"),
            ("/readyz", "health check"),
        ] {
            let said = of_path(path).unwrap_or_else(|| panic!("{path}"));
            assert!(said.contains(part) && said.contains(path), "{said}");
        }
        assert!(of_path(&format!("/{}", "a".repeat(255))).is_none());
        assert!(of_path(&format!("/{}", "a".repeat(256))).is_some());
    }

    const ORIGINS: &str = "[server]\nallowed_origins = \"https://*.example.app\"\n[auth]\n";

    #[test]
    fn a_cookie_is_a_name_and_needs_to_know_the_pages() {
        for name in ["token", "__Host-token", "__Secure-x.y_z", "a!#$%&'*+^`|~"] {
            let config = load(&format!("{ORIGINS}cookie = \"{name}\"\n"), &[]).unwrap();
            assert_eq!(config.auth.cookie.as_deref(), Some(name));
        }
        for (file, part) in [
            (format!("{ORIGINS}cookie = \"\"\n"), "name of a cookie"),
            (format!("{ORIGINS}cookie = \"a=b\"\n"), "name of a cookie"),
            (format!("{ORIGINS}cookie = \"a b\"\n"), "name of a cookie"),
            (format!("{ORIGINS}cookie = \"a;b\"\n"), "name of a cookie"),
            (format!("{ORIGINS}cookie = \"caf\u{e9}\"\n"), "name of a cookie"),
            ("[auth]\ncookie = \"token\"\n".to_owned(), "needs server.allowed_origins"),
            (
                "[server]\nallowed_origins = [\"https://a.example\", \"null\"]\n[auth]\ncookie = \"token\"\n"
                    .to_owned(),
                "`null`",
            ),
        ] {
            let said = refused(&file, &[]);
            assert!(said.contains("auth.cookie") && said.contains(part), "{said}");
        }
    }

    #[test]
    fn the_console_needs_a_token_and_on_the_network_a_name() {
        let said = refused("[server]\nconsole = true\n", &[]);
        assert!(said.contains("needs server.admin_token_file"), "{said}");
        let token = "[server]\nconsole = true\nadmin_token_file = \"/t\"\n";
        assert!(load(token, &[]).is_ok());
        let public = format!("{token}admin_listen = \"0.0.0.0:9090\"\n");
        let said = refused(&public, &[]);
        assert!(said.contains("needs server.console_hosts"), "{said}");
        for host in [
            "console.example.com",
            "Console.example.com:8443",
            "10.0.0.1:9090",
            "[::1]:9090",
        ] {
            let config = load(&format!("{public}console_hosts = \"{host}\"\n"), &[]).unwrap();
            assert_eq!(config.server.console_hosts, [host]);
        }
        for host in [
            "*",
            "https://a.example",
            "a.example/",
            "a b",
            "u@a.example",
            "a;b",
            "'self'",
        ] {
            let said = refused(&format!("{public}console_hosts = [\"{host}\"]\n"), &[]);
            assert!(said.contains(&format!("`{host}` is no host")), "{said}");
        }
    }

    #[test]
    fn the_url_of_the_sockets_is_one_of_sockets() {
        for url in [
            "wss://ws.example.com",
            "wss://ws.example.com/",
            "ws://127.0.0.1:8080/live",
        ] {
            assert!(is_socket_url(url), "{url}");
        }
        for url in [
            "",
            "ws.example.com",
            "https://ws.example.com",
            "wss://",
            "wss:///",
            "wss://a b/",
            "wss://a.example/?token=x",
            "wss://u:p@a.example/",
            "wss://a.example;script-src *",
        ] {
            assert!(!is_socket_url(url), "{url}");
        }
    }

    #[test]
    fn a_proxy_header_needs_proxies() {
        let said = refused("[server]\nproxy_protocol = true\n", &[]);
        assert!(said.contains("needs server.trusted_proxies"), "{said}");
        let config = load(
            "",
            &[
                ("HERALD_SERVER__PROXY_PROTOCOL", "true"),
                ("HERALD_SERVER__TRUSTED_PROXIES", "10.0.0.0/8"),
            ],
        );
        assert!(config.unwrap().server.proxy_protocol);
    }
}
