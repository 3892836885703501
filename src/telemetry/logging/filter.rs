//! Reads which lines are to be logged. Pure.
//!
//! The text is that of `RUST_LOG` everywhere: levels and `target=level`, with commas. What would match
//! nothing is refused: a word that is misspelt would else be taken for somebody's target, and Herald
//! would log nothing any more. Dependencies are capped here, once for all that is written to.

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::config::{LogConfig, near};

/// A filter's text is at most so long; one with every target of the gateway has no more.
pub const FILTER_BYTES_MAX: usize = 4096;
/// What a dependency may print at most: tungstenite prints frames and hyper request lines beyond it, and
/// both hold tokens; async-nats prints a line for each message that it drops.
pub(super) const DEPENDENCIES: LevelFilter = LevelFilter::WARN;
/// The target of all of Herald's lines.
pub(super) const OURS: &str = "herald";
/// Every module of Herald's, as a target: `herald::room`, `herald::room::stream`, …
const MODULES: &[&str] = include!(concat!(env!("OUT_DIR"), "/modules.rs"));
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What is logged.
#[derive(Debug, Clone)]
pub struct Filter {
    text: String,
    targets: Targets,
}

/// A filter that is none. Completes a sentence that begins with where it was set.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("it is empty: write for example info, or info,herald::room=debug")]
    Empty,
    #[error("it is over {FILTER_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A word alone.
    #[error("`{word}` is neither a level nor a target of Herald's: {}", meant(*.nearest))]
    Word {
        word: String,
        nearest: Option<&'static str>,
    },
    /// What stands behind `=`.
    #[error("`{directive}` does not end with a level: {}", meant(*.nearest))]
    Level {
        directive: String,
        nearest: Option<&'static str>,
    },
    /// A target that is Herald's, or meant to be.
    #[error("`{directive}` names no target of Herald's: {}", meant(*.nearest))]
    Target {
        directive: String,
        nearest: Option<&'static str>,
    },
    /// The part of the syntax that is for spans, or a target that nothing can have.
    #[error(
        "`{directive}` cannot match: there are no spans or fields to filter by, only levels and \
         target=level"
    )]
    Form { directive: String },
    /// Other programs' targets only.
    #[error(
        "it names no level and no target of Herald's, which would log nothing: begin it with a level, as \
         in info,{text}"
    )]
    Others { text: String },
}

/// The filter of the settings is none.
#[derive(Debug, thiserror::Error)]
#[error("{setting} is no log filter: {error}")]
pub struct FilterSettingError {
    setting: &'static str,
    error: FilterError,
}

impl Filter {
    /// What the settings ask for. `RUST_LOG`, where it is set, wins over `log.level`.
    ///
    /// # Errors
    /// [`FilterSettingError`], which says which of the two it is.
    pub fn configured(config: &LogConfig) -> Result<Self, FilterSettingError> {
        let variable = std::env::var_os("RUST_LOG").filter(|text| !text.is_empty());
        let (setting, parsed) = match variable {
            Some(text) => {
                let text = text.to_str().ok_or(FilterError::NotUtf8);
                ("RUST_LOG", text.and_then(Self::parse))
            }
            None => ("log.level", Self::parse(&config.level)),
        };
        parsed.map_err(|error| FilterSettingError { setting, error })
    }

    /// Reads a filter.
    ///
    /// # Errors
    /// [`FilterError`], for the first part that is wrong.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterError::TooLong);
        }
        let parts = text.split(',').map(str::trim);
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return Err(FilterError::Empty);
        }
        let mut general = None;
        let mut targets = Vec::new();
        for part in &parts {
            match Directive::parse(part)? {
                Directive::General(level) => general = Some(level),
                Directive::Target(target, level) => targets.push((target, level)),
            }
        }
        let text = parts.join(",");
        if general.is_none() && !targets.iter().any(|(target, _)| is_ours(target)) {
            return Err(FilterError::Others { text });
        }
        let general = general.unwrap_or(LevelFilter::OFF);
        let capped = Targets::new()
            .with_default(general.min(DEPENDENCIES))
            .with_target(OURS, general);
        let targets = targets.into_iter().fold(capped, |all, (target, level)| {
            let cap = if is_ours(target) {
                LevelFilter::TRACE
            } else {
                DEPENDENCIES
            };
            all.with_target(target, level.min(cap))
        });
        Ok(Self { text, targets })
    }

    /// As it was written, without the blanks.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn targets(&self) -> &Targets {
        &self.targets
    }
}

/// One part of a filter.
enum Directive<'a> {
    /// Of everything that no target says more about.
    General(LevelFilter),
    Target(&'a str, LevelFilter),
}

impl<'a> Directive<'a> {
    fn parse(part: &'a str) -> Result<Self, FilterError> {
        let Some((target, level)) = part.split_once('=') else {
            return match level(part) {
                Some(level) => Ok(Self::General(level)),
                // As everywhere: all of it.
                None if is_ours(part) => Ok(Self::Target(part, LevelFilter::TRACE)),
                None if !is_target(part) => Err(form(part)),
                None => Err(FilterError::Word {
                    word: part.to_owned(),
                    nearest: nearest(part, LEVELS.into_iter().chain(ours())),
                }),
            };
        };
        let (target, word) = (target.trim(), level.trim());
        if !is_target(target) {
            return Err(form(part));
        }
        if !is_ours(target) && is_meant_as_ours(target) {
            return Err(FilterError::Target {
                directive: part.to_owned(),
                nearest: nearest(target, ours()),
            });
        }
        let level = self::level(word).ok_or_else(|| FilterError::Level {
            directive: part.to_owned(),
            nearest: nearest(word, LEVELS.into_iter()),
        })?;
        Ok(Self::Target(target, level))
    }
}

fn form(part: &str) -> FilterError {
    FilterError::Form {
        directive: part.to_owned(),
    }
}

/// A level's word or number, as tracing takes them.
fn level(word: &str) -> Option<LevelFilter> {
    // An empty one would be `error`.
    word.parse().ok().filter(|_| !word.is_empty())
}

/// Whether anything could have this target: a path of a module, or a name that a program chose.
fn is_target(text: &str) -> bool {
    let is_part_of_a_name =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-' | b'.');
    !text.is_empty() && text.bytes().all(is_part_of_a_name)
}

fn ours() -> impl Iterator<Item = &'static str> {
    let said_once = [OURS, super::UNLIMITED];
    said_once.into_iter().chain(MODULES.iter().copied())
}

fn is_ours(target: &str) -> bool {
    ours().any(|known| known == target)
}

/// Whether a target that is none of ours was to be one: of another program's by that name we know nothing.
fn is_meant_as_ours(target: &str) -> bool {
    let program = target.split(':').next().unwrap_or_default();
    strsim::damerau_levenshtein(&program.to_ascii_lowercase(), OURS) <= 1
}

/// The known word that `unknown` was to be, or the one whose last part was, if one is near.
fn nearest(unknown: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let last = |word: &'static str| word.rsplit("::").next().unwrap_or_default();
    let known: Vec<&str> = known.collect();
    near(unknown, known.iter().copied()).or_else(|| {
        let part = near(unknown, known.iter().copied().map(last))?;
        known.into_iter().find(|word| last(word) == part)
    })
}

/// What to do about a word that is not right.
fn meant(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!(
            "levels are {}, and targets {OURS} and its modules",
            LEVELS.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn wrong(text: &str) -> String {
        match Filter::parse(text) {
            Ok(filter) => panic!("`{text}` is taken: {filter:?}"),
            Err(error) => error.to_string(),
        }
    }

    /// The most verbose level that `text` lets `target` print.
    fn printed(text: &str, target: &str) -> LevelFilter {
        let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let levels = [
            Level::TRACE,
            Level::DEBUG,
            Level::INFO,
            Level::WARN,
            Level::ERROR,
        ];
        levels
            .into_iter()
            .find(|level| filter.targets().would_enable(target, level))
            .map_or(LevelFilter::OFF, LevelFilter::from_level)
    }

    #[test]
    fn our_lines_are_printed_as_asked_and_a_dependency_s_never_below_warn() {
        use LevelFilter as L;
        for (text, room, auth, dependency) in [
            ("info", L::INFO, L::INFO, L::WARN),
            ("TRACE", L::TRACE, L::TRACE, L::WARN),
            ("5", L::TRACE, L::TRACE, L::WARN),
            ("error", L::ERROR, L::ERROR, L::ERROR),
            ("off", L::OFF, L::OFF, L::OFF),
            ("info,herald::room=debug", L::DEBUG, L::INFO, L::WARN),
            (" info , herald::room = debug ,", L::DEBUG, L::INFO, L::WARN),
            ("warn,herald", L::TRACE, L::TRACE, L::WARN),
            ("herald=debug", L::DEBUG, L::DEBUG, L::OFF),
            ("herald::room::sessions", L::TRACE, L::OFF, L::OFF),
            ("debug,tungstenite=trace", L::DEBUG, L::DEBUG, L::WARN),
            ("info,tungstenite=off", L::INFO, L::INFO, L::OFF),
            ("trace,herald=info", L::INFO, L::INFO, L::WARN),
            ("herald=info,trace", L::INFO, L::INFO, L::WARN),
            ("off,herald::log=info", L::OFF, L::OFF, L::OFF),
        ] {
            let targets = [
                "herald::room::sessions",
                "herald::auth",
                "tungstenite::protocol",
            ];
            let got = targets.map(|target| printed(text, target));
            assert_eq!(got, [room, auth, dependency], "{text}");
        }
    }

    #[test]
    fn what_would_match_nothing_is_refused_with_the_nearest_word() {
        for (text, part) in [
            ("", "empty"),
            (" , ,", "empty"),
            ("inof", "did you mean `info`?"),
            ("wran", "did you mean `warn`?"),
            ("verbose", "`verbose` is neither a level nor a target"),
            ("hearld", "did you mean `herald`?"),
            ("Herald", "did you mean `herald`?"),
            ("room", "did you mean `herald::room`?"),
            ("info,verbose", "`verbose` is neither"),
            ("info,sqlx", "`sqlx` is neither"),
            ("9", "`9` is neither"),
            ("herald::rom=debug", "did you mean `herald::room`?"),
            ("herald::room::sesions=debug", "`herald::room::sessions`?"),
            ("info,hearld::room=debug", "did you mean `herald::room`?"),
            ("herald::=debug", "names no target of Herald's"),
            ("HERALD=debug", "did you mean `herald`?"),
            ("herald=loud", "does not end with a level"),
            ("herald=", "does not end with a level"),
            ("info,sqlx=wran", "did you mean `warn`?"),
            ("a=b=c", "does not end with a level"),
            ("=debug", "cannot match"),
            ("herald[join]=debug", "no spans or fields"),
            ("herald[join{user=7}]=debug", "no spans or fields"),
            ("[{a,b}]=debug", "no spans or fields"),
            ("info,{x}", "no spans or fields"),
            ("info/join", "cannot match"),
            ("sqlx=warn", "as in info,sqlx=warn"),
            ("sqlx=warn,tower=info", "no level and no target of Herald's"),
        ] {
            let told = wrong(text);
            assert!(told.contains(part), "{text}: {told}");
        }
        assert_eq!(
            wrong(&"x".repeat(FILTER_BYTES_MAX + 1)),
            "it is over 4096 bytes"
        );
    }

    #[test]
    fn every_module_that_logs_is_a_target() {
        for target in ["herald::room", "herald::cli::dev::server", module_path!()] {
            let target = target.trim_end_matches("::tests");
            assert!(is_ours(target), "{target} of {MODULES:?}");
        }
    }
}
