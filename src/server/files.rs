//! Open files: the limit is raised as far as the system allows, and shared out, so that clients never take
//! those that the gateway needs for itself. Without that a flood of connections would be the end of the admin
//! listener and of NATS: neither could be reached while it lasts.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::config::SocketsConfig;

/// For the gateway itself: standard streams, listeners, NATS, telemetry, files that are read again (some 20 in normal times), and as many
/// again while connections are replaced.
const OWN: usize = 40;
/// Connections at the admin listener: one part of all files in so many, within bounds that leave room for
/// probes and scrapes, and are not worth more memory.
const ADMIN_PART: usize = 8;
const ADMIN: (usize, usize) = (8, 512);
/// Connections that are no sockets yet take one part in so many of what clients may have: so a client can always be
/// answered that the gateway is full.
const PENDING_PART: usize = 4;

/// How many files each side may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    limit: usize,
    /// Connections at the admin listener.
    pub(crate) admin: usize,
    /// Connections at the listener of HTTP publishing, where there is one.
    pub(crate) publish: usize,
    /// Connections that are no sockets yet.
    pub(crate) pending: usize,
    pub(crate) sockets: usize,
}

impl OpenFiles {
    /// Raises the limit of the process, and shares out what it is now.
    pub(crate) fn of_process(publishes: bool) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        // Some systems have a ceiling of their own below an unlimited maximum.
        if limit.current != limit.maximum
            && let Err(error) = setrlimit(Resource::Nofile, raised)
        {
            warn!(%error, "limit of open files not raised");
        }
        let now = getrlimit(Resource::Nofile).current;
        let now = now.map_or(usize::MAX, |now| usize::try_from(now).unwrap_or(usize::MAX));
        Self::share(now, publishes)
    }

    fn share(limit: usize, publishes: bool) -> Self {
        let (least, most) = ADMIN;
        let admin = (limit / ADMIN_PART).clamp(least, most);
        let publish = if publishes { admin } else { 0 };
        let clients = limit.saturating_sub(OWN + admin + publish);
        let pending = (clients / PENDING_PART).max(1);
        Self {
            limit,
            admin,
            publish,
            pending,
            sockets: clients.saturating_sub(pending).max(1),
        }
    }

    /// Warns if the open files allow fewer sockets than the settings.
    pub(crate) fn warn_if_too_few(&self, config: &SocketsConfig) {
        if config.max_connections > self.sockets {
            warn!(
                max_connections = config.max_connections,
                sockets = self.sockets,
                open_files = self.limit,
                "fewer sockets than sockets.max_connections, raise the limit of open files"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_large_limit_caps_nobody_and_a_small_one_keeps_a_reserve() {
        let files = OpenFiles::share(1 << 20, false);
        assert!(files.sockets > 500_000 && files.pending > 4096, "{files:?}");
        assert_eq!(files.admin, 512);
        let files = OpenFiles::share(256, false);
        assert_eq!((files.admin, files.pending, files.sockets), (32, 46, 138));
    }

    proptest! {
        #[test]
        fn all_together_are_within_the_limit(limit in 60usize..10_000_000, publishes: bool) {
            let files = OpenFiles::share(limit, publishes);
            let all = OWN + files.admin + files.publish + files.pending + files.sockets;
            prop_assert!(all <= limit, "{:?}", files);
            prop_assert!(files.sockets >= files.pending);
        }
    }
}
