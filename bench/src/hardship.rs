//! What some scenarios do to a target: its connection to NATS is cut, or it gets a part of a core.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::Error;

/// A cut begins so long after a phase, and lasts so long.
const CUT_AFTER: Duration = Duration::from_secs(1);
const CUT_FOR: Duration = Duration::from_secs(3);

/// A way to NATS that can be cut.
#[derive(Debug)]
pub(crate) struct Cable {
    port: u16,
    is_cut: watch::Sender<bool>,
}

impl Cable {
    /// One to a port of this machine.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub(crate) async fn to(port: u16) -> Result<Self, Error> {
        let failed = |error| Error::of("no cable to NATS", error);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let own = listener.local_addr().map_err(failed)?.port();
        let (is_cut, heard) = watch::channel(false);
        tokio::spawn(carry(listener, port, heard));
        Ok(Self { port: own, is_cut })
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Cuts it for a while, a while after now.
    pub(crate) fn cut_later(&self) -> impl Future<Output = ()> + Send + 'static {
        let is_cut = self.is_cut.clone();
        async move {
            tokio::time::sleep(CUT_AFTER).await;
            is_cut.send_replace(true);
            tokio::time::sleep(CUT_FOR).await;
            is_cut.send_replace(false);
        }
    }
}

async fn carry(listener: TcpListener, to: u16, is_cut: watch::Receiver<bool>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut is_cut = is_cut.clone();
        if *is_cut.borrow() {
            continue;
        }
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else {
                return;
            };
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = is_cut.wait_for(|is_cut| *is_cut) => {}
            }
        });
    }
}

/// A quarter of a core, for some processes together.
#[derive(Debug)]
pub(crate) struct Quarter(PathBuf);

impl Quarter {
    /// Puts the processes into a control group of their own.
    ///
    /// # Errors
    /// Where that is not allowed: it takes root.
    pub(crate) fn of(processes: &[u32]) -> Result<Self, Error> {
        let name = format!("herald-bench-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let (folder, limits): (PathBuf, &[(&str, &str)]) =
            if root.join("cgroup.controllers").exists() {
                // It may be on already.
                std::fs::write(root.join("cgroup.subtree_control"), "+cpu").unwrap_or_default();
                (root.join(name), &[("cpu.max", "25000 100000")])
            } else {
                let limits = &[
                    ("cpu.cfs_period_us", "100000"),
                    ("cpu.cfs_quota_us", "25000"),
                ];
                (root.join("cpu").join(name), limits)
            };
        let made = Self(folder);
        std::fs::create_dir_all(&made.0)
            .and_then(|()| {
                for (file, value) in limits {
                    std::fs::write(made.0.join(file), value)?;
                }
                for process in processes {
                    std::fs::write(made.0.join("cgroup.procs"), process.to_string())?;
                }
                Ok(())
            })
            .map_err(|error| {
                Error::of(
                    "no control group for a quarter of a core (are you root?)",
                    error,
                )
            })?;
        Ok(made)
    }
}

impl Drop for Quarter {
    fn drop(&mut self) {
        // Its processes have ended, or it was not made.
        std::fs::remove_dir(&self.0).unwrap_or_default();
    }
}
