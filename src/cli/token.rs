//! `herald token`: a token for development, signed with the shared secret of the settings. And the other ways in which
//! commands get tokens.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use tokio::process::Command;

use super::{CliError, output};
use crate::auth::{
    HmacSecret, NewToken, PublishGrant, Workspaces, entry_for, sign, signing_secret,
};
use crate::config::{AuthConfig, Config, IssuerConfig, Secret, parse_duration};
use crate::event::{SlugError, WorkspaceSlug};

/// A token command that takes longer is ended: it probably waits for someone to type.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Arguments of `herald token`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The user: the token's `sub` (or the first of auth.user_claim), which an event's `recipients` name.
    #[arg(long, value_name = "USER", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user: String,
    /// A workspace that the token gives access to. Repeat it for several; '*' means every workspace.
    #[arg(
        long = "workspace",
        value_name = "SLUG",
        required_unless_present = "publish",
        value_parser = parse_workspace
    )]
    workspaces: Vec<Workspaces>,
    /// Make a token for HTTP publishing to these workspaces, with commas between them, or '*'. It opens no socket.
    #[arg(long, value_name = "SLUGS", conflicts_with_all = ["workspaces", "audience"])]
    publish: Option<String>,
    /// The categories of events that it may publish, with commas between them. Without it: all.
    #[arg(
        long,
        value_name = "NAMES",
        requires = "publish",
        conflicts_with = "workspaces"
    )]
    categories: Option<String>,
    /// How long the token is valid.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_expiry)]
    expires: Duration,
    /// Shared secret to sign with, instead of the settings'. The list of processes shows it. A secret in
    /// HERALD_AUTH__HMAC_SECRET or auth.hmac_secret_file stays hidden.
    #[arg(long, value_name = "SECRET")]
    secret: Option<Secret>,
    /// The token's `iss`, instead of auth.issuer. If there are several issuers, it also chooses the one to sign for.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// The token's `aud`, instead of auth.audience.
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
}

impl Args {
    /// Of a token that grants nothing yet.
    fn of(user: &str, expires: Duration) -> Self {
        Self {
            user: user.to_owned(),
            workspaces: Vec::new(),
            publish: None,
            categories: None,
            expires,
            secret: None,
            issuer: None,
            audience: None,
        }
    }
}

fn parse_workspace(text: &str) -> Result<Workspaces, SlugError> {
    match text {
        "*" => Ok(Workspaces::All),
        slug => Ok(Workspaces::Some(vec![WorkspaceSlug::parse(slug)?])),
    }
}

fn parse_expiry(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() {
        return Err("a token must be valid for some time: write for example 30s or 1h".to_owned());
    }
    Ok(duration)
}

/// A token of `user` for one workspace, signed with the secret of the settings.
///
/// # Errors
/// As [`make`].
pub(super) fn for_user(
    user: &str,
    workspace: &WorkspaceSlug,
    expires: Duration,
    config: &Config,
) -> Result<String, CliError> {
    let args = Args {
        workspaces: vec![Workspaces::Some(vec![workspace.clone()])],
        ..Args::of(user, expires)
    };
    make(&args, config, SystemTime::now())
}

/// A token with which `user` publishes any event to any workspace, signed with the secret of the settings.
///
/// # Errors
/// As [`make`].
pub(super) fn for_publisher(
    user: &str,
    expires: Duration,
    config: &Config,
) -> Result<String, CliError> {
    let args = Args {
        publish: Some("*".to_owned()),
        ..Args::of(user, expires)
    };
    make(&args, config, SystemTime::now())
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let token = make(&args, &config, SystemTime::now())?;
    output::lines([token])
}

/// The token that `command` prints, which gets `environment` beside its own.
///
/// # Errors
/// What went wrong with it, without its output.
pub(super) async fn from_command(
    command: &str,
    environment: &[(&str, &str)],
) -> Result<Secret, String> {
    let output = Command::new("sh")
        .args(["-c", command])
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(COMMAND_TIMEOUT, output)
        .await
        .map_err(|_| {
            format!(
                "the token command took over {} s",
                COMMAND_TIMEOUT.as_secs()
            )
        })?
        .map_err(|error| format!("the token command cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("the token command failed: {}", output.status));
    }
    match String::from_utf8(output.stdout) {
        Ok(text) if text.trim().contains(char::is_whitespace) => {
            Err("the token command printed more than a token, which is one word".to_owned())
        }
        Ok(text) if !text.trim().is_empty() => Ok(Secret::from(text.trim())),
        _ => Err("the token command printed no token".to_owned()),
    }
}

/// The token that `args` describe.
///
/// # Errors
/// [`CliError::Usage`] where there is no secret to sign with, or more than one, or where the gateway would refuse the
/// token.
fn make(args: &Args, config: &Config, now: SystemTime) -> Result<String, CliError> {
    let (table, settings) = signer(args, &config.auth).map_err(CliError::Usage)?;
    if let Some(most) = config.auth.max_token_age
        && args.expires > most
    {
        let most = humantime::format_duration(most);
        return Err(CliError::Usage(format!(
            "--expires is longer than auth.max_token_age, {most}: the gateway would refuse the token"
        )));
    }
    let secret = match &args.secret {
        Some(secret) => HmacSecret::new(secret.expose().as_bytes())
            .map_err(|error| CliError::Usage(format!("--secret {error}")))?,
        None => signing_secret(&table, &settings)
            .map_err(|error| CliError::Usage(format!("{error}; or give --secret")))?,
    };
    let slugs = args.workspaces.iter().map(|workspaces| match workspaces {
        Workspaces::All => None,
        Workspaces::Some(slugs) => Some(slugs.clone()),
    });
    let workspaces = slugs
        .collect::<Option<Vec<_>>>()
        .map_or(Workspaces::All, |slugs| Workspaces::Some(slugs.concat()));
    let publish = args.publish.as_deref();
    let categories = args.categories.as_deref().unwrap_or("*");
    let publish = publish.map(|workspaces| PublishGrant::parse(workspaces, categories));
    let publish = publish.transpose().map_err(CliError::Usage)?;
    let publish_audience = publish.is_some().then_some(&config.publish.audience);
    let token = NewToken {
        settings: &settings,
        subject: &args.user,
        workspaces: &workspaces,
        publish: publish.as_ref(),
        issuer: args.issuer.as_deref(),
        audience: publish_audience
            .or(args.audience.as_ref())
            .map(String::as_str),
        issued_at: whole_second(now),
        expires_in: args.expires,
    };
    if let Some(missing) = token.missing_claim() {
        return Err(CliError::Usage(format!(
            "{table}.required_claims has `{missing}`, which `herald token` does not write: let the issuer make the token"
        )));
    }
    sign(&secret, &token).map_err(CliError::failure)
}

/// Tokens have whole seconds. With a fraction, `exp` is rounded up, and the token lives longer than `--expires`.
fn whole_second(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let fraction = since.map_or(0, |since| since.subsec_nanos());
    time - Duration::from_nanos(u64::from(fraction))
}

/// The issuer whose settings the token is to pass: the only one; the one that takes its `iss`, if that is
/// given; else the one that takes tokens without, or the only one that has a secret.
fn signer(args: &Args, auth: &AuthConfig) -> Result<(String, IssuerConfig), String> {
    let mut entries = auth.entries();
    let issuers = || entries.iter().map(|(_, entry)| entry.issuer.as_deref());
    let can_sign = |index: &usize| {
        entries.get(*index).is_some_and(|(_, entry)| {
            let has_secret = entry.hmac_secret.is_some() || entry.hmac_secret_file.is_some();
            has_secret || args.secret.is_some()
        })
    };
    let index = match (entries.len(), args.issuer.as_deref()) {
        (1, _) => Some(0),
        (_, Some(issuer)) => entry_for(issuers(), Some(issuer)),
        (all, None) => entry_for(issuers(), None).filter(can_sign).or_else(|| {
            let mut able = (0..all).filter(can_sign);
            able.next().filter(|_| able.next().is_none())
        }),
    };
    match index {
        Some(index) => Ok(entries.swap_remove(index)),
        None => Err(format!(
            "auth.issuers has several entries: name the token's issuer with --issuer, one of {}",
            issuers().flatten().collect::<Vec<_>>().join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::auth::{Revocations, UserKey, Verifier};
    use crate::config::AuthConfig;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from([&["token"], line].concat()).map(|line| line.args)
    }

    fn config() -> Config {
        Config {
            auth: AuthConfig::from(IssuerConfig {
                hmac_secret: Some(Secret::from("a secret of thirty-two bytes, or more")),
                ..IssuerConfig::default()
            }),
            ..Config::default()
        }
    }

    #[test]
    fn a_printed_token_passes_the_gateway_with_the_same_settings() {
        let now = SystemTime::now();
        let slug = |text| WorkspaceSlug::parse(text).unwrap();
        let mut strict = config();
        strict.auth.short_form.issuer = Some("herald-dev".to_owned());
        strict.auth.short_form.audience = Some("herald".to_owned());
        strict.auth.short_form.workspaces_claim = "tenants".to_owned();
        for (config, line, issuer, workspaces) in [
            (
                config(),
                vec!["--workspace", "acme"],
                None,
                Workspaces::Some(vec![slug("acme")]),
            ),
            (
                strict.clone(),
                vec![
                    "--workspace",
                    "acme",
                    "--workspace",
                    "globex",
                    "--expires",
                    "2h 30m",
                ],
                Some("herald-dev"),
                Workspaces::Some(vec![slug("acme"), slug("globex")]),
            ),
            (
                strict,
                vec!["--workspace", "*"],
                Some("herald-dev"),
                Workspaces::All,
            ),
            (
                config(),
                vec![
                    "--workspace",
                    "*",
                    "--workspace",
                    "acme",
                    "--issuer",
                    "x",
                    "--audience",
                    "y",
                ],
                Some("x"),
                Workspaces::All,
            ),
        ] {
            let args = parse(&[&["--user", "ada"], line.as_slice()].concat()).unwrap();
            let token = make(&args, &config, now).unwrap();
            let identity = Verifier::from_config(&config.auth)
                .unwrap()
                .verify(&token, now)
                .unwrap();
            assert_eq!(identity.workspaces, workspaces, "{line:?}");
            assert_eq!(
                identity.credential.user,
                UserKey::new(issuer, "ada"),
                "{line:?}"
            );
            let left = identity.credential.expires_at.duration_since(now).unwrap();
            let wanted = args.expires.as_secs();
            assert!(
                (wanted - 1..=wanted + 1).contains(&left.as_secs()),
                "{left:?}"
            );
        }
    }

    #[test]
    fn a_token_for_publishing_publishes_and_opens_no_socket() {
        let now = SystemTime::now();
        let mut renamed = config();
        renamed.publish.audience = "senders".to_owned();
        renamed.auth.publish_audience = "senders".to_owned();
        for config in [config(), renamed] {
            let line = [
                "--user",
                "ci",
                "--publish",
                "acme",
                "--categories",
                "record,custom",
            ];
            let token = make(&parse(&line).unwrap(), &config, now).unwrap();
            let verifier = Verifier::from_config(&config.auth).unwrap();
            let publisher = verifier.judge_publisher(&token, now, &Revocations::default());
            let grant = &publisher.unwrap().grant;
            assert_eq!(
                **grant,
                PublishGrant::parse("acme", "record,custom").unwrap()
            );
            let refused = verifier.verify(&token, now).unwrap_err().to_string();
            assert!(refused.contains("it is for publishing"), "{refused}");
            let line = ["--user", "ci", "--workspace", "acme"];
            let token = make(&parse(&line).unwrap(), &config, now).unwrap();
            let refused = verifier.judge_publisher(&token, now, &Revocations::default());
            assert!(
                refused
                    .unwrap_err()
                    .to_string()
                    .contains("not for publishing")
            );
        }
        for bad in [
            &["--user", "ci", "--publish", "acme", "--workspace", "acme"][..],
            &["--user", "ci", "--publish", "acme", "--audience", "x"],
            &[
                "--user",
                "ci",
                "--workspace",
                "acme",
                "--categories",
                "custom",
            ],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let bad = parse(&["--user", "ci", "--publish", "a.b"]).unwrap();
        assert!(make(&bad, &config(), now).is_err());
    }

    /// Entries: one of a public key, `a`, `b` with claims of its own, and one without an issuer.
    fn issuers() -> [IssuerConfig; 4] {
        let secret = |letter: &str| Some(Secret::from(letter.repeat(32)));
        let entry = |issuer: &str, hmac_secret| IssuerConfig {
            issuer: Some(issuer.to_owned()),
            hmac_secret,
            ..IssuerConfig::default()
        };
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys/rsa.public.pem");
        [
            IssuerConfig {
                public_key_file: Some(key),
                ..entry("https://p", None)
            },
            entry("https://a", secret("a")),
            IssuerConfig {
                user_claim: vec!["user_id".to_owned()],
                audiences: Some(vec!["x".to_owned(), "y".to_owned()]),
                algorithms: Some(vec!["HS384".to_owned()]),
                ..entry("https://b", secret("b"))
            },
            IssuerConfig {
                issuer: None,
                ..entry("", secret("r"))
            },
        ]
    }

    /// Of several issuers the token is for the one that `--issuer` names, else for the one that can
    /// be meant; and it passes the gateway with the same settings.
    #[test]
    fn of_several_issuers_one_signs() {
        let [public, a, b, rest] = issuers();
        let now = SystemTime::now();
        for (issuers, line, expected) in [
            (vec![&public, &a], vec![], Ok(Some("https://a"))),
            (vec![&a, &rest], vec![], Ok(None)),
            (
                vec![&a, &b],
                vec!["--issuer", "https://b"],
                Ok(Some("https://b")),
            ),
            (
                vec![&a, &rest],
                vec!["--issuer", "https://old"],
                Ok(Some("https://old")),
            ),
            (
                vec![&a, &b],
                vec![],
                Err("name the token's issuer with --issuer, one of https://a, https://b"),
            ),
            (
                vec![&a, &b],
                vec!["--issuer", "https://c"],
                Err("one of https://a, https://b"),
            ),
            (
                vec![&public, &a],
                vec!["--issuer", "https://p"],
                Err("auth.issuers[0].public_key_file holds public keys"),
            ),
        ] {
            let config = Config {
                auth: AuthConfig {
                    issuers: issuers.into_iter().cloned().collect(),
                    ..AuthConfig::default()
                },
                ..Config::default()
            };
            let args =
                parse(&[&["--user", "ada", "--workspace", "acme"], line.as_slice()].concat())
                    .unwrap();
            match (make(&args, &config, now), expected) {
                (Ok(token), Ok(issuer)) => {
                    let verifier = Verifier::from_config(&config.auth).unwrap();
                    let identity = verifier.verify(&token, now).unwrap();
                    assert_eq!(
                        identity.credential.user,
                        UserKey::new(issuer, "ada"),
                        "{line:?}"
                    );
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (made, expected) => panic!("{line:?}: {made:?} {expected:?}"),
            }
        }
    }

    #[test]
    fn a_token_that_the_gateway_would_refuse_is_not_made() {
        let mut config = config();
        config.auth.max_token_age = Some(Duration::from_secs(3600));
        config.auth.short_form.required_claims = vec!["iat".to_owned(), "jti".to_owned()];
        let verifier = Verifier::from_config(&config.auth).unwrap();
        // Not a whole second: rounding must not make it too long.
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_750);
        let plain = ["--user", "ada", "--workspace", "acme"];
        let longest = parse(&plain).unwrap();
        let identity = verifier.verify(&make(&longest, &config, now).unwrap(), now);
        let credential = identity.unwrap().credential;
        assert_eq!(credential.issued_at, Some(whole_second(now)));
        let again = verifier.verify(&make(&longest, &config, now).unwrap(), now);
        let other = again.unwrap().credential.token;
        assert!(other.is_some() && other != credential.token);
        let longer = parse(&[&plain[..], &["--expires", "3601s"]].concat()).unwrap();
        let refused = |args, config: &Config| make(args, config, now).unwrap_err().to_string();
        let error = refused(&longer, &config);
        assert!(
            error.contains("longer than auth.max_token_age, 1h"),
            "{error}"
        );
        config
            .auth
            .short_form
            .required_claims
            .push("email".to_owned());
        let error = refused(&longest, &config);
        assert!(
            error.contains("auth.required_claims has `email`"),
            "{error}"
        );
    }

    #[test]
    fn a_secret_on_the_line_goes_before_the_settings() {
        let secret = "another secret of thirty-two bytes";
        let args = parse(&["--user", "u", "--workspace", "w", "--secret", secret]).unwrap();
        assert!(!format!("{args:?}").contains(secret));
        let public_key = Config {
            auth: AuthConfig::from(IssuerConfig {
                public_key_file: Some("key.pem".into()),
                ..IssuerConfig::default()
            }),
            ..Config::default()
        };
        let verifier = Verifier::from_config(&AuthConfig::from(IssuerConfig {
            hmac_secret: Some(Secret::from(secret)),
            ..IssuerConfig::default()
        }))
        .unwrap();
        let now = SystemTime::now();
        for config in [config(), public_key, Config::default()] {
            let token = make(&args, &config, now).unwrap();
            assert!(verifier.verify(&token, now).is_ok());
        }
    }

    #[test]
    fn a_wrong_argument_gets_an_error_that_says_why() {
        for (line, expected) in [
            (vec!["--workspace", "acme"], "--user"),
            (vec!["--user", "ada"], "--workspace"),
            (vec!["--user", "", "--workspace", "acme"], "--user"),
            (
                vec!["--user", "ada", "--workspace", "acmé"],
                "1 to 64 characters",
            ),
            (
                vec!["--user", "ada", "--workspace", "acme,globex"],
                "1 to 64 characters",
            ),
            (
                vec!["--user", "ada", "--workspace", "a", "--expires", "soon"],
                "not a duration",
            ),
            (
                vec!["--user", "ada", "--workspace", "a", "--expires", "60"],
                "not a duration",
            ),
            (
                vec!["--user", "ada", "--workspace", "a", "--expires=-1h"],
                "not a duration",
            ),
            (
                vec!["--user", "ada", "--workspace", "a", "--expires", "0s"],
                "valid for some time",
            ),
            (
                vec!["--user", "ada", "--workspace", "a", "--expires", "9000y"],
                "longer than 100 years",
            ),
        ] {
            let error = parse(&line).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(expected), "{line:?}: {error}");
        }
    }

    #[test]
    fn without_a_usable_secret_it_is_said_which_setting_lacks_it() {
        let with = |auth| Config {
            auth,
            ..Config::default()
        };
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys/rsa.public.pem");
        let mut both = config();
        both.auth.short_form.public_key_file = Some(key.clone());
        let short = AuthConfig::from(IssuerConfig {
            hmac_secret: Some(Secret::from("short")),
            ..IssuerConfig::default()
        });
        let public = AuthConfig::from(IssuerConfig {
            public_key_file: Some(key),
            ..IssuerConfig::default()
        });
        let absent = AuthConfig::from(IssuerConfig {
            hmac_secret_file: Some("/absent".into()),
            ..IssuerConfig::default()
        });
        let plain = ["--user", "u", "--workspace", "w"];
        let short_secret = ["--user", "u", "--workspace", "w", "--secret", "short"];
        for (config, line, expected) in [
            (
                config(),
                short_secret.as_slice(),
                "--secret is shorter than 32 bytes",
            ),
            (
                with(short),
                &plain,
                "auth.hmac_secret is shorter than 32 bytes",
            ),
            (
                with(public),
                &plain,
                "auth.public_key_file holds public keys",
            ),
            (
                with(absent),
                &plain,
                "auth.hmac_secret_file /absent cannot be read",
            ),
            (Config::default(), &plain, "auth.hmac_secret"),
            (both, &plain, "only one key source"),
        ] {
            let error = make(&parse(line).unwrap(), &config, SystemTime::now()).unwrap_err();
            assert!(matches!(error, CliError::Usage(_)), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
