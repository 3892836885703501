//! The token of the admin listener. A request that changes something needs it. Reading stays open: metrics and health
//! should need no secret.

use std::fmt;
use std::path::Path;

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};

use crate::auth::bearer_token;
use crate::config::{FileError, read_bounded};
use crate::json::without_bom;

/// A shorter one could be guessed.
const BYTES_MIN: usize = 16;
/// Longer than any generator makes one; a request's head has room for it.
const BYTES_MAX: usize = 4096;

/// The hash of the token, so that no output and no dump contains the token.
pub(crate) struct AdminToken([u8; 32]);

/// Why a token's file cannot be used. `Display` names the setting and the file, and nothing of the token.
#[derive(Debug, thiserror::Error)]
#[error("server.admin_token_file {file} {why}")]
pub(crate) struct AdminTokenError {
    file: String,
    why: Wrong,
}

#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error(transparent)]
    Unreadable(#[from] FileError),
    #[error("has fewer than {BYTES_MIN} bytes")]
    Short,
    #[error("has more than {BYTES_MAX} bytes")]
    Long,
    #[error("must be one word of visible ASCII characters")]
    Characters,
}

impl AdminToken {
    /// Reads the token. White space around it, and a byte order mark before it, are not part of it.
    ///
    /// # Errors
    /// [`AdminTokenError`].
    pub(crate) fn load(path: &Path) -> Result<Self, AdminTokenError> {
        let read = read_bounded(path).map_err(Wrong::from);
        read.and_then(|bytes| Self::new(&bytes))
            .map_err(|why| AdminTokenError {
                file: path.display().to_string(),
                why,
            })
    }

    fn new(bytes: &[u8]) -> Result<Self, Wrong> {
        let token = without_bom(bytes).trim_ascii();
        if token.len() < BYTES_MIN {
            return Err(Wrong::Short);
        }
        if token.len() > BYTES_MAX {
            return Err(Wrong::Long);
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(Wrong::Characters);
        }
        Ok(Self(Sha256::digest(token).into()))
    }

    /// Whether a request with these headers has it, by RFC 6750, and no second one.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        bearer_token(headers).is_ok_and(|token| self.is(token.as_bytes()))
    }

    fn is(&self, token: &[u8]) -> bool {
        is_same(&self.0, &Sha256::digest(token).into())
    }
}

/// Whether both hashes are the same. Takes the same time wherever they differ.
pub(super) fn is_same(ours: &[u8; 32], theirs: &[u8; 32]) -> bool {
    let pairs = ours.iter().zip(theirs);
    pairs.fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs)) == 0
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(***)")
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn only_the_token_itself_is_taken() {
        for file in [format!(" {TOKEN}\r\n"), format!("\u{feff}{TOKEN}")] {
            let token = AdminToken::new(file.as_bytes()).unwrap();
            assert!(token.is(TOKEN.as_bytes()), "{file:?}");
        }
        let token = AdminToken::new(TOKEN.as_bytes()).unwrap();
        for good in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef "] {
            assert!(token.is_in(&headers(&[good])), "{good}");
        }
        for bad in [
            &["Bearer 0123456789abcdeF"] as &[&str],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0"],
            &["Bearer"],
            &["Bearer "],
            &[""],
            &[TOKEN],
            &["Basic 0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
            &[],
        ] {
            assert!(!token.is_in(&headers(bad)), "{bad:?}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_named_with_its_setting_and_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let long = "x".repeat(BYTES_MAX + 1);
        for (content, part) in [
            ("", "fewer than 16"),
            ("  swordfish-short  \n\n", "fewer than 16"),
            ("swordfish and another word", "visible ASCII"),
            ("swordfish-swordfish-\u{fc}", "visible ASCII"),
            ("swordfish-swordfish\0", "visible ASCII"),
            (&long, "more than 4096"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = AdminToken::load(&path).unwrap_err().to_string();
            let named = format!("server.admin_token_file {}", path.display());
            assert!(error.starts_with(&named) && error.contains(part), "{error}");
            assert!(!error.contains("swordfish"), "{error}");
        }
        let error = AdminToken::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
        let printed = format!("{:?}", AdminToken::new(TOKEN.as_bytes()).unwrap());
        assert_eq!(printed, "AdminToken(***)");
    }
}
