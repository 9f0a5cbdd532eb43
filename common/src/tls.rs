//! TLS from files: what a server shows, and what a client's failure to trust it means to people. One provider, ring:
//! it builds with a C compiler alone.

use crate::secret::{self, Readers, SecretError};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ServerConfig};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is spoken inside, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where a server's certificate and its key are, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that lead to its authority.
    pub cert: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
}

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate cannot be read.
    #[error("read the certificate {path}")]
    Cert {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key cannot or must not be read.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// A file holds something else.
    #[error("{path} holds no {wanted} in PEM")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The two do not belong together, or cannot be used.
    #[error("use {cert} with {key}")]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong with them.
        #[source]
        source: rustls::Error,
    },
}

/// What a server shows to its clients.
#[derive(Debug, Clone)]
pub struct Identity {
    /// For the acceptor: HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3, no client certificates.
    pub server: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    /// When one cannot be read, everybody can read the key, or the two do not belong together.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let failed = |source| TlsError::Cert { path: files.cert.clone(), source };
        let content = |path: &Path, wanted| TlsError::Content { path: path.to_owned(), wanted };
        let pem = std::fs::read(&files.cert).map_err(failed)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| content(&files.cert, "certificate"))?;
        let leaf = chain.first().cloned().ok_or_else(|| content(&files.cert, "certificate"))?;
        let key = secret::read(&files.key, Readers::Group)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| content(&files.key, "private key"))?;
        let pair = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(pair)?;
        let mut server = builder.with_no_client_auth().with_single_cert(chain, key).map_err(pair)?;
        server.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { server: Arc::new(server), leaf })
    }

    /// Whether the certificate is for this host, a name or an IP address.
    pub fn names(&self, host: &str) -> bool {
        let (Ok(leaf), Ok(name)) = (ParsedCertificate::try_from(&self.leaf), ServerName::try_from(host)) else {
            return false;
        };
        rustls::client::verify_server_name(&leaf, &name).is_ok()
    }
}

/// The innermost reason of a failed connection, which is the one that tells a person something; for certificates also
/// what to do about it.
pub fn cause(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    loop {
        let inner = deepest.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return advice(tls);
        }
        match deepest.source() {
            Some(source) => deepest = source,
            None => return deepest.to_string(),
        }
    }
}

fn advice(error: &rustls::Error) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
    };
    let words = match error {
        // Another authority of the same name gives a bad signature.
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "its certificate was signed by nobody who is trusted here; name the authority's certificate with --tls-ca"
        }
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "its certificate has expired; renew it there"
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "its certificate is for another name; use a name that is in it, or say with --tls-name which it has"
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS; use http://, or give it a certificate",
        // webpki's word for it, which rustls passes on as an error of somebody else.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is an authority's own and not for a server; make one that is no authority's (with openssl req -x509: -addext basicConstraints=critical,CA:FALSE)"
        }
        other => return format!("TLS: {other}"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path, names: &[&str]) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let made = made.unwrap();
        let files = TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        private(&files.key, 0o600);
        files
    }

    fn private(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn who_shows_an_authoritys_own_certificate_is_told_how_to_make_another() {
        #[derive(Debug)]
        struct CaUsedAsEndEntity;
        impl std::fmt::Display for CaUsedAsEndEntity {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("CaUsedAsEndEntity")
            }
        }
        impl Error for CaUsedAsEndEntity {}
        let other = rustls::OtherError(std::sync::Arc::new(CaUsedAsEndEntity));
        let told = advice(&rustls::Error::InvalidCertificate(CertificateError::Other(other)));
        assert!(told.contains("basicConstraints"), "{told}");
    }

    #[test]
    fn a_certificate_says_which_hosts_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::read(&files(dir.path(), &["queen.lab", "*.rack.lab", "10.1.2.3"])).unwrap();
        for (host, named) in [
            ("queen.lab", true),
            ("a.rack.lab", true),
            ("10.1.2.3", true),
            ("evil.lab", false),
            ("10.1.2.4", false),
            ("", false),
        ] {
            assert_eq!(identity.names(host), named, "{host}");
        }
    }

    #[test]
    fn a_pair_that_cannot_be_shown_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let good = files(dir.path(), &["a"]);
        let told = |files: &TlsFiles| Identity::read(files).unwrap_err().to_string();
        let missing = TlsFiles { cert: dir.path().join("no.pem"), ..good.clone() };
        assert!(told(&missing).contains("no.pem"));
        let twisted = TlsFiles { cert: good.key.clone(), key: good.cert.clone() };
        private(&good.cert, 0o600);
        assert!(told(&twisted).contains("key.pem holds no certificate"), "{}", told(&twisted));
        private(&good.key, 0o644);
        assert!(told(&good).contains("chmod 640"));
        let other = tempfile::tempdir().unwrap();
        let other = files(other.path(), &["a"]);
        private(&good.key, 0o600);
        let mixed = TlsFiles { cert: good.cert, key: good.key };
        std::fs::write(&mixed.cert, std::fs::read(&other.cert).unwrap()).unwrap();
        assert!(matches!(Identity::read(&mixed), Err(TlsError::Pair { .. })));
    }
}
