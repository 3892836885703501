//! The key set of a file that is replaced when keys rotate. Owns when the file is looked at and
//! read again; what it holds is `jwks`' matter.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;

use super::AuthError;
use super::credential::KeyId;
use super::jwks::{self, JwksError, KeySet, Remark};
use super::jws::Jws;
use super::withdrawal::MissingKeys;
use crate::config::{FileError, open_regular, rest_bounded};

/// The file is read at most this often, whatever tokens come: a flood of unknown key ids must not
/// become a flood of reads.
pub(super) const READ_INTERVAL: Duration = Duration::from_secs(10);

/// Without any unknown key, the file is still looked at this often, so that a key taken out of it is
/// soon no longer taken.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Why the file gave no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum JwksFileError {
    #[error(transparent)]
    Unreadable(#[from] FileError),
    #[error(transparent)]
    Jwks(#[from] JwksError),
    #[error("holds no key for any of the algorithms {0:?}")]
    OtherAlgorithms(Vec<Algorithm>),
}

/// A key set that follows its file.
///
/// The lock order is `file_state`, then `keys`; `keys` is held for the copy of an `Arc` only. `file_state`
/// is held over a read of the file, so that of many tokens with a new key id one reads and the
/// others wait for what it found: refusing them meanwhile would be final, since 4001 tells a client
/// to stop.
#[derive(Debug)]
pub(super) struct JwksFile {
    path: PathBuf,
    /// The only algorithms that its keys are used for, if not all.
    algorithms: Option<Vec<Algorithm>>,
    keys: RwLock<Arc<KeySet>>,
    file_state: Mutex<FileState>,
}

#[derive(Debug)]
struct FileState {
    /// What the file looked like when it was last read, also if it could not be used.
    stamp: Option<Stamp>,
    read_at: Instant,
    looked_at: Instant,
    /// When it was first found to be away, or as it now is and not usable: half-written, perhaps.
    unusable_at: Option<Instant>,
    missing: MissingKeys,
    /// A key was withdrawn since the last [`JwksFile::look`].
    has_withdrawn: bool,
}

impl JwksFile {
    /// Reads the set for the first time.
    ///
    /// # Errors
    /// [`JwksFileError`].
    pub(super) fn open(
        path: &Path,
        algorithms: Option<Vec<Algorithm>>,
        now: Instant,
    ) -> Result<Self, JwksFileError> {
        let (keys, stamp) = read(path, algorithms.as_deref())?;
        Ok(Self {
            path: path.to_owned(),
            algorithms,
            keys: RwLock::new(Arc::new(keys)),
            file_state: Mutex::new(FileState {
                stamp: Some(stamp),
                read_at: now,
                looked_at: now,
                unusable_at: None,
                missing: MissingKeys::default(),
                has_withdrawn: false,
            }),
        })
    }

    /// Which key of the set signed the token. Where none did, the file is looked at, and if it
    /// has changed the answer is the new set's.
    ///
    /// # Errors
    /// As [`KeySet::verify`]; [`AuthError::NotYet`] where the file has keys that are not known yet, or
    /// may soon have them.
    pub(super) fn verify(&self, jws: &Jws<'_>, now: Instant) -> Result<KeyId, AuthError> {
        self.look_now_and_then(now);
        let keys = self.keys();
        let refusal = match keys.verify(jws) {
            Ok(key) => return Ok(key),
            Err(refusal) => refusal,
        };
        let unknown_for = self.refresh(now);
        let newer = self.keys();
        let refusal = if Arc::ptr_eq(&keys, &newer) {
            refusal
        } else {
            match newer.verify(jws) {
                Ok(key) => return Ok(key),
                Err(refusal) => refusal,
            }
        };
        Err(unknown_for.map_or(refusal, AuthError::NotYet))
    }

    /// Whether sockets of this key may stay: the set has it, or it is missing and not yet withdrawn.
    pub(super) fn trusts(&self, key: KeyId) -> bool {
        self.keys().contains(key) || self.state().missing.contains(key)
    }

    /// Looks at the file, as somebody does every [`LOOK_INTERVAL`]; whether a key was withdrawn since the last look.
    pub(super) fn look(&self, now: Instant) -> bool {
        self.refresh(now);
        std::mem::take(&mut self.state().has_withdrawn)
    }

    fn state(&self) -> MutexGuard<'_, FileState> {
        let state = self.file_state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys in force.
    pub(super) fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn look_now_and_then(&self, now: Instant) {
        // If the lock is taken, another thread is looking.
        let due = self.file_state.try_lock().is_ok_and(|file_state| {
            now.saturating_duration_since(file_state.looked_at) >= LOOK_INTERVAL
        });
        if due {
            self.refresh(now);
        }
    }

    /// Reads the file again if it has changed and was not read a moment ago. What cannot be used
    /// leaves the old keys in force, with one warning for each change of the file.
    ///
    /// Gives how long its keys are still unknown: until it may be read again, or until a file that is
    /// away or cannot be used has had the time to be written.
    fn refresh(&self, now: Instant) -> Option<Duration> {
        let mut file_state = self.state();
        file_state.looked_at = now;
        // A look costs a microsecond and is not limited: only so does a token of a new key pass at
        // once, however many unknown ids were asked for just before.
        let stamp = match std::fs::metadata(&self.path) {
            Ok(file) => Stamp::of(&file),
            Err(error) => {
                // Perhaps between two names of a swap: not a read, so that the next look may read.
                if file_state.stamp.take().is_some() {
                    file_state.unusable_at = Some(now);
                    self.warn_kept(&error);
                }
                return file_state.unusable_at.and_then(|since| pause(since, now));
            }
        };
        // Where keys are missing, a second read decides about them, also if the file has not changed.
        let is_read_due = file_state.unusable_at.is_none()
            && file_state.missing.due().is_some_and(|due| now >= due)
            && pause(file_state.read_at, now).is_none();
        if file_state.stamp.as_ref() == Some(&stamp) && !is_read_due {
            return file_state.unusable_at.and_then(|since| pause(since, now));
        }
        if file_state.stamp.is_some()
            && let Some(pause) = pause(file_state.read_at, now)
        {
            return Some(pause);
        }
        file_state.read_at = now;
        let read = read(&self.path, self.algorithms.as_deref());
        file_state.unusable_at = read.is_err().then_some(now);
        match read {
            Ok((keys, stamp)) => {
                file_state.stamp = Some(stamp);
                let withdrawn = file_state.missing.answered(&self.keys(), &keys, now);
                file_state.has_withdrawn |= !withdrawn.is_empty();
                let (path, withdrawn) = (self.path.display(), withdrawn.len());
                tracing::info!(%path, keys = keys.len(), withdrawn, "key set reloaded");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Err(error) => {
                file_state.stamp = Some(stamp);
                self.warn_kept(&error);
            }
        }
        file_state.unusable_at.map(|_| READ_INTERVAL)
    }

    fn warn_kept(&self, error: &dyn std::fmt::Display) {
        tracing::warn!(
            path = %self.path.display(),
            %error,
            "key set not reloaded, old keys stay in force"
        );
    }
}

/// What is left at `now` of the interval that began at `since`.
fn pause(since: Instant, now: Instant) -> Option<Duration> {
    let left = READ_INTERVAL.saturating_sub(now.saturating_duration_since(since));
    (!left.is_zero()).then_some(left)
}

/// What tells one state of a file from another: a new file under the same name (as Kubernetes swaps
/// them by symbolic link), and a rewrite in place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

fn read(path: &Path, algorithms: Option<&[Algorithm]>) -> Result<(KeySet, Stamp), JwksFileError> {
    let open = || -> io::Result<(File, Stamp)> {
        let file = open_regular(path)?;
        // Taken before the read: what is written meanwhile shows at the next look.
        let stamp = Stamp::of(&file.metadata()?);
        Ok((file, stamp))
    };
    let (file, stamp) = open().map_err(FileError::Io)?;
    let (keys, remarks) = jwks::parse(&rest_bounded(file)?)?;
    for Remark {
        index,
        key_id,
        skipped,
        text,
    } in remarks
    {
        if skipped {
            tracing::warn!(path = %path.display(), index, key_id, reason = text, "key skipped");
        } else {
            tracing::warn!(path = %path.display(), index, key_id, reason = text, "key needs care");
        }
    }
    let keys = match algorithms {
        Some(algorithms) => keys.only(algorithms),
        None => keys,
    };
    if keys.len() == 0 {
        let algorithms = algorithms.unwrap_or_default().to_vec();
        return Err(JwksFileError::OtherAlgorithms(algorithms));
    }
    Ok((keys, stamp))
}
