//! `herald sessions`: which sockets are open on all gateways, or how many.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::operator::{OperatorArgs, OperatorClient};
use super::{CliError, output};
use crate::config::{Config, parse_duration};
use crate::ops::operator::wire::{
    Answer, OperatorEndpoint, PAGE_SESSIONS, SessionReport, SessionsQuery, SessionsReport,
};

const HEADINGS: [&str; 6] = [
    "WORKSPACE",
    "USER",
    "SESSION",
    "GATEWAY",
    "OPENED",
    "EXPIRES",
];

/// Arguments of `herald sessions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only those of this workspace.
    #[arg(long, value_name = "SLUG")]
    workspace: Option<String>,
    /// Only those of this user, as the token calls the user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only those of users of this issuer, the token's `iss`.
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// Only those of this gateway, by its name or process.
    #[arg(long, value_name = "GATEWAY")]
    gateway: Option<String>,
    /// Only those that have been open for so long.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older: Option<Duration>,
    /// Only those that have been open for no longer.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    younger: Option<Duration>,
    /// Print only how many there are.
    #[arg(long)]
    count: bool,
    /// Count by this.
    #[arg(long, value_name = "WHAT", requires = "count")]
    by: Option<Grouping>,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// What sessions are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Grouping {
    Workspace,
    User,
    Gateway,
}

/// One row.
#[derive(Debug, Serialize)]
struct ListedSession {
    #[serde(flatten)]
    session: SessionReport,
    gateway: String,
}

impl Grouping {
    const fn key(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::User => "user",
            Self::Gateway => "gateway",
        }
    }
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let seconds = |time: Duration| time.as_secs();
    let counts_rows = matches!(args.by, Some(Grouping::Workspace | Grouping::User));
    let [_, most] = PAGE_SESSIONS;
    let query = SessionsQuery {
        gateway: args.gateway.clone(),
        workspace: args.workspace,
        user: args.user,
        issuer: args.issuer,
        older_s: args.older.map(seconds),
        younger_s: args.younger.map(seconds),
        after: None,
        limit: Some(most),
        count: args.count && !counts_rows,
    };
    let json = args.operator.json;
    let mut client = OperatorClient::open(&config, &args.operator).await?;
    let endpoint = OperatorEndpoint::Sessions;
    let (answers, mut silent) = match &args.gateway {
        None => {
            let answered = client
                .request_all::<SessionsReport>(endpoint, &query)
                .await?;
            (answered.answers, answered.silent)
        }
        Some(gateway) => {
            let answer = client.request_one(endpoint, &query, gateway).await?;
            (vec![answer], Default::default())
        }
    };
    if query.count {
        print_totals(&answers, args.by.is_some(), json)?;
        return silent.report(json);
    }
    let mut rows = Vec::new();
    // One gateway at a time: all at once would be a burst on the NATS server, which has events to deliver.
    for first in answers {
        let (mut more, failure) = rest(&client, &query, first).await;
        rows.append(&mut more);
        silent.failures.extend(failure);
    }
    match args.by {
        Some(by) if args.count => print_groups(&rows, by, json)?,
        _ => print_rows(rows, json)?,
    }
    silent.report(json)
}

/// All rows of the gateway that answered with its `first` page, and why it may have more.
async fn rest(
    client: &OperatorClient,
    query: &SessionsQuery,
    first: Answer<SessionsReport>,
) -> (Vec<ListedSession>, Option<String>) {
    let Answer {
        gateway,
        process,
        body: mut page,
        ..
    } = first;
    let mut rows = Vec::new();
    loop {
        let listed = page.sessions.into_iter().map(|session| ListedSession {
            session,
            gateway: gateway.clone(),
        });
        rows.extend(listed);
        let Some(next) = page.next else {
            return (rows, None);
        };
        let query = SessionsQuery {
            gateway: Some(process.clone()),
            after: Some(next),
            ..query.clone()
        };
        page = match client.next_page(OperatorEndpoint::Sessions, &query).await {
            Ok(answer) => answer.body,
            Err(error) => {
                let count = rows.len();
                let failure = format!("{gateway} answered with {count} sessions, then: {error}");
                return (rows, Some(failure));
            }
        };
    }
}

/// What rows are sorted by.
fn order(row: &ListedSession) -> [&str; 3] {
    let SessionReport {
        workspace,
        user,
        session,
        ..
    } = &row.session;
    [workspace, user, session]
}

fn print_rows(mut rows: Vec<ListedSession>, json: bool) -> Result<(), CliError> {
    rows.sort_unstable_by(|one, other| order(one).cmp(&order(other)));
    if json {
        return output::json_lines(&rows);
    }
    if rows.is_empty() {
        eprintln!("herald: no sessions");
        return Ok(());
    }
    let cells = rows.into_iter().map(|ListedSession { session, gateway }| {
        let SessionReport {
            session,
            workspace,
            user,
            opened,
            expires,
            ..
        } = session;
        [workspace, user, session, gateway, opened, expires]
    });
    output::lines(output::table(HEADINGS, cells))
}

fn print_groups(rows: &[ListedSession], by: Grouping, json: bool) -> Result<(), CliError> {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let key = match by {
            Grouping::Workspace => &row.session.workspace,
            Grouping::User => &row.session.user,
            Grouping::Gateway => &row.gateway,
        };
        *groups.entry(key).or_default() += 1;
    }
    print_counts(groups.into_iter().collect(), by, json)
}

/// What gateways counted themselves.
fn print_totals(
    answers: &[Answer<SessionsReport>],
    by_gateway: bool,
    json: bool,
) -> Result<(), CliError> {
    let total = |answer: &Answer<SessionsReport>| answer.body.total.unwrap_or_default();
    if by_gateway {
        let counts = answers
            .iter()
            .map(|answer| (answer.gateway.as_str(), total(answer)));
        return print_counts(counts.collect(), Grouping::Gateway, json);
    }
    let sessions: usize = answers.iter().map(total).sum();
    if json {
        let count = json!({ "sessions": sessions, "gateways": answers.len() });
        return output::line(count).map(drop);
    }
    let of = if answers.len() == 1 {
        "gateway"
    } else {
        "gateways"
    };
    let text = format!("{sessions} sessions on {} {of}", answers.len());
    output::line(text).map(drop)
}

/// The largest first.
fn print_counts(mut counts: Vec<(&str, usize)>, by: Grouping, json: bool) -> Result<(), CliError> {
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if json {
        let objects = counts
            .iter()
            .map(|(name, count)| json!({ by.key(): name, "sessions": count }));
        return output::json_lines(&objects.collect::<Vec<_>>());
    }
    let heading = by.key().to_uppercase();
    let rows = counts
        .iter()
        .map(|(name, count)| [(*name).to_owned(), count.to_string()]);
    output::lines(output::table([&heading, "SESSIONS"], rows))
}
