//! The application's own server: its pages, and tokens for its users.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::clients::sdk_js;
use crate::support::token::expiring;

#[derive(Debug)]
pub(super) struct Site {
    address: SocketAddr,
    task: JoinHandle<()>,
    apps: Arc<OnceLock<Apps>>,
}

/// What Vite has built, and the gateway of which its pages are to get notifications.
#[derive(Debug)]
pub(super) struct Apps {
    pub(super) folder: PathBuf,
    pub(super) url: String,
}

/// The gateway of the examples.
const URL: &str = "wss://ws.example.com/";

impl Site {
    pub(super) async fn start() -> Self {
        let pages = tokio::task::spawn_blocking(|| sdk_js().join("dist/pages"));
        let pages = pages.await.expect("it is built");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let apps = Arc::new(OnceLock::new());
        let shown = Arc::clone(&apps);
        let router =
            Router::new().fallback(async move |request| answer(&pages, shown.get(), &request));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        Self {
            address,
            task,
            apps,
        }
    }

    /// Shows these, too.
    pub(super) fn show(&self, apps: Apps) {
        self.apps.set(apps).expect("once");
    }

    /// As a browser sees it: of this machine, and so as trusted as https.
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `/token?user=…&lives=…`, a file of the applications, or `/NAME.html`, which loads `/NAME.mjs`.
fn answer(pages: &Path, apps: Option<&Apps>, request: &Request) -> Response {
    let uri = request.uri();
    let parameter = |name: &str| {
        let query = uri.query().unwrap_or_default().as_bytes();
        let mut pairs = form_urlencoded::parse(query);
        pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    };
    let name = uri.path().trim_start_matches('/');
    if name == "token" {
        let user = parameter("user").unwrap_or_else(|| "ann".to_owned());
        let lives = parameter("lives").map_or(3600, |lives| lives.parse().expect("seconds"));
        return expiring(&user, "acme", lives).into_response();
    }
    let app = apps.and_then(|apps| {
        Some((
            std::fs::read_to_string(apps.folder.join(name)).ok()?,
            &apps.url,
        ))
    });
    if let Some((text, url)) = app {
        let kind = match name.rsplit_once('.') {
            Some((_, "html")) => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css",
            _ => "text/javascript",
        };
        return ([(CONTENT_TYPE, kind)], text.replace(URL, url)).into_response();
    }
    if let Some(name) = name.strip_suffix(".html") {
        let page = format!(
            "<!doctype html><title>{name}</title><body></body><script type=module src=/{name}.mjs></script>"
        );
        return ([(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response();
    }
    match std::fs::read(pages.join(name)) {
        Ok(script) => ([(CONTENT_TYPE, "text/javascript")], script).into_response(),
        Err(_) => axum::http::StatusCode::NOT_FOUND.into_response(),
    }
}
