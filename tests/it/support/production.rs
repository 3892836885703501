//! A server with `nats/production.conf` itself, and its users.

use async_nats::{Client, ConnectOptions, Event, ServerError};
use herald::config::{NatsConfig, Secret};
use tokio::sync::mpsc;

use super::PATIENCE;
use super::gateway::{Builder, Gateway};
use super::nats::Nats;

const CONFIG: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/nats/production.conf"));

/// A subject that no user may publish to, which marks a place in a connection's violations.
const NOBODYS: &str = "nobody.may.publish.here";

/// A server under the permissions of production.
#[derive(Debug)]
pub(crate) struct Production(pub(crate) Nats);

impl Production {
    /// Starts it without any JetStream object.
    pub(crate) async fn start() -> Self {
        Self::start_with(CONFIG).await
    }

    /// As [`Production::start`], with one permission of `user` left out.
    pub(crate) async fn start_without(user: &str, permission: &str) -> Self {
        Self::start_with(&without(user, permission)).await
    }

    /// As [`Production::migrated`], with one permission of `user` left out.
    pub(crate) async fn migrated_without(user: &str, permission: &str) -> Self {
        let production = Self::start_without(user, permission).await;
        production.migrate().await;
        production
    }

    /// Takes one permission of `user` away.
    pub(crate) async fn deny(&self, user: &str, permission: &str) {
        self.0.reload(&without(user, permission)).await;
    }

    /// Gives everything back.
    pub(crate) async fn allow(&self) {
        self.0.reload(CONFIG).await;
    }

    /// As [`Production::start`], with the names that `prefix` makes, as the file says it.
    pub(crate) async fn start_with_prefix(prefix: &str) -> Self {
        let mut config =
            CONFIG.replace("HERALD_MIGRATIONS", &format!("{prefix}-HERALD_MIGRATIONS"));
        for stream in ["EVENTS", "SESSIONS", "DEAD", "REVOKED"] {
            config = config.replace(&format!(".{stream}\""), &format!(".{prefix}-{stream}\""));
        }
        for subject in ["ws", "live", "session", "dead", "revoked", "herald"] {
            config = config.replace(&format!("\"{subject}."), &format!("\"{prefix}.{subject}."));
        }
        Self::start_with(&config).await
    }

    /// The permissions of `user`, each of which stands on a line of its own.
    pub(crate) fn permissions(user: &str) -> Vec<&'static str> {
        let (_, after) = CONFIG.split_once(&of_user(user)).expect("a user");
        // Another user or the end of the account follows.
        let (block, _) = after.split_once("\n      }").expect("an end");
        block
            .lines()
            .filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix('"'))
            .collect()
    }

    async fn start_with(config: &str) -> Self {
        let mut builder = Nats::builder(config);
        for user in [
            "gateway",
            "publisher",
            "operator",
            "migrator",
            "runtime",
            "acme",
            "sys",
        ] {
            let variable = format!("HERALD_{}_PASSWORD", user.to_uppercase());
            builder = builder.env(&variable, &password(user));
        }
        Self(builder.start().await)
    }

    /// Starts it and lets the migrator migrate.
    pub(crate) async fn migrated() -> Self {
        let production = Self::start().await;
        production.migrate().await;
        production
    }

    async fn migrate(&self) {
        let migrator = self.user("migrator").await;
        herald::migrate::apply(&migrator.client, &self.config("migrator"))
            .await
            .expect("the migrator may migrate");
    }

    /// Herald's settings for `user`.
    pub(crate) fn config(&self, user: &str) -> NatsConfig {
        NatsConfig {
            url: Secret::from(self.0.url_for(user, &password(user))),
            inbox_prefix: inbox_prefix(user),
            migrate: false,
            ..NatsConfig::default()
        }
    }

    /// A gateway that connects as `user`.
    pub(crate) fn gateway(&self, user: &str) -> Builder {
        let config = self.config(user);
        Gateway::without_nats()
            .set("nats.url", config.url.expose())
            .set("nats.inbox_prefix", &config.inbox_prefix)
            .set("nats.migrate", config.migrate)
            .set("publish.nats_url", self.config("publisher").url.expose())
            .set("publish.nats_inbox_prefix", inbox_prefix("publisher"))
    }

    /// The same as environment variables.
    pub(crate) fn environment(&self, user: &str) -> [(&'static str, String); 3] {
        [
            ("HERALD_NATS__URL", self.0.url_for(user, &password(user))),
            ("HERALD_NATS__INBOX_PREFIX", inbox_prefix(user)),
            ("HERALD_NATS__MIGRATE", "false".to_owned()),
        ]
    }

    /// The variables that the examples in docs/publishing.md read, for `user`.
    pub(crate) fn publisher(&self, user: &str) -> [(&'static str, String); 4] {
        [
            ("NATS_URL", self.0.url()),
            ("NATS_USER", user.to_owned()),
            ("NATS_PASSWORD", password(user)),
            ("NATS_INBOX_PREFIX", inbox_prefix(user)),
        ]
    }

    /// A connection of `user`.
    pub(crate) async fn user(&self, user: &str) -> User {
        let (tell, violations) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_user_and_password(user.to_owned(), password(user))
            .custom_inbox_prefix(inbox_prefix(user))
            .event_callback(move |event| {
                if let Event::ServerError(ServerError::Other(text)) = event {
                    let _ = tell.send(text);
                }
                std::future::ready(())
            });
        let client = options.connect(self.0.url()).await;
        User {
            client: client.expect("the user may connect"),
            violations,
        }
    }
}

/// The configuration with one permission of `user` left out.
fn without(user: &str, permission: &str) -> String {
    let line = format!("\"{permission}\"\n");
    let (before, after) = CONFIG.split_once(&of_user(user)).expect("a user");
    let (kept, rest) = after.split_once(&line).expect("a permission");
    // An empty list would be every subject.
    [before, &of_user(user), kept, "\"nothing\"\n", rest].concat()
}

fn of_user(user: &str) -> String {
    format!("user: {user}\n")
}

fn password(user: &str) -> String {
    format!("password-of-{user}")
}

fn inbox_prefix(user: &str) -> String {
    format!("_INBOX_{user}")
}

/// A connection, and what the server denied it.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) client: Client,
    violations: mpsc::UnboundedReceiver<String>,
}

impl User {
    /// What the server denied since the last call, in its words. It judges what a connection sends in
    /// order, so that a publish that is surely denied ends the list.
    pub(crate) async fn denied(&mut self) -> Vec<String> {
        let end = self.client.publish(NOBODYS, "".into()).await;
        end.expect("the connection is open");
        let mut denied = Vec::new();
        loop {
            let next = tokio::time::timeout(PATIENCE, self.violations.recv()).await;
            let text = next.expect("the server denies").expect("the client lives");
            if text.contains(NOBODYS) {
                return denied;
            }
            denied.push(text);
        }
    }

    /// Whether the user may publish to `subject`. What is published is empty and has a condition that
    /// no stream meets, so that nothing comes of it.
    pub(crate) async fn may_publish(&mut self, subject: &str) -> bool {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Expected-Last-Sequence", u64::MAX.to_string());
        let subject = subject.to_owned();
        let sent = self
            .client
            .publish_with_headers(subject, headers, "".into());
        sent.await.expect("the connection is open");
        self.denied().await.is_empty()
    }

    /// Whether the user may subscribe to `subject`.
    pub(crate) async fn may_subscribe(&mut self, subject: &str) -> bool {
        let subscribed = self.client.subscribe(subject.to_owned()).await;
        let _subscriber = subscribed.expect("the connection is open");
        self.denied().await.is_empty()
    }
}
