//! What is printed when all is ready: the address of the page and commands that can be copied and run as they are, or
//! one line of JSON for a program. Pure, but for [`program`], which finds this program.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

/// All that the commands consist of. The token and the key are printed: they are for this process alone.
pub(super) struct Guide<'a> {
    /// This program as a shell finds it from the current folder.
    pub(super) program: &'a Path,
    /// `--config`, where it was given.
    pub(super) config: Option<&'a Path>,
    /// Settings that another terminal needs to find the same NATS.
    pub(super) settings: &'a [(&'static str, &'a str)],
    pub(super) listen: SocketAddr,
    /// `server.path`.
    pub(super) path: &'a str,
    pub(super) admin: SocketAddr,
    pub(super) nats_url: &'a str,
    pub(super) user: &'a str,
    pub(super) workspace: &'a str,
    pub(super) token: &'a str,
    pub(super) secret: &'a str,
}

impl fmt::Display for Guide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &Path| quoted(&path.display().to_string());
        let mut herald = path(self.program);
        if let Some(config) = self.config {
            herald = format!("{herald} --config {}", path(config));
        }
        let settings: String = self
            .settings
            .iter()
            .map(|(name, value)| format!("{name}={} ", quoted(value)))
            .collect();
        let sockets = format!("ws://{}{}", reachable(self.listen), quoted(self.path));
        let Self {
            workspace, token, ..
        } = self;
        write!(
            f,
            "{}

    {herald} listen --url {sockets} --workspace {workspace} --token {token}
    {settings}{herald} publish {workspace} record.created '{{\"collection\":\"orders\",\"recordId\":\"1001\"}}'

Ctrl-C ends all of this, and nothing of it stays.",
            self.page(),
        )
    }
}

impl Guide<'_> {
    /// The address of the page.
    fn page(&self) -> String {
        format!("http://{}/console", reachable(self.admin))
    }

    /// The same for a program, in one line.
    pub(super) fn json(&self) -> String {
        serde_json::json!({
            "page": self.page(),
            "url": format!("ws://{}{}", reachable(self.listen), self.path),
            "admin": format!("http://{}", reachable(self.admin)),
            "nats": self.nats_url,
            "workspace": self.workspace,
            "user": self.user,
            "token": self.token,
            "secret": self.secret,
        })
        .to_string()
    }
}

/// Where a listener is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-:@=+,".contains(char);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// This program as a shell finds it from the current folder, in the shortest way.
///
/// # Errors
/// Where the system does not say where it is.
pub(super) fn program() -> std::io::Result<PathBuf> {
    let file = std::env::current_exe()?;
    let search = std::env::var_os("PATH").unwrap_or_default();
    if let Some(name) = file.file_name() {
        let mut found = std::env::split_paths(&search)
            .map(|folder| folder.join(name))
            .filter(|path| path.is_file());
        let first = found.next().and_then(|path| path.canonicalize().ok());
        if first.is_some() && first == file.canonicalize().ok() {
            return Ok(PathBuf::from(name));
        }
    }
    Ok(shortest(&file, &std::env::current_dir()?))
}

/// `file` relative to `from` where that is shorter. Both are absolute.
fn shortest(file: &Path, from: &Path) -> PathBuf {
    let shared = file
        .components()
        .zip(from.components())
        .take_while(|(one, other)| one == other)
        .count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(file.components().skip(shared)).collect();
    // A name alone would be looked up on PATH.
    let relative = match relative.components().count() {
        1 => Path::new(".").join(relative),
        _ => relative,
    };
    if relative.as_os_str().len() < file.as_os_str().len() {
        relative
    } else {
        file.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_named_in_the_shortest_way_that_a_shell_runs() {
        for (file, from, want) in [
            (
                "/src/herald/target/debug/herald",
                "/src/herald",
                "target/debug/herald",
            ),
            ("/src/herald", "/src", "./herald"),
            ("/src/target/herald", "/src/docs", "../target/herald"),
            ("/bin/herald", "/home/ada/work", "/bin/herald"),
        ] {
            let got = shortest(Path::new(file), Path::new(from));
            assert_eq!(got, Path::new(want), "{file} from {from}");
        }
    }

    #[test]
    fn what_a_shell_would_read_otherwise_is_quoted() {
        for (text, want) in [
            ("target/debug/herald", "target/debug/herald"),
            ("nats://127.0.0.1:4223", "nats://127.0.0.1:4223"),
            ("/my files/herald", "'/my files/herald'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(text), want);
        }
    }

    #[test]
    fn a_listener_on_every_address_is_reached_at_the_local_one() {
        for (listen, want) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), want);
        }
    }
}
