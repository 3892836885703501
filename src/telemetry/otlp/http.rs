//! The HTTP client of OTLP/HTTP. The SDK's batch processors poll an export on a thread without a
//! runtime, so each request runs on [`Runtime`].

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::{Export, ExportError, Runtime, read};

/// The most that is read of an answer: it may say how many were rejected, and why.
const ANSWER_BYTES: usize = 64 * 1024;

/// Sends requests with the export's headers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Client {
    hyper: Hyper<HttpsConnector<HttpConnector>, Full<Bytes>>,
    headers: Arc<Vec<(HeaderName, HeaderValue)>>,
    timeout: Duration,
    handle: Handle,
}

impl Client {
    pub(super) fn new(export: &Export, runtime: &Runtime) -> Result<Self, ExportError> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(export)?)
            .https_or_http()
            .enable_http1()
            .build();
        let headers = export.headers.iter().filter_map(|(name, value)| {
            // What is none was warned of where it was read.
            let mut value = HeaderValue::try_from(value.expose()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        });
        Ok(Self {
            hyper: Hyper::builder(TokioExecutor::new()).build(connector),
            headers: Arc::new(headers.collect()),
            timeout: export.timeout,
            handle: runtime.handle().clone(),
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        for (name, value) in self.headers.iter() {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let hyper = self.hyper.clone();
        let exchange = async move {
            let answer = hyper.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        let timeout = self.timeout;
        // The timer, too, is made there: here there is no runtime that would have one.
        let exchange = async move { tokio::time::timeout(timeout, exchange).await };
        self.handle.spawn(exchange).await??
    }
}

fn tls(export: &Export) -> Result<ClientConfig, ExportError> {
    let wrong = |error: &dyn std::fmt::Display| ExportError::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    match &export.certificate {
        Some(path) => {
            for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
        }
        // Certificates of the system's that do not parse are nobody's; the others do.
        None if export.endpoint.starts_with("https:") => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        None => {}
    }
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &export.client else {
        return Ok(config.with_no_client_auth());
    };
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| wrong(&error))?;
    config
        .with_client_auth_cert(chain, key)
        .map_err(|error| wrong(&error))
}
