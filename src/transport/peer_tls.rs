//! TLS between replicas. Both sides show a certificate that one authority signed and that carries one agreed name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::Tls;
use super::certificate::{Identity, Renewal};
use super::tls_settings::{TlsError, TlsSettings};

/// The TLS files of a replica and the name that every replica's certificate carries. The files are `tls.crt`, `tls.key`
/// and `ca.crt` in one folder.
#[derive(Clone, Debug)]
pub struct PeerTls {
    folder: PathBuf,
    name: ServerName<'static>,
}

impl PeerTls {
    /// Makes the settings from a folder and a DNS name. The files are read once, so that a fault in them ends the start
    /// of the process.
    ///
    /// # Errors
    ///
    /// Fails if `name` is not a DNS name, or if the files cannot be read or used.
    pub fn new(folder: &Path, name: &str) -> Result<Self, TlsError> {
        let wrong = TlsError::Setting {
            flag: "peer-tls-name",
            value: name.to_owned(),
            expected: "a DNS name that the certificate of each replica carries",
        };
        let name = ServerName::try_from(name.to_owned()).map_err(|_| wrong)?;
        let tls = Self { folder: folder.to_owned(), name };
        tls.client()?;
        Ok(tls)
    }

    /// The name that the certificate of the other replica must carry.
    pub fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// Makes the TLS of a port that only replicas may use. The certificate is read again when its files change; the
    /// authority is not.
    pub fn server(&self) -> Result<Tls, TlsError> {
        let settings = TlsSettings { cert_path: Some(self.folder.clone()), ..TlsSettings::default() };
        let identity = Identity::load(&settings)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let inner =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.authority()?), Arc::clone(&provider))
                .build()
                .map_err(|error| TlsError::Rustls(Error::General(error.to_string())))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(NamedClients { inner, name: self.name.clone() }))
            .with_cert_resolver(Arc::clone(&identity) as _);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Tls::renewed(Arc::new(config), Renewal { folder: self.folder.clone(), identity }))
    }

    /// Makes the TLS of a connection to another replica, from the present content of the files.
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let (certificates, key_file) = (self.folder.join("tls.crt"), self.folder.join("tls.key"));
        let chain = CertificateDer::pem_file_iter(&certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| TlsError::Read { path: certificates, source })?;
        let key = PrivateKeyDer::from_pem_file(&key_file)
            .map_err(|source| TlsError::Read { path: key_file, source })?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.authority()?)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn authority(&self) -> Result<RootCertStore, TlsError> {
        let path = self.folder.join("ca.crt");
        let read = |source| TlsError::Read { path: path.clone(), source };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&path).map_err(read)? {
            roots.add(certificate.map_err(read)?)?;
        }
        if roots.is_empty() {
            return Err(TlsError::Rustls(Error::General(format!("{}: no certificate", path.display()))));
        }
        Ok(roots)
    }
}

/// Accepts only clients whose certificate the authority signed and that carries the name.
#[derive(Debug)]
struct NamedClients {
    inner: Arc<dyn ClientCertVerifier>,
    name: ServerName<'static>,
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
