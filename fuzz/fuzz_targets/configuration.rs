//! A configuration file and an environment: the TOML, then after a line `---` one `NAME=value` a line.

#![no_main]

use herald::fuzzing::config::read;
use libfuzzer_sys::fuzz_target;

/// In secrets that are added to file and environment: it may show nowhere.
const SECRET: &str = "quiet-7f3a91c04be26d58";

fuzz_target!(|data: &str| {
    if data.contains("quiet-7f") {
        return;
    }
    let (text, variables) = data.split_once("\n---\n").unwrap_or((data, ""));
    let mut environment: Vec<(String, String)> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    environment.push(("HERALD_AUTH__HMAC_SECRET".to_owned(), SECRET.repeat(2)));
    let mut text = text.to_owned();
    let secret = SECRET.repeat(2);
    if text.contains("auth") {
        environment.push(("HERALD_AUTH__HMAC_SECRET".to_owned(), secret));
    } else {
        text.push_str(&format!("\n[auth]\nhmac_secret = \"{secret}\"\n"));
    }
    let url = format!("nats://user:{SECRET}@nats");
    environment.push(("HERALD_NATS__URL".to_owned(), url));
    let told = match read(&text, environment) {
        Err(error) => format!("{error} {error:?}"),
        Ok(reading) => {
            let told = format!("{:?} {:?}", reading.config, reading.problems);
            if let Ok(config) = reading.into_config() {
                assert!(matches!(config.nats.replicas, 1 | 3 | 5));
                assert!(config.sockets.queue_bytes >= 64 * 1024);
                assert!(config.sockets.queue_bytes_total >= config.sockets.queue_bytes);
                assert!(config.sockets.max_message_bytes > 0);
                assert!(!config.auth.short_form.workspaces_claim.is_empty());
            }
            told
        }
    };
    assert!(!told.contains(SECRET), "a secret is shown");
});
