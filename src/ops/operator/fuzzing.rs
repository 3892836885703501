//! What a fuzz target reaches of the operator service: the bodies of requests, and what gateways report of themselves.

use super::peers::Presence;
use super::wire::OperatorEndpoint;

/// The endpoints that understand a request with this body, by their names.
pub fn understood(body: &[u8]) -> Vec<&'static str> {
    let endpoints = OperatorEndpoint::ALL.into_iter();
    endpoints
        .filter(|endpoint| super::is_understood(*endpoint, body))
        .map(OperatorEndpoint::as_str)
        .collect()
}

/// Whether this is what a gateway reports of itself.
pub fn is_presence(body: &[u8]) -> bool {
    Presence::parse(body).is_some()
}
