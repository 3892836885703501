//! What a rules file may say, and what is said of one that is wrong.

use serde_json::json;

use super::{bad, json_of, message, projected, ruled};
use crate::config::ProjectionConfig;
use crate::event::Reason;
use crate::projection::Projector;
use crate::projection::rules::RuleSet;

#[test]
fn the_first_rule_that_matches_counts_and_the_last_resort_is_generic() {
    let projector = ruled(
        r#"
        [[rule]]
        match = "*.created"
        title = "any created"
        [[rule]]
        match = "record.*"
        title = "any record"
        fields = ["data.status", "n"]
        message = "{{ data.status }}/{{ n }}/{{ n.x.y }}"
        event = "rec"
        [[rule]]
        match = "record.created"
        title = "never"
        "#,
    );
    let title = |event| projected(&projector, event, &json!({}))["title"].clone();
    assert_eq!(title("record.created"), "any created");
    assert_eq!(title("custom.created"), "any created");
    assert_eq!(title("record.deleted"), "any record");
    assert_eq!(title("function.timeout"), "Function timeout");
    assert_eq!(title("custom.order-placed"), "Custom order placed");
    let generic = projected(&projector, "record.updated", &json!({}));
    assert_eq!(generic["message"], "//");
    let payload = json!({"data": {"status": "new", "card": "4111"}, "n": null});
    let got = projected(&projector, "record.updated", &payload);
    assert_eq!(got["message"], "new//");
    assert_eq!(
        got["metadata"],
        json!({"event": "record.updated", "data": {"status": "new"}, "n": null})
    );

    // A file without any rule is one of generic rules.
    let got = projected(
        &ruled(""),
        "record.bulk_completed",
        &json!({"collection": "c"}),
    );
    assert_eq!(got["title"], "Record bulk completed");
    assert_eq!(got["message"], "record.bulk_completed in acme");
    assert_eq!(
        (&got["type"], &got["metadata"]),
        (&json!("info"), &json!({"event": "record.bulk_completed"}))
    );
}

#[test]
fn regression_a_field_named_like_one_of_heralds_does_not_replace_it_in_a_template() {
    let projector = ruled(
        "[[rule]]\nmatch = \"*.*\"\nfields = [\"name\", \"workspace\"]\ntitle = \"{{ name }} {{ workspace }}\"",
    );
    let got = projected(
        &projector,
        "custom.x",
        &json!({"name": "n", "workspace": "globex"}),
    );
    assert_eq!(got["title"], "x acme");
    assert_eq!(
        got["metadata"],
        json!({"event": "custom.x", "name": "n", "workspace": "globex"})
    );
}

#[test]
fn a_foreign_payload_is_the_senders_own_and_the_rule_says_all() {
    let projector = ruled(
        r#"
        [[rule]]
        match = "custom.stripe"
        payload = "foreign"
        type = "{% if type is endingwith '.failed' %}error{% else %}success{% endif %}"
        title = "{{ type }} {{ title }} {{ message.text }}"
        message = "{{ event }} {{ payload.event.type }} {{ payload.type }} {{ data.object.amount / 100 }} {{ commits[1].message }}"
        fields = ["type", "title", "message", "event.type", "eventId", "data.object.amount", "commits.message"]
        [[rule]]
        match = "custom.keycloak"
        payload = "foreign"
        recipients = "user.id"
        fields = ["metadata", "recipients"]
        [[rule]]
        match = "custom.*"
        "#,
    );
    let payload = json!({
        "type": "charge.failed", "title": ["t"], "message": {"text": "m"}, "metadata": "secret", "recipients": null,
        "event": {"type": "message", "secret": 1}, "eventId": "e", "data": {"object": {"amount": 2050, "secret": 2}},
        "commits": [{"message": "one", "secret": 3}, {"message": "two"}, 4],
    });
    let got = projected(&projector, "custom.stripe", &payload);
    assert_eq!(got["type"], "error");
    assert_eq!(got["title"], "charge.failed ['t'] m");
    assert_eq!(
        got["message"],
        "custom.stripe message charge.failed 20.5 two"
    );
    assert_eq!(
        got["metadata"],
        json!({
            "event": "custom.stripe", "type": "charge.failed", "title": ["t"], "message": {"text": "m"},
            "data": {"object": {"amount": 2050}}, "commits": [{"message": "one"}, {"message": "two"}],
        })
    );

    let payload =
        json!({"user": {"id": "u1"}, "type": "LOGIN", "metadata": 7, "recipients": ["u2"]});
    let message = message("custom.keycloak", payload.to_string());
    let notification = projector.project(&message).unwrap();
    assert_eq!(
        notification.recipients,
        crate::event::Recipients::Users(["u1".to_owned()].into())
    );
    assert_eq!(
        json_of(&notification)["metadata"],
        json!({"event": "custom.keycloak", "metadata": 7, "recipients": ["u2"]})
    );
    // Nobody is named: it is for nobody, and not for everyone.
    let nobody = bad(
        &projector,
        "custom.keycloak",
        &json!({"recipients": ["u2"]}),
    );
    assert_eq!(nobody.reason, Reason::Recipients);

    // Without the word it is Herald's, and what is wrong with it says the word.
    let wrong = bad(
        &projector,
        "custom.other",
        &json!({"type": "charge.failed"}),
    );
    assert_eq!(wrong.reason, Reason::Field);
    assert!(wrong.detail.contains("payload = \"foreign\""), "{wrong}");
}

/// A file, and what is said of it.
const MISTAKES: &[(&str, &str)] = &[
    ("x = ", "line 1: "),
    ("rules = []", "unknown key `rules`"),
    ("rule = 1", "`rule` is not a list"),
    ("rule = [1]", "rule 1 is not a table"),
    ("[[rule]]\ntitle = 'x'", "rule 1: `match` is missing"),
    (
        "[[rule]]\nmatch = 'record.created'\ntitel = 'x'",
        "rule 1 (record.created): unknown key `titel`: did you mean `title`?",
    ),
    ("[[rule]]\nmatch = 1", "rule 1: `match` is not a string"),
    (
        "[[rule]]\nmatch = 'record'",
        "rule 1 (record): `match` is not <category>.<name>",
    ),
    (
        "[[rule]]\nmatch = 'recrod.created'",
        "names no category: `recrod`",
    ),
    (
        "[[rule]]\nmatch = 'record.create'",
        "can fit no event: there is no name `create`",
    ),
    ("[[rule]]\nmatch = 'custom.a.b'", "there is no name `a.b`"),
    ("[[rule]]\nmatch = '*.a*'", "there is no name `a*`"),
    (
        "[[rule]]\nmatch = '*.*'\ntype = 'fatal'",
        "`type` is `fatal`, which is none of",
    ),
    (
        "[[rule]]\nmatch = '*.*'\ntitle = 1",
        "rule 1 (*.*): `title` is not a string",
    ),
    ("[[rule]]\nmatch = '*.*'\nevent = ''", "`event` is empty"),
    (
        "[[rule]]\nmatch = '*.*'\nfields = 'a'",
        "`fields` is not a list of strings",
    ),
    (
        "[[rule]]\nmatch = '*.*'\nfields = [1]",
        "`fields` is not a list of strings",
    ),
    (
        "[[rule]]\nmatch = '*.*'\nfields = ['eventId']",
        "in `fields`, `eventId` is Herald's own",
    ),
    (
        "[[rule]]\nmatch = '*.*'\npayload = 'strange'",
        "`payload` is `strange`, which is neither `herald` nor `foreign`",
    ),
    (
        "[[rule]]\nmatch = '*.*'\nrecipients = 'userId'",
        "`recipients` needs `payload = \"foreign\"`",
    ),
    (
        "[[rule]]\nmatch = '*.*'\npayload = 'foreign'\nrecipients = 'a..b'",
        "in `recipients`, `a..b` is not a field name",
    ),
    (
        "[[rule]]\nmatch = '*.*'\ntitle = '{{ payload.a }}'\nfields = ['a']",
        "the template `title` reads `payload`",
    ),
    (
        "[[rule]]\nmatch = '*.*'\npayload = 'foreign'\ntitle = '{{ a.c }}'\nfields = ['a.b']",
        "the template `title` reads `a.c`, which `fields` does not allow",
    ),
    (
        "[[rule]]\nmatch = '*.*'\npayload = 'foreign'\ntitle = '{{ payload.c }}'\nfields = ['a.b']",
        "the template `title` reads `payload.c`",
    ),
    (
        "[[rule]]\nmatch = '*.*'\ntitle = '{{ x'",
        "the template `title` has a syntax error in line 1",
    ),
    (
        "[[rule]]\nmatch = '*.*'\nmessage = '{% include \"x\" %}'",
        "the template `message` has a syntax error",
    ),
    (
        "[[rule]]\nmatch = '*.*'\ntitle = '{{ nmae }}'",
        "reads `nmae`, which `fields` does not allow: allow it, or did you mean `name`?",
    ),
    (
        "[[rule]]\nmatch = '*.*'\ntitle = '{{ name|wrods }}'",
        "the template `title` fails: unknown filter in line 1",
    ),
    (
        "[[rule]]\nmatch = '*.*'\ntitle = '{{ now() }}'",
        "reads `now`",
    ),
];

#[test]
fn a_rules_file_with_a_mistake_is_refused_with_the_rule_and_the_mistake() {
    for (rules, want) in MISTAKES {
        let problems = RuleSet::parse(rules).unwrap_err();
        assert!(
            problems.join("\n").contains(want),
            "{rules:?}: {problems:?}"
        );
        assert_eq!(problems.len(), 1, "{rules:?}: {problems:?}");
    }
    let both = "[[rule]]\nmatch = '*.*'\ntitel = 'x'\n[[rule]]\nmatch = 'x.*'";
    assert_eq!(RuleSet::parse(both).unwrap_err().len(), 2);
}

/// Found by fuzzing: 40 KB of it took 10 s to read. And a text without braces was as long as one liked.
#[test]
fn regression_a_template_with_a_long_source_is_refused_unread() {
    let (most, over) = ("x".repeat(8192), "x".repeat(8193));
    let joined = format!("{{{{ 1{} }}}}", "~1".repeat(20_000));
    let rules = |title: &str| format!("[[rule]]\nmatch = '*.*'\ntitle = '{title}'");
    assert!(RuleSet::parse(&rules(&most)).is_ok());
    for title in [over, joined] {
        let problems = RuleSet::parse(&rules(&title)).unwrap_err();
        let wanted = "rule 1 (*.*): the template `title` has a source of over 8192 bytes (line 3)";
        assert_eq!(problems, [wanted]);
    }
}

#[test]
fn a_template_that_goes_over_its_limits_or_fails_makes_a_bad_event_without_values() {
    let projector = ruled(
        r#"
        [[rule]]
        match = "custom.loop"
        title = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
        [[rule]]
        match = "custom.big"
        fields = ["text"]
        title = "{{ text }}"
        [[rule]]
        match = "custom.memory"
        fields = ["n"]
        title = "{{ 'x' * n }}"
        [[rule]]
        match = "custom.type"
        fields = ["kind"]
        type = "{{ kind }}"
        [[rule]]
        match = "custom.fail"
        fields = ["text"]
        title = "{{ text + 1 }}"
        "#,
    );
    for (event, payload) in [
        ("custom.loop", json!({})),
        ("custom.big", json!({"text": "hunter2".repeat(4000)})),
        ("custom.memory", json!({"n": 1_000_000_000})),
        ("custom.type", json!({"kind": "hunter2"})),
        ("custom.type", json!({})),
        ("custom.fail", json!({"text": "hunter2"})),
    ] {
        let bad = bad(&projector, event, &payload);
        assert_eq!(bad.reason, Reason::Template, "{event}");
        assert!(
            bad.detail.contains(event) && !bad.detail.contains("hunter2"),
            "{bad}"
        );
    }
    let text = "x".repeat(16 * 1024);
    let got = projected(&projector, "custom.big", &json!({"text": text}));
    assert_eq!(got["title"].as_str().unwrap().len(), 16 * 1024);
    let got = projected(&projector, "custom.type", &json!({"kind": " warning\n"}));
    assert_eq!(got["type"], "warning");
}

#[test]
fn a_rules_file_that_is_missing_is_named() {
    let config = ProjectionConfig {
        rules: Some("no/such/rules.toml".into()),
        ..ProjectionConfig::default()
    };
    let error = Projector::from_config(&config, "EVENTS").unwrap_err();
    assert!(error.to_string().contains("no/such/rules.toml"), "{error}");
    Projector::from_config(&ProjectionConfig::default(), "EVENTS").unwrap();
}

#[test]
fn templates_compute_with_numbers_and_never_print_another_one() {
    let projector = ruled(
        r#"
        [[rule]]
        match = "custom.x"
        title = "{{ n }}"
        message = "{% if n is number %}{{ n > 1 }} {{ n + 1 }}{% else %}text{% endif %}"
        fields = ["n"]
        "#,
    );
    for (number, title, text) in [
        ("7", "7", "True 8"),
        ("-0", "0", "False 1"),
        ("12.50", "12.5", "True 13.5"),
        ("1E5", "100000.0", "True 100001.0"),
        (
            "18446744073709551616",
            "18446744073709551616",
            "True 18446744073709551617",
        ),
        // No integer or float of the engine's: printed as it was written.
        (
            "1234567890123456789012345678901234567890",
            "1234567890123456789012345678901234567890",
            "text",
        ),
        ("1e400", "1e400", "text"),
        ("\"7\"", "7", "text"),
    ] {
        let payload = format!("{{\"n\":{number}}}");
        let got = json_of(&projector.project(&message("custom.x", payload)).unwrap());
        assert_eq!(
            (&got["title"], &got["message"]),
            (&json!(title), &json!(text)),
            "{number}"
        );
    }
}
