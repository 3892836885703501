//! Settings: one struct per part of the gateway, defaults < file < environment.
//!
//! Reading a configuration never touches the network and never prints a secret. Unknown keys are
//! errors that name the nearest known one; every problem found is reported at once. The table of
//! keys in [`keys`] is what `docs/configuration.md` is checked against.

mod auth;
mod checks;
mod duration;
mod edge;
mod file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod issuers;
mod keys;
mod list;
mod load;
pub mod names;
mod near;
mod network;
mod origin;
mod problem;
mod publish;
mod secret;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

pub(crate) use self::auth::CLOCK_LEEWAY_MIN;
pub use self::auth::{AuthConfig, IssuerConfig};
pub(crate) use self::duration::parse as parse_duration;
pub(crate) use self::file::{
    FileError, NamedFile, must_be_regular, open_regular, read_bounded, read_once, rest_bounded,
    text,
};
pub use self::keys::{KEYS, Reload, Setting};
pub(crate) use self::load::FILE;
pub use self::load::{ConfigError, LoadedConfig};
pub use self::names::Names;
pub(crate) use self::near::near;
pub(crate) use self::origin::{allows, is_of_host};
pub use self::problem::Problem;
pub(crate) use self::problem::line;
pub use self::publish::PublishConfig;
pub use self::secret::Secret;

/// Everything that can be set. `Config::default()` is the documented default of every key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub server: ServerConfig,
    pub nats: NatsConfig,
    pub auth: AuthConfig,
    pub publish: PublishConfig,
    pub sockets: SocketsConfig,
    pub workspaces: WorkspacesConfig,
    pub projection: ProjectionConfig,
    pub telemetry: TelemetryConfig,
    pub log: LogConfig,
}

/// Listeners, TLS and the process' own life.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where sockets, `/healthz` and `/readyz` are served.
    #[serde(deserialize_with = "network::address")]
    pub listen: SocketAddr,
    /// The path of the sockets' URL, compared as it is.
    pub path: String,
    /// Where `/metrics` is served. Not for the public.
    #[serde(deserialize_with = "network::address")]
    pub admin_listen: SocketAddr,
    /// Where HTTP publishing is served. Unset: nowhere.
    #[serde(deserialize_with = "network::some_address")]
    pub publish_listen: Option<SocketAddr>,
    /// PEM certificate chain; with it, `listen` and `publish_listen` speak TLS only.
    pub tls_cert: Option<PathBuf>,
    /// PEM private key of `tls_cert`.
    pub tls_key: Option<PathBuf>,
    /// Origins (`https://app.example.com`, `https://*.example.com`) whose pages may connect. Empty: any. A
    /// request without an `Origin` header does not come from a browser and is taken, unless its token is
    /// in a cookie.
    #[serde(deserialize_with = "list::string_or_list")]
    pub allowed_origins: Vec<String>,
    /// Proxies that are believed about a client's address (`Forwarded`, `X-Forwarded-For`). Empty: none is, and a
    /// client's address is that of its connection.
    #[serde(deserialize_with = "network::deserialize")]
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each connection of a trusted proxy begins with a PROXY header, v1 or v2, and no other does.
    pub proxy_protocol: bool,
    /// File with the token that `Authorization: Bearer` must carry to change something on
    /// `admin_listen`. Unset: nothing can be changed there.
    pub admin_token_file: Option<PathBuf>,
    /// Whether `admin_listen` serves the page at `/console`, whose requests need the admin token.
    pub console: bool,
    /// Names of the page's host in a browser's address, beside `localhost`: `console.example.com`.
    #[serde(deserialize_with = "list::string_or_list")]
    pub console_hosts: Vec<String>,
    /// Where browsers reach the sockets, for the page. Unset: at the page's own host and the port of `listen`.
    pub console_sockets: Option<String>,
    /// How long `/readyz` answers 503 before the first close of a drain.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// The window over which a drain spreads its closes.
    #[serde(with = "duration")]
    pub drain: Duration,
    /// How long NATS may be away before `/readyz` answers 503.
    #[serde(with = "duration")]
    pub unready_after: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            path: "/".to_owned(),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
            publish_listen: None,
            tls_cert: None,
            tls_key: None,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            admin_token_file: None,
            console: false,
            console_hosts: Vec::new(),
            console_sockets: None,
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(10),
            unready_after: Duration::from_secs(30),
        }
    }
}

/// The NATS connection and the values that the migrations' placeholders take.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// Server URLs, several with commas. May carry `user:password@`, and is a secret for that.
    #[serde(deserialize_with = "secret::secret_or_list")]
    pub url: Secret,
    /// A NATS `.creds` file (JWT and seed).
    pub credentials_file: Option<PathBuf>,
    /// File with a token. White space around it is not part of it.
    pub token_file: Option<PathBuf>,
    /// File with the seed of a user's nkey (`SU…`).
    pub nkey_file: Option<PathBuf>,
    /// A PEM file with the CA certificates of the NATS servers, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM certificate chain to show to the servers. Goes with `client_key`.
    pub client_cert: Option<PathBuf>,
    /// PEM private key of `client_cert`.
    pub client_key: Option<PathBuf>,
    /// JetStream domain of the streams. Unset: that of the server that is connected to.
    pub domain: Option<String>,
    /// What all names begin with, so that several deployments share an account. Unset: nothing.
    pub prefix: Option<String>,
    /// Prefix of the inboxes on which this user receives answers (ADR-6): give every user its own,
    /// so that no other can subscribe to them.
    pub inbox_prefix: String,
    /// Name of the stream of events.
    pub stream: String,
    /// Replicas of each JetStream object that `herald migrate` makes (1, 3 or 5).
    pub replicas: usize,
    /// How long events are kept: the longest disconnection that can be repaired.
    #[serde(with = "duration")]
    pub max_age: Duration,
    /// Most bytes of the stream of events; a full one refuses new events. 0: no limit. Unset: it is made
    /// without one, and one that it was given is left alone.
    pub max_bytes: Option<u64>,
    /// The same of SESSIONS; a full one refuses newcomers.
    pub sessions_max_bytes: Option<u64>,
    /// The same of DEAD, which is made with 256 MiB; a full one keeps no more dead letters.
    pub dead_max_bytes: Option<u64>,
    /// Whether `serve` applies migrations at start; in production another user does.
    pub migrate: bool,
    /// How long revocations are kept: see [`AuthConfig::revoked_max_age`]. No setting of its own.
    #[serde(skip)]
    pub revoked_max_age: Option<Duration>,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: Secret::from("nats://127.0.0.1:4222"),
            credentials_file: None,
            token_file: None,
            nkey_file: None,
            ca_file: None,
            client_cert: None,
            client_key: None,
            domain: None,
            prefix: None,
            inbox_prefix: "_INBOX".to_owned(),
            stream: "EVENTS".to_owned(),
            replicas: 1,
            max_age: Duration::from_secs(3600),
            max_bytes: None,
            sessions_max_bytes: None,
            dead_max_bytes: None,
            migrate: true,
            revoked_max_age: None,
        }
    }
}

impl NatsConfig {
    /// What everything is called with these settings.
    pub fn names(&self) -> Names {
        Names::new(self)
    }

    /// The settings that name a file, with it.
    pub(crate) fn files(&self) -> [(&'static str, &Option<PathBuf>); 6] {
        [
            ("nats.credentials_file", &self.credentials_file),
            ("nats.token_file", &self.token_file),
            ("nats.nkey_file", &self.nkey_file),
            ("nats.ca_file", &self.ca_file),
            ("nats.client_cert", &self.client_cert),
            ("nats.client_key", &self.client_key),
        ]
    }

    /// The setting with the credentials for NATS.
    pub fn way_in(&self) -> &'static str {
        let way = self
            .files()
            .into_iter()
            .find(|(name, file)| *name != "nats.ca_file" && file.is_some());
        way.map_or("nats.url", |(name, _)| name)
    }

    /// The URLs of `nats.url`, one by one.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.url
            .expose()
            .split(',')
            .map(str::trim)
            .filter(|url| !url.is_empty())
    }

    /// `nats.url` without the user and password in it.
    pub(crate) fn without_user(&self) -> Secret {
        let urls = self.urls().map(|url| match url.split_once("://") {
            Some((scheme, rest)) => {
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                format!("{scheme}://{host}")
            }
            None => url
                .rsplit_once('@')
                .map_or(url, |(_, host)| host)
                .to_owned(),
        });
        Secret::from(urls.collect::<Vec<_>>().join(","))
    }

    /// `host:port` of each server, as messages name them: without a user and password.
    pub fn hosts(&self) -> String {
        let hosts = self.urls().map(|url| {
            let host = url.split_once("://").map_or(url, |(_, host)| host);
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            let host = host.split(['/', '?', '#']).next().unwrap_or_default();
            let has_port = host
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
            match has_port {
                true => host.to_owned(),
                false => format!("{host}:4222"),
            }
        });
        hosts.collect::<Vec<_>>().join(", ")
    }
}

/// Limits and timers of one socket, and how many there may be.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SocketsConfig {
    /// A socket with neither client traffic nor a notification for this long is closed with 4008.
    #[serde(with = "duration")]
    pub inactivity: Duration,
    /// Interval of the server's pings; two unanswered ones end the connection.
    #[serde(with = "duration")]
    pub ping: Duration,
    /// Whether an automatic pong counts as activity.
    pub pong_is_activity: bool,
    /// Largest message taken from a client, fragments together.
    pub max_message_bytes: usize,
    /// Notifications waiting for one socket; more closes it with 4010.
    pub queue_bytes: usize,
    /// Bytes of notifications waiting for all sockets, each text counted once. The fuller it is, the less
    /// may wait for one socket.
    pub queue_bytes_total: usize,
    /// The kernel's send buffer of one socket (`SO_SNDBUF`). 0: the system's default.
    pub send_buffer: usize,
    /// Sockets at one gateway; further ones get HTTP 503.
    pub max_connections: usize,
    /// Sockets of one address; further ones get HTTP 429. 0: no limit.
    pub max_connections_per_address: usize,
    /// New sockets a second, as many of them at once; further ones get HTTP 429. 0: no limit.
    pub connect_rate: u32,
    /// The same of one address. 0: no limit.
    pub connect_rate_per_address: u32,
}

impl Default for SocketsConfig {
    fn default() -> Self {
        Self {
            inactivity: Duration::from_secs(300),
            ping: Duration::from_secs(25),
            pong_is_activity: false,
            max_message_bytes: 64 * 1024,
            queue_bytes: 256 * 1024,
            // Room for 4,096 sockets that stand still, and a fraction of what a host for 100,000 has.
            queue_bytes_total: 1024 * 1024 * 1024,
            send_buffer: 64 * 1024,
            max_connections: 100_000,
            // Only the operator knows who is behind one address: an office or one hostile host. And behind a proxy
            // that is not listed, one address is everybody.
            max_connections_per_address: 0,
            // The 10,000 sockets of a gateway that died join without a refusal. A refusal costs as much CPU as a
            // join, 0.15 ms: a lower rate makes a storm longer, not milder. In a flood it saves signature checks and
            // claims.
            connect_rate: 10_000,
            connect_rate_per_address: 0,
        }
    }
}

/// Limits of each workspace on one gateway. All are off by default: only the operator knows how busy one workspace may
/// be.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkspacesConfig {
    /// Sockets of one workspace; further ones get HTTP 503. 0: no limit.
    pub max_connections: usize,
    /// New sockets of one workspace a second, as many of them at once; further ones get HTTP 429. 0: no limit.
    pub join_rate: u32,
    /// Events of one workspace that are given out a second, as many of them at once. Further ones wait, and are dropped
    /// once they are a minute late. 0: no limit.
    pub event_rate: u32,
}

/// How events become notifications.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectionConfig {
    /// A rules file instead of the built-in one.
    pub rules: Option<PathBuf>,
    /// What a notification's `type` is.
    #[serde(rename = "type")]
    pub type_mode: TypeMode,
    /// Whether `metadata.traceparent` is written.
    pub traceparent: bool,
}

/// What a notification's `type` is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TypeMode {
    /// One of info, success, warning, error, alert.
    #[default]
    Severity,
    /// The event's own name: `record_created`, `function_complete`, `alert`, …
    Event,
}

impl TryFrom<String> for TypeMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "severity" => Ok(Self::Severity),
            "event" => Ok(Self::Event),
            _ => Err(format!("`{text}` is none of severity, event")),
        }
    }
}

/// How much telemetry there is. Where it goes, the standard `OTEL_*` variables say.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Sockets of each recorded event that get a `send` span. 0: none.
    pub send_spans: usize,
    /// The busiest workspaces, so many, have metrics of their own. 0: none has.
    pub workspaces: usize,
    /// Keys of a publisher's baggage that become attributes of its events' spans.
    #[serde(deserialize_with = "list::string_or_list")]
    pub baggage: Vec<String>,
    /// How long the end of the process may take to export what waits. 0: not at all.
    #[serde(with = "duration")]
    pub shutdown: Duration,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            // Two tell a slow socket from a slow gateway, and cost little beside a fan-out of 100.
            send_spans: 2,
            workspaces: 20,
            baggage: Vec::new(),
            shutdown: Duration::from_secs(5),
        }
    }
}

/// Logs on standard error.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `off`, `error`, `warn`, `info`, `debug`, `trace`, or a filter of levels and targets. Dependencies
    /// never go beyond `warn`: at `trace` they print frames, and with them tokens.
    pub level: String,
    /// `text`, `json`, or `auto`: text on a terminal, JSON elsewhere.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    #[default]
    Auto,
    Text,
    Json,
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is none of auto, text, json")),
        }
    }
}
