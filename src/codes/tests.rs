//! Every other list of codes in the repository is made from the tables, or compared with them here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn file(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(file).unwrap()
}

/// Compares a file of the repository with what it is made from; `HERALD_UPDATE=1` writes it.
fn is_written(path: &str, wanted: &str) {
    if std::env::var_os("HERALD_UPDATE").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::write(file, wanted).unwrap();
    }
    assert!(
        file(path) == wanted,
        "{path} is out of date: HERALD_UPDATE=1 cargo test --lib codes::"
    );
}

fn lines(values: impl IntoIterator<Item = (String, Value)>) -> String {
    let lines: Vec<_> = values
        .into_iter()
        .map(|(key, value)| format!("  {}: {value}", json!(key)))
        .collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

fn word(advice: Advice) -> String {
    json!(advice).as_str().unwrap().to_owned()
}

/// The numbers of the codes after which a client does this.
fn numbers(advice: &[Advice]) -> BTreeSet<u16> {
    let codes = CLOSE_CODES
        .iter()
        .filter(|code| advice.contains(&code.client));
    codes.map(|code| code.number).collect()
}

/// The cells of each row of the table in `page` whose head begins with these cells.
fn table(page: &str, head: &str) -> Vec<Vec<String>> {
    let page = file(page);
    let mut rows = page.lines().skip_while(|line| !line.starts_with(head));
    assert!(rows.next().is_some(), "no table {head}");
    let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(cell).collect();
    rows.map(cells).collect()
}

fn cell(text: &str) -> String {
    text.trim().to_owned()
}

/// The words in backquotes.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What other programs read.
#[test]
fn the_generated_files_are_those_of_the_table() {
    let rows = CLOSE_CODES.iter().map(|code| {
        let row = json!({ "client": code.client, "when": code.when, "reasons": code.reasons });
        (code.number.to_string(), row)
    });
    is_written("api/close-codes.json", &lines(rows));
    // The SDK carries no more than it needs: what is in no list is backed off from.
    let listed = [Advice::Stop, Advice::Token, Advice::Now]
        .map(|client| (word(client), json!(numbers(&[client]))));
    is_written("sdk/js/src/close-codes.json", &lines(listed));
}

#[test]
fn each_code_stands_once_and_each_reason_fits_a_close_frame() {
    let all: BTreeSet<_> = CLOSE_CODES.iter().map(|code| code.number).collect();
    assert_eq!(all.len(), CLOSE_CODES.len());
    for reason in CloseReason::ALL {
        assert!(reason.text().len() <= 123, "{reason:?}");
    }
    assert_eq!((code_label(4010), code_label(4999)), ("4010", "other"));
}

#[test]
fn the_guide_for_clients_has_each_code_with_what_a_client_does() {
    let mut found = BTreeMap::new();
    for row in table("docs/clients.md", "| code | what a client does |") {
        for number in row[0].split(", ") {
            found.insert(number.parse().unwrap(), row[1].clone());
        }
    }
    let wanted = CLOSE_CODES
        .iter()
        .map(|code| (code.number, word(code.client)));
    assert_eq!(found, wanted.collect::<BTreeMap<u16, _>>());
    // The programs in it, in three languages.
    let page = file("docs/clients.md");
    for (names, advice) in [
        (["STOP = ", "stop   = "], [Advice::Stop].as_slice()),
        (["AT_ONCE = ", "atOnce = "], &[Advice::Token, Advice::Now]),
    ] {
        let lists = page.lines().filter_map(|line| {
            let list = names.iter().find_map(|name| line.split_once(name))?.1;
            let list = list.rsplit(['{', '(']).next()?;
            let numbers = list.trim_end_matches([')', '}', ';']).split(", ");
            numbers.map(|number| number.parse().ok()).collect()
        });
        let lists: Vec<BTreeSet<u16>> = lists.collect();
        assert_eq!(lists, vec![numbers(advice); 3]);
    }
}

#[test]
fn troubleshooting_has_each_reason_of_a_close_and_no_other() {
    let mut found = BTreeSet::new();
    for row in table("docs/troubleshooting.md", "| code | reason |") {
        let number = row[0].parse().unwrap();
        let client = row.last().unwrap();
        let says = match close_code(number).unwrap().client {
            Advice::Stop => client == "stop",
            Advice::Token => client.starts_with("get a new token"),
            Advice::BackOff => client.starts_with("back off") || client.contains("jitter"),
            Advice::Now => client.starts_with("reconnect"),
        };
        assert!(says, "{number}: {client}");
        found.extend(row[1].split(", ").map(|text| (number, text.to_owned())));
    }
    let wanted = CloseReason::ALL
        .iter()
        .map(|reason| (reason.code(), reason.text().to_owned()));
    assert_eq!(found, wanted.collect());
}

#[test]
fn troubleshooting_has_each_http_refusal_and_no_other() {
    let mut left = HttpRefusal::ALL.to_vec();
    for row in table("docs/troubleshooting.md", "| status | body begins with |") {
        let label = row[2].trim_matches(['`', '–']);
        for begin in row[1].split("; ") {
            let is_it = |it: &mut HttpRefusal| {
                it.status().to_string() == row[0]
                    && it.label() == label
                    && it.text().starts_with(begin)
            };
            // hyper's and axum's own have no body, and one body names a stream.
            let is_other = begin == "–" || begin == "stream … cannot be read";
            assert!(
                is_other || left.extract_if(.., is_it).count() > 0,
                "{row:?}"
            );
        }
    }
    for row in table("docs/troubleshooting.md", "| reason in metrics |") {
        let label = row[0].trim_matches('`');
        left.retain(|it| it.status() != 0 || it.label() != label);
    }
    assert!(left.is_empty(), "not in docs/troubleshooting.md: {left:?}");
}

#[test]
fn the_labels_of_metrics_are_those_of_the_tables() {
    let page = file("docs/observability.md");
    let labels = |metric: &str| {
        let begin = format!("| `{metric}` |");
        let row = page.lines().find(|line| line.starts_with(&begin)).unwrap();
        let cell = row.split(" | ").nth(3).unwrap();
        quoted(cell.split_once("`: ").unwrap().1)
    };
    let closes = CLOSE_CODES.iter().map(|code| code.label);
    let closes: BTreeSet<_> = closes.chain([DEAD_PEER, "other"]).collect();
    assert_eq!(labels("herald_connections_closed_total"), closes);
    let refusals = HttpRefusal::ALL.iter().map(|refusal| refusal.label());
    let refusals: BTreeSet<_> = refusals.filter(|label| !label.is_empty()).collect();
    assert_eq!(labels("herald_connections_refused_total"), refusals);
    // An attribute of spans has those that are answered.
    let attribute = page
        .lines()
        .find(|line| line.contains("`herald.refused.reason`"));
    let status = attribute.unwrap().split_once("status: ").unwrap().1;
    let answered = HttpRefusal::ALL
        .iter()
        .filter(|refusal| refusal.status() != 0)
        .map(|refusal| refusal.label());
    let answered: BTreeSet<_> = answered
        .filter(|label| !["", "path"].contains(label))
        .collect();
    assert_eq!(quoted(status), answered);
    for path in [
        "observability/alerts.yaml",
        "observability/grafana/dashboards/herald.json",
    ] {
        let text = file(path).replace("\\\"", "\"");
        for (metric, known) in [
            ("herald_connections_closed_total{", &closes),
            ("herald_connections_refused_total{", &refusals),
        ] {
            for selector in text.split(metric).skip(1) {
                let selector = selector.split_once('}').unwrap().0;
                for label in ["code=\"", "reason=\""] {
                    let value = selector
                        .split_once(label)
                        .map(|(_, rest)| rest.split('"').next());
                    let is_known = value.flatten().is_none_or(|value| known.contains(value));
                    assert!(is_known, "{path}: {selector}");
                }
            }
        }
    }
}
