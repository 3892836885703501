//! The rules file: read, checked and compiled once, then matched for each event.
//!
//! Everything wrong with a file is reported at once, and each problem names its rule.

use std::fmt::Display;
use std::sync::Arc;

use toml::{Table, Value};

use super::fields;
use super::fields::AllowList;
use super::template::{Context, OWN_NAMES, PAYLOAD, Template, Templates};
use crate::config::{line, near};
use crate::event::{Category, EventName, Payload, Severity};
use crate::json::Map;

/// The rules that hold where `projection.rules` names no file.
pub const DEFAULT_RULES: &str = include_str!("default_rules.toml");

const KEYS: [&str; 8] = [
    "match",
    "type",
    "title",
    "message",
    "event",
    "fields",
    "payload",
    "recipients",
];

const GENERIC_TITLE: &str = "{{ (category ~ ' ' ~ name)|words }}";
const GENERIC_MESSAGE: &str = "{{ event }} in {{ workspace }}";

/// All rules, in order, the generic one last.
#[derive(Debug)]
pub(super) struct RuleSet {
    pub(super) templates: Templates,
    rules: Vec<Rule>,
    generic: Rule,
}

/// One rule, with the documented default wherever the file leaves a key out.
#[derive(Debug)]
pub(super) struct Rule {
    /// `rule 3 (record.created)`: how messages name it.
    pub(super) label: String,
    category: Option<Category>,
    name: Option<String>,
    pub(super) severity: SeverityRule,
    pub(super) title: Template,
    pub(super) message: Template,
    /// The `type` of event mode; `None`: `<category>_<name>`.
    pub(super) event: Option<String>,
    pub(super) fields: AllowList,
    /// Whether the payload's fields are Herald's or the sender's, and who gets a foreign payload.
    pub(super) payload: Payload,
}

/// Where a rule's severity comes from.
#[derive(Debug)]
pub(super) enum SeverityRule {
    Fixed(Severity),
    Template(Template),
}

impl RuleSet {
    /// Reads a rules file's text.
    ///
    /// # Errors
    /// Every problem found, one a line.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().map_or(0, |span| span.start);
            vec![format!("line {}: {}", line(text, before), error.message())]
        })?;
        let mut problems: Vec<String> = table
            .keys()
            .filter(|key| *key != "rule")
            .map(|key| format!("unknown key `{key}`: a rules file holds only [[rule]] tables"))
            .collect();
        let mut templates = Templates::new();
        let mut rules = Vec::new();
        match table.get("rule") {
            None => {}
            Some(Value::Array(entries)) => {
                for (index, entry) in entries.iter().enumerate() {
                    match entry.as_table() {
                        Some(entry) => {
                            let reader = RuleReader::new(index + 1, entry, &mut templates);
                            rules.extend(reader.rule(&mut problems));
                        }
                        None => problems.push(format!("rule {} is not a table", index + 1)),
                    }
                }
            }
            Some(_) => problems.push("`rule` is not a list: write [[rule]]".to_owned()),
        }
        let empty = Table::from_iter([("match".to_owned(), Value::from("*.*"))]);
        let generic = RuleReader::new(0, &empty, &mut templates).rule(&mut problems);
        match generic {
            Some(generic) if problems.is_empty() => Ok(Self {
                templates,
                rules,
                generic,
            }),
            _ => Err(problems
                .into_iter()
                .map(|problem| with_line(text, problem))
                .collect()),
        }
    }

    /// The first rule that matches, else the generic one.
    pub(super) fn find(&self, event: &EventName) -> &Rule {
        self.rules
            .iter()
            .find(|rule| rule.matches(event))
            .unwrap_or(&self.generic)
    }
}

impl Rule {
    fn matches(&self, event: &EventName) -> bool {
        self.category
            .is_none_or(|category| category == event.category())
            && self.name.as_ref().is_none_or(|name| name == event.name())
    }
}

/// The problem of `rule 3 (…)` with the line of the first key that it names, or of the rule.
fn with_line(text: &str, problem: String) -> String {
    let find = || {
        let table = toml::de::DeTable::parse(text).ok()?.into_inner();
        let rules = table.get("rule")?.get_ref().as_array()?;
        let number = problem.strip_prefix("rule ")?;
        let number = number.split(|char: char| !char.is_ascii_digit()).next()?;
        let rule = rules.get(number.parse::<usize>().ok()?.checked_sub(1)?)?;
        let keys = rule.get_ref().as_table()?;
        let at = problem
            .split('`')
            .skip(1)
            .step_by(2)
            .find_map(|named| keys.keys().find(|key| key.get_ref() == named));
        Some(line(
            text,
            at.map_or(rule.span().start, |key| key.span().start),
        ))
    };
    match find() {
        Some(line) => format!("{problem} (line {line})"),
        None => problem,
    }
}

/// What the templates of a rule may read.
#[derive(Clone, Copy)]
struct TemplateScope<'a> {
    fields: &'a AllowList,
    is_foreign: bool,
}

impl TemplateScope<'_> {
    /// Whether there may be something under `path` in a foreign payload's rule.
    fn allows(self, path: &str) -> bool {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        match first {
            PAYLOAD => rest.is_empty() || self.fields.allows(rest),
            own if OWN_NAMES.contains(&own) => true,
            // The engine's own.
            other if !self.fields.has(other) => true,
            _ => self.fields.allows(path),
        }
    }
}

/// Reads one `[[rule]]`.
struct RuleReader<'a> {
    label: String,
    table: &'a Table,
    templates: &'a mut Templates,
    problems: Vec<String>,
}

impl<'a> RuleReader<'a> {
    fn new(number: usize, table: &'a Table, templates: &'a mut Templates) -> Self {
        let label = match table.get("match").and_then(Value::as_str) {
            Some(_) if number == 0 => "the rule for all other events".to_owned(),
            Some(pattern) => format!("rule {number} ({pattern})"),
            None => format!("rule {number}"),
        };
        Self {
            label,
            table,
            templates,
            problems: Vec::new(),
        }
    }

    /// The rule, where `problems` of it are none.
    fn rule(mut self, problems: &mut Vec<String>) -> Option<Rule> {
        for key in self.table.keys() {
            if !KEYS.contains(&key.as_str()) {
                let way = match near(key, KEYS) {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("a rule has {}", KEYS.join(", ")),
                };
                self.problem(format!("unknown key `{key}`: {way}"));
            }
        }
        let (category, name) = self.pattern();
        let payload = self.payload();
        let is_foreign = payload != Payload::Herald;
        let fields = self.fields(is_foreign);
        let scope = TemplateScope {
            fields: &fields,
            is_foreign,
        };
        let severity = self.severity(scope);
        let title = self.template("title", GENERIC_TITLE, scope);
        let message = self.template("message", GENERIC_MESSAGE, scope);
        let event = self.text("event").map(str::to_owned);
        if event.as_deref() == Some("") {
            self.problem("`event` is empty");
        }
        let is_good = self.problems.is_empty();
        problems.append(&mut self.problems);
        if !is_good {
            return None;
        }
        Some(Rule {
            label: self.label,
            category,
            name,
            severity,
            title: title?,
            message: message?,
            event,
            fields,
            payload,
        })
    }

    fn problem(&mut self, text: impl Display) {
        self.problems.push(format!("{}: {text}", self.label));
    }

    fn text(&mut self, key: &str) -> Option<&'a str> {
        let value = self.table.get(key)?;
        let text = value.as_str();
        if text.is_none() {
            let form = value.type_str();
            self.problem(format!(
                "`{key}` is not a string but of the type {form}: write it in quotes"
            ));
        }
        text
    }

    fn pattern(&mut self) -> (Option<Category>, Option<String>) {
        let Some(pattern) = self.text("match") else {
            if !self.table.contains_key("match") {
                self.problem("`match` is missing");
            }
            return (None, None);
        };
        let Some((category, name)) = pattern.split_once('.') else {
            self.problem("`match` is not <category>.<name>");
            return (None, None);
        };
        let category = match category {
            "*" => None,
            text => {
                let known = Category::parse(text);
                if known.is_none() {
                    self.problem(format!(
                        "`match` names no category: `{text}` is none of record, function, system, custom, *"
                    ));
                    return (None, None);
                }
                known
            }
        };
        if name == "*" {
            return (category, None);
        }
        // With any category, a name that one category has is a name.
        let is_name = Category::ALL
            .into_iter()
            .filter(|known| category.is_none_or(|category| category == *known))
            .any(|known| EventName::parse(&format!("{}.{name}", known.as_str())).is_ok());
        if !is_name {
            self.problem(format!(
                "`match` can fit no event: there is no name `{name}`"
            ));
        }
        (category, Some(name.to_owned()))
    }

    fn payload(&mut self) -> Payload {
        let is_foreign = match self.text("payload") {
            None | Some("herald") => false,
            Some("foreign") => true,
            Some(other) => {
                self.problem(format!(
                    "`payload` is `{other}`, which is neither `herald` nor `foreign`"
                ));
                return Payload::Herald;
            }
        };
        let recipients = self.text("recipients").and_then(|path| {
            let names = fields::names(path);
            if let Err(problem) = &names {
                self.problem(format!("in `recipients`, `{path}` {problem}"));
            }
            names.ok()
        });
        match (is_foreign, recipients) {
            (false, None) => Payload::Herald,
            (false, Some(_)) => {
                self.problem(
                    "`recipients` needs `payload = \"foreign\"`: without it the payload's own \
                     `recipients` says who gets it",
                );
                Payload::Herald
            }
            (true, path) => Payload::Foreign {
                recipients: path.map(|names| names.into_iter().map(str::to_owned).collect()),
            },
        }
    }

    fn fields(&mut self, is_foreign: bool) -> AllowList {
        let mut list = AllowList::default();
        let entries = match self.table.get("fields") {
            None => return list,
            Some(Value::Array(entries)) => entries,
            Some(_) => {
                self.problem("`fields` is not a list of strings");
                return list;
            }
        };
        for entry in entries {
            match entry.as_str() {
                Some(path) => {
                    if let Err(problem) = list.add(path, is_foreign) {
                        self.problem(format!("in `fields`, `{path}` {problem}"));
                    }
                }
                None => self.problem("`fields` is not a list of strings"),
            }
        }
        list
    }

    fn severity(&mut self, scope: TemplateScope<'_>) -> SeverityRule {
        match self.template("type", "info", scope) {
            Some(Template::Text(text)) => {
                let severity = Severity::parse(&text);
                if severity.is_none() {
                    self.problem(format!(
                        "`type` is `{text}`, which is none of info, success, warning, error, alert"
                    ));
                }
                SeverityRule::Fixed(severity.unwrap_or(Severity::Info))
            }
            Some(template) => SeverityRule::Template(template),
            None => SeverityRule::Fixed(Severity::Info),
        }
    }

    /// Compiles the template under `key`, or `default`, and tries it on an event without fields.
    fn template(&mut self, key: &str, default: &str, scope: TemplateScope<'_>) -> Option<Template> {
        let source = self.text(key).unwrap_or(default);
        let name = format!("{} {key}", self.label);
        let template = match self.templates.add(&name, source) {
            Ok(template) => template,
            Err(error) => {
                self.problem(format!("the template `{key}` has a {error}"));
                return None;
            }
        };
        let TemplateScope { fields, is_foreign } = scope;
        let is_given = |name: &str| {
            OWN_NAMES.contains(&name) || fields.has(name) || (is_foreign && name == PAYLOAD)
        };
        let mut unknown = self.templates.unknown_variables(&template, is_given);
        if is_foreign && unknown.is_empty() {
            // A sender's fields are many and deep, and nobody here can rename them: each is looked up.
            unknown = self.templates.paths(&template);
            unknown.retain(|path| !scope.allows(path));
        }
        let reads_only_what_is_given = unknown.is_empty();
        for unknown in unknown {
            let meant = match near(&unknown, OWN_NAMES.into_iter().chain(fields.names())) {
                Some(nearest) => format!(", or did you mean `{nearest}`?"),
                None => String::new(),
            };
            self.problem(format!(
                "the template `{key}` reads `{unknown}`, which `fields` does not allow: allow it{meant}"
            ));
        }
        let event = EventName::parse("custom.event").ok()?;
        let context = || {
            let context = Context::new(&event, "workspace", Arc::new(Map::new()));
            match is_foreign {
                true => context.with_payload(),
                false => context,
            }
        };
        if let Err(error) = self.templates.render(&template, context)
            && reads_only_what_is_given
            && error.is_of_the_template()
        {
            self.problem(format!("the template `{key}` fails: {error}"));
        }
        Some(template)
    }
}
