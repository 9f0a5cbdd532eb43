//! The tokens that this queen knows: a directory with one file a token, whose name says what it is for. `viewer.NAME`
//! and `operator.NAME` are people and programs, `hive.ID` is that hive; `.NAME` may be left out of the first two.

use super::{Need, Reason};
use common::HiveId;
use common::secret::SecretError;
use common::token::{Token, TokenFileError, bearer};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// More tokens than that are not read: a hive each for the largest fleet, and as many people.
const TOKENS_MAX: usize = 40_000;
/// Bits of a directory that let others put a token into it.
const WRITABLE: u32 = 0o022;
/// What editors and package tools put behind the name of a file that they keep or prepare.
const LEFTOVERS: [&str; 9] = ["~", ".bak", ".old", ".orig", ".swp", ".rpmsave", ".rpmnew", ".dpkg-old", ".dpkg-new"];

/// Why the tokens cannot be used. Names files, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The directory cannot be listed.
    #[error("list {path}")]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others could add tokens of their own.
    #[error("{0} can be written to by others on this machine: run chmod go-w {0}")]
    Writable(PathBuf),
    /// A file is no token, or open to others.
    #[error(transparent)]
    File(#[from] TokenFileError),
    /// A file's name is no role.
    #[error("{0}: the name of a token's file is viewer, viewer.NAME, operator, operator.NAME or hive.ID")]
    Name(PathBuf),
    /// A file's name is that of a copy.
    #[error(
        "{0} is named like a copy that an editor or a package tool leaves behind: its token would still count when the \
             file itself is gone; remove or rename it"
    )]
    Leftover(PathBuf),
    /// One token for two.
    #[error("{0} and {1} hold the same token: whose it is must be clear")]
    Twice(String, String),
    /// Nobody could call.
    #[error("{0} holds no token: write one with (umask 077; head -c 24 /dev/urandom | base64 > {0}/operator)")]
    Empty(PathBuf),
    /// A bound.
    #[error("{0} holds more than {TOKENS_MAX} tokens")]
    Many(PathBuf),
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Does everything but report.
    Operator,
    /// Reports for this hive and no other.
    Hive(HiveId),
}

/// Who sends a request.
#[derive(Debug, Clone)]
pub enum Caller {
    /// No tokens are asked for here.
    Anyone,
    /// The owner of a token.
    Known {
        /// What the token is for.
        role: Role,
        /// Cancelled when the token is taken away.
        gone: CancellationToken,
    },
}

impl Caller {
    /// Whether this caller may do what needs that.
    pub fn may(&self, need: Need) -> bool {
        match (self, need) {
            (Self::Anyone, _) | (_, Need::Nobody) => true,
            (Self::Known { role: Role::Operator, .. }, Need::Viewer | Need::Operator) => true,
            (Self::Known { role: Role::Viewer, .. }, Need::Viewer) => true,
            (Self::Known { role: Role::Hive(_), .. }, Need::Hive) => true,
            (Self::Known { .. }, _) => false,
        }
    }

    /// Whether this caller may speak for a hive.
    ///
    /// # Errors
    /// When it is another hive, or none.
    pub fn speaks_for(&self, hive: &str) -> Result<(), Reason> {
        match self {
            Self::Anyone => Ok(()),
            Self::Known { role: Role::Hive(own), .. } if own.as_str() == hive => Ok(()),
            Self::Known { role: Role::Hive(own), .. } => Err(Reason::OtherHive { owner: own.to_string() }),
            Self::Known { .. } => Err(Reason::Role { needed: Need::Hive }),
        }
    }

    /// What tells that the token was taken away.
    pub fn gone(&self) -> Option<CancellationToken> {
        match self {
            Self::Anyone => None,
            Self::Known { gone, .. } => Some(gone.clone()),
        }
    }
}

/// Digests of all tokens. Which one is meant is found by the first eight bytes of the digest, the rest is compared in
/// constant time; what either could tell about a digest says nothing about a token.
#[derive(Debug, Default)]
pub struct Tokens {
    known: HashMap<[u8; 8], Known>,
}

#[derive(Debug, Clone)]
struct Known {
    rest: [u8; 24],
    role: Role,
    file: String,
    gone: CancellationToken,
}

impl Tokens {
    /// Reads a directory. Files whose names begin with a dot are passed over.
    ///
    /// # Errors
    /// When one file is not as it must be: a token that is silently left out would be missed too late.
    pub fn read(dir: &Path) -> Result<Self, TokensError> {
        let failed = |source| TokensError::List { path: dir.to_owned(), source };
        if is_writable(dir).map_err(failed)? {
            return Err(TokensError::Writable(dir.to_owned()));
        }
        let mut tokens = Self::default();
        for file in files(dir).map_err(failed)? {
            let (name, path) = file.map_err(failed)?;
            if name.starts_with('.') {
                continue;
            }
            if is_leftover(&name) {
                return Err(TokensError::Leftover(path));
            }
            let role = role(&name).ok_or_else(|| TokensError::Name(path.clone()))?;
            tokens.add(&Token::read(&path)?, role, name)?;
            if tokens.known.len() > TOKENS_MAX {
                return Err(TokensError::Many(dir.to_owned()));
            }
        }
        if tokens.known.is_empty() {
            return Err(TokensError::Empty(dir.to_owned()));
        }
        Ok(tokens)
    }

    /// Those of them whose own file in `dir` still holds them. One whose file cannot be read now stays: nobody has said
    /// that it shall not count any more.
    ///
    /// # Errors
    /// When the directory cannot be listed: nothing is known of any of them.
    pub fn still(&self, dir: &Path) -> io::Result<Self> {
        let files = files(dir)?.collect::<io::Result<HashMap<String, PathBuf>>>()?;
        let stays = |first: &[u8; 8], known: &Known| match files.get(&known.file).map(|path| Token::read(path)) {
            None => false,
            Some(Ok(token)) => digest(&token) == (*first, known.rest),
            Some(Err(error)) => !is_gone(&error),
        };
        let known = self.known.iter().filter(|(first, known)| stays(first, known));
        Ok(Self { known: known.map(|(first, known)| (*first, known.clone())).collect() })
    }

    fn add(&mut self, token: &Token, role: Role, file: String) -> Result<(), TokensError> {
        let (first, rest) = digest(token);
        if let Some(other) = self.known.get(&first) {
            let (mut one, mut two) = (other.file.clone(), file);
            if two < one {
                (one, two) = (two, one);
            }
            return Err(TokensError::Twice(one, two));
        }
        self.known.insert(first, Known { rest, role, file, gone: CancellationToken::new() });
        Ok(())
    }

    /// Takes over from what was known before: calls of tokens that are the same go on, calls of others end.
    pub fn replace(&mut self, before: &Self) {
        for (first, old) in &before.known {
            match self.known.get_mut(first).filter(|new| new.rest == old.rest && new.role == old.role) {
                Some(same) => same.gone = old.gone.clone(),
                None => old.gone.cancel(),
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Whose token a request shows.
    ///
    /// # Errors
    /// When it shows none, several, or one that nobody has.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Reason> {
        let mut values = headers.get_all(AUTHORIZATION).into_iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Err(Reason::Missing),
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Err(Reason::Unknown),
        };
        let (first, rest) = digest(&bearer(value).ok_or(Reason::Unknown)?);
        let known = self.known.get(&first).filter(|known| bool::from(known.rest.ct_eq(&rest)));
        let known = known.ok_or(Reason::Unknown)?;
        Ok(Caller::Known { role: known.role.clone(), gone: known.gone.clone() })
    }
}

/// Names and paths of what is in a directory.
fn files(dir: &Path) -> io::Result<impl Iterator<Item = io::Result<(String, PathBuf)>>> {
    let named = |entry: DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path());
    Ok(std::fs::read_dir(dir)?.map(move |entry| entry.map(named)))
}

/// The role that a file's name tells.
fn role(name: &str) -> Option<Role> {
    let (role, of) = name.split_once('.').map_or((name, None), |(role, of)| (role, Some(of)));
    match (role, of) {
        ("viewer", None) => Some(Role::Viewer),
        ("viewer", Some(of)) if !of.is_empty() => Some(Role::Viewer),
        ("operator", None) => Some(Role::Operator),
        ("operator", Some(of)) if !of.is_empty() => Some(Role::Operator),
        ("hive", Some(id)) => HiveId::parse(id).ok().map(Role::Hive),
        _ => None,
    }
}

/// Of a person's or a program's token. A hive may be called anything, and the token of one that is not there opens nothing.
fn is_leftover(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.starts_with("hive.") && LEFTOVERS.iter().any(|end| name.ends_with(end))
}

/// Whether a file is no more: it went after the directory was listed, or it is a link to what is gone.
fn is_gone(error: &TokenFileError) -> bool {
    matches!(error, TokenFileError::Secret(SecretError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound)
}

fn digest(token: &Token) -> ([u8; 8], [u8; 24]) {
    let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let (mut first, mut rest) = ([0; 8], [0; 24]);
    first.copy_from_slice(&digest[..8]);
    rest.copy_from_slice(&digest[8..]);
    (first, rest)
}

#[cfg(unix)]
fn is_writable(dir: &Path) -> io::Result<bool> {
    Ok(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dir)?) & WRITABLE != 0)
}

#[cfg(not(unix))]
fn is_writable(dir: &Path) -> io::Result<bool> {
    std::fs::metadata(dir).map(|_| false)
}

#[cfg(test)]
mod tests;
