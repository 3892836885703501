//! Every key with its default and meaning: the list that unknown keys are compared with and that
//! the documentation is checked against.

use strsim::damerau_levenshtein;

use super::Config;
use super::near::distance;
use crate::word_enum::word_enum;

/// One setting as a user sees it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// `table.key`, as in the file.
    pub name: &'static str,
    /// Where [`Config`] has it.
    pub(super) path: &'static str,
    /// The default as it would be written; empty where there is none.
    pub default: &'static str,
    /// What a reload does with it.
    pub reload: Reload,
    differs: fn(&Config, &Config) -> bool,
}

word_enum! {
    /// What becomes of a setting that has changed when a gateway reads its settings again. The words are the
    /// documentation's.
    pub enum Reload {
        /// It is in force at once.
        Now = "yes",
        /// It is in force for sockets that open afterwards. Open ones keep the old value.
        NewSockets = "new sockets",
        /// It is in force after the next start.
        Restart = "restart",
    }
}

impl Setting {
    /// The environment variable of this key: `HERALD_<TABLE>__<KEY>`.
    pub fn variable(&self) -> String {
        format!("HERALD_{}", self.name.replacen('.', "__", 1).to_uppercase())
    }

    /// The key's name in an entry of `auth.issuers`, if it has one there: it is one of `[auth]`'s short form.
    pub(super) fn of_issuer(&self) -> Option<&'static str> {
        self.path.strip_prefix("auth.short_form.")
    }

    /// Whether its value is another one in `new`.
    pub fn differs(&self, old: &Config, new: &Config) -> bool {
        (self.differs)(old, new)
    }
}

macro_rules! key {
    ($table:ident.$field:ident, $default:literal, $reload:ident) => {
        key!($table.$field as stringify!($field), stringify!($field), $default, $reload)
    };
    (auth.short_form.$field:ident, $default:literal, $reload:ident) => {
        key!(auth.short_form.$field as stringify!($field), concat!("short_form.", stringify!($field)), $default, $reload)
    };
    ($table:ident$(.$field:ident)+ as $name:expr, $path:expr, $default:literal, $reload:ident) => {
        Setting {
            name: concat!(stringify!($table), ".", $name),
            path: concat!(stringify!($table), ".", $path),
            default: $default,
            reload: Reload::$reload,
            differs: |old, new| old.$table$(.$field)+ != new.$table$(.$field)+,
        }
    };
}

/// What every environment variable of a setting begins with.
pub(super) const PREFIX: &str = "HERALD_";

/// All settings, in the order of the documentation.
pub const KEYS: &[Setting] = &[
    key!(server.listen, "127.0.0.1:8080", Restart),
    key!(server.path, "/", Restart),
    key!(server.admin_listen, "127.0.0.1:9090", Restart),
    key!(server.publish_listen, "", Restart),
    key!(server.tls_cert, "", Now),
    key!(server.tls_key, "", Now),
    key!(server.allowed_origins, "", Now),
    key!(server.trusted_proxies, "", Now),
    key!(server.proxy_protocol, "false", Now),
    key!(server.admin_token_file, "", Now),
    key!(server.console, "false", Restart),
    key!(server.console_hosts, "", Restart),
    key!(server.console_sockets, "", Restart),
    key!(server.drain_delay, "0s", Now),
    key!(server.drain, "10s", Now),
    key!(server.unready_after, "30s", Now),
    key!(nats.url, "nats://127.0.0.1:4222", Restart),
    key!(nats.credentials_file, "", Restart),
    key!(nats.token_file, "", Restart),
    key!(nats.nkey_file, "", Restart),
    key!(nats.ca_file, "", Restart),
    key!(nats.client_cert, "", Restart),
    key!(nats.client_key, "", Restart),
    key!(nats.domain, "", Restart),
    key!(nats.prefix, "", Restart),
    key!(nats.inbox_prefix, "_INBOX", Restart),
    key!(nats.stream, "EVENTS", Restart),
    key!(nats.replicas, "1", Restart),
    key!(nats.max_age, "1h", Restart),
    key!(nats.max_bytes, "", Restart),
    key!(nats.sessions_max_bytes, "", Restart),
    key!(nats.dead_max_bytes, "", Restart),
    key!(nats.migrate, "true", Restart),
    key!(auth.short_form.hmac_secret, "", Now),
    key!(auth.short_form.hmac_secret_file, "", Now),
    key!(auth.short_form.public_key_file, "", Now),
    key!(auth.short_form.jwks_file, "", Now),
    key!(auth.short_form.jwks_url, "", Now),
    key!(auth.short_form.discovery, "false", Now),
    key!(auth.short_form.algorithms, "", Now),
    key!(auth.short_form.issuer, "", Now),
    key!(auth.short_form.audience, "", Now),
    key!(auth.short_form.audiences, "", Now),
    key!(auth.short_form.user_claim, "sub", Now),
    key!(auth.short_form.workspaces_claim, "workspaces", Now),
    key!(auth.short_form.workspaces_prefix, "", Now),
    key!(auth.short_form.required_claims, "", Now),
    key!(auth.leeway, "0s", Now),
    key!(auth.max_token_age, "", Now),
    key!(auth.jwks_max_stale, "24h", Now),
    key!(auth.cookie, "", Now),
    key!(auth.issuers, "", Now),
    key!(publish.audience, "herald-publish", Now),
    key!(publish.tokens_file, "", Now),
    key!(publish.rate, "1000", Now),
    key!(publish.concurrency, "64", Now),
    key!(publish.nats_url, "", Restart),
    key!(publish.nats_credentials_file, "", Restart),
    key!(publish.nats_nkey_file, "", Restart),
    key!(publish.nats_inbox_prefix, "", Restart),
    key!(sockets.inactivity, "300s", NewSockets),
    key!(sockets.ping, "25s", NewSockets),
    key!(sockets.pong_is_activity, "false", NewSockets),
    key!(sockets.max_message_bytes, "65536", NewSockets),
    key!(sockets.queue_bytes, "262144", NewSockets),
    key!(sockets.queue_bytes_total, "1073741824", NewSockets),
    key!(sockets.send_buffer, "65536", Restart),
    key!(sockets.max_connections, "100000", Now),
    key!(sockets.max_connections_per_address, "0", Now),
    key!(sockets.connect_rate, "10000", Now),
    key!(sockets.connect_rate_per_address, "0", Now),
    key!(workspaces.max_connections, "0", Now),
    key!(workspaces.join_rate, "0", Now),
    key!(workspaces.event_rate, "0", Now),
    key!(projection.rules, "", Now),
    key!(projection.type_mode as "type", "type", "severity", Now),
    key!(projection.traceparent, "false", Now),
    key!(telemetry.send_spans, "2", Restart),
    key!(telemetry.workspaces, "20", Restart),
    key!(telemetry.baggage, "", Restart),
    key!(telemetry.shutdown, "5s", Restart),
    key!(log.level, "info", Now),
    key!(log.format, "auto", Restart),
];

/// The keys of one entry of `auth.issuers`.
pub(super) fn of_issuer() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(Setting::of_issuer)
}

/// The known key that `unknown` was to be, if one is near: by its letters, by its words, or by its last part in
/// another table.
pub(super) fn nearest(unknown: &str) -> Option<&'static str> {
    let (table, leaf) = unknown.split_once('.').unwrap_or(("", unknown));
    let far = |key: &&Setting| {
        let (known_table, known_leaf) = key.name.split_once('.')?;
        if leaf == known_leaf {
            return Some((0, damerau_levenshtein(table, known_table)));
        }
        let tables = distance(table, known_table)?;
        let leaves = distance(leaf, known_leaf).or_else(|| {
            // `secret` for `hmac_secret`, `ping.interval` for `ping`.
            let of = |name: &'_ str, part: &str| {
                let mut words = name.split(['_', '.', '-']);
                let mut parts = part.split(['_', '.', '-']);
                !part.is_empty() && parts.all(|part| words.any(|word| word == part))
            };
            let is_part = of(leaf, known_leaf) || of(known_leaf, leaf);
            is_part.then(|| damerau_levenshtein(leaf, known_leaf))
        })?;
        Some((tables + leaves, 0))
    };
    KEYS.iter()
        .filter_map(|key| Some((far(&key)?, key.name)))
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}
