//! A token of which only the moment from which it is valid, and the workspace, are still to be judged.

use std::time::{Duration, SystemTime};

use tracing::warn;

use super::{AuthError, Identity};
use crate::event::WorkspaceSlug;

/// A token that is right, except for what is still to be judged.
#[derive(Debug)]
pub struct VerifiedToken<'a> {
    pub(super) identity: Identity,
    /// How long it still is not valid, as of `now`.
    pub(super) ahead: Duration,
    pub(super) now: SystemTime,
    /// The place of its issuer's settings.
    pub(super) table: &'a str,
    /// Why it does not grant a workspace, where it does not.
    pub(super) no_access: &'static str,
}

impl VerifiedToken<'_> {
    /// Whose the token is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the token is good for `workspace`. Where it is not, the log says why.
    pub fn allows(&self, workspace: &WorkspaceSlug) -> bool {
        let allows = self.identity.workspaces.allow(workspace);
        if !allows {
            let reason = self.no_access;
            warn!(issuer = self.table, reason, "token refused");
        }
        allows
    }

    /// The identity, if the token is valid at `moment` or is already.
    ///
    /// # Errors
    /// [`AuthError::NotYet`].
    pub fn valid_by(self, moment: SystemTime) -> Result<Identity, AuthError> {
        if self.ahead.is_zero() || self.now + self.ahead <= moment {
            return Ok(self.identity);
        }
        let seconds = self.ahead.as_secs_f64();
        warn!(issuer = self.table, seconds, "token not yet valid");
        Err(AuthError::NotYet(self.ahead))
    }
}
