//! What the fuzz targets reach of messages.

use async_nats::HeaderMap;

/// Reads a header block as the leader hands it out.
pub fn headers(block: &[u8]) -> HeaderMap {
    super::raw::read_headers(block)
}
