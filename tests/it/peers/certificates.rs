//! Certificates of replicas.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

pub(super) type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority of its own.
pub(super) fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    // Another name than that of the certificates, which would seem to have signed themselves.
    params.distinguished_name.push(DnType::CommonName, "authority of replicas");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes the files of a replica whose certificate carries `name`.
pub(super) fn certificate(folder: &Path, authority: &Authority, name: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let signed = params.signed_by(&key, authority).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("tls.crt"), signed.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
}

/// The flag that names a folder of such files.
pub(super) fn flag(folder: &Path) -> String {
    format!("--peer-cert-dir={}", folder.display())
}
