//! The ways to the hives: a channel to each, inside the connection that it dialled. Nothing here dials a hive.

use crate::bound::{Bound, Place};
use common::HiveId;
use common::tunnel::{CONNECTION_WINDOW, Pipe, STREAM_WINDOW, STREAMS};
use dashmap::{DashMap, Entry};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Streams from one hive at once: half of the calls that its tunnel carries. However many people follow its logs, a stop or a
/// grant never waits behind them.
const STREAMS_EACH: usize = STREAMS as usize / 2;

/// Why a hive cannot be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTunnel {
    /// No hive of this name has attached.
    #[error("hive {0} is not attached to this queen: it is unknown, unreachable or too old")]
    Absent(HiveId),
    /// It is asked for one stream too many.
    #[error("{STREAMS_EACH} streams from hive {0} are already open")]
    Full(HiveId),
}

/// Why a hive cannot attach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAttached {
    /// As many are as may be.
    #[error("this queen takes {0} tunnels and has them")]
    Full(usize),
    /// The hive has asked for another one since.
    #[error("superseded: this hive has a newer tunnel")]
    Superseded,
}

/// Whether a call failed before the hive can have heard of it: its tunnel was left in the same moment.
pub fn was_not_sent(status: &Status) -> bool {
    let mut cause = Error::source(status);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The tunnels that are open.
#[derive(Debug)]
pub struct Tunnels {
    open: DashMap<HiveId, Ways>,
    numbers: AtomicU64,
    places: Arc<Bound>,
}

/// The tunnels of one hive. A hive whose tunnel was idle dials the next one before it leaves the old one: calls that
/// have begun on that one go on.
#[derive(Debug)]
struct Ways {
    newest: Way,
    leaving: Option<Way>,
    streams: Arc<Bound>,
    _place: Place,
}

#[derive(Debug)]
struct Way {
    number: u64,
    asked: Asked,
    /// Made when it is first asked for.
    channel: OnceLock<Channel>,
    pipe: Arc<Mutex<Option<Pipe>>>,
    ended: CancellationToken,
}

/// Where a tunnel stands among those of its hive: the later one is the one that calls take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// The session's epoch.
    pub epoch: u64,
    /// When the hive asked for it, on its machine's own clock, if it says.
    pub sent: Option<u64>,
}

/// An open tunnel. Dropping it ends the tunnel and everything in it.
#[derive(Debug)]
pub struct Attached {
    tunnels: Arc<Tunnels>,
    hive: HiveId,
    number: u64,
    ended: CancellationToken,
}

impl Tunnels {
    /// None yet; of no more hives than there are `places`. Further ones are refused, and their telemetry goes on.
    pub fn new(places: Arc<Bound>) -> Self {
        Self { open: DashMap::new(), numbers: AtomicU64::new(0), places }
    }

    /// A channel on which `WorkerService` and `GrantService` of a hive answer. Its inner connection is made when a call
    /// first needs it. Take one for each call: a tunnel that has been idle is left for another one.
    ///
    /// # Errors
    /// [`NoTunnel::Absent`] when the hive has not attached.
    pub fn channel(&self, hive: &HiveId) -> Result<Channel, NoTunnel> {
        let ways = self.open.get(hive).ok_or_else(|| NoTunnel::Absent(hive.clone()))?;
        let way = &ways.newest;
        Ok(way.channel.get_or_init(|| channel(way.pipe.clone())).clone())
    }

    /// A place for one more stream from a hive.
    ///
    /// # Errors
    /// [`NoTunnel::Full`] when it has as many as it may have.
    pub fn stream(&self, hive: &HiveId) -> Result<Place, NoTunnel> {
        let ways = self.open.get(hive).ok_or_else(|| NoTunnel::Absent(hive.clone()))?;
        ways.streams.enter().ok_or_else(|| NoTunnel::Full(hive.clone()))
    }

    /// Takes in the tunnel of a session. `ended` is cancelled when a newer one has taken its place.
    ///
    /// # Errors
    /// When there are too many, or the hive has one that it asked for later.
    pub fn add(
        self: &Arc<Self>,
        hive: HiveId,
        asked: Asked,
        pipe: Pipe,
        ended: CancellationToken,
    ) -> Result<Attached, NotAttached> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let pipe = Arc::new(Mutex::new(Some(pipe)));
        let way = Way { number, asked, channel: OnceLock::new(), pipe, ended: ended.clone() };
        match self.open.entry(hive.clone()) {
            Entry::Vacant(vacant) => {
                let place = self.places.enter().ok_or_else(|| NotAttached::Full(self.places.limit()))?;
                let streams = Bound::new(STREAMS_EACH);
                drop(vacant.insert(Ways { newest: way, leaving: None, streams, _place: place }));
            }
            Entry::Occupied(mut known) => known.get_mut().take(way)?,
        }
        Ok(Attached { tunnels: self.clone(), hive, number, ended })
    }
}

impl Ways {
    fn take(&mut self, way: Way) -> Result<(), NotAttached> {
        if way.asked < self.newest.asked {
            return Err(NotAttached::Superseded);
        }
        let before = std::mem::replace(&mut self.newest, way);
        if let Some(older) = self.leaving.take() {
            older.ended.cancel();
        }
        if before.asked.epoch == self.newest.asked.epoch {
            self.leaving = Some(before);
        } else {
            before.ended.cancel();
        }
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.ended.cancel();
        self.tunnels.open.remove_if_mut(&self.hive, |_, ways| {
            if ways.newest.number != self.number {
                ways.leaving.take_if(|way| way.number == self.number);
                return false;
            }
            // A hive that gave this one up before it was open never left the one before.
            match ways.leaving.take() {
                Some(before) => {
                    ways.newest = before;
                    false
                }
                None => true,
            }
        });
    }
}

/// A channel over the one connection that a tunnel is.
fn channel(pipe: Arc<Mutex<Option<Pipe>>>) -> Channel {
    let connect = service_fn(move |_: Uri| {
        let pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(pipe.map(TokioIo::new).ok_or_else(|| io::Error::other("this tunnel has ended")))
    });
    // The name is never looked up. No pings inside: those of the connection around it find a dead link.
    Endpoint::from_static("http://hive")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector_lazy(connect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    fn add(tunnels: &Arc<Tunnels>, epoch: u64) -> Result<(Attached, CancellationToken), NotAttached> {
        add_asked(tunnels, Asked { epoch, sent: None })
    }

    fn add_asked(tunnels: &Arc<Tunnels>, asked: Asked) -> Result<(Attached, CancellationToken), NotAttached> {
        let ended = CancellationToken::new();
        let (sender, _receiver) = mpsc::channel(1);
        let pipe = Pipe::new(tokio_stream::pending(), sender, ended.clone());
        let attached = tunnels.add(hive(), asked, pipe, ended.clone())?;
        Ok((attached, ended))
    }

    fn hive() -> HiveId {
        HiveId::parse("box").unwrap()
    }

    #[tokio::test]
    async fn t2_a_newer_session_ends_the_tunnel_of_the_older_and_is_not_ended_by_it() {
        let tunnels = Arc::new(Tunnels::new(Bound::new(1)));
        let (old, old_ended) = add(&tunnels, 1).unwrap();
        let (_new, new_ended) = add(&tunnels, 2).unwrap();
        assert!(old_ended.is_cancelled() && !new_ended.is_cancelled());
        drop(old);
        assert!(tunnels.channel(&hive()).is_ok(), "the end of the older one leaves the newer one there");
        assert_eq!(add(&tunnels, 1).err(), Some(NotAttached::Superseded));
        assert!(!new_ended.is_cancelled());
    }

    #[tokio::test]
    async fn t2_a_tunnel_that_was_given_up_and_is_met_late_takes_no_place() {
        let tunnels = Arc::new(Tunnels::new(Bound::new(1)));
        let asked = |epoch, sent| Asked { epoch, sent: Some(sent) };
        let (present, ended) = add_asked(&tunnels, asked(2, 7)).unwrap();
        assert_eq!(add_asked(&tunnels, asked(2, 6)).err(), Some(NotAttached::Superseded));
        assert!(!ended.is_cancelled() && tunnels.channel(&hive()).is_ok());
        let (_next, _) = add_asked(&tunnels, asked(3, 1)).unwrap();
        assert!(ended.is_cancelled(), "a session is newer than any tunnel of the one before");
        drop(present);
        assert!(tunnels.channel(&hive()).is_ok());
    }

    #[tokio::test]
    async fn there_are_no_more_hives_with_a_tunnel_than_there_may_be() {
        let (tunnels, other) = (Arc::new(Tunnels::new(Bound::new(1))), HiveId::parse("other").unwrap());
        let open = |hive: &HiveId, epoch| {
            let (sender, ended) = (mpsc::channel(1).0, CancellationToken::new());
            let pipe = Pipe::new(tokio_stream::pending(), sender, ended.clone());
            tunnels.add(hive.clone(), Asked { epoch, sent: None }, pipe, ended)
        };
        let first = open(&hive(), 1).unwrap();
        assert_eq!(open(&other, 1).err(), Some(NotAttached::Full(1)));
        let second = open(&hive(), 2).unwrap();
        drop(first);
        assert_eq!(open(&other, 1).err(), Some(NotAttached::Full(1)), "it has another one");
        drop(second);
        assert!(open(&other, 1).is_ok());
        assert_eq!(tunnels.places.refused(), 2);
    }

    #[tokio::test]
    async fn streams_of_a_hive_leave_room_in_its_tunnel() {
        let tunnels = Arc::new(Tunnels::new(Bound::new(2)));
        assert_eq!(tunnels.stream(&hive()).err(), Some(NoTunnel::Absent(hive())));
        let (_attached, _) = add(&tunnels, 1).unwrap();
        let mut streams: Vec<_> = (0..STREAMS_EACH).map(|_| tunnels.stream(&hive()).unwrap()).collect();
        let (_next, _) = add(&tunnels, 1).unwrap();
        assert_eq!(tunnels.stream(&hive()).err(), Some(NoTunnel::Full(hive())), "also while it leaves one for another");
        streams.pop();
        assert!(tunnels.stream(&hive()).is_ok() && tunnels.channel(&hive()).is_ok());
    }

    #[tokio::test]
    async fn a_tunnel_that_is_left_goes_on_beside_the_next_one_but_not_beside_two() {
        let tunnels = Arc::new(Tunnels::new(Bound::new(1)));
        let (first, first_ended) = add(&tunnels, 1).unwrap();
        let (second, second_ended) = add(&tunnels, 1).unwrap();
        assert!(!first_ended.is_cancelled());
        let (third, _) = add(&tunnels, 1).unwrap();
        assert!(first_ended.is_cancelled() && !second_ended.is_cancelled());
        drop(first);
        drop(third);
        assert!(tunnels.channel(&hive()).is_ok() && !second_ended.is_cancelled(), "the one before is still open");
        drop(second);
        assert_eq!(tunnels.channel(&hive()).err(), Some(NoTunnel::Absent(hive())));
        assert_eq!(tunnels.open.len(), 0);
    }
}
