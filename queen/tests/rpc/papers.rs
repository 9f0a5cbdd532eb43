//! One test's certificates and tokens: an authority, what it signed for a queen, and a directory of tokens.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What every token of a test begins with, so that it is found wherever it should not be.
pub const SECRET: &str = "hush-never-print-this-";

/// For whom a certificate is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// This machine, for years.
    Here,
    /// This machine, until years ago.
    Past,
    /// Another name.
    Other,
}

/// Everything in one directory.
pub struct Papers {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Papers {
    /// An authority with a certificate for this machine, and no tokens yet.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("papers");
        let key = KeyPair::generate().expect("papers");
        let mut params = CertificateParams::new(Vec::new()).expect("papers");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("papers");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("papers");
        std::fs::create_dir(dir.path().join("tokens")).expect("papers");
        std::fs::set_permissions(dir.path().join("tokens"), Permissions::from_mode(0o700)).expect("papers");
        let papers = Self { dir, issuer: Issuer::new(params, key) };
        papers.certify(For::Here);
        papers
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The queen's certificate.
    pub fn cert(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// The directory of tokens.
    pub fn tokens(&self) -> PathBuf {
        self.dir.path().join("tokens")
    }

    /// The file of one token.
    pub fn token(&self, name: &str) -> PathBuf {
        self.tokens().join(name)
    }

    /// Puts another certificate with another key in the place of the queen's.
    pub fn certify(&self, whom: For) {
        let names = if whom == For::Other { vec!["queen.lab"] } else { vec!["localhost", "127.0.0.1", "queen.here"] };
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).expect("papers");
        if whom == For::Past {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("papers");
        let certificate = params.signed_by(&key, &self.issuer).expect("papers");
        replace(&self.key(), &key.serialize_pem());
        replace(&self.cert(), &certificate.pem());
    }

    /// Writes a token for `name`; what is in its file.
    pub fn give(&self, name: &str) -> String {
        let token = format!("{SECRET}{name}");
        replace(&self.token(name), &token);
        token
    }
}

/// Writes a file that only its owner can read, all at once.
pub fn replace(path: &Path, text: &str) {
    // Beside it under a name that is no token's.
    let new = path.with_file_name(".new");
    std::fs::write(&new, text).expect("papers");
    std::fs::set_permissions(&new, Permissions::from_mode(0o600)).expect("papers");
    std::fs::rename(&new, path).expect("papers");
}
