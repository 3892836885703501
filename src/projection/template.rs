//! Templates of rules: compiled once, with limits, over the allowed fields and nothing else.

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::value::{Object, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};

use crate::event::EventName;
use crate::json::{self, Map, Number};

/// Steps of one rendering, in the engine's own unit: about one per instruction and one per 64 bytes
/// of text. A title takes some dozens; the longest allowed output copied ten times over takes 3,000.
const FUEL: u64 = 20_000;

/// Longest output of one template, in bytes. A quarter of what a notification may be.
pub(super) const OUTPUT_MAX: usize = 16 * 1024;

/// Longest source of one template, in bytes. The engine takes quadratic time to read an expression: seconds for
/// one that joins ten thousand values.
const SOURCE_MAX: usize = 8 * 1024;

/// Under this name templates see all allowed fields of a foreign payload, since some may have Herald's own
/// names.
pub(super) const PAYLOAD: &str = "payload";

/// The names that every template sees beside the allowed fields.
pub(super) const OWN_NAMES: [&str; 4] = ["event", "category", "name", "workspace"];

/// All templates of a rules file.
#[derive(Debug)]
pub(super) struct Templates {
    environment: Environment<'static>,
}

/// One template: plain text, or the name under which [`Templates`] has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Template {
    Text(String),
    Compiled(String),
}

impl Templates {
    pub(super) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        // Notifications are text, not HTML: the client that shows them escapes them.
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        // A field that is not there prints as nothing, and so does a field of it: an event is not
        // bad because a template reads `data.status` and it has no `data`.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_formatter(format_null_as_nothing);
        environment.add_filter("words", words);
        // It prints the whole context, which is never what a notification should say.
        environment.remove_global("debug");
        Self { environment }
    }

    /// Compiles `source` under `name`.
    ///
    /// # Errors
    /// What is wrong with it, with the line.
    pub(super) fn add(&mut self, name: &str, source: &str) -> Result<Template, String> {
        if source.len() > SOURCE_MAX {
            return Err(format!("source of over {SOURCE_MAX} bytes"));
        }
        if !source.contains(['{', '}']) {
            return Ok(Template::Text(source.to_owned()));
        }
        self.environment
            .add_template_owned(name.to_owned(), source.to_owned())
            .map_err(|error| describe(&error))?;
        Ok(Template::Compiled(name.to_owned()))
    }

    /// The variables that a template reads and nobody gives it: neither the engine nor `is_given`.
    pub(super) fn unknown_variables(
        &self,
        template: &Template,
        is_given: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let Template::Compiled(name) = template else {
            return Vec::new();
        };
        let Ok(template) = self.environment.get_template(name) else {
            return Vec::new();
        };
        let is_global = |name: &str| self.environment.globals().any(|(known, _)| known == name);
        let mut unknown: Vec<String> = template
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !is_given(name) && !is_global(name))
            .collect();
        unknown.sort();
        unknown
    }

    /// The fields that a template reads, with the names that lead to them: `data.object.amount`.
    pub(super) fn paths(&self, template: &Template) -> Vec<String> {
        let Template::Compiled(name) = template else {
            return Vec::new();
        };
        let Ok(template) = self.environment.get_template(name) else {
            return Vec::new();
        };
        let mut paths: Vec<String> = template.undeclared_variables(true).into_iter().collect();
        paths.sort();
        paths
    }

    /// Renders a template, which may need its `context`.
    ///
    /// # Errors
    /// [`RenderError`], which has nothing of the payload.
    pub(super) fn render<'a>(
        &self,
        template: &'a Template,
        context: impl FnOnce() -> Context,
    ) -> Result<Cow<'a, str>, RenderError> {
        let name = match template {
            Template::Text(text) => return Ok(text.into()),
            Template::Compiled(name) => name,
        };
        let text = self
            .environment
            .get_template(name)
            .and_then(|template| template.render(Value::from_object(context())))
            .map_err(|error| RenderError::Failed {
                kind: error.kind(),
                line: error.line(),
            })?;
        if text.len() > OUTPUT_MAX {
            return Err(RenderError::TooLong);
        }
        Ok(text.into())
    }
}

/// Why a template gave no text. The engine's own message would quote values, so it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RenderError {
    #[error("{kind} in line {}", line.unwrap_or(1))]
    Failed {
        kind: ErrorKind,
        line: Option<usize>,
    },
    #[error("the output is over {OUTPUT_MAX} bytes")]
    TooLong,
}

impl RenderError {
    /// Whether the template itself is at fault, whatever the event: it calls what does not exist.
    pub(super) fn is_of_the_template(self) -> bool {
        matches!(
            self,
            Self::Failed {
                kind: ErrorKind::UnknownFilter
                    | ErrorKind::UnknownFunction
                    | ErrorKind::UnknownTest
                    | ErrorKind::UnknownMethod,
                ..
            }
        )
    }
}

/// What templates see of one event. Fields are converted when a template reads them.
#[derive(Debug)]
pub(super) struct Context {
    event: EventName,
    workspace: String,
    fields: Arc<Map>,
    has_payload: bool,
}

impl Context {
    pub(super) fn new(event: &EventName, workspace: &str, fields: Arc<Map>) -> Self {
        Self {
            event: event.clone(),
            workspace: workspace.to_owned(),
            fields,
            has_payload: false,
        }
    }

    /// The same, with the fields also under [`PAYLOAD`].
    pub(super) fn with_payload(mut self) -> Self {
        self.has_payload = true;
        self
    }
}

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "event" => Some(Value::from(self.event.to_string())),
            "category" => Some(Value::from(self.event.category().as_str())),
            "name" => Some(Value::from(self.event.name())),
            "workspace" => Some(Value::from(self.workspace.as_str())),
            PAYLOAD if self.has_payload => Some(seen_map(&self.fields)),
            field => self.fields.get(field).map(seen),
        }
    }
}

/// What a template sees of a value.
fn seen(value: &json::Value) -> Value {
    match value {
        json::Value::Null => Value::from(()),
        json::Value::Bool(value) => Value::from(*value),
        json::Value::Number(number) => seen_number(number),
        json::Value::String(text) => Value::from(text.as_str()),
        json::Value::Array(list) => list.iter().map(seen).collect(),
        json::Value::Object(map) => seen_map(map),
    }
}

fn seen_map(map: &Map) -> Value {
    Value::from_pairs(map.iter().map(|(name, value)| (name.as_str(), seen(value))))
}

/// A number to compute with. One that the engine could print only as another number is its text.
fn seen_number(number: &Number) -> Value {
    let text = number.as_str();
    let is_integer = !text.contains(['.', 'e', 'E']);
    let integer = text.parse::<i64>().map(Value::from).ok();
    let integer = integer.or_else(|| text.parse::<i128>().map(Value::from).ok());
    let float = || number.as_f64().filter(|_| !is_integer).map(Value::from);
    integer.or_else(float).unwrap_or_else(|| Value::from(text))
}

fn format_null_as_nothing(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if value.is_none() {
        return Ok(());
    }
    minijinja::escape_formatter(out, state, value)
}

/// `order_placed` becomes `Order placed`.
fn words(text: &str) -> String {
    let text = text.replace(['_', '-'], " ");
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => text,
    }
}

fn describe(error: &Error) -> String {
    let line = error.line().unwrap_or(1);
    match error.detail() {
        Some(detail) => format!("{} in line {line}: {detail}", error.kind()),
        None => format!("{} in line {line}", error.kind()),
    }
}
