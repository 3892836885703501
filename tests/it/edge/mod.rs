//! Where Herald meets what stands before it: the path of its URL, the pages that may connect, tokens in cookies,
//! and balancers that say whose connection they pass on.

mod cookie;
mod haproxy;
mod path;
mod proxy_header;

use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::client::{Client, Refused};
use crate::support::gateway::Gateway;

/// Tries to connect with a query and headers as they are.
async fn attempt(
    gateway: &Gateway,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<Client, Refused> {
    let url = format!("{}/?{query}", gateway.url());
    let mut request = url.into_client_request().expect("a URL");
    for (name, value) in headers {
        let value = value.parse().expect("a header");
        request.headers_mut().append(*name, value);
    }
    Client::attempt_with(request).await
}
