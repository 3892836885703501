//! Settings as a user meets them: file, environment, mistakes.

use std::collections::BTreeMap;

use super::*;

pub(super) fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("herald.toml");
    std::fs::write(&path, file).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::read_from(Some(&path), variables)
        .and_then(LoadedConfig::into_config)
        .map_err(|error| error.to_string())
}

pub(super) fn refused(file: &str, variables: &[(&str, &str)]) -> String {
    match load(file, variables) {
        Ok(_) => panic!("taken: {file} {variables:?}"),
        Err(text) => text,
    }
}

#[test]
fn the_environment_wins_over_the_file_and_both_over_the_defaults() {
    let file = "[server]\nlisten = \"0.0.0.0:1\"\n[sockets]\ninactivity = \"5m\"\n[nats]\nurl = [\"a\", \"b\"]\n";
    let config = load(
        file,
        &[
            ("HERALD_SERVER__LISTEN", "127.0.0.1:2"),
            ("HERALD_SOCKETS__PONG_IS_ACTIVITY", "true"),
            ("HERALD_SERVER__ALLOWED_ORIGINS", "https://a, https://b"),
            ("HERALD_NATS__STREAM", ""),
            ("HERALD_PORT", "tcp://10.0.0.1:80"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.sockets.inactivity, Duration::from_secs(300));
    assert!(config.sockets.pong_is_activity);
    assert_eq!(config.server.allowed_origins, ["https://a", "https://b"]);
    assert_eq!(config.nats.urls().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(config.nats.stream, "EVENTS");
    assert_eq!(config.sockets.ping, Duration::from_secs(25));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let text = refused(
        "[server]\nlissten = \"x\"\n[socket]\nping = \"1s\"\n",
        &[("HERALD_NATS__URLS", "x")],
    );
    for part in [
        "`server.lissten`: did you mean `server.listen`?",
        "`socket.ping`: did you mean `sockets.ping`?",
        "`HERALD_NATS__URLS`: did you mean `HERALD_NATS__URL`?",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn values_that_cannot_work_are_all_named() {
    let text = refused(
        "[sockets]\ninactivity = \"0s\"\nqueue_bytes = 10\n[nats]\nreplicas = 2\nstream = \"a.b\"\n[server]\ntls_cert = \"x\"\n",
        &[],
    );
    for part in [
        "sockets.inactivity",
        "sockets.queue_bytes",
        "nats.replicas",
        "nats.stream",
        "server.tls_key",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_named_and_a_secret_is_not_shown() {
    let text = refused("[sockets]\nping = \"soon\"\n", &[]);
    assert!(text.contains("soon") && text.contains("300s"), "{text}");
    let text = refused("[auth]\nhmac_secret = [\"swordfish\"]\n", &[]);
    assert!(
        text.contains("auth.hmac_secret") && !text.contains("swordfish"),
        "{text}"
    );
    let text = refused("[auth]\nhmac_secret = \"swordfish\n", &[]);
    assert!(
        text.contains("line 2") && !text.contains("swordfish"),
        "{text}"
    );
}

/// A table, a line of it that is wrong, and what is said of it.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "server",
        "listen = 8080",
        "`server.listen`: `8080` is no IP address with a port: write for example 127",
    ),
    (
        "server",
        "listen = \"localhost:1\"",
        "is no IP address with a port",
    ),
    (
        "server",
        "listen = []",
        "`server.listen` is a list: write text in quotes",
    ),
    ("server", "admin_listen = \"x\"", "server.admin_listen"),
    (
        "server",
        "tls_cert = { a = 1 }",
        "`server.tls_cert` is a table: write text in quotes",
    ),
    (
        "server",
        "allowed_origins = 5",
        "`server.allowed_origins` is the number 5: write text in quotes, or a list",
    ),
    (
        "server",
        "allowed_origins = { a = 1 }",
        "is a table: write text in quotes, or a list",
    ),
    (
        "server",
        "allowed_origins = [[\"a\"]]",
        "is a list: write text in quotes",
    ),
    (
        "server",
        "allowed_origins = \"x\"",
        "server.allowed_origins",
    ),
    (
        "server",
        "trusted_proxies = true",
        "is a truth value, true: write text in quotes, or a list",
    ),
    (
        "server",
        "trusted_proxies = \"x\"",
        "`x` is neither an address nor a network",
    ),
    (
        "server",
        "drain = 5",
        "`5` is not a duration: write for example 300s",
    ),
    ("server", "drain = true", "`true` is not a duration"),
    (
        "server",
        "drain = {}",
        "`server.drain` is a table: write text in quotes",
    ),
    ("server", "drain = \"-1s\"", "`-1s` is not a duration"),
    (
        "nats",
        "url = { a = \"hunter\" }",
        "`nats.url` has a value of the wrong type: a table",
    ),
    (
        "nats",
        "url = 5",
        "`nats.url` has a value of the wrong type: the number, not text",
    ),
    ("nats", "url = \"\"", "nats.url must not be empty"),
    ("nats", "replicas = 2", "nats.replicas must be 1, 3 or 5"),
    (
        "nats",
        "replicas = \"many\"",
        "`nats.replicas` is the text \"many\": write a whole number, 0 or more",
    ),
    ("nats", "replicas = 1.5", "nats.replicas"),
    (
        "nats",
        "replicas = -1",
        "`nats.replicas` is the number -1: write a whole number, 0 or more",
    ),
    (
        "nats",
        "migrate = \"perhaps\"",
        "`nats.migrate` is the text \"perhaps\": write true or false",
    ),
    (
        "nats",
        "migrate = []",
        "`nats.migrate` is a list: write true or false",
    ),
    (
        "nats",
        "max_bytes = \"1GB\"",
        "`nats.max_bytes` is the text \"1GB\": write a whole number",
    ),
    (
        "nats",
        "stream = \"a.b\"",
        "nats.stream must be a JetStream name",
    ),
    ("nats", "prefix = \"ws\"", "nats.prefix"),
    (
        "auth",
        "hmac_secret = 5",
        "`auth.hmac_secret` has a value of the wrong type: the number",
    ),
    (
        "auth",
        "workspaces_claim = \"\"",
        "auth.workspaces_claim must not be empty",
    ),
    (
        "sockets",
        "connect_rate = -1",
        "`sockets.connect_rate` is the number -1: write a whole number, 0 or more",
    ),
    (
        "sockets",
        "connect_rate = 5000000000",
        "`sockets.connect_rate` is the number 5000000000: write a whole number",
    ),
    (
        "sockets",
        "send_buffer = \"big\"",
        "is the text \"big\": write a whole number",
    ),
    (
        "sockets",
        "max_connections = {}",
        "is a table: write a whole number",
    ),
    (
        "sockets",
        "pong_is_activity = 5.5",
        "sockets.pong_is_activity",
    ),
    (
        "projection",
        "type = \"events\"",
        "`projection.type`: `events` is none of severity, event",
    ),
    (
        "projection",
        "type = { a = 1 }",
        "`projection.type` is a table: write text in quotes",
    ),
    (
        "projection",
        "rules = []",
        "`projection.rules` is a list: write text in quotes",
    ),
    (
        "log",
        "format = \"yaml\"",
        "`log.format`: `yaml` is none of auto, text, json",
    ),
    (
        "log",
        "format = [1]",
        "`log.format` is a list: write text in quotes",
    ),
    ("telemetry", "send_spans = true", "telemetry.send_spans"),
    (
        "telemetry",
        "baggage = 1",
        "is the number 1: write text in quotes, or a list",
    ),
    (
        "server",
        "nothing = 1",
        "unknown key `server.nothing`: docs/configuration.md lists all",
    ),
    (
        "server",
        "lissten = 1",
        "unknown key `server.lissten`: did you mean `server.listen`?",
    ),
    (
        "server",
        "port = 1",
        "unknown key `server.port`: docs/configuration.md lists all",
    ),
];

/// Files that are wrong as a whole.
const WRONG_FILES: &[(&str, &str)] = &[
    (
        "sockets = 5\n",
        "herald.toml line 1: `sockets` is of the type integer, and is a table: write [sockets]",
    ),
    (
        "[[sockets]]\nping = \"1s\"\n",
        "herald.toml line 1: `sockets` is of the type array",
    ),
    (
        "top = 5\n",
        "herald.toml line 1: unknown key `top`: docs/configuration.md lists",
    ),
    (
        "ping = \"5s\"\n",
        "unknown key `ping`: did you mean `sockets.ping`?",
    ),
];

/// Each message names the file and line, the key, the form of the value and what is allowed, in words of the file.
#[test]
fn a_wrong_value_is_reported_with_its_line_and_in_no_words_of_code() {
    let mut bad = Vec::new();
    for (table, line, words) in WRONG {
        // Some become true or a number, as in the environment, and are right then.
        let Err(text) = load(&format!("\n[{table}]\n{line}\n"), &[]) else {
            let is_right = ["5.5", "1.5", "true", "hmac_secret = 5"]
                .iter()
                .any(|value| line.contains(value));
            assert!(is_right, "{line}");
            continue;
        };
        let codes = [
            "invalid", "expected", "variant", "enum", "struct", "field", "untagged", "usize",
            "u32", "64-bit", "map", "unit", "sequence", "hunter",
        ];
        let said = text
            .split_once(".toml line 3: ")
            .map_or("", |(_, said)| said);
        let is_good = text.contains(words)
            && text.lines().count() == 1
            && !said.is_empty()
            && !codes.iter().any(|code| said.contains(code));
        if !is_good {
            bad.push(format!("{line}: {text} (wanted {words})"));
        }
    }
    assert_eq!(bad, [""; 0]);
    for (file, words) in WRONG_FILES {
        let text = refused(file, &[]);
        assert!(text.contains(words), "{file}: {text}");
    }
    let text = refused("", &[("HERALD_SOCKETS__PING", "soon")]);
    assert!(
        text.starts_with("HERALD_SOCKETS__PING: `sockets.ping`: `soon` is not a duration"),
        "{text}"
    );
    let text = refused("", &[("HERALD_SERVER__NOTHING", "x")]);
    assert!(
        text.contains("`HERALD_SERVER__NOTHING`: docs/configuration.md lists"),
        "{text}"
    );
}

#[test]
fn who_needs_one_table_reads_past_what_is_wrong_with_another() {
    let file = "top = 1\n[sockets]\nping = \"0s\"\n[socket]\nx = 1\n[natss]\nurl = \"x\"\n";
    let variables = [
        ("HERALD_SERVER__LISTEN", "here"),
        ("HERALD_LOG__LEVLE", "x"),
        ("HERALD_SERVER_LISTEN", "x"),
    ];
    for (tables, problems) in [
        (&["auth"][..], 0),
        (&["projection", "telemetry"], 0),
        (&["sockets"], 1),
        // The table was to be this one.
        (&["nats"], 1),
        (&["server"], 2),
        (&["log"], 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nats.server.auth.toml");
        std::fs::write(&path, file).unwrap();
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let read = Config::read_from(Some(&path), variables)
            .unwrap()
            .of(tables);
        let said = read.map(drop).map_err(|error| error.to_string());
        let said = said.err().unwrap_or_default();
        assert_eq!(said.lines().count(), problems, "{tables:?}: {said}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::read_from(Some("/nowhere/herald.toml".as_ref()), []).unwrap_err();
    assert!(error.to_string().contains("/nowhere/herald.toml"));
}

#[test]
fn a_secret_shows_in_no_debug_output() {
    let config = load(
        "[auth]\nhmac_secret = \"swordfish\"\n[nats]\nurl = \"nats://ann:swordfish@host\"\n",
        &[],
    )
    .unwrap();
    assert!(!format!("{config:?} {config:#?}").contains("swordfish"));
}

/// The documentation lists exactly the keys there are, with their defaults and what a reload does with
/// them; and these are the defaults of the code.
#[test]
fn the_documentation_and_the_keys_agree() {
    let documented: BTreeMap<String, [String; 2]> = include_str!("../../docs/configuration.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.trim_end_matches('`').to_owned();
            let default = cells.next()?.trim_matches('`').replace('—', "");
            let reload = cells.next()?.to_owned();
            Some((name, [default, reload]))
        })
        .collect();
    let known: BTreeMap<String, [String; 2]> = KEYS
        .iter()
        .map(|key| {
            (
                key.name.to_owned(),
                [key.default, key.reload.as_str()].map(str::to_owned),
            )
        })
        .collect();
    assert_eq!(documented, known);

    let variables: Vec<(String, String)> = KEYS
        .iter()
        .filter(|key| !key.default.is_empty())
        .map(|key| (key.variable(), key.default.to_owned()))
        .collect();
    let written = Config::read_from(None, variables)
        .and_then(LoadedConfig::into_config)
        .unwrap();
    let default = Config::default();
    assert_eq!(format!("{written:?}"), format!("{default:?}"));
    // A secret looks like any other.
    assert_eq!(written.nats.url, default.nats.url);
}

/// Each key is a field, by the name of its environment variable, and a field is a key.
#[test]
fn every_key_sets_a_field_of_its_own_and_there_are_no_other_fields() {
    let default = format!("{:#?}", Config::default());
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    let fields = |text: &str| {
        let short_form = format!("{:#?}", Config::default().auth.short_form);
        let indented = |text: &str, indent: usize| {
            let is_field =
                |line: &&str| line.len() - line.trim_start().len() == indent && line.contains(": ");
            text.lines().filter(is_field).count()
        };
        // The short form's fields, instead of the one that has them. And nats.revoked_max_age and auth.publish_audience
        // are no settings.
        indented(text, 8) - 3 + indented(&short_form, 4)
    };
    assert_eq!(fields(&default), KEYS.len(), "{default}");
    let mut changed = BTreeMap::new();
    for key in KEYS {
        let other = match (key.name, key.default) {
            ("nats.replicas", _) => "3",
            ("auth.issuers", _) => "[{}]",
            ("auth.max_token_age", _) => "7m",
            ("server.path", _) => "/other",
            ("server.publish_listen", _) => "[::1]:1",
            ("publish.concurrency", _) => "7",
            ("server.trusted_proxies", _) => "10.0.0.0/8",
            ("server.allowed_origins", _) => "https://other",
            ("sockets.queue_bytes_total", _) => "9999999",
            ("sockets.connect_rate_per_address", _) => "7",
            ("workspaces.max_connections" | "workspaces.join_rate", _) => "7",
            ("telemetry.send_spans" | "telemetry.workspaces", _) => "7",
            ("projection.type", _) => "event",
            ("log.format", _) => "json",
            ("server.console_sockets", _) => "wss://ws.example.com/",
            (_, "true") => "false",
            (_, "false") => "true",
            (_, default) if default.contains(':') && !default.contains("//") => "[::1]:1",
            (_, default) if default.ends_with(['s', 'h']) && default.len() < 5 => "7m",
            (_, default) if default.parse::<u32>().is_ok() => "99999",
            (name, "") if name.ends_with("max_bytes") => "999999",
            (_, "") => "other",
            _ => "OTHER",
        };
        let reading = Config::read_from(None, [(key.variable(), other.to_owned())]).unwrap();
        // Of what stands alone and needs another key, only that is said.
        let is_alone = |text: &str| text.contains("go together") || text.contains(" needs server.");
        let wrong = reading
            .problems
            .iter()
            .filter(|problem| !is_alone(&problem.to_string()));
        assert_eq!(wrong.count(), 0, "{key:?}: {:?}", reading.problems);
        let config = &reading.config;
        if key.name == "nats.url" {
            assert_eq!(config.nats.url.expose(), other);
            continue;
        }
        let shown = lines(&format!("{config:#?}"));
        let plain = lines(&default);
        let first = shown.iter().zip(&plain).position(|(a, b)| a != b);
        let first = first.unwrap_or_else(|| panic!("{key:?} sets nothing"));
        let before = changed.insert(plain[first].clone() + &first.to_string(), key.name);
        assert_eq!(before, None, "{key:?} sets what another sets");
        if key.default.is_empty() {
            let unset = plain[first]
                .trim_end_matches(',')
                .rsplit(": ")
                .next()
                .unwrap();
            assert!(matches!(unset, "None" | "[]"), "{key:?} is {unset}");
        }
    }
}

/// One mistake hides no other.
#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let file =
        "[server]\nlissten = \"x\"\ndrain = 5\n[sockets]\nping = \"soon\"\ninactivity = \"0s\"\n";
    let variables = [
        ("HERALD_AUTH__HMAC_SECRT", "swordfish"),
        ("HERALD_SERVER_LISTEN", "127.0.0.1:1"),
        ("HERALD_NATS__REPLICAS", "many"),
        ("HERALD_NATS__MIGRATE", "perhaps"),
        ("HERALD_SERVER__LISTEN", "here"),
        ("HERALD_PROJECTION__TYPE", "colour"),
    ];
    let text = refused(file, &variables);
    for part in [
        "`server.lissten`: did you mean `server.listen`?",
        "`HERALD_AUTH__HMAC_SECRT`: did you mean `HERALD_AUTH__HMAC_SECRET`?",
        "`HERALD_SERVER_LISTEN`: did you mean `HERALD_SERVER__LISTEN`?",
        "server.listen",
        "server.drain",
        "sockets.ping",
        "nats.replicas",
        "nats.migrate",
        "projection.type",
        "sockets.inactivity must be at least 100ms",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(text.lines().count(), 10, "{text}");
    assert!(!text.contains("swordfish"), "{text}");
}

#[test]
fn proxies_are_a_list_or_one_string_and_a_malformed_one_is_named() {
    let file = "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"2001:db8::1\"]\n";
    let shown = |config: &Config| -> Vec<String> {
        let proxies = &config.server.trusted_proxies;
        proxies.iter().map(ToString::to_string).collect()
    };
    let config = load(file, &[]).unwrap();
    assert_eq!(shown(&config), ["10.0.0.0/8", "2001:db8::1/128"]);
    let variables = [("HERALD_SERVER__TRUSTED_PROXIES", "192.0.2.1, ::1")];
    let config = load(file, &variables).unwrap();
    assert_eq!(shown(&config), ["192.0.2.1/32", "::1/128"]);
    let variables = [("HERALD_SERVER__TRUSTED_PROXIES", "192.0.2.1,10.0.0.0/40")];
    let text = refused("", &variables);
    for part in ["server.trusted_proxies", "`10.0.0.0/40`", "10.0.0.0/8"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("192.0.2.1"), "{text}");
}

#[test]
fn limits_that_cannot_work_are_named() {
    for (lines, part) in [
        ("queue_bytes_total = 0", "sockets.queue_bytes_total must be"),
        (
            "queue_bytes_total = 262143",
            "sockets.queue_bytes_total must be",
        ),
        (
            "max_connections = 0",
            "sockets.max_connections must not be 0",
        ),
        (
            "max_connections = 5\nmax_connections_per_address = 6",
            "at most sockets.max_connections",
        ),
        (
            "connect_rate = 1000001",
            "sockets.connect_rate must be at most",
        ),
        ("connect_rate = -1", "sockets.connect_rate"),
        ("connect_rate = \"fast\"", "sockets.connect_rate"),
        (
            "connect_rate_per_address = 10001",
            "at most sockets.connect_rate",
        ),
        (
            "max_connections_per_address = -1",
            "sockets.max_connections_per_address",
        ),
    ] {
        let text = refused(&format!("[sockets]\n{lines}\n"), &[]);
        assert!(text.contains(part), "{lines}: {text}");
        assert_eq!(text.lines().count(), 1, "{lines}: {text}");
    }
    for (lines, part) in [
        (
            "max_connections = 100001",
            "at most sockets.max_connections",
        ),
        ("max_connections = -1", "workspaces.max_connections"),
        ("join_rate = 10001", "at most sockets.connect_rate"),
        (
            "event_rate = 1000001",
            "workspaces.event_rate must be at most",
        ),
        (
            "event_rate = 0.5",
            "`workspaces.event_rate` has a fraction: write a whole number",
        ),
        ("event_rates = 1", "workspaces.event_rate"),
    ] {
        let text = refused(&format!("[workspaces]\n{lines}\n"), &[]);
        assert!(text.contains(part), "{lines}: {text}");
        assert_eq!(text.lines().count(), 1, "{lines}: {text}");
    }
    let none = "[sockets]\nconnect_rate = 0\nconnect_rate_per_address = 5000\n";
    assert!(load(none, &[]).is_ok());
}

/// What Kubernetes puts beside a service of that name, and what other programs call theirs.
#[test]
fn variables_of_others_are_left_alone() {
    let variables = [
        ("HERALD_PORT", "tcp://10.0.0.1:80"),
        ("HERALD_SERVICE_HOST", "10.0.0.1"),
        ("HERALD_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("HERALDRY__KEY", "x"),
    ];
    let config = load("", &variables).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}
