//! What the fuzz targets reach of key sets, and of the answers that they come in.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::jwks;
use super::jws::Jws;
use super::remote::{address, cache};

/// How long an answer is fresh that has these header lines.
pub fn fresh_for(lines: &[u8]) -> Duration {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    cache::fresh_for(&headers, SystemTime::UNIX_EPOCH)
}

/// Where a discovery document of `issuer` says that the keys are.
pub fn jwks_uri(document: &[u8], issuer: &str) -> Option<String> {
    let uri = address::jwks_uri(document, issuer).ok()?;
    Some(uri.into())
}

/// A key set that was read.
#[derive(Debug)]
pub struct FuzzedKeySet {
    keys: jwks::KeySet,
    /// How many entries were left out.
    pub skipped: usize,
}

impl FuzzedKeySet {
    /// Reads a file.
    pub fn parse(file: &[u8]) -> Option<Self> {
        let (keys, remarks) = jwks::parse(file).ok()?;
        let skipped = remarks.iter().filter(|remark| remark.skipped).count();
        Some(Self { keys, skipped })
    }

    /// How many keys are used.
    pub fn used(&self) -> usize {
        self.keys.len()
    }

    /// Whether one of the keys signed `token`.
    pub fn verifies(&self, token: &str) -> bool {
        Jws::parse(token).is_ok_and(|jws| self.keys.verify(&jws).is_ok())
    }
}
