//! Sessions: opening one fences the one before, its stream is attached and detached.

use super::known::{Judging, KnownHive};
use super::{Fleet, Refusal, row};
use common::HiveId;
use dashmap::Entry;
use dashmap::mapref::one::RefMut;
use proto::{Freshness, RegisterRequest};
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// So many characters of another hive's fields are shown to whom is refused.
const SHOWN: usize = 80;

/// A session that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its name on the wire.
    pub session: String,
    /// Above that of every earlier session.
    pub epoch: u64,
    /// Whether the hive was not known before.
    pub new: bool,
}

/// Whose session it is, and until when.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The hive.
    pub hive: HiveId,
    /// The session's epoch.
    pub epoch: u64,
    /// Cancelled when a newer session takes over.
    pub fence: CancellationToken,
}

impl Fleet {
    /// Opens a session. `token` is random. The older session of the hive, if any, is fenced at once; what it told
    /// stays until the first snapshot of the new one.
    pub fn register(&self, now: Instant, request: RegisterRequest, token: &str) -> Result<Opened, Refusal> {
        let mut info = request.hive.ok_or_else(|| Refusal::invalid("hive", "Register needs a hive"))?;
        let id = HiveId::parse(&info.id).map_err(|error| Refusal::invalid("hive.id", error.to_string()))?;
        row::check_hive(&id, &mut info)?;
        if self.hives.len() >= self.bounds.max_hives && !self.hives.contains_key(&id) {
            self.refused.hive();
            return Err(Refusal::TooMuch(format!("this queen accepts {} hives and has them", self.bounds.max_hives)));
        }
        let (mut hive, new) = match self.hives.entry(id.clone()) {
            Entry::Occupied(known) => {
                let hive = known.into_ref();
                self.gives_way(now, &hive, &info, request.sent_boottime_ns)?;
                (hive, false)
            }
            Entry::Vacant(vacant) => (vacant.insert(KnownHive::new(id.clone(), now)), true),
        };
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        let session = format!("{id}/{epoch}/{token}");
        hive.begin(now, session.clone(), epoch, info);
        hive.sent = request.sent_boottime_ns;
        hive.settle(&Judging { now, limits: &self.bounds.limits, pardon: &self.pardon(now) }, &self.index);
        hive.link(&self.feed, now, false);
        Ok(Opened { session, epoch, new })
    }

    /// Whether the present session of a hive gives way to another one: not to one from elsewhere while it is alive, and
    /// not to one that its own machine asked for before it.
    fn gives_way(&self, now: Instant, hive: &KnownHive, other: &proto::Hive, sent: Option<u64>) -> Result<(), Refusal> {
        let limits = &self.bounds.limits;
        if hive.info.boot_id == other.boot_id && hive.info.slice == other.slice {
            let before = hive.sent.zip(sent).is_some_and(|(present, other)| other < present);
            // Clocks can be set back with their machine; what is silent, or has said goodbye, holds no name for that.
            let silence = self.pardon(now).silence(hive.arrived, now);
            let heard = !hive.goodbye && limits.freshness(silence) < Freshness::Lost;
            return if before && heard { Err(Refusal::Superseded) } else { Ok(()) };
        }
        if hive.streams == 0 || hive.freshness_at(now, limits, &self.pardon(now)) == Freshness::Lost {
            return Ok(());
        }
        // An answer travels in headers, which are short.
        let short = |text: &str| text.chars().take(SHOWN).collect();
        Err(Refusal::Alive {
            id: hive.id.clone(),
            boot: short(&hive.info.boot_id),
            slice: short(&hive.info.slice),
            other_boot: short(&other.boot_id),
            other_slice: short(&other.slice),
        })
    }

    /// A stream of this session has begun. The token is cancelled when a newer session takes over.
    pub fn attach(&self, session: &str) -> Result<CancellationToken, Refusal> {
        let mut hive = self.session(session)?;
        hive.streams += 1;
        Ok(hive.fence.clone())
    }

    /// A stream of this session has ended; `goodbye` when the hive ended it in order. Views show its workers as STALE
    /// at once.
    pub fn detach(&self, now: Instant, session: &str, goodbye: bool) {
        let Ok(mut hive) = self.session(session) else { return };
        hive.streams = hive.streams.saturating_sub(1);
        if hive.streams == 0 {
            (hive.broken, hive.goodbye) = (true, goodbye);
            let judging = Judging { now, limits: &self.bounds.limits, pardon: &self.pardon(now) };
            hive.settle(&judging, &self.index);
            hive.link(&self.feed, now, false);
        }
    }

    /// Who holds a session that is in force. Unlike [`Fleet::attach`] this says nothing about its telemetry.
    pub fn holder(&self, session: &str) -> Result<Holder, Refusal> {
        let hive = self.session(session)?;
        Ok(Holder { hive: hive.id.clone(), epoch: hive.epoch, fence: hive.fence.clone() })
    }

    /// The hive of a session that is in force.
    pub(super) fn session(&self, session: &str) -> Result<RefMut<'_, HiveId, KnownHive>, Refusal> {
        self.session_of(&hive_of(session)?, session)
    }

    /// The same where the name of the hive has been read already.
    pub(super) fn session_of(&self, id: &HiveId, session: &str) -> Result<RefMut<'_, HiveId, KnownHive>, Refusal> {
        let hive = self.hives.get_mut(id).ok_or(Refusal::Unknown)?;
        if hive.session == session {
            return Ok(hive);
        }
        let mut parts = session.split('/').skip(1);
        let epoch = parts.next().and_then(|text| text.parse::<u64>().ok());
        let token = parts.next();
        let older = epoch.is_some_and(|epoch| hive.fenced.contains(&(epoch, token.unwrap_or_default().to_owned())));
        Err(if older { Refusal::Superseded } else { Refusal::Unknown })
    }
}

/// The hive that a session belongs to.
///
/// # Errors
/// When that is no name of a session.
pub fn hive_of(session: &str) -> Result<HiveId, Refusal> {
    session.split('/').next().and_then(|text| HiveId::parse(text).ok()).ok_or(Refusal::Unknown)
}
