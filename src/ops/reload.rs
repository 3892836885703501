//! Replaces the settings in force by those that were read again, all or nothing, and logs what that changes.

use std::borrow::Borrow;
use std::sync::Arc;

use tracing::{Level, enabled, error, info};

use super::health::Health;
use crate::config::{Config, FILE, KEYS, NamedFile, Reload};
use crate::server::OpenFiles;
use crate::setup::{Building, LiveSettings, Setup};
use crate::telemetry::{LogLevel, Metrics, UNLIMITED};

/// What a running gateway can replace.
#[derive(Debug)]
pub struct Reloader {
    pub(super) live: LiveSettings,
    pub(super) files: OpenFiles,
    /// What the process was started with: settings that only a start takes are compared with it.
    pub(super) started: Arc<Setup>,
    pub(super) level: LogLevel,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
}

/// What another setup changes, by the names of settings.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// Settings that hold from now on.
    settings: Vec<&'static str>,
    /// Settings that name a file with another content.
    files: Vec<String>,
    /// Settings, and files, that wait for the next start.
    restart: Vec<&'static str>,
}

impl Reloader {
    /// Whether the gateway is ending, and takes no new settings.
    pub fn is_draining(&self) -> bool {
        self.health.is_draining()
    }

    /// The files of `building` that look as if they were half written, one sentence each. Only one that is empty
    /// can be told from one that is whole; what is cut off elsewhere mostly cannot be parsed.
    pub fn half_written(&self, building: &Building) -> Vec<String> {
        half_written(&self.live.now().files, &building.files)
    }

    /// Fetches the keys of addresses that `setup` has and the settings in force have not.
    ///
    /// # Errors
    /// Those that give no keys, one sentence each.
    pub async fn fetch_keys(&self, setup: &mut Setup) -> Result<(), Vec<String>> {
        setup.fetch_keys(&self.live.now()).await
    }

    /// Puts `setup` in force.
    pub fn apply(&self, setup: Setup) {
        let limits = &setup.config.sockets;
        if limits.max_connections != self.live.now().config.sockets.max_connections {
            self.files.warn_if_too_few(limits);
        }
        let changes = Changes::between(&self.started, &self.live.now(), &setup);
        let filter = setup.filter.clone();
        // Said where either level lets it be seen.
        let is_said_before = enabled!(target: UNLIMITED, Level::INFO);
        setup.verifier.refresh_keys();
        self.live.replace(setup);
        self.metrics.reloaded("applied");
        if is_said_before {
            changes.say();
        }
        if let Err(error) = self.level.configure(&filter) {
            error!(target: UNLIMITED, %error, "log level not reloaded");
        }
        if !is_said_before {
            changes.say();
        }
    }

    /// Says why everything stays as it is.
    pub fn refuse(&self, problems: &[String]) {
        self.metrics.reloaded("refused");
        let problems = problems.join("; ").replace('\n', "; ");
        error!(
            target: UNLIMITED,
            problems, "configuration not reloaded, the old one stays in force"
        );
    }
}

fn half_written(in_force: &[NamedFile], files: &[NamedFile]) -> Vec<String> {
    let whole = in_force.iter().filter(|file| !file.is_blank);
    let suspect = whole.filter_map(|before| {
        match files.iter().find(|file| file.setting == before.setting) {
            Some(file) if file.is_blank => Some(format!(
                "{file} is empty now, and may be half written: send HUP again when it is complete (if it is \
                    meant to be empty, put a comment into it)"
            )),
            // It was found where it is looked for without being named, and perhaps is just being replaced.
            None if before.setting == FILE => Some(format!(
                "{before} is gone: put it back and send HUP again, or start without it"
            )),
            Some(_) | None => None,
        }
    });
    suspect.collect()
}

impl Changes {
    fn between(started: &Setup, old: &Setup, new: &Setup) -> Self {
        let mut changes = Self::default();
        for key in KEYS {
            let differs = |from: &Config| key.differs(from, &new.config);
            match key.reload {
                Reload::Restart if differs(&started.config) => changes.restart.push(key.name),
                // RUST_LOG wins, if it is set.
                _ if key.name == "log.level" && old.filter.text() == new.filter.text() => {}
                Reload::Now | Reload::NewSockets if differs(&old.config) => {
                    changes.settings.push(key.name);
                }
                Reload::Restart | Reload::Now | Reload::NewSockets => {}
            }
        }
        for file in &new.files {
            let is_other = |files: &[NamedFile]| {
                let before = files.iter().find(|before| before.setting == file.setting);
                before.is_some_and(|before| before != file)
            };
            // What another configuration file changes is settings.
            if file.setting == FILE {
                continue;
            }
            let named = KEYS.iter().find(|key| key.name == file.setting);
            match named.filter(|key| key.reload == Reload::Restart) {
                Some(waits) if is_other(&started.files) => changes.restart.push(waits.name),
                Some(_) => {}
                None if is_other(&old.files) => changes.files.push(file.setting.clone()),
                None => {}
            }
        }
        // A setting and its file's content may both be others.
        changes.restart.sort_unstable();
        changes.restart.dedup();
        let is_reported = |file: &String| {
            let setting = file.split_once('[').map_or(file.as_str(), |(list, _)| list);
            changes.settings.contains(&setting)
        };
        changes.files.retain(|file| !is_reported(file));
        changes.files.sort_unstable();
        changes
    }

    fn say(&self) {
        fn list<T: Borrow<str>>(names: &[T]) -> String {
            match names {
                [] => "none".to_owned(),
                names => names.join(", "),
            }
        }
        info!(
            target: UNLIMITED,
            changed = list(&self.settings),
            files = list(&self.files),
            needs_restart = list(&self.restart),
            "configuration reloaded"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A setup of these settings, without what the surroundings set.
    fn setup(settings: &[(&str, &str)]) -> Setup {
        let secret = [("auth.hmac_secret", "0123456789abcdef0123456789abcdef")];
        let variables = secret
            .iter()
            .chain(settings)
            .map(|(key, value): &(&str, &str)| {
                let key = KEYS.iter().find(|known| known.name == *key).unwrap();
                (key.variable(), (*value).to_owned())
            });
        let variables: Vec<(String, String)> = variables.collect();
        let config = Config::read_from(None, variables).unwrap().config;
        Building::of(config.into()).finish().unwrap()
    }

    fn changes(started: &Setup, old: &Setup, new: &[(&str, &str)]) -> [Vec<String>; 3] {
        let Changes {
            settings,
            files,
            restart,
        } = Changes::between(started, old, &setup(new));
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        [owned(settings), files, owned(restart)]
    }

    #[test]
    fn settings_that_changed_are_named_by_what_becomes_of_them() {
        let started = setup(&[]);
        const NONE: [Vec<String>; 3] = [const { Vec::new() }; 3];
        assert_eq!(changes(&started, &started, &[]), NONE);
        let new = [
            ("sockets.ping", "7s"),
            ("server.listen", "127.0.0.1:1"),
            ("auth.hmac_secret", "another-0123456789abcdef0123456789"),
            ("nats.url", "nats://127.0.0.1:1"),
        ];
        let named = [
            vec!["auth.hmac_secret", "sockets.ping"],
            vec![],
            vec!["nats.url", "server.listen"],
        ];
        assert_eq!(changes(&started, &started, &new), named);
        // Once it is in force it has not changed; what needs a restart still does.
        let [settings, _, restart] = changes(&started, &setup(&new), &new);
        assert!(settings.is_empty(), "{settings:?}");
        assert_eq!(restart, ["nats.url", "server.listen"]);
    }

    #[test]
    fn files_with_another_content_are_named_by_their_setting() {
        let folder = tempfile::tempdir().unwrap();
        let (token, ca) = (folder.path().join("token"), folder.path().join("ca"));
        std::fs::write(&token, "0123456789abcdef").unwrap();
        std::fs::write(&ca, "one").unwrap();
        let settings = [
            ("server.admin_token_file", token.to_str().unwrap()),
            ("nats.ca_file", ca.to_str().unwrap()),
        ];
        let started = setup(&settings);
        std::fs::write(&token, "fedcba9876543210").unwrap();
        std::fs::write(&ca, "two").unwrap();
        let named = [
            vec![],
            vec!["server.admin_token_file"],
            vec!["nats.ca_file"],
        ];
        assert_eq!(changes(&started, &started, &settings), named);
        // The setting says it all.
        let [settings, files, _] = changes(&setup(&[]), &setup(&[]), &settings);
        assert_eq!(settings, ["server.admin_token_file"]);
        assert!(files.is_empty(), "{files:?}");
    }

    #[test]
    fn an_empty_file_is_half_written_where_it_was_not_empty() {
        use std::path::Path;
        let file = |setting, content: &str| {
            NamedFile::new(setting, Path::new("/x"), Some(content.as_bytes()))
        };
        for (before, now, is_suspect) in [
            ("a", "b", false),
            ("a", "", true),
            ("a", " \r\n\t\n", true),
            ("a", "\0\0\0", true),
            ("a", "# none\n", false),
            ("", "", false),
            (" ", "\n", false),
            ("", "a", false),
        ] {
            let told = half_written(&[file(FILE, before)], &[file(FILE, now)]);
            assert_eq!(!told.is_empty(), is_suspect, "{before:?} {now:?} {told:?}");
        }
        // A file that no setting names any more is none that is half written, but for the one that names all.
        assert!(half_written(&[file("projection.rules", "a")], &[]).is_empty());
        let told = half_written(&[file(FILE, "a")], &[]);
        assert!(
            told.concat().contains("configuration file /x is gone"),
            "{told:?}"
        );
        assert!(half_written(&[file(FILE, "")], &[]).is_empty());
    }
}
