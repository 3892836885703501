//! `herald dev`: a nats-server and a gateway of their own, and the commands for a first notification.
//! [`find`] looks for a nats-server, [`server`] is the running one, [`guide`] is what is printed.

mod find;
mod guide;
mod server;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::SignalKind;
use uuid::Uuid;

use self::guide::Guide;
use self::server::{Port, Server};
use super::serve::telemetry;
use super::signals::{self, Stops};
use super::{CliError, blocking, config_file, output, token};
use crate::config::{
    Config, IssuerConfig, KEYS, LogConfig, NatsConfig, PublishConfig, Secret, ServerConfig,
};
use crate::event::WorkspaceSlug;
use crate::ops::{Development, Gateway, ServeError};
use crate::setup::{Building, Setup};
use crate::telemetry::Telemetry;

/// The port that NATS has everywhere.
const NATS_PORT: u16 = 4222;
/// Who the printed token is for.
const USER: &str = "ada";
const WORKSPACE: &str = "acme";
/// How long the printed token is valid. Its key ends with the process.
const TOKEN_EXPIRES: Duration = Duration::from_secs(30 * 24 * 3600);

/// Arguments of `herald dev`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It looks for a nats-server on PATH, and in .tools/ and .tools/bin/ of the current folder. If none is new \
    enough, Docker runs nats:2.15-alpine. If a default port (4222, 8080, 9090) is taken, another one is used. \
    Your settings apply, except those of the NATS connection, the keys and TLS.\n\n\
    Warnings go to standard error, and more with HERALD_LOG__LEVEL=debug. Once all is ready, the address of a page and two commands go to standard output. The page \
    shows notifications, publishes events, and connects as any user. It is served on a loopback address alone.\n\n\
    With --json it is one line for a program instead: page, url, admin, nats, workspace, user, token, and secret, which \
    signs tokens for other users: herald token --user grace --workspace acme --secret SECRET. Other clients connect to \
    URL?token=TOKEN&workspaceSlug=acme, wscat for example.\n\n\
    A user has one connection in a workspace, and a newer one replaces it."
)]
pub(super) struct Args {
    /// The nats-server program to start.
    #[arg(long, value_name = "PATH")]
    nats_server: Option<PathBuf>,
    /// Port of the sockets, instead of the one in server.listen.
    #[arg(long)]
    port: Option<u16>,
    /// Port of the nats-server, on 127.0.0.1.
    #[arg(long)]
    nats_port: Option<u16>,
    /// Print one line of JSON instead of the commands.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, file: Option<PathBuf>) -> Result<(), CliError> {
    let stops = Stops::hear(&[
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::quit(),
        // The terminal was closed.
        SignalKind::hangup(),
    ])?;
    // They would end this process and leave its nats-server behind.
    signals::ignore_others()?;
    let starting = async {
        let path = file.clone();
        let config = blocking(|| Config::read(config_file(path).as_deref())?.into_config());
        let mut config = config.await??;
        if config.log.level == LogConfig::default().level {
            // The page's address is not to be searched for between lines of the log.
            "warn".clone_into(&mut config.log.level);
        }
        let telemetry = telemetry(&config).await?;
        Ok::<_, CliError>((config, telemetry))
    };
    let Some(started) = stops.unless_heard(starting).await else {
        return Ok(());
    };
    let (config, telemetry) = started?;
    let wish = args
        .nats_port
        .map_or(Port::Preferably(NATS_PORT), Port::Exactly);
    let starting = async {
        let source = find::find(args.nats_server.as_deref()).await?;
        Server::start(&source, wish).await
    };
    let Some(server) = stops.unless_heard(starting).await else {
        return Ok(());
    };
    let mut server = server?;
    let file = file.as_deref();
    let served = serve(&args, &config, file, &mut server, &telemetry, &stops);
    let served = Box::pin(served).await;
    server.end().await;
    stops.end(&telemetry).await;
    served
}

/// Serves until one of `stops`, or until the server ends, which is a failure.
async fn serve(
    args: &Args,
    config: &Config,
    file: Option<&Path>,
    server: &mut Server,
    telemetry: &Telemetry,
    stops: &Stops,
) -> Result<(), CliError> {
    let secret = Uuid::new_v4().simple().to_string() + &Uuid::new_v4().simple().to_string();
    let settings = settings(args, config, &server.url(), &secret);
    let unused = unused(config, &settings).into_iter();
    output::messages(
        unused.map(|name| format!("{name} is not used: herald dev has its own value")),
    );
    let workspace = WorkspaceSlug::parse(WORKSPACE).map_err(CliError::failure)?;
    let token = token::for_user(USER, &workspace, TOKEN_EXPIRES, &settings)?;
    let (telemetry, may_move) = (telemetry.clone(), args.port.is_none());
    let own = settings.clone();
    let binding = blocking(move || bind(settings, &telemetry, may_move));
    let Some(gateway) = stops.unless_heard(binding).await else {
        return Ok(());
    };
    let mut gateway = gateway??;
    gateway.develop(development(own)?);
    let addresses = gateway.address().and_then(|listen| {
        let admin = gateway.admin_address()?;
        Ok((listen, admin, guide::program()?))
    });
    let (listen, admin, program) = addresses
        .map_err(|error| CliError::Failure(format!("cannot find its own address: {error}")))?;
    let nats_url = server.url();
    let guide = Guide {
        program: &program,
        config: file.filter(|path| *path != Path::new(super::CONFIG_FILE)),
        settings: &for_publishers(config, &nats_url),
        listen,
        path: &config.server.path,
        admin,
        nats_url: &nats_url,
        user: USER,
        workspace: WORKSPACE,
        token: &token,
        secret: &secret,
    };
    let text = if args.json {
        guide.json()
    } else {
        guide.to_string()
    };
    let ready = gateway.ready();
    let running = gateway.run(|| stops.clone().next());
    tokio::pin!(running, ready);
    tokio::select! {
        ended = &mut running => return Ok(ended?),
        died = server.died() => return Err(died),
        () = &mut ready => {}
    }
    output::lines([text])?;
    tokio::select! {
        ended = &mut running => Ok(ended?),
        died = server.died() => Err(died),
    }
}

/// What the page gets: tokens of any user's, and one for publishing, by the key of these settings.
fn development(own: Config) -> Result<Development, CliError> {
    Ok(Development {
        user: USER.to_owned(),
        workspace: WORKSPACE.to_owned(),
        publish_token: token::for_publisher(USER, TOKEN_EXPIRES, &own)?,
        sign: Box::new(move |user, workspace| {
            token::for_user(user, workspace, TOKEN_EXPIRES, &own).ok()
        }),
    })
}

/// Binds the gateway; reads files, and so may block. A default port that is taken is replaced by a free one, that of the sockets only
/// where `may_move`.
fn bind(mut config: Config, telemetry: &Telemetry, may_move: bool) -> Result<Gateway, CliError> {
    loop {
        match Gateway::bind(setup(&config)?, telemetry.clone()) {
            Err(error) if moved(&mut config.server, &error, may_move) => {}
            Err(error) => return Err(error.into()),
            Ok(gateway) => {
                allow_page(&mut config, &gateway)?;
                return Ok(gateway);
            }
        }
    }
}

fn setup(config: &Config) -> Result<Setup, CliError> {
    let building = Building::of(config.clone().into());
    building.finish().map_err(CliError::Usage)
}

/// Lets the page connect, where not every page may. Its port is known only now.
fn allow_page(config: &mut Config, gateway: &Gateway) -> Result<(), CliError> {
    let allowed = &mut config.server.allowed_origins;
    let Ok(address) = gateway.admin_address() else {
        return Ok(());
    };
    if !allowed.is_empty() {
        let port = address.port();
        allowed.extend(["127.0.0.1", "localhost"].map(|name| format!("http://{name}:{port}")));
        allowed.push(format!("http://{address}"));
        gateway.reloader().apply(setup(config)?);
    }
    Ok(())
}

/// Whether `error` is about a taken port that nobody chose. Then `server` gets any free port.
fn moved(server: &mut ServerConfig, error: &ServeError, may_move: bool) -> bool {
    let ServeError::Bind {
        setting, source, ..
    } = error
    else {
        return false;
    };
    let default = ServerConfig::default();
    let (address, wanted, may_move) = match *setting {
        "server.listen" => (&mut server.listen, default.listen, may_move),
        _ => (&mut server.admin_listen, default.admin_listen, true),
    };
    let moves = may_move && *address == wanted && source.kind() == std::io::ErrorKind::AddrInUse;
    if moves {
        address.set_port(0);
    }
    moves
}

/// What was set and is replaced by `own`, by name.
fn unused(config: &Config, own: &Config) -> Vec<&'static str> {
    let default = Config::default();
    let replaced = KEYS
        .iter()
        .filter(|key| key.differs(&default, config) && key.differs(config, own));
    // A port is replaced where the user wants it so, and needs no word.
    let named = replaced.filter(|key| key.name != "server.listen");
    named.map(|key| key.name).collect()
}

/// The gateway's settings: the user's, with a NATS server and a key of its own.
fn settings(args: &Args, config: &Config, nats_url: &str, secret: &str) -> Config {
    let mut own = config.clone();
    let server = &mut own.server;
    (server.tls_cert, server.tls_key) = (None, None);
    // The page needs no token there, and publishes.
    if !server.admin_listen.ip().is_loopback() {
        server.admin_listen.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    // It has no certificate here, and no other login at NATS.
    if let Some(publish) = &mut server.publish_listen {
        publish.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    own.publish = PublishConfig {
        nats_credentials_file: None,
        nats_nkey_file: None,
        nats_url: None,
        nats_inbox_prefix: None,
        ..own.publish
    };
    let server = &mut own.server;
    // The sockets of another gateway know none of its tokens.
    server.console_sockets = None;
    // The printed commands connect without a proxy.
    server.proxy_protocol = false;
    if let Some(port) = args.port {
        server.listen.set_port(port);
    }
    if server.drain == ServerConfig::default().drain {
        // Ctrl-C on a terminal should not take 10 s.
        server.drain = Duration::ZERO;
    }
    // A developer wants to see where an event went.
    own.projection.traceparent = true;
    own.nats = NatsConfig {
        url: Secret::from(nats_url),
        stream: own.nats.stream,
        prefix: own.nats.prefix,
        max_age: own.nats.max_age,
        ..NatsConfig::default()
    };
    own.auth.issuers.clear();
    own.auth.max_token_age = None;
    // All that its tokens have stays, and no other key.
    let IssuerConfig {
        issuer,
        audience,
        audiences,
        user_claim,
        workspaces_claim,
        workspaces_prefix,
        ..
    } = own.auth.short_form;
    own.auth.short_form = IssuerConfig {
        hmac_secret: Some(Secret::from(secret)),
        issuer,
        audience,
        audiences,
        user_claim,
        workspaces_claim,
        workspaces_prefix,
        ..IssuerConfig::default()
    };
    own
}

/// The settings that `herald publish` needs in another terminal, which may have the same file but another
/// environment.
fn for_publishers<'a>(config: &'a Config, nats_url: &'a str) -> Vec<(&'static str, &'a str)> {
    let default = NatsConfig::default();
    let mut settings = Vec::new();
    if nats_url != default.url.expose() || config.nats.url != default.url {
        settings.push(("HERALD_NATS__URL", nats_url));
    }
    if config.nats.stream != default.stream {
        settings.push(("HERALD_NATS__STREAM", config.nats.stream.as_str()));
    }
    if let Some(prefix) = &config.nats.prefix {
        settings.push(("HERALD_NATS__PREFIX", prefix));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> Config {
        let mut config = Config::default();
        config.nats.url = Secret::from(url);
        config
    }

    #[test]
    fn a_publisher_gets_the_address_unless_it_is_the_default() {
        let (usual, other) = ("nats://127.0.0.1:4222", "nats://127.0.0.1:4333");
        for (config, url, said) in [
            (Config::default(), usual, false),
            (Config::default(), other, true),
            // Also where it is the usual one: a file would lead elsewhere.
            (with_url("nats://production:4222"), usual, true),
        ] {
            let settings = for_publishers(&config, url);
            let want: &[_] = if said {
                &[("HERALD_NATS__URL", url)]
            } else {
                &[]
            };
            assert_eq!(settings, want);
        }
    }

    #[test]
    fn no_setting_leads_to_another_nats_or_takes_another_key() {
        let mut config = with_url("nats://production:4222");
        config.nats.credentials_file = Some("production.creds".into());
        config.nats.migrate = false;
        config.auth.short_form.jwks_file = Some("keys.json".into());
        config.auth.short_form.discovery = true;
        config.auth.short_form.required_claims = vec!["tid".to_owned()];
        config.auth.max_token_age = Some(Duration::from_secs(60));
        config.server.tls_cert = Some("tls.crt".into());
        let args = Args {
            nats_server: None,
            port: None,
            nats_port: None,
            json: false,
        };
        let secret = "0123456789abcdef0123456789abcdef";
        let settings = settings(&args, &config, "nats://127.0.0.1:4222", secret);
        assert_eq!(
            unused(&config, &settings),
            [
                "server.tls_cert",
                "nats.url",
                "nats.credentials_file",
                "nats.migrate",
                "auth.jwks_file",
                "auth.discovery",
                "auth.required_claims",
                "auth.max_token_age",
            ]
        );
        assert_eq!(settings.nats.url.expose(), "nats://127.0.0.1:4222");
        assert!(settings.nats.credentials_file.is_none() && settings.nats.migrate);
        assert!(settings.auth.short_form.jwks_file.is_none() && settings.server.tls_cert.is_none());
        let slug = WorkspaceSlug::parse(WORKSPACE).unwrap();
        assert!(token::for_user(USER, &slug, TOKEN_EXPIRES, &settings).is_ok());
        assert!(setup(&settings).is_ok());
    }
}
