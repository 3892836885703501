//! Every key with its default and meaning: the list that unknown keys are compared with and that
//! the documentation is checked against.

/// One setting as a user sees it.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// `table.key`, as in the file.
    pub name: &'static str,
    /// The default as it would be written; empty where there is none.
    pub default: &'static str,
}

impl Key {
    /// The environment variable of this key: `HERALD_<TABLE>__<KEY>`.
    pub fn variable(&self) -> String {
        format!("HERALD_{}", self.name.replacen('.', "__", 1).to_uppercase())
    }
}

const fn key(name: &'static str, default: &'static str) -> Key {
    Key { name, default }
}

/// All settings, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key("server.listen", "127.0.0.1:8080"),
    key("server.admin_listen", "127.0.0.1:9090"),
    key("server.tls_cert", ""),
    key("server.tls_key", ""),
    key("server.allowed_origins", ""),
    key("server.trusted_proxies", ""),
    key("server.drain_delay", "0s"),
    key("server.drain", "10s"),
    key("server.unready_after", "30s"),
    key("nats.url", "nats://127.0.0.1:4222"),
    key("nats.credentials_file", ""),
    key("nats.ca_file", ""),
    key("nats.inbox_prefix", "_INBOX"),
    key("nats.stream", "EVENTS"),
    key("nats.replicas", "1"),
    key("nats.max_age", "1h"),
    key("nats.migrate", "true"),
    key("auth.hmac_secret", ""),
    key("auth.hmac_secret_file", ""),
    key("auth.public_key_file", ""),
    key("auth.jwks_file", ""),
    key("auth.issuer", ""),
    key("auth.audience", ""),
    key("auth.workspaces_claim", "workspaces"),
    key("auth.leeway", "0s"),
    key("sockets.inactivity", "300s"),
    key("sockets.ping", "25s"),
    key("sockets.pong_is_activity", "false"),
    key("sockets.max_message_bytes", "65536"),
    key("sockets.queue_bytes", "262144"),
    key("sockets.queue_bytes_total", "1073741824"),
    key("sockets.send_buffer", "65536"),
    key("sockets.max_connections", "100000"),
    key("sockets.max_connections_per_address", "0"),
    key("sockets.connect_rate", "10000"),
    key("sockets.connect_rate_per_address", "0"),
    key("projection.rules", ""),
    key("projection.type", "severity"),
    key("projection.traceparent", "false"),
    key("telemetry.send_spans", "2"),
    key("telemetry.workspaces", "20"),
    key("telemetry.baggage", ""),
    key("telemetry.shutdown", "5s"),
    key("log.level", "info"),
    key("log.format", "auto"),
];

/// The known key nearest to `unknown` by edit distance, wherever its table.
pub(super) fn nearest(unknown: &str) -> &'static str {
    KEYS.iter()
        .min_by_key(|key| {
            // A right last word in the wrong table is nearer than its letters say.
            let same_leaf = leaf(key.name) == leaf(unknown);
            strsim::damerau_levenshtein(key.name, unknown).saturating_sub(if same_leaf {
                unknown.len()
            } else {
                0
            })
        })
        .map_or("", |key| key.name)
}

fn leaf(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, leaf)| leaf)
}
