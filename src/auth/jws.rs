//! The outer form of a token: JWS compact serialisation, RFC 7515 section 7.1. Pure; nothing here
//! trusts what it reads, and no error holds a part of the token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;

use super::AuthError;
use crate::json::{self, Map, Value};

/// A token taken apart, its signature not yet verified.
pub(super) struct Jws<'a> {
    /// What the token says it is signed with. A question to the key, never a choice of the key.
    pub algorithm: Algorithm,
    /// The header's `kid`, RFC 7515 section 4.1.4.
    /// One that is no text names no key.
    pub key_id: Option<Value>,
    /// What is signed: the header and payload segments with the dot between them.
    pub message: &'a str,
    payload: &'a str,
    pub signature: &'a str,
}

impl<'a> Jws<'a> {
    /// Takes `token` apart.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] where `token` is not of that form, or names an algorithm that is not
    /// one of RFC 7518 section 3.1 (`none` is not), or asks for an extension.
    pub(super) fn parse(token: &'a str) -> Result<Self, AuthError> {
        let (message, signature) = token.rsplit_once('.').ok_or(NOT_THREE_PARTS)?;
        let (header, payload) = message.split_once('.').ok_or(NOT_THREE_PARTS)?;
        let header = object(header, &HEADER)?;
        // RFC 7515 section 4.1.11: a `crit` that is not understood refuses the token. Herald
        // understands no extension.
        if header.contains_key("crit") {
            return Err(EXTENSION);
        }
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => algorithm(name).ok_or(WRONG_ALGORITHM)?,
            _ => return Err(NO_ALGORITHM),
        };
        let key_id = header.get("kid").filter(|id| !id.is_null()).cloned();
        Ok(Self {
            algorithm,
            key_id,
            message,
            payload,
            signature,
        })
    }

    /// The claims. Before the signature is verified they choose whose key is asked, and nothing else.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] where the payload is not a JSON object.
    pub(super) fn claims(&self) -> Result<Map, AuthError> {
        object(self.payload, &PAYLOAD)
    }
}

pub(super) const WRONG_ALGORITHM: AuthError =
    AuthError::Invalid("its algorithm does not fit the key");
const NOT_THREE_PARTS: AuthError = AuthError::Invalid("it does not have three parts");
const NO_ALGORITHM: AuthError = AuthError::Invalid("its header has no alg, or one that is no text");
const EXTENSION: AuthError = AuthError::Invalid("it needs an extension");

/// What is said of a segment that is no JSON object.
struct Segment {
    /// Completes "its … not JSON".
    name: &'static str,
    encoding: AuthError,
    kind: AuthError,
}

const HEADER: Segment = Segment {
    name: "header is",
    encoding: AuthError::Invalid("its header is not base64url without padding"),
    kind: AuthError::Invalid("its header is JSON, but not an object"),
};
const PAYLOAD: Segment = Segment {
    name: "payload is",
    encoding: AuthError::Invalid("its payload is not base64url without padding"),
    kind: AuthError::Invalid("its payload is JSON, but not an object"),
};

/// A segment: base64url without padding (RFC 7515 section 2) of a JSON object. Of a name given
/// twice the last value counts, as RFC 7515 section 4 and RFC 7519 section 4 allow.
fn object(text: &str, segment: &Segment) -> Result<Map, AuthError> {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    let bytes = bytes.map_err(|_| segment.encoding)?;
    match json::parse(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(segment.kind),
        Err(error) => Err(AuthError::NotJson(segment.name, error)),
    }
}

/// The algorithm of that name, RFC 7518 section 3.1. `Ed25519` is the newer name of the one EdDSA
/// that Herald takes (RFC 9864 section 2.2).
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "Ed25519" => Some(Algorithm::EdDSA),
        name => name.parse().ok(),
    }
}
