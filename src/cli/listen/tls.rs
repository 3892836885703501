//! Trust of `herald listen`: the system's certificate authorities and those of `--ca`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::Connector;

use super::CliError;
use crate::json::without_bom;

/// What makes TLS connections.
///
/// # Errors
/// [`CliError::Usage`] where `ca` holds no certificate, [`CliError::Failure`] where the system has
/// none either.
pub(in crate::cli) async fn connector(ca: Option<PathBuf>) -> Result<Connector, CliError> {
    // Reads a few hundred files on some systems.
    let roots = tokio::task::spawn_blocking(move || roots(ca.as_deref()))
        .await
        .map_err(|_| CliError::Failure("cannot read certificates".to_owned()))??;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| CliError::Failure(format!("cannot set up TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Connector::Rustls(Arc::new(config)))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, CliError> {
    let mut roots = RootCertStore::empty();
    // A certificate of the system that cannot be read is one authority less, no more.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let unusable = |what: &str| CliError::Usage(format!("--ca {} {what}", path.display()));
        let pem = std::fs::read(path).map_err(|error| unusable(&error.to_string()))?;
        let certificates = CertificateDer::pem_slice_iter(without_bom(&pem))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| unusable("is damaged"))?;
        if certificates.is_empty() {
            return Err(unusable("holds no PEM certificate"));
        }
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|_| unusable("holds a certificate that cannot be used"))?;
        }
    }
    if roots.is_empty() {
        return Err(CliError::Failure(
            "the system has no certificate authorities: give --ca".to_owned(),
        ));
    }
    Ok(roots)
}
