//! The static tokens of HTTP publishing, for senders that get none from an issuer.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::admin_token::is_same;
use crate::auth::PublishGrant;
use crate::config::{read_bounded, text};

/// Bytes of a token. A shorter one could be guessed.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 32..=256;
/// Bytes of a token's name.
const NAME_BYTES_MAX: usize = 64;
/// Most tokens: all are looked at for each request.
const TOKENS_MAX: usize = 1000;

/// All static tokens. Without a file there is none.
#[derive(Debug, Default)]
pub(crate) struct StaticTokens(Vec<StaticToken>);

/// One of them, with its hash in place of itself.
pub(crate) struct StaticToken {
    /// What the operator calls it.
    pub(crate) name: Arc<str>,
    hash: [u8; 32],
    pub(crate) grant: Arc<PublishGrant>,
}

/// The file cannot be used. `Display` names the setting, the file and the line, and nothing of a token.
#[derive(Debug, thiserror::Error)]
#[error("publish.tokens_file {0}")]
pub(crate) struct StaticTokensError(String);

impl StaticTokens {
    /// Reads the file.
    ///
    /// # Errors
    /// [`StaticTokensError`].
    pub(crate) fn load(path: &Path) -> Result<Self, StaticTokensError> {
        let file = path.display();
        let lines = text(read_bounded(path))
            .map_err(|error| StaticTokensError(format!("{file} cannot be read: {error}")))?;
        Self::parse(&lines).map_err(|why| StaticTokensError(format!("{file} {why}")))
    }

    fn parse(lines: &str) -> Result<Self, String> {
        let mut tokens: Vec<StaticToken> = Vec::new();
        let mut names = HashSet::new();
        for (number, line) in (1..).zip(lines.trim_start_matches('\u{feff}').lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| format!("line {number}: {why}");
            let token = StaticToken::parse(line).map_err(|why| wrong(&why))?;
            if !names.insert(Arc::clone(&token.name)) {
                return Err(wrong("a token before it has this name"));
            }
            if tokens.iter().any(|other| is_same(&other.hash, &token.hash)) {
                return Err(wrong("a token before it is the same"));
            }
            tokens.push(token);
            if tokens.len() > TOKENS_MAX {
                return Err(wrong(&format!("there are more than {TOKENS_MAX} tokens")));
            }
        }
        if tokens.is_empty() {
            return Err("has no token: a line is `name token workspaces categories`".to_owned());
        }
        Ok(Self(tokens))
    }

    /// The one with this hash. Takes the same time whichever it is: all are looked at, and all bytes of each.
    pub(crate) fn find(&self, hash: &[u8; 32]) -> Option<&StaticToken> {
        self.0.iter().fold(None, |found, token| {
            if is_same(&token.hash, hash) {
                Some(token)
            } else {
                found
            }
        })
    }
}

impl StaticToken {
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(token), Some(workspaces), Some(categories)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("it is not `name token workspaces categories`".to_owned());
        };
        if words.next().is_some_and(|word| !word.starts_with('#')) {
            return Err("it has more than `name token workspaces categories`".to_owned());
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
            return Err(format!(
                "its name is not at most {NAME_BYTES_MAX} letters, digits, `-`, `_` and dots"
            ));
        }
        if !TOKEN_BYTES.contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err("its token is not 32 to 256 visible ASCII characters".to_owned());
        }
        if is_jwt(token) {
            return Err("its token has two dots: it would be taken for a JWT".to_owned());
        }
        Ok(Self {
            name: name.into(),
            hash: Sha256::digest(token).into(),
            grant: Arc::new(PublishGrant::parse(workspaces, categories)?),
        })
    }
}

/// Whether a token is read as a JWT, and not as a static token.
pub(crate) fn is_jwt(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticToken({}, ***)", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "swordfish-swordfish-swordfish-32";
    const OTHER: &str = "swordfish-swordfish-swordfish-33";

    fn find<'a>(tokens: &'a StaticTokens, token: &str) -> Option<&'a str> {
        let found = tokens.find(&Sha256::digest(token).into());
        found.map(|token| &*token.name)
    }

    #[test]
    fn a_token_is_found_by_itself_alone() {
        let file = format!(
            "\u{feff}# tokens\r\n\nci {TOKEN} acme,globex custom,record # of the build\n  cron\t{OTHER} * *\n"
        );
        let tokens = StaticTokens::parse(&file).unwrap();
        assert_eq!(find(&tokens, TOKEN), Some("ci"));
        assert_eq!(find(&tokens, OTHER), Some("cron"));
        assert_eq!(find(&tokens, TOKEN.trim_start_matches('s')), None);
        assert_eq!(find(&tokens, ""), None);
        assert!(!format!("{tokens:?}").contains("swordfish"));
        assert_eq!(find(&StaticTokens::default(), TOKEN), None);
    }

    #[test]
    fn a_wrong_line_is_named_and_nothing_of_its_token() {
        for (line, part) in [
            ("ci".to_owned(), "name token workspaces categories"),
            (format!("ci {TOKEN} *"), "name token workspaces categories"),
            (format!("ci {TOKEN} * * x"), "more than"),
            ("ci swordfish * *".to_owned(), "32 to 256"),
            (format!("ci {} * *", "swordfish".repeat(29)), "32 to 256"),
            (format!("ci {TOKEN}\u{fc} * *"), "32 to 256"),
            (format!("ci {TOKEN}.a.b * *"), "two dots"),
            (format!("c/i {TOKEN} * *"), "name"),
            (format!("ci {TOKEN} a.b *"), "`a.b` is no workspace"),
            (format!("ci {TOKEN} * records"), "`records` is none of"),
            (format!("ok {TOKEN} * *"), "this name"),
            (format!("ci {OTHER} * *"), "is the same"),
        ] {
            let error = StaticTokens::parse(&format!("ok {OTHER} * *\n{line}\n")).unwrap_err();
            assert!(
                error.starts_with("line 2: ") && error.contains(part),
                "{error}"
            );
            assert!(!error.contains("swordfish"), "{error}");
        }
        assert!(
            StaticTokens::parse("# none\n")
                .unwrap_err()
                .contains("no token")
        );
    }
}
