//! What the fuzz targets reach of key sets.

use super::jwks;
use super::jws::Jws;

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
