//! Reading the files that settings name: never more of one than it can rightly have.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest file taken, in bytes. A set of a hundred keys with certificates has a third of it.
const BYTES_MAX: u64 = 1024 * 1024;

/// Why a file cannot be read. Completes a sentence that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is longer than {BYTES_MAX} bytes")]
    TooLong,
}

/// All of the file at `path`.
///
/// # Errors
/// [`ReadError`].
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, ReadError> {
    rest_bounded(File::open(path)?)
}

/// All of the file at `path`, which must be text.
///
/// # Errors
/// Where it cannot be read, is too long, or not UTF-8.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read_bounded(path).map_err(|error| match error {
        ReadError::Io(error) => error,
        ReadError::TooLong => io::Error::other(format!("longer than {BYTES_MAX} bytes")),
    })?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// The rest of `file`.
///
/// # Errors
/// [`ReadError`].
pub(crate) fn rest_bounded(file: File) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    let read = file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if read as u64 > BYTES_MAX {
        return Err(ReadError::TooLong);
    }
    Ok(bytes)
}
