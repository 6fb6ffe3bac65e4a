//! The certificate that a port serves with. It is self-signed by default, or is read from files that may be renewed
//! while the process runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::tls_settings::{TlsError, TlsSettings};

/// The certificate that new connections get.
#[derive(Debug)]
pub struct Identity {
    current: ArcSwap<CertifiedKey>,
}

impl Identity {
    /// Reads the certificate from the folder that `settings` names, or makes a self-signed certificate.
    pub fn load(settings: &TlsSettings) -> Result<Arc<Self>, TlsError> {
        let key = match &settings.cert_path {
            Some(folder) => from_files(folder)?,
            None => self_signed()?,
        };
        Ok(Arc::new(Self { current: ArcSwap::from_pointee(key) }))
    }

    /// Reads the certificate files again. On an error the present certificate stays in use.
    pub fn reload(&self, folder: &Path) -> Result<(), TlsError> {
        self.current.store(Arc::new(from_files(folder)?));
        Ok(())
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn from_files(folder: &Path) -> Result<CertifiedKey, TlsError> {
    let certificates = folder.join("tls.crt");
    let chain = CertificateDer::pem_file_iter(&certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Read { path: certificates, source })?;
    let key_file = folder.join("tls.key");
    let key = PrivateKeyDer::from_pem_file(&key_file)
        .map_err(|source| TlsError::Read { path: key_file, source })?;
    Ok(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?)
}

/// Makes a certificate without host names, for clients that verify nothing. Its key is an elliptic-curve key, which
/// takes no noticeable time to make.
fn self_signed() -> Result<CertifiedKey, TlsError> {
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Inference Ext");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages =
        vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::KeyEncipherment];
    let pair = rcgen::KeyPair::generate()?;
    let certificate = params.self_signed(&pair)?;
    let key = PrivateKeyDer::try_from(pair.serialize_der())
        .map_err(|text| TlsError::Rustls(rustls::Error::General(text.to_owned())))?;
    Ok(CertifiedKey::from_der(vec![certificate.der().clone()], key, &aws_lc_rs::default_provider())?)
}

/// The pause between two checks of the certificate files. Each check reads the files, which is cheap and notices every
/// way of replacing them.
const CERTIFICATE_POLL: Duration = Duration::from_secs(5);

/// A certificate whose files may be renewed while the process runs.
#[derive(Debug)]
pub struct Renewal {
    /// The folder with `tls.crt` and `tls.key`.
    pub(super) folder: PathBuf,
    /// The certificate that was read from the folder.
    pub(super) identity: Arc<Identity>,
}

impl Renewal {
    /// Checks the files for ever, and serves a renewed certificate to new connections.
    pub async fn watch(self) {
        let mut seen = self.read().await;
        loop {
            tokio::time::sleep(CERTIFICATE_POLL).await;
            let found = self.read().await;
            if found == seen {
                continue;
            }
            match self.identity.reload(&self.folder) {
                Ok(()) => tracing::info!(path = %self.folder.display(), "serving certificate renewed"),
                Err(error) => {
                    tracing::warn!(%error, "serving certificate not renewed; the old one stays in use");
                }
            }
            seen = found;
        }
    }

    async fn read(&self) -> Vec<u8> {
        let mut files = Vec::new();
        for name in ["tls.crt", "tls.key"] {
            files.extend(tokio::fs::read(self.folder.join(name)).await.unwrap_or_default());
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_reload_keeps_the_certificate() {
        let identity = Identity::load(&TlsSettings::default()).unwrap();
        let before = identity.current.load_full();
        let folder = tempfile::tempdir().unwrap();
        assert!(identity.reload(folder.path()).unwrap_err().to_string().contains("tls.crt"));
        assert!(Arc::ptr_eq(&before, &identity.current.load_full()));
    }
}
