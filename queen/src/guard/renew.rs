//! Certificates and tokens while the queen runs: their files are looked at again and again, and read when they have
//! changed. What cannot be used is told once and brings nothing new; a token whose own file is gone goes all the same.

use super::tokens::Tokens;
use super::{GuardError, Shown};
use crate::Config;
use crate::metrics::Counts;
use common::tls::{Identity, TlsFiles};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The files are looked at no more often than this.
const EVERY_MIN: Duration = Duration::from_millis(10);

/// What is read from files, and when that was last done.
#[derive(Debug)]
pub struct Renewal {
    tls: Option<Kept<TlsFiles, Identity>>,
    tokens: Option<Kept<PathBuf, Arc<Tokens>>>,
    every: Duration,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Kept<F, T> {
    from: F,
    stamp: Stamp,
    value: watch::Sender<T>,
}

/// What tells that a file is not the one that was read: name, length, times of change.
type Stamp = Vec<(PathBuf, Option<(u64, Option<SystemTime>, i128)>)>;

impl Renewal {
    /// Reads everything for the first time.
    pub fn open(config: &Config, counts: Arc<Counts>) -> Result<Self, GuardError> {
        let tls = config.tls.clone().map(|from| {
            let stamp = tls_stamp(&from);
            Identity::read(&from).map(|value| Kept { from, stamp, value: watch::Sender::new(value) })
        });
        let tokens = config.token_dir.clone().map(|from| {
            let stamp = tokens_stamp(&from);
            Tokens::read(&from).map(|value| Kept { from, stamp, value: watch::Sender::new(Arc::new(value)) })
        });
        Ok(Self {
            tls: tls.transpose().map_err(GuardError::Tls)?,
            tokens: tokens.transpose().map_err(GuardError::Tokens)?,
            every: config.reread.max(EVERY_MIN),
            counts,
        })
    }

    /// The certificate, now and later.
    pub fn shown(&self) -> Shown {
        self.tls.as_ref().map(|tls| tls.value.subscribe())
    }

    /// The tokens, now and later.
    pub fn tokens(&self) -> Option<watch::Receiver<Arc<Tokens>>> {
        self.tokens.as_ref().map(|tokens| tokens.value.subscribe())
    }

    /// Looks at all files once. Waits for the disk.
    fn look(&mut self) {
        if let Some(tls) = &mut self.tls {
            let stamp = tls_stamp(&tls.from);
            if stamp != tls.stamp {
                tls.stamp = stamp;
                self.counts.renewed(take_identity(tls));
            }
        }
        if let Some(tokens) = &mut self.tokens {
            let stamp = tokens_stamp(&tokens.from);
            if stamp != tokens.stamp {
                tokens.stamp = stamp;
                self.counts.renewed(take_tokens(tokens));
            }
        }
    }
}

/// Looks at the files until `stopping` is cancelled.
pub async fn renew(mut renewal: Renewal, stopping: CancellationToken) {
    let mut ticks = interval(renewal.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let looked = tokio::task::spawn_blocking(move || {
            renewal.look();
            renewal
        });
        renewal = match looked.await {
            Ok(renewal) => renewal,
            Err(error) => {
                warn!(%error, "certificates and tokens are no longer renewed");
                return;
            }
        };
    }
}

/// Whether there is a new certificate to show.
fn take_identity(tls: &Kept<TlsFiles, Identity>) -> bool {
    let read = Identity::read(&tls.from);
    let good = read.is_ok();
    match read {
        Ok(identity) => {
            tls.value.send_replace(identity);
            info!(cert = %tls.from.cert.display(), "certificate renewed");
        }
        Err(error) => warn!(error = told(&error), "the new certificate cannot be used; the one before stays"),
    }
    good
}

/// Whether there are new tokens.
fn take_tokens(kept: &Kept<PathBuf, Arc<Tokens>>) -> bool {
    let error = match Tokens::read(&kept.from) {
        Ok(tokens) => {
            let count = tokens.count();
            put(kept, tokens);
            info!(count, "tokens read again");
            return true;
        }
        Err(error) => told(&error),
    };
    // Whoever removes a file takes its token away: that must not wait for the day when all the other files are good.
    let before = Arc::clone(&kept.value.borrow());
    match before.still(&kept.from) {
        Ok(still) => {
            let (stay, gone) = (still.count(), before.count() - still.count());
            put(kept, still);
            warn!(
                error,
                gone, stay, "the changed tokens cannot be used: none is new, those whose files are gone are taken away"
            );
        }
        Err(_) => warn!(error, "the changed tokens cannot be used; those before stay"),
    }
    false
}

/// Puts tokens in the place of those before, and ends the calls of those that are not among them.
fn put(kept: &Kept<PathBuf, Arc<Tokens>>, mut tokens: Tokens) {
    kept.value.send_modify(|known| {
        tokens.replace(known);
        *known = Arc::new(tokens);
    });
}

fn told(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn tls_stamp(files: &TlsFiles) -> Stamp {
    [&files.cert, &files.key].into_iter().map(|path| stamp(path)).collect()
}

fn tokens_stamp(dir: &Path) -> Stamp {
    let inside = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| stamp(&entry.path()));
    let mut all: Stamp = inside.chain([stamp(dir)]).collect();
    all.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    all
}

fn stamp(path: &Path) -> (PathBuf, Option<(u64, Option<SystemTime>, i128)>) {
    let about = std::fs::metadata(path).ok();
    (path.to_owned(), about.map(|about| (about.len(), about.modified().ok(), changed(&about))))
}

/// Its inode and when that changed: a file that was put in the place of another, and a mode that was set right.
#[cfg(unix)]
fn changed(about: &std::fs::Metadata) -> i128 {
    use std::os::unix::fs::MetadataExt;
    (i128::from(about.ino()) << 64) ^ (i128::from(about.ctime()) << 30) ^ i128::from(about.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &std::fs::Metadata) -> i128 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http::header::AUTHORIZATION;
    use std::os::unix::fs::PermissionsExt;

    fn write(path: &Path, token: &str) {
        std::fs::write(path, token).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn the_last_token_goes_with_its_file_and_a_directory_that_is_away_takes_none() {
        let dir = tempfile::tempdir().unwrap();
        let (tokens, away) = (dir.path().join("tokens"), dir.path().join("away"));
        std::fs::create_dir(&tokens).unwrap();
        std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o700)).unwrap();
        let counts = Arc::new(Counts::default());
        let config = Config { token_dir: Some(tokens.clone()), ..Config::default() };
        assert!(Renewal::open(&config, Arc::clone(&counts)).is_err(), "at the start there must be one");
        write(&tokens.join("viewer"), "0123456789abcdef");
        let mut renewal = Renewal::open(&config, counts).unwrap();
        let known = renewal.tokens().unwrap();
        let shown = HeaderMap::from_iter([(AUTHORIZATION, "Bearer 0123456789abcdef".parse().unwrap())]);
        let caller = || known.borrow().caller(&shown);
        let gone = caller().unwrap().gone().unwrap();

        std::fs::rename(&tokens, &away).unwrap();
        renewal.look();
        assert!(caller().is_ok() && !gone.is_cancelled());
        std::fs::rename(&away, &tokens).unwrap();
        renewal.look();
        assert!(caller().is_ok() && !gone.is_cancelled());

        std::fs::remove_file(tokens.join("viewer")).unwrap();
        renewal.look();
        assert!(caller().is_err() && gone.is_cancelled());
        write(&tokens.join("viewer"), "0123456789abcdef");
        renewal.look();
        assert!(caller().is_ok());
    }
}
