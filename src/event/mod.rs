//! Bytes and headers become an [`Event`]: subject, payload, CloudEvents. Pure.

mod bad;
mod slug;
mod stored;

pub use self::bad::{BadEvent, Reason};
pub use self::slug::{SlugError, WorkspaceSlug};
pub use self::stored::StoredMessage;
