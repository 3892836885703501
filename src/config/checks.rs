//! Values that can be read but cannot work, whatever command reads them. Pure.

use std::time::Duration;

use super::{Config, NatsConfig, SocketsConfig, auth, edge, names, publish};

/// Most `send` spans of one event: each costs as much as a delivery.
const SEND_SPANS_MAX: usize = 1000;
/// Most new connections, or events of a workspace, a second: beyond what any host can do.
const RATE_MAX: u32 = 1_000_000;
/// The largest `sockets.max_message_bytes`. Each socket may have a message of that size being read, and its limits on
/// bytes are computed from it.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most workspaces with series of their own; the SDK takes 2,000 of one instrument.
const WORKSPACES_MAX: usize = 1000;
/// A smaller stream of events has no room for the largest event with its headers.
const EVENTS_BYTES_MIN: u64 = 128 * 1024;
/// A smaller SESSIONS has no room for a dozen users.
const SESSIONS_BYTES_MIN: u64 = 4 * 1024;
/// A smaller DEAD has no room for a letter of a large event: whole ones take half of it at most.
const DEAD_BYTES_MIN: u64 = 128 * 1024;

/// One sentence for each.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let Config {
        server, telemetry, ..
    } = config;
    let lasts = |name: &str, value: Duration| {
        let text = format!("{name} must be at least 100ms");
        (value >= Duration::from_millis(100), text)
    };
    let at_most = |name: &str, value: usize, most: usize| {
        (value <= most, format!("{name} must be at most {most}"))
    };
    let mut problems = failed([
        (
            server.tls_cert.is_some() == server.tls_key.is_some(),
            "server.tls_cert and server.tls_key go together: set both or neither".to_owned(),
        ),
        lasts("sockets.inactivity", config.sockets.inactivity),
        lasts("sockets.ping", config.sockets.ping),
        lasts("nats.max_age", config.nats.max_age),
        at_most("telemetry.send_spans", telemetry.send_spans, SEND_SPANS_MAX),
        at_most("telemetry.workspaces", telemetry.workspaces, WORKSPACES_MAX),
    ]);
    problems.extend(auth::problems(config));
    problems.extend(publish::problems(config));
    problems.extend(of_nats(&config.nats));
    problems.extend(of_sockets(&config.sockets));
    problems.extend(of_workspaces(config));
    problems.extend(edge::problems(config));
    problems
}

/// The texts of the checks that failed.
fn failed<const N: usize>(checks: [(bool, String); N]) -> Vec<String> {
    let failed = checks.into_iter().filter(|(ok, _)| !ok);
    failed.map(|(_, text)| text).collect()
}

fn of_sockets(sockets: &SocketsConfig) -> Vec<String> {
    let not_zero = |name: &str, value: usize| (value > 0, format!("{name} must not be 0"));
    failed([
        not_zero("sockets.max_message_bytes", sockets.max_message_bytes),
        not_zero("sockets.queue_bytes", sockets.queue_bytes),
        not_zero("sockets.max_connections", sockets.max_connections),
        (
            sockets.max_message_bytes <= MESSAGE_BYTES_MAX,
            format!("sockets.max_message_bytes must be at most {MESSAGE_BYTES_MAX}"),
        ),
        (
            sockets.queue_bytes >= 64 * 1024,
            "sockets.queue_bytes must have room for one notification: at least 65536".to_owned(),
        ),
        (
            sockets.queue_bytes_total >= sockets.queue_bytes,
            "sockets.queue_bytes_total must be at least sockets.queue_bytes".to_owned(),
        ),
        (
            sockets.max_connections_per_address <= sockets.max_connections,
            "sockets.max_connections_per_address must be at most sockets.max_connections (0: no limit)".to_owned(),
        ),
        rate("sockets.connect_rate", sockets.connect_rate),
        rate(
            "sockets.connect_rate_per_address",
            sockets.connect_rate_per_address,
        ),
        (
            sockets.connect_rate == 0 || sockets.connect_rate_per_address <= sockets.connect_rate,
            "sockets.connect_rate_per_address must be at most sockets.connect_rate (0: no limit)".to_owned(),
        ),
    ])
}

fn of_workspaces(config: &Config) -> Vec<String> {
    let Config {
        sockets,
        workspaces,
        ..
    } = config;
    failed([
        (
            workspaces.max_connections <= sockets.max_connections,
            "workspaces.max_connections must be at most sockets.max_connections (0: no limit)"
                .to_owned(),
        ),
        rate("workspaces.join_rate", workspaces.join_rate),
        (
            sockets.connect_rate == 0 || workspaces.join_rate <= sockets.connect_rate,
            "workspaces.join_rate must be at most sockets.connect_rate (0: no limit)".to_owned(),
        ),
        rate("workspaces.event_rate", workspaces.event_rate),
        rate("publish.rate", config.publish.rate),
    ])
}

fn rate(name: &str, value: u32) -> (bool, String) {
    let text = format!("{name} must be at most {RATE_MAX} (0: no limit)");
    (value <= RATE_MAX, text)
}

fn of_nats(nats: &NatsConfig) -> Vec<String> {
    let bytes = |name: &str, value: Option<u64>, least: u64| {
        let most = i64::MAX.unsigned_abs();
        let text = format!("{name} must be at least {least} and at most {most}, or 0: no limit");
        let fits = |bytes| bytes == 0 || (least..=most).contains(&bytes);
        (value.is_none_or(fits), text)
    };
    let domain = nats.domain.as_deref().unwrap_or_default();
    let mut problems = failed([
        (
            matches!(nats.replicas, 1 | 3 | 5),
            "nats.replicas must be 1, 3 or 5".to_owned(),
        ),
        (
            is_stream_name(&nats.stream),
            "nats.stream must be a JetStream name: letters, digits, - and _, at most 64".to_owned(),
        ),
        (
            is_inbox_prefix(&nats.inbox_prefix),
            "nats.inbox_prefix must be a subject of plain tokens without wildcards".to_owned(),
        ),
        (
            nats.urls().next().is_some(),
            "nats.url must not be empty".to_owned(),
        ),
        (
            names::is_domain(domain),
            "nats.domain must be the name of a JetStream domain: one word without . * > $ and blanks".to_owned(),
        ),
        (
            nats.client_cert.is_some() == nats.client_key.is_some(),
            "nats.client_cert and nats.client_key go together: set both or neither".to_owned(),
        ),
        bytes("nats.max_bytes", nats.max_bytes, EVENTS_BYTES_MIN),
        bytes(
            "nats.sessions_max_bytes",
            nats.sessions_max_bytes,
            SESSIONS_BYTES_MIN,
        ),
        bytes("nats.dead_max_bytes", nats.dead_max_bytes, DEAD_BYTES_MIN),
    ]);
    let mut credentials = nats.files().into_iter().take(3);
    let mut next = || credentials.find_map(|(name, file)| file.as_ref().map(|_| name));
    if let (Some(first), Some(second)) = (next(), next()) {
        problems.push(format!(
            "{first} and {second} are two ways to log in: set one of them"
        ));
    }
    problems.extend(names::problem(nats));
    problems
}

fn is_stream_name(name: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_of_name)
}

fn is_inbox_prefix(prefix: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"*>".contains(&byte);
    prefix
        .split('.')
        .all(|token| !token.is_empty() && token.bytes().all(is_plain))
}
