//! HTTP publishing: who may publish how much, and the gateway's own login at NATS for it.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Config, NatsConfig, Secret, secret};

/// The `aud` of a token for publishing, unless the settings name another.
pub(super) const AUDIENCE: &str = "herald-publish";
/// The most requests of one token at once: there are no more connections.
const CONCURRENCY_MAX: usize = 512;

/// HTTP publishing, which `server.publish_listen` turns on.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublishConfig {
    /// The only `aud` of a token for publishing. A token with it opens no socket.
    pub audience: String,
    /// File with static tokens, one a line: name, token, workspaces, categories.
    pub tokens_file: Option<PathBuf>,
    /// Events a second of one token, a second's worth at once. 0: no limit.
    pub rate: u32,
    /// Requests of one token at once. 0: no limit.
    pub concurrency: usize,
    /// Server URLs with the user and password of the publishing connection. Unset: `nats.url`.
    #[serde(deserialize_with = "secret::some_secret_or_list")]
    pub nats_url: Option<Secret>,
    /// A NATS `.creds` file of the publishing connection.
    pub nats_credentials_file: Option<PathBuf>,
    /// File with the seed of the publishing user's nkey.
    pub nats_nkey_file: Option<PathBuf>,
    /// Prefix of the inboxes of the publishing user. Unset: `nats.inbox_prefix`.
    pub nats_inbox_prefix: Option<String>,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            audience: AUDIENCE.to_owned(),
            tokens_file: None,
            // More than one sender needs, and a fraction of what a stream stores.
            rate: 1000,
            concurrency: 64,
            nats_url: None,
            nats_credentials_file: None,
            nats_nkey_file: None,
            nats_inbox_prefix: None,
        }
    }
}

impl PublishConfig {
    /// The settings of the publishing connection: those of `nats`, with the login that is set here in place of theirs.
    pub(crate) fn nats(&self, nats: &NatsConfig) -> NatsConfig {
        let mut own = nats.clone();
        if let Some(prefix) = &self.nats_inbox_prefix {
            own.inbox_prefix.clone_from(prefix);
        }
        let files = [&self.nats_credentials_file, &self.nats_nkey_file];
        if self.nats_url.is_none() && files.iter().all(|file| file.is_none()) {
            return own;
        }
        own.url = self.nats_url.clone().unwrap_or_else(|| nats.without_user());
        own.credentials_file.clone_from(&self.nats_credentials_file);
        own.nkey_file.clone_from(&self.nats_nkey_file);
        own.token_file = None;
        own
    }

    /// A sentence about the publishing connection: it names the settings of the connection by their names in `nats`.
    pub(crate) fn renamed(&self, sentence: &str) -> String {
        let set = [
            ("nats.url", self.nats_url.is_some()),
            (
                "nats.credentials_file",
                self.nats_credentials_file.is_some(),
            ),
            ("nats.nkey_file", self.nats_nkey_file.is_some()),
            // The way out, whether it is set or not.
            ("nats.inbox_prefix", true),
        ];
        let set = set.into_iter().filter(|(_, is_set)| *is_set);
        set.fold(sentence.to_owned(), |text, (name, _)| {
            text.replace(name, &format!("publish.{}", name.replace('.', "_")))
        })
    }
}

/// What is wrong with these settings, one sentence each.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let Config {
        server,
        auth,
        publish,
        ..
    } = config;
    let mut problems = Vec::new();
    if let Some(address) = server.publish_listen
        && !address.ip().to_canonical().is_loopback()
        && server.tls_cert.is_none()
    {
        problems.push(format!(
            "server.publish_listen {address} is not on loopback, and tokens would go there in the clear: set \
             server.tls_cert and server.tls_key, or listen on loopback behind a proxy on this host that does TLS"
        ));
    }
    if publish.audience.is_empty() {
        problems.push("publish.audience must not be empty".to_owned());
    }
    for (table, entry) in auth.entries() {
        if entry
            .audiences()
            .is_some_and(|all| all.contains(&publish.audience))
        {
            problems.push(format!(
                "publish.audience is `{}`, as an audience of {table}: a token for publishing opens no socket, so \
                 name another",
                publish.audience
            ));
        }
    }
    if publish.concurrency > CONCURRENCY_MAX {
        problems.push(format!(
            "publish.concurrency must be at most {CONCURRENCY_MAX} (0: no limit)"
        ));
    }
    let logins = [
        (
            "publish.nats_credentials_file",
            publish.nats_credentials_file.is_some(),
        ),
        ("publish.nats_nkey_file", publish.nats_nkey_file.is_some()),
    ];
    if logins.iter().all(|(_, is_set)| *is_set) {
        problems.push(
            "publish.nats_credentials_file and publish.nats_nkey_file are two logins: set one of them".to_owned(),
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::tests::{load, refused};
    use super::*;

    #[test]
    fn it_listens_without_tls_on_loopback_alone() {
        for address in ["127.0.0.1:8081", "[::1]:8081", "[::ffff:127.0.0.1]:8081"] {
            let file = format!("[server]\npublish_listen = \"{address}\"\n");
            assert!(load(&file, &[]).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:8081", "[::]:8081", "10.0.0.1:8081"] {
            let file = format!("[server]\npublish_listen = \"{address}\"\n");
            let said = refused(&file, &[]);
            assert!(said.contains("server.tls_cert"), "{said}");
            let tls = format!("{file}tls_cert = \"c\"\ntls_key = \"k\"\n");
            assert!(load(&tls, &[]).is_ok(), "{address}");
        }
    }

    #[test]
    fn its_audience_is_none_of_the_sockets() {
        let file = "[auth]\naudience = \"herald-publish\"\n";
        assert!(refused(file, &[]).contains("publish.audience"));
        assert!(load(&format!("{file}[publish]\naudience = \"other\"\n"), &[]).is_ok());
        let file = "[auth]\naudiences = [\"a\", \"b\"]\n[publish]\naudience = \"b\"\n";
        assert!(refused(file, &[]).contains("publish.audience"));
        assert!(refused("[publish]\naudience = \"\"\n", &[]).contains("publish.audience"));
    }

    #[test]
    fn its_login_takes_the_place_of_the_gateways() {
        let nats = NatsConfig {
            url: Secret::from("nats://gateway:secret@a:4222, nats://gateway:secret@b"),
            token_file: Some("token".into()),
            domain: Some("hub".to_owned()),
            ..NatsConfig::default()
        };
        let same = PublishConfig::default().nats(&nats);
        assert_eq!(same.url, nats.url);
        assert_eq!(same.token_file, nats.token_file);
        let publish = PublishConfig {
            nats_nkey_file: Some("seed".into()),
            nats_inbox_prefix: Some("_INBOX_publisher".to_owned()),
            ..PublishConfig::default()
        };
        let own = publish.nats(&nats);
        assert_eq!(own.url.expose(), "nats://a:4222,nats://b");
        assert_eq!((own.token_file, own.nkey_file), (None, Some("seed".into())));
        assert_eq!(own.domain, nats.domain);
        assert_eq!(own.inbox_prefix, "_INBOX_publisher");
        let said = publish.renamed("use another user (nats.nkey_file) of nats.url");
        assert_eq!(
            said,
            "use another user (publish.nats_nkey_file) of nats.url"
        );
    }
}
