//! Reading the files that settings name. The size is bounded, and a file that is read again must be a regular one. A hash
//! shows whether a file has changed.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Longest file taken, in bytes. A set of a hundred keys with certificates has a third of it.
const BYTES_MAX: u64 = 1024 * 1024;

/// Why a file cannot be read. Completes a sentence that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is longer than {BYTES_MAX} bytes")]
    TooLong,
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io(error) => error,
            FileError::TooLong => Self::other(format!("it is longer than {BYTES_MAX} bytes")),
        }
    }
}

/// Refuses a file that gives its content only once, or that waits for a writer. A gateway reads its files more than
/// once, and must not wait.
///
/// # Errors
/// Where there is no file, or one of these kinds.
pub(crate) fn must_be_regular(path: &Path) -> io::Result<()> {
    // Of what a symbolic link points to: Kubernetes mounts its files so.
    let kind = std::fs::metadata(path)?.file_type();
    let kind = if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() && File::open(path)?.is_terminal() {
        "a terminal"
    } else {
        // All other kinds fail at once or are read at once, as /dev/null is.
        return Ok(());
    };
    Err(io::Error::other(format!(
        "it is {kind}, and must be a regular file, which can be read again"
    )))
}

/// Opens the file at `path`, which must be a regular one.
///
/// # Errors
/// Also as [`must_be_regular`].
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    must_be_regular(path)?;
    File::open(path)
}

/// All of the file at `path`, which must be a regular one.
///
/// # Errors
/// [`FileError`].
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, FileError> {
    rest_bounded(open_regular(path)?)
}

/// All of what is at `path`, also from a FIFO such as a shell's `<(…)`. For a file that is read once, by a command that
/// may wait.
///
/// # Errors
/// [`FileError`].
pub(crate) fn read_once(path: &Path) -> Result<Vec<u8>, FileError> {
    rest_bounded(File::open(path)?)
}

/// A file's content, which must be text.
///
/// # Errors
/// Where it could not be read, is too long, or not UTF-8.
pub(crate) fn text(read: Result<Vec<u8>, FileError>) -> io::Result<String> {
    String::from_utf8(read?).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// The rest of `file`.
///
/// # Errors
/// [`FileError`].
pub(crate) fn rest_bounded(file: File) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let read = file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if read as u64 > BYTES_MAX {
        return Err(FileError::TooLong);
    }
    Ok(bytes)
}

/// A file that a setting names, with the hash of its content. `Display` names the setting and the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedFile {
    pub(crate) setting: String,
    path: PathBuf,
    /// `None`: it could not be read. What is built from it reports why.
    hash: Option<[u8; 32]>,
    /// Whether there is nothing in it: white space, or the zeros that some file systems leave after a crash.
    pub(crate) is_blank: bool,
}

impl NamedFile {
    pub(crate) fn new(setting: impl Into<String>, path: &Path, content: Option<&[u8]>) -> Self {
        let is_blank = |bytes: &[u8]| {
            let mut bytes = bytes.iter();
            bytes.all(|byte| byte.is_ascii_whitespace() || *byte == 0)
        };
        Self {
            setting: setting.into(),
            path: path.to_owned(),
            hash: content.map(|bytes| Sha256::digest(bytes).into()),
            is_blank: content.is_some_and(is_blank),
        }
    }

    pub(crate) fn read(setting: impl Into<String>, path: &Path) -> Self {
        Self::new(setting, path, read_bounded(path).ok().as_deref())
    }

    /// Whether its content has changed since this was made.
    pub(crate) fn has_changed(&self) -> bool {
        Self::read(self.setting.as_str(), &self.path) != *self
    }
}

impl std::fmt::Display for NamedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.setting, self.path.display())
    }
}
