//! `herald revoke`: revokes tokens by their user, by themselves or by their key, lifts that again, and lists it.

use std::collections::HashMap;
use std::io::Read as _;
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, header};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::nats::{NatsConnection, ReadFrom};
use super::operator::{OperatorArgs, OperatorClient};
use super::{CliError, blocking, output};
use crate::auth::{
    RevocationAction, RevocationEntry, RevocationNames, RevocationTarget, TOKEN_BYTES_MAX, TokenId,
    id_of_unverified,
};
use crate::config::{AuthConfig, Config, Names, names};
use crate::nats::api::{self, ApiFailure};
use crate::nats::{PubAck, PublishError, publish};
use crate::ops::operator::wire::{Answer, GatewayReport, GatewaysQuery, OperatorEndpoint};

const HEADINGS: [&str; 6] = ["SEQUENCE", "TIME", "DOES", "WHAT", "STATE", "NOTE"];
/// How long an acknowledgement may take before the entry is sent again: during an election nobody gives one.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it is sent again and again: an election takes some seconds.
const GIVE_UP_AFTER: Duration = Duration::from_secs(20);
/// The pause before it is sent again.
const PAUSE: Duration = Duration::from_millis(250);

/// Arguments of `herald revoke`.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["user", "token", "token_id", "key", "list"]),
    after_help = "What is revoked is in force within a second on every gateway that is connected to NATS: its sockets are \
    closed with 4001, and nobody joins by it. It stays so over restarts, until it is lifted with --undo or, where \
    auth.max_token_age is set, until its tokens have expired. The command waits until all gateways have it in force. It \
    ends with 1 if one does not within --timeout; the entry is stored then all the same.\n\n\
    Examples:\n  \
    herald revoke --user ada --issuer https://id.example.com --note 'ticket 4711'\n  \
    herald revoke --token - < leaked-token\n  \
    herald revoke --user ada --issuer https://id.example.com --undo\n  \
    herald revoke --list"
)]
pub(super) struct Args {
    /// Revoke the tokens of this user that were issued until now, and those without an `iat`. USER as tokens have it in
    /// the claim auth.user_claim.
    #[arg(long, value_name = "USER", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// Revoke one token, which is read from standard input: `--token -`. It is not verified, and nothing of it is printed
    /// or stored but a hash of its `iss` and `jti`.
    #[arg(long, value_name = "-", value_parser = ["-"], hide_possible_values = true)]
    token: Option<String>,
    /// Revoke the token with this `jti`.
    #[arg(long, value_name = "JTI", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    token_id: Option<String>,
    /// Revoke all tokens that were signed with this public key: its thumbprint (RFC 7638 with SHA-256, in base64url).
    #[arg(long, value_name = "THUMBPRINT")]
    key: Option<String>,
    /// List what is stored, the oldest first.
    #[arg(long, conflicts_with_all = ["undo", "note"])]
    list: bool,
    /// Lift it again.
    #[arg(long)]
    undo: bool,
    /// The `iss` of the user's tokens [default: that of the only issuer in the settings].
    #[arg(long, value_name = "ISS", conflicts_with_all = ["token", "key", "list", "no_issuer"])]
    issuer: Option<String>,
    /// The user's tokens have no `iss`.
    #[arg(long, conflicts_with_all = ["token", "key", "list"])]
    no_issuer: bool,
    /// Tokens of the user that were issued before this time, in place of now: 2026-11-28T17:00:00Z. Name a time some
    /// seconds ahead if the issuer's clock is.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["token", "token_id", "key", "list", "undo"], value_parser = parse_time)]
    before: Option<DateTime<Utc>>,
    /// Why, for people who read the list.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Do not wait until it is in force on all gateways.
    #[arg(long, conflicts_with = "list")]
    no_wait: bool,
    #[command(flatten)]
    operator: OperatorArgs,
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text.trim());
    let time = time.map_err(|_| "this is not a time: write for example 2026-11-28T17:00:00Z")?;
    if time.timestamp() < 0 {
        return Err("no token was issued before 1970".to_owned());
    }
    Ok(time.to_utc())
}

/// An entry as it is stored.
#[derive(Debug, Serialize)]
struct ListedEntry {
    sequence: u64,
    time: String,
    #[serde(flatten)]
    entry: RevocationEntry,
    /// Of one that revokes: whether no later one lifts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<bool>,
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    if args.list {
        return list(&args, &config).await;
    }
    let entry = entry(&args, &config.auth, Utc::now()).await?;
    let mut nats = NatsConnection::open(&config.nats, "herald revoke").await?;
    let does = match entry.action {
        RevocationAction::Lift => "lifted",
        RevocationAction::Revoke => "revoked",
    };
    if entry.action == RevocationAction::Lift && !is_revoked(&mut nats, &config, &entry).await? {
        output::messages(["that is not revoked: herald revoke --list shows what is"]);
    }
    let began = Instant::now();
    let sequence = store(&mut nats, &config, &entry).await?;
    let revoked = config.nats.names().revoked().to_owned();
    let json = args.operator.json;
    if json {
        output::line(serde_json::json!({ "stream": revoked, "sequence": sequence }))?;
    } else {
        let what = output::harmless(&format!("{}{}", entry.what, until(&entry)));
        output::line(format!("{does} {what} ({revoked} {sequence})"))?;
    }
    if args.no_wait {
        return Ok(());
    }
    let client = OperatorClient::new(nats, &config, &args.operator);
    let in_force = wait_in_force(client, sequence, began, json).await;
    in_force.map_err(|error| {
        CliError::Failure(format!(
            "it is stored, but not known to be in force everywhere: {error}"
        ))
    })
}

/// Waits until all gateways have the entry at `sequence` in force, which was stored after `began`.
async fn wait_in_force(
    mut client: OperatorClient,
    sequence: u64,
    began: Instant,
    json: bool,
) -> Result<(), CliError> {
    let is_in_force = |answer: &Answer<GatewayReport>| {
        let known = answer.body.revocations.as_ref();
        // A stream that was made anew counts from 1 again: so the read has to be newer, too.
        known.is_some_and(|known| {
            known.sequence >= sequence && known.age_s <= began.elapsed().as_secs_f64()
        })
    };
    let query = GatewaysQuery::default();
    let mut answered = client
        .query_until(OperatorEndpoint::Gateways, &query, is_in_force)
        .await?;
    let (done, behind): (Vec<_>, Vec<_>) =
        answered.answers.iter().partition(|one| is_in_force(one));
    if json {
        let names = |answers: &[&Answer<GatewayReport>]| -> Vec<String> {
            answers.iter().map(|one| one.gateway.clone()).collect()
        };
        output::line(serde_json::json!({ "in_force": names(&done), "behind": names(&behind) }))?;
    } else {
        output::line(match done.len() {
            1 => "in force on 1 gateway".to_owned(),
            gateways => format!("in force on {gateways} gateways"),
        })?;
    }
    let behind = behind.into_iter().map(|answer| {
        let known = answer.body.revocations.as_ref();
        let read = known.map_or(0, |known| known.sequence);
        format!("{} has read up to {read} only", answer.gateway)
    });
    answered.silent.failures.extend(behind);
    answered.silent.report(json)
}

/// Until when tokens of a user are revoked.
fn until(entry: &RevocationEntry) -> String {
    let before = entry.before.and_then(|before| {
        // Milliseconds of 10,000 years fit.
        #[allow(
            clippy::cast_possible_truncation,
            reason = "an entry's time is below the year 10000"
        )]
        DateTime::from_timestamp_millis((before * 1000.0) as i64)
    });
    before.map_or_else(String::new, |before| {
        let before = before.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        format!(", tokens issued before {before}")
    })
}

/// The entry that `args` describe.
async fn entry(
    args: &Args,
    auth: &AuthConfig,
    now: DateTime<Utc>,
) -> Result<RevocationEntry, CliError> {
    let mut what = RevocationNames::default();
    if let Some(user) = &args.user {
        what.user = Some(user.clone());
        what.issuer = issuer(args, auth)?;
    } else if let Some(jti) = &args.token_id {
        let issuer = issuer(args, auth)?;
        what.token = Some(TokenId::new(issuer.as_deref(), jti).to_string());
    } else if args.token.is_some() {
        what.token = Some(leaked_token(auth).await?.to_string());
    } else {
        what.key.clone_from(&args.key);
    }
    if what.target().is_none() {
        return Err(CliError::Usage(
            "--key is no thumbprint: RFC 7638 with SHA-256 gives 43 letters and digits, - and _"
                .to_owned(),
        ));
    }
    let is_of_user = what.user.is_some() && !args.undo;
    #[allow(
        clippy::cast_precision_loss,
        reason = "milliseconds of 10,000 years have 48 bits"
    )]
    let before = args.before.unwrap_or(now).timestamp_millis() as f64 / 1000.0;
    Ok(RevocationEntry {
        action: match args.undo {
            true => RevocationAction::Lift,
            false => RevocationAction::Revoke,
        },
        what,
        before: is_of_user.then_some(before),
        note: args.note.clone(),
    })
}

/// The `iss` of the tokens that are meant.
fn issuer(args: &Args, auth: &AuthConfig) -> Result<Option<String>, CliError> {
    if args.no_issuer || args.issuer.is_some() {
        return Ok(args.issuer.clone());
    }
    let entries = auth.entries();
    let named: Vec<&str> = entries
        .iter()
        .filter_map(|(_, entry)| entry.issuer.as_deref())
        .collect();
    match (named.as_slice(), entries.len()) {
        ([only], 1) => Ok(Some((*only).to_owned())),
        ([], _) => Err(CliError::Usage(
            "the settings name no issuer, so that tokens of any are taken: give --issuer ISS as the tokens have it, or \
             --no-issuer if they have none"
                .to_owned(),
        )),
        (named, _) => Err(CliError::Usage(format!(
            "the settings have several issuers: give --issuer ISS (one of {}), or --no-issuer for tokens without",
            named.join(", ")
        ))),
    }
}

/// The id of the token on standard input.
async fn leaked_token(auth: &AuthConfig) -> Result<TokenId, CliError> {
    let token = blocking(|| {
        let mut token = String::new();
        let most = TOKEN_BYTES_MAX as u64 + 1024;
        let read = std::io::stdin().take(most).read_to_string(&mut token);
        read.map(|_| token)
    })
    .await?
    .map_err(|error| CliError::Failure(format!("cannot read the token: {error}")))?;
    let id = id_of_unverified(token.trim())
        .map_err(|error| CliError::Usage(format!("standard input has no token: {error}")))?;
    let issuers = auth.entries();
    let issuer = issuers
        .first()
        .and_then(|(_, entry)| entry.issuer.as_deref());
    id.ok_or_else(|| {
        CliError::Usage(format!(
            "this token has no jti, so that it cannot be revoked alone: revoke all of its user's, with herald revoke \
             --user USER --issuer {}",
            issuer.unwrap_or("ISS")
        ))
    })
}

/// Stores the entry, once.
async fn store(
    nats: &mut NatsConnection,
    config: &Config,
    entry: &RevocationEntry,
) -> Result<u64, CliError> {
    let names = config.nats.names();
    let id = Uuid::new_v4().simple().to_string();
    let subject = names.subject(&names::revocation(&id));
    let body = serde_json::to_vec(entry).map_err(CliError::failure)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_MESSAGE_ID, id);
    headers.insert(header::NATS_EXPECTED_STREAM, names.revoked());
    headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    let began = Instant::now();
    loop {
        let client = nats.client.clone();
        let (to, headers, body) = (subject.clone(), headers.clone(), body.clone().into());
        let sent = publish(&client, to, headers, body, ACK_TIMEOUT);
        match nats.allowed(sent).await? {
            Ok(PubAck { sequence, .. }) => return Ok(sequence),
            Err(error) => {
                let is_over = began.elapsed() >= GIVE_UP_AFTER;
                if is_over || !is_passing(&error, nats, &names).await {
                    let failure = nats.store_failure(names.revoked(), &error);
                    return Err(CliError::Failure(failure));
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether another try may succeed. It is safe: an entry with the same id is stored once. During an election nobody
/// answers, or no stream takes it, though there is one.
async fn is_passing(error: &PublishError, nats: &NatsConnection, names: &Names) -> bool {
    if !matches!(error, PublishError::NoStream) {
        return error.may_be_stored();
    }
    let subject = names.api("STREAM.INFO", names.revoked());
    let info = api::send(&nats.client, subject, None, Bytes::new(), ACK_TIMEOUT).await;
    let info = info.and_then(|info| api::decode::<serde_json::Value>(&info));
    !matches!(info, Err(ApiFailure::NoResponders | ApiFailure::Refused(_)))
}

/// Reads the whole stream: the entries in their order, and how many messages are none.
async fn read(
    nats: &mut NatsConnection,
    config: &Config,
) -> Result<(Vec<ListedEntry>, usize), CliError> {
    let (mut entries, mut others) = (Vec::new(), 0);
    let names = config.nats.names();
    let start = ReadFrom::Sequence(0);
    nats.read(names.revoked(), names::ALL_REVOCATIONS, start, |message| {
        match RevocationEntry::parse(&message.payload) {
            Some(entry) => entries.push(ListedEntry {
                sequence: message.sequence,
                time: message.time.to_rfc3339_opts(SecondsFormat::Secs, true),
                entry,
                in_force: None,
            }),
            None => others += 1,
        }
        Ok(true)
    })
    .await?;
    set_in_force(&mut entries);
    Ok((entries, others))
}

/// Says of each entry that revokes whether no later one lifts it.
fn set_in_force(entries: &mut [ListedEntry]) {
    let lifts = entries.iter().filter_map(|listed| {
        let is_lift = listed.entry.action == RevocationAction::Lift;
        let target = listed.entry.what.target().filter(|_| is_lift)?;
        Some((target, listed.sequence))
    });
    let last_lifts: HashMap<RevocationTarget, u64> = lifts.collect();
    for listed in entries {
        if listed.entry.action == RevocationAction::Revoke
            && let Some(target) = listed.entry.what.target()
        {
            let lifted = last_lifts.get(&target);
            listed.in_force = Some(lifted.is_none_or(|lift| *lift < listed.sequence));
        }
    }
}

async fn is_revoked(
    nats: &mut NatsConnection,
    config: &Config,
    lift: &RevocationEntry,
) -> Result<bool, CliError> {
    let (entries, _) = read(nats, config).await?;
    let target = lift.what.target();
    let mut of_it = entries
        .iter()
        .filter(|listed| listed.entry.what.target() == target);
    Ok(of_it.any(|listed| listed.in_force == Some(true)))
}

async fn list(args: &Args, config: &Config) -> Result<(), CliError> {
    let mut nats = NatsConnection::open(&config.nats, "herald revoke").await?;
    let (entries, others) = read(&mut nats, config).await?;
    if others > 0 {
        output::messages([format!(
            "{others} messages of {} are no entries and do nothing: a publisher had the server write there",
            config.nats.names().revoked()
        )]);
    }
    if args.operator.json {
        return output::json_lines(&entries);
    }
    if entries.is_empty() {
        output::messages(["nothing is revoked"]);
        return Ok(());
    }
    output::lines(output::table(
        HEADINGS,
        entries.iter().map(ListedEntry::cells),
    ))
}

impl ListedEntry {
    /// In the order of [`HEADINGS`].
    fn cells(&self) -> [String; 6] {
        let does = match self.entry.action {
            RevocationAction::Revoke => "revoke",
            RevocationAction::Lift => "lift",
        };
        let state = match self.in_force {
            Some(true) => "in force",
            Some(false) => "lifted",
            None => "-",
        };
        [
            self.sequence.to_string(),
            self.time.clone(),
            does.to_owned(),
            format!("{}{}", self.entry.what, until(&self.entry)),
            state.to_owned(),
            self.entry.note.clone().unwrap_or_default(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::IssuerConfig;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let words = line.split_whitespace();
        Line::try_parse_from(["revoke"].into_iter().chain(words)).map(|line| line.args)
    }

    fn auth(issuers: &[Option<&str>]) -> AuthConfig {
        let entry = |issuer: &Option<&str>| IssuerConfig {
            issuer: issuer.map(str::to_owned),
            ..IssuerConfig::default()
        };
        match issuers {
            [only] => AuthConfig::from(entry(only)),
            several => AuthConfig {
                issuers: several.iter().map(entry).collect(),
                ..AuthConfig::default()
            },
        }
    }

    #[test]
    fn exactly_one_thing_is_revoked() {
        for (line, is_right) in [
            ("--user ada", true),
            (
                "--user ada --issuer i --before 2026-11-28T17:00:00Z --note x",
                true,
            ),
            ("--user ada --no-issuer --undo", true),
            ("--token -", true),
            ("--token-id 7 --issuer i", true),
            ("--key x", true),
            ("--list --json", true),
            ("", false),
            ("--user ada --token-id 7", false),
            ("--user ada --list", false),
            ("--user ada --issuer i --no-issuer", false),
            // The list of processes would show it.
            ("--token eyJhbGciOi", false),
            ("--token - --issuer i", false),
            ("--token-id 7 --before 2026-11-28T17:00:00Z", false),
            ("--user ada --before yesterday", false),
            ("--user ada --before 1969-11-28T17:00:00Z", false),
            ("--user ada --undo --before 2026-11-28T17:00:00Z", false),
            ("--list --undo", false),
        ] {
            assert_eq!(parse(line).is_ok(), is_right, "{line}");
        }
    }

    #[tokio::test]
    async fn an_issuer_that_is_not_clear_must_be_named() {
        let one = auth(&[Some("https://id.example.com")]);
        let several = auth(&[Some("a"), Some("b")]);
        let any = auth(&[None]);
        let now = Utc::now();
        for (line, auth, issuer) in [
            ("--user ada", &one, Ok(Some("https://id.example.com"))),
            ("--user ada --issuer c", &one, Ok(Some("c"))),
            ("--user ada --no-issuer", &one, Ok(None)),
            ("--user ada", &several, Err("one of a, b")),
            ("--user ada --issuer b", &several, Ok(Some("b"))),
            ("--user ada", &any, Err("--no-issuer")),
            ("--token-id 7", &any, Err("--no-issuer")),
        ] {
            let made = entry(&parse(line).unwrap(), auth, now).await;
            match (made, issuer) {
                (Ok(made), Ok(issuer)) => assert_eq!(made.what.issuer.as_deref(), issuer, "{line}"),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
                (made, _) => panic!("{line}: {made:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_is_written_is_an_entry() {
        let now = DateTime::from_timestamp_millis(1_795_886_866_123).unwrap();
        let thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        for (line, body) in [
            (
                "--user ada --no-issuer --note t",
                r#"{"do":"revoke","what":{"user":"ada"},"before":1795886866.123,"note":"t"}"#,
            ),
            (
                "--user ada --issuer i --undo",
                r#"{"do":"lift","what":{"user":"ada","issuer":"i"}}"#,
            ),
            (
                "--token-id c0ffee --no-issuer",
                r#"{"do":"revoke","what":{"token":"4e48698d717c76163dd0dac4d83f1465"}}"#,
            ),
            (
                &format!("--key {thumbprint} --undo"),
                &format!(r#"{{"do":"lift","what":{{"key":"{thumbprint}"}}}}"#),
            ),
        ] {
            let made = entry(&parse(line).unwrap(), &auth(&[None]), now)
                .await
                .unwrap();
            assert_eq!(serde_json::to_string(&made).unwrap(), body);
            assert_eq!(RevocationEntry::parse(body.as_bytes()), Some(made));
        }
        let error = entry(&parse("--key x").unwrap(), &auth(&[None]), now).await;
        assert!(error.unwrap_err().to_string().contains("thumbprint"));
    }

    #[test]
    fn an_entry_is_lifted_by_a_later_one() {
        let listed = |sequence, body: &str| ListedEntry {
            sequence,
            time: "2026-11-28T17:00:00Z".to_owned(),
            entry: RevocationEntry::parse(body.as_bytes()).unwrap(),
            in_force: None,
        };
        let revoke = r#"{"do":"revoke","what":{"user":"ada"},"before":1795886866.123,"note":"t"}"#;
        let lift = r#"{"do":"lift","what":{"user":"ada"}}"#;
        let mut entries = [(1, revoke), (2, lift), (3, revoke)].map(|(at, body)| listed(at, body));
        set_in_force(&mut entries);
        let states: Vec<_> = entries.iter().map(|entry| entry.in_force).collect();
        assert_eq!(states, [Some(false), None, Some(true)]);
        assert_eq!(
            entries[2].cells(),
            [
                "3",
                "2026-11-28T17:00:00Z",
                "revoke",
                "user ada, tokens without an issuer, tokens issued before 2026-11-28T17:27:46.123Z",
                "in force",
                "t"
            ]
        );
    }
}
