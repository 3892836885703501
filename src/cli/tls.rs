//! TLS of commands that are clients: the system's certificate authorities and those of `--ca`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::{CliError, blocking};
use crate::json::without_bom;

/// What makes TLS connections to a server that one of these authorities vouches for.
///
/// # Errors
/// [`CliError::Usage`] where `ca` has no certificate, [`CliError::Failure`] where the system has
/// none either.
pub(super) async fn client(ca: Option<PathBuf>) -> Result<Arc<ClientConfig>, CliError> {
    // Reads a few hundred files on some systems.
    let roots = blocking(move || roots(ca.as_deref())).await??;
    let config = builder()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Herald's one crypto backend, and TLS 1.2 and 1.3.
///
/// # Errors
/// [`CliError::Failure`] where the library has none of these.
pub(super) fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, CliError> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| CliError::Failure(format!("cannot set up TLS: {error}")))
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
            return Err(unusable("has no PEM certificate"));
        }
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|_| unusable("has a certificate that cannot be used"))?;
        }
    }
    if roots.is_empty() {
        return Err(CliError::Failure(
            "the system has no certificate authorities: give --ca".to_owned(),
        ));
    }
    Ok(roots)
}
