//! Which workspaces a claim grants, by table, and the law that it grants no more than it says.

use proptest::prelude::*;

use super::super::grants::workspaces;
use super::properties::any_json;
use super::*;
use crate::json::parse;

const NOTHING: &[&str] = &[];

fn granted(claims: &Value, name: &str, prefix: &str) -> Workspaces {
    match parse(claims.to_string().as_bytes()).unwrap() {
        crate::json::Value::Object(claims) => workspaces(&claims, name, prefix),
        other => panic!("no claims: {other}"),
    }
}

fn some(slugs: &[&str]) -> Workspaces {
    let slugs = slugs.iter().map(|slug| WorkspaceSlug::parse(slug).unwrap());
    Workspaces::Some(slugs.collect())
}

#[test]
fn workspaces_are_a_slug_a_list_words_or_keys() {
    for (claim, expected) in [
        (json!("acme"), &["acme"][..]),
        (json!(["acme", "globex"]), &["acme", "globex"]),
        (json!("acme globex"), &["acme", "globex"]),
        (json!(" acme  openid: globex "), &["acme", "globex"]),
        (json!({"acme": {}, "globex": "admin"}), &["acme", "globex"]),
        (json!({"acme": true, "globex": false, "x": null}), &["acme"]),
        // What is no slug grants nothing and harms nothing beside it.
        (
            json!(["acme", "Not A Slug", ">", "a.b", 7, null, ["globex"], {"globex": 1}, "a b"]),
            &["acme"],
        ),
        (json!({"acme": [], "a b": 1, "": 1, "a.b": 1}), &["acme"]),
        (json!("acme,globex"), NOTHING),
        (json!(""), NOTHING),
        (json!(" "), NOTHING),
        (json!([]), NOTHING),
        (json!({}), NOTHING),
        (json!(7), NOTHING),
        (json!([7]), NOTHING),
        (json!(true), NOTHING),
        (json!(null), NOTHING),
    ] {
        let claims = json!({ "workspaces": claim });
        assert_eq!(
            granted(&claims, "workspaces", ""),
            some(expected),
            "{claim}"
        );
    }
}

#[test]
fn a_star_is_the_whole_claim_or_a_whole_element_of_its_list() {
    for (claim, prefix) in [
        (json!("*"), ""),
        (json!(["*"]), ""),
        (json!(["acme", "*"]), ""),
        (json!("*"), "/workspaces/"),
        (json!(["/workspaces/acme", "*"]), "/workspaces/"),
    ] {
        let claims = json!({ "workspaces": claim });
        assert_eq!(
            granted(&claims, "workspaces", prefix),
            Workspaces::All,
            "{claim}"
        );
    }
    for (claim, prefix, expected) in [
        (json!("acme *"), "", NOTHING),
        (json!("* acme"), "", NOTHING),
        (json!(" *"), "", NOTHING),
        (json!("*\n"), "", NOTHING),
        (json!("**"), "", NOTHING),
        (json!("*,acme"), "", NOTHING),
        (json!(["acme *", "**", " *"]), "", NOTHING),
        (json!([["*"], {"*": 1}]), "", NOTHING),
        (json!({"*": true}), "", NOTHING),
        (json!({"*": true, "acme": true}), "", &["acme"]),
        (json!("/workspaces/*"), "/workspaces/", NOTHING),
        (json!(["/workspaces/*"]), "/workspaces/", NOTHING),
        (json!({"/workspaces/*": 1}), "/workspaces/", NOTHING),
        (json!("/workspaces/* x"), "/workspaces/", NOTHING),
    ] {
        let claims = json!({ "workspaces": claim });
        assert_eq!(
            granted(&claims, "workspaces", prefix),
            some(expected),
            "{claim}"
        );
    }
}

#[test]
fn what_does_not_begin_with_the_prefix_grants_nothing() {
    for (claim, prefix, expected) in [
        (
            json!([
                "/workspaces/acme",
                "/admins",
                "globex",
                "/workspaces/",
                "/workspaces/a/b"
            ]),
            "/workspaces/",
            &["acme"][..],
        ),
        (
            json!(["/workspaces//workspaces/acme"]),
            "/workspaces/",
            NOTHING,
        ),
        (
            json!(["/Workspaces/acme", " /workspaces/acme"]),
            "/workspaces/",
            NOTHING,
        ),
        (json!("/workspaces/acme"), "/workspaces/", &["acme"]),
        (
            json!("openid email workspace:acme workspace:globex"),
            "workspace:",
            &["acme", "globex"],
        ),
        (json!({"w-acme": {}, "acme": {}}), "w-", &["acme"]),
        (json!({"w-acme": {}, "globex": {}}), "w-", &["acme"]),
    ] {
        let claims = json!({ "workspaces": claim });
        assert_eq!(
            granted(&claims, "workspaces", prefix),
            some(expected),
            "{claim}"
        );
    }
}

#[test]
fn a_claim_is_found_by_its_name_else_by_its_path() {
    let keycloak = json!({"resource_access": {
        "herald": {"roles": ["acme"]},
        "other": {"roles": ["globex", "*"]},
        "herald.roles": ["initech"],
    }, "realm_access": {"roles": ["umbrella"]}});
    for (claims, name, expected) in [
        (&keycloak, "resource_access.herald.roles", &["acme"][..]),
        (&keycloak, "resource_access.absent.roles", NOTHING),
        (&keycloak, "resource_access.herald.roles.acme", NOTHING),
        (&keycloak, "resource_access.herald.roles.0", NOTHING),
        (&keycloak, "resource_access..roles", NOTHING),
        (&keycloak, ".resource_access", NOTHING),
        (&keycloak, "workspaces", NOTHING),
        (
            &json!({"https://example.com/workspaces": ["acme"]}),
            "https://example.com/workspaces",
            &["acme"],
        ),
        (&json!({"o": {"slg": "acme"}}), "o.slg", &["acme"]),
        // The name wins, whatever it holds: who may write one of the two claims must not choose.
        (
            &json!({"o.slg": "acme", "o": {"slg": "globex"}}),
            "o.slg",
            &["acme"],
        ),
        (
            &json!({"o.slg": null, "o": {"slg": "globex"}}),
            "o.slg",
            NOTHING,
        ),
        (
            &json!({"o.slg": 7, "o": {"slg": "globex"}}),
            "o.slg",
            NOTHING,
        ),
        (&json!({"o.slg": [], "o": {"slg": "*"}}), "o.slg", NOTHING),
        (
            &json!({"user_metadata": {"workspaces": "*"}, "workspaces": "acme"}),
            "app_metadata.workspaces",
            NOTHING,
        ),
        (&json!({"o": "slg"}), "o.slg", NOTHING),
        (&json!({"o": ["slg"]}), "o.slg", NOTHING),
        (&json!({"o": null}), "o.slg", NOTHING),
    ] {
        assert_eq!(granted(claims, name, ""), some(expected), "{name} {claims}");
    }
}

/// All that a claim says, in whatever form.
fn said(claim: &Value) -> Vec<String> {
    match claim {
        Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        Value::Object(members) => members.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn a_claim_grants_no_more_than_it_says(
        claim in prop_oneof![
            any_json(),
            "[a-c*/ ]{0,8}".prop_map(Value::from),
            proptest::collection::vec("[a-c*/]{0,4}", 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c*/]{0,4}", any::<bool>(), 0..4)
                .prop_map(|map| json!(map)),
        ],
        prefix in "|/|a|ab",
        is_nested in any::<bool>(),
    ) {
        let claims = if is_nested { json!({"a": {"b": claim}}) } else { json!({"a.b": claim}) };
        let said = said(&claim);
        match granted(&claims, "a.b", &prefix) {
            Workspaces::All => {
                let listed = claim.as_array().is_some_and(|list| list.contains(&json!("*")));
                prop_assert!(claim == json!("*") || listed, "{claim}");
            }
            Workspaces::Some(slugs) => for slug in slugs {
                prop_assert!(said.contains(&format!("{prefix}{slug}")), "{claim}: {slug}");
            }
        }
        prop_assert_eq!(granted(&claims, "a.c", &prefix), some(NOTHING));
        prop_assert_eq!(granted(&claims, "b", &prefix), some(NOTHING));
    }
}
