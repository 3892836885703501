//! What cannot work of the settings that concern the way to a socket: its path, and the pages that may connect.

use super::{Config, origin};

/// What the gateway itself serves beside the sockets.
const TAKEN: [&str; 2] = ["/healthz", "/readyz"];
/// Bytes of the longest path: far more than anybody uses.
const NAME_BYTES_MAX: usize = 256;

pub(super) fn problems(config: &Config) -> Vec<String> {
    let server = &config.server;
    let origins = server.allowed_origins.iter();
    let mut problems: Vec<String> = origins
        .filter_map(|origin| origin::problem(origin))
        .collect();
    problems.extend(of_path(&server.path));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_as_a_client_asks_for_it() {
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
            let told = of_path(path).unwrap_or_else(|| panic!("{path}"));
            assert!(told.contains(part) && told.contains(path), "{told}");
        }
        assert!(of_path(&format!("/{}", "a".repeat(255))).is_none());
        assert!(of_path(&format!("/{}", "a".repeat(256))).is_some());
    }
}
