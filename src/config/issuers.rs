//! `auth.issuers` as a user writes it, a list of tables. Each entry is read key by key, so that
//! every mistake is named with its key, and one mistake hides no other.

use config::{Map, Value, ValueKind};

use super::IssuerConfig;
use super::keys::{KEYS, of_issuer};
use super::near::near;
use super::problem::wrong_value;

/// How it is written in the environment, which has only strings.
const IN_THE_ENVIRONMENT: &str =
    "[{ issuer = \"https://id.example.com\", jwks_file = \"/etc/herald/jwks.json\" }]";

/// What can be read of `value`. The rest is reported in `problems`.
pub(super) fn readable(value: Value, problems: &mut Vec<String>) -> Value {
    let entries = match value.kind {
        ValueKind::Array(entries) => entries,
        ValueKind::String(text) => from_toml(&text).unwrap_or_else(|| {
            problems.push(format!(
                "auth.issuers is not a TOML list of tables: write for example {IN_THE_ENVIRONMENT}"
            ));
            Vec::new()
        }),
        _ => {
            problems.push(
                "auth.issuers is a list of tables: write [[auth.issuers]], with two brackets, before \
                 each entry"
                    .to_owned(),
            );
            Vec::new()
        }
    };
    let entries: Vec<Value> = (0..)
        .zip(entries)
        .map(|(index, entry)| readable_entry(index, entry, problems))
        .collect();
    Value::new(None, entries)
}

fn from_toml(text: &str) -> Option<Vec<Value>> {
    let mut table: Map<String, Value> = toml::from_str(&format!("issuers = {text}")).ok()?;
    let entries = table.remove("issuers")?.into_array().ok()?;
    table.is_empty().then_some(entries)
}

fn readable_entry(index: usize, entry: Value, problems: &mut Vec<String>) -> Value {
    let table = format!("auth.issuers[{index}]");
    let mut good: Map<String, Value> = Map::new();
    let ValueKind::Table(mut fields) = entry.kind else {
        problems.push(format!("`{table}` is no table of keys"));
        return Value::new(None, good);
    };
    for key in of_issuer() {
        let Some(value) = fields.remove(key) else {
            continue;
        };
        let alone: Map<String, Value> = [(key.to_owned(), value.clone())].into_iter().collect();
        match Value::new(None, alone).try_deserialize::<IssuerConfig>() {
            Ok(_) => {
                good.insert(key.to_owned(), value);
            }
            Err(error) => problems.push(wrong_value(&format!("{table}.{key}"), &error)),
        }
    }
    let mut unknown: Vec<String> = fields.into_keys().collect();
    unknown.sort_unstable();
    problems.extend(unknown.into_iter().map(|key| unknown_key(&table, &key)));
    Value::new(None, good)
}

/// The problem of a key that no entry has.
fn unknown_key(table: &str, key: &str) -> String {
    let of_all = format!("auth.{key}");
    if KEYS.iter().any(|known| known.name == of_all) {
        return format!("unknown key `{table}.{key}`: `{of_all}` is for all issuers");
    }
    match near(key, of_issuer()) {
        Some(nearest) => format!("unknown key `{table}.{key}`: did you mean `{nearest}`?"),
        None => format!(
            "unknown key `{table}.{key}`: an entry has {}",
            of_issuer().collect::<Vec<_>>().join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{load, refused};
    use super::*;

    const ENTRY: &str = "[[auth.issuers]]\nhmac_secret = \"swordfish\"\n";

    /// A file, variables, and a part of each line that is said of them.
    type Case = (
        String,
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    );

    fn check_lines(cases: &[Case]) {
        for (file, variables, parts) in cases {
            let text = refused(file, variables);
            for part in *parts {
                assert!(text.contains(part), "{part} in {text}");
            }
            assert_eq!(text.lines().count(), parts.len(), "{text}");
            assert!(!text.contains("swordfish"), "{text}");
        }
    }

    #[test]
    fn issuers_are_a_list_of_tables_and_toml_in_the_environment() {
        let file = "[auth]\nleeway = \"5s\"\n\
        [[auth.issuers]]\nissuer = \"https://a\"\njwks_file = \"/keys\"\naudiences = [\"x\", \"y\"]\n\
        user_claim = [\"sub\", \"oid\"]\nworkspaces_claim = \"o.slg\"\nworkspaces_prefix = \"/w/\"\n\
        algorithms = [\"RS256\"]\n\
        [[auth.issuers]]\nhmac_secret = \"swordfish\"\naudience = \"a,b\"\n";
        let config = load(file, &[]).unwrap();
        let [first, second] = config.auth.issuers.as_slice() else {
            panic!("{:?}", config.auth.issuers);
        };
        let list = |items: &[&str]| {
            items
                .iter()
                .map(|item| (*item).to_owned())
                .collect::<Vec<_>>()
        };
        let wanted = IssuerConfig {
            issuer: Some("https://a".to_owned()),
            jwks_file: Some("/keys".into()),
            audiences: Some(list(&["x", "y"])),
            user_claim: list(&["sub", "oid"]),
            workspaces_claim: "o.slg".to_owned(),
            workspaces_prefix: Some("/w/".to_owned()),
            algorithms: Some(list(&["RS256"])),
            ..IssuerConfig::default()
        };
        assert_eq!(*first, wanted);
        assert_eq!(second.audiences(), Some(list(&["a,b"])));
        assert!(second.hmac_secret.is_some() && second.user_claim == ["sub"]);
        assert_eq!(config.auth.leeway, Duration::from_secs(5));
        assert!(!format!("{config:?}").contains("swordfish"));
        // The environment's list replaces the file's.
        let text = "[{ issuer = \"https://b\", jwks_file = \"/b\" }]";
        let config = load(file, &[("HERALD_AUTH__ISSUERS", text)]).unwrap();
        assert_eq!(config.auth.issuers.len(), 1);
        assert_eq!(config.auth.issuers[0].issuer.as_deref(), Some("https://b"));
    }

    #[test]
    fn a_mistake_in_an_entry_is_named_with_its_key_and_shows_no_secret() {
        check_lines(&[
            (
                format!("{ENTRY}{ENTRY}jwks_fil = 1\nleeway = \"1s\"\nissuer = \"b\"\n"),
                &[],
                &[
                    "unknown key `auth.issuers[1].jwks_fil`: did you mean `jwks_file`?",
                    "unknown key `auth.issuers[1].leeway`: `auth.leeway` is for all issuers",
                ],
            ),
            (
                format!(
                    "{ENTRY}issuer = \"\"\naudience = \"\"\naudiences = []\nalgorithms = []\nuser_claim = []\nworkspaces_claim = \"\"\n"
                ),
                &[],
                &[
                    "auth.issuers[0].issuer must not be empty: leave it out to take any",
                    "auth.issuers[0].audience must not be empty",
                    "auth.issuers[0].audiences must not be empty",
                    "auth.issuers[0].algorithms must not be empty: leave it out to take all of the key's",
                    "auth.issuers[0].user_claim must not be empty",
                    "auth.issuers[0].workspaces_claim must not be empty",
                ],
            ),
            (
                "[[auth.issuers]]\nhmac_secret = [\"swordfish\"]\nissuer = { a = 1 }\n".to_owned(),
                &[],
                &[
                    "`auth.issuers[0].hmac_secret` has a value",
                    "auth.issuers[0].issuer",
                ],
            ),
        ]);
        for (setting, key) in [
            ("HERALD_AUTH__AUDIENCES", "audiences"),
            ("HERALD_AUTH__ALGORITHMS", "algorithms"),
        ] {
            let text = refused("", &[(setting, ",")]);
            assert!(
                text.contains(&format!("auth.{key} must not be empty")),
                "{text}"
            );
        }
    }

    #[test]
    fn entries_that_exclude_each_other_are_reported() {
        check_lines(&[
            (
                format!("{ENTRY}{ENTRY}"),
                &[],
                &["auth.issuers[1] has no issuer, as an entry before it"],
            ),
            (
                format!("{ENTRY}issuer = \"https://a\"\n{ENTRY}{ENTRY}issuer = \"https://a\"\n"),
                &[],
                &["auth.issuers[2].issuer is `https://a` as in an entry before it"],
            ),
            (
                format!("[auth]\nissuer = \"https://a\"\n{ENTRY}"),
                &[("HERALD_AUTH__HMAC_SECRET", "swordfish")],
                &[
                    "auth.hmac_secret stands beside auth.issuers",
                    "auth.issuer stands beside auth.issuers: it is the short form for one issuer",
                ],
            ),
            (
                "[auth.issuers]\nhmac_secret = \"swordfish\"\n".to_owned(),
                &[],
                &["write [[auth.issuers]], with two brackets"],
            ),
            (
                "[auth]\nissuers = [\"swordfish\"]\n".to_owned(),
                &[],
                &["`auth.issuers[0]` is no table of keys"],
            ),
            (
                String::new(),
                &[("HERALD_AUTH__ISSUERS", "swordfish")],
                &["auth.issuers is not a TOML list of tables: write for example [{ issuer = "],
            ),
            (
                String::new(),
                &[("HERALD_AUTH__ISSUERS", "[]\nmore = \"swordfish\"")],
                &["auth.issuers is not a TOML list of tables"],
            ),
        ]);
    }

    /// The keys of an entry are those of the short form, without those for all issuers.
    #[test]
    fn an_entry_has_the_keys_of_the_short_form() {
        let flat: Vec<&str> = KEYS
            .iter()
            .filter_map(|key| key.name.strip_prefix("auth."))
            .filter(|name| {
                !matches!(
                    *name,
                    "leeway" | "max_token_age" | "jwks_max_stale" | "cookie" | "issuers"
                )
            })
            .collect();
        assert_eq!(of_issuer().collect::<Vec<_>>(), flat);
        for name in flat {
            let value = if name == "discovery" {
                "true"
            } else {
                "\"other\""
            };
            let file = format!("[[auth.issuers]]\n{name} = {value}\n");
            let config = load(&file, &[]).unwrap();
            assert_ne!(config.auth.issuers, [IssuerConfig::default()], "{name}");
            let file = format!("[auth]\n{name} = {value}\n");
            let flat = load(&file, &[]).unwrap().auth.short_form;
            assert_eq!(config.auth.issuers, [flat], "{name}");
        }
    }

    #[test]
    fn the_examples_of_several_issuers_are_taken() {
        let page = include_str!("../../docs/configuration.md");
        let block = |start: &str, end: &str| {
            let (_, rest) = page.split_once(start).unwrap();
            rest.split_once(end).unwrap().0
        };
        let file = block("<!-- example: issuers.toml -->\n```toml\n", "```");
        let variable = block("export HERALD_AUTH__ISSUERS='", "'\n");
        for config in [
            load(file, &[]),
            load("", &[("HERALD_AUTH__ISSUERS", variable)]),
        ] {
            let issuers = config.unwrap().auth.issuers;
            assert_eq!(issuers.len(), 2);
            assert!(issuers[0].jwks_file.is_some() && issuers[1].hmac_secret_file.is_some());
            assert!(issuers[0].issuer.is_some() && issuers[1].issuer.is_none());
        }
    }
}
