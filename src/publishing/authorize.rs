//! Who may publish what: by a token of an issuer, or by a static one.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::problem::PublishProblem;
use crate::auth::{
    AuthError, PublishGrant, PublisherIdentity, Revocations, TOKEN_BYTES_MAX, UserKey, bearer_token,
};
use crate::codes::ProblemType;
use crate::setup::{Setup, is_jwt};

/// Whose limits count for a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum PublisherKey {
    /// All tokens of a user count together: who gets many gets no more.
    User(UserKey),
    /// A static token, by its name.
    Static(Arc<str>),
}

/// Whose a request is, and what it may publish.
#[derive(Debug)]
pub(super) struct Authorized {
    pub(super) key: PublisherKey,
    pub(super) grant: Arc<PublishGrant>,
}

/// Judges the token of a request with these headers.
///
/// # Errors
/// The problems of status 401, and [`ProblemType::TokenNotYet`].
pub(super) async fn authorize(
    setup: &Setup,
    revocations: &Revocations,
    headers: &HeaderMap,
) -> Result<Authorized, PublishProblem> {
    let token = bearer_token(headers).map_err(refused)?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(bad("the token is longer than 16 KiB"));
    }
    let hash: [u8; 32] = Sha256::digest(token).into();
    if !is_jwt(token) {
        let found = setup.static_tokens.find(&hash).ok_or_else(|| {
            warn!(reason = "it is no static token", "publish token refused");
            bad("this is no token for publishing here")
        })?;
        return Ok(Authorized {
            key: PublisherKey::Static(Arc::clone(&found.name)),
            grant: Arc::clone(&found.grant),
        });
    }
    let publisher = match remembered(setup, revocations, &hash) {
        Some(publisher) => publisher,
        None => judged(setup, revocations, token, hash).await?,
    };
    Ok(Authorized {
        key: PublisherKey::User(publisher.credential.user),
        grant: Arc::clone(&publisher.grant),
    })
}

/// Whose a token is that was verified before, if it is still to be trusted. What may have changed is looked at each time.
fn remembered(
    setup: &Setup,
    revocations: &Revocations,
    hash: &[u8; 32],
) -> Option<Arc<PublisherIdentity>> {
    let found = setup.publishers.find(hash, SystemTime::now())?;
    let credential = &found.credential;
    let is_trusted = revocations.kind_of(credential).is_none() && setup.verifier.trusts(credential);
    is_trusted.then_some(found)
}

async fn judged(
    setup: &Setup,
    revocations: &Revocations,
    token: &str,
    hash: [u8; 32],
) -> Result<Arc<PublisherIdentity>, PublishProblem> {
    let (verifier, came) = (&setup.verifier, Instant::now());
    let judge = || verifier.judge_publisher(token, SystemTime::now(), revocations);
    let judged = match judge() {
        Err(AuthError::UnknownKey) => {
            let waited = verifier.wait_for_key(token, came).await;
            judge().map_err(|error| verifier.decided(token, error, waited))
        }
        judged => judged,
    };
    let publisher = Arc::new(judged.map_err(refused)?);
    setup
        .publishers
        .insert(hash, Arc::clone(&publisher), SystemTime::now());
    Ok(publisher)
}

fn refused(error: AuthError) -> PublishProblem {
    let problem = match error {
        AuthError::Missing => ProblemType::NoToken,
        AuthError::Invalid(_) | AuthError::NotJson(..) | AuthError::UnknownKey => {
            ProblemType::BadToken
        }
        AuthError::NotYet(_) => ProblemType::TokenNotYet,
        AuthError::Revoked => ProblemType::RevokedToken,
        AuthError::Expired => ProblemType::ExpiredToken,
    };
    let detail = match error {
        AuthError::Missing => {
            "send a token for publishing: Authorization: Bearer <token>".to_owned()
        }
        _ => error.to_string(),
    };
    let refused = PublishProblem::new(problem, detail);
    match error {
        AuthError::NotYet(wait) => refused.after(wait),
        _ => refused,
    }
}

fn bad(why: &str) -> PublishProblem {
    PublishProblem::new(ProblemType::BadToken, why)
}
