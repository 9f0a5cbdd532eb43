//! The stream of frames that the transport pulls: each is computed when the wire takes it, so nothing can pile up.

use super::books::OpenAccount;
use super::handed::Handed;
use crate::ledger::same_holds;
use crate::roster::Roster;
use crate::round::Round;
use proto::PushTelemetryRequest;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What a session reports: who lives here, how they are, what this machine is.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Live workers.
    pub roster: watch::Receiver<Arc<Roster>>,
    /// The newest round.
    pub rounds: watch::Receiver<Arc<Round>>,
    /// The hive's own record.
    pub hive: watch::Receiver<Arc<proto::Hive>>,
}

/// When the transport last asked for a frame: tells a stalled queen from a quiet hive.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    /// A pulse that beats now.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// When it last beat.
    pub fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// The frames of one session.
pub struct Frames {
    sources: Sources,
    rounds_changed: WatchStream<Arc<Round>>,
    roster_changed: WatchStream<Arc<Roster>>,
    hive_changed: WatchStream<Arc<proto::Hive>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    handed: Handed,
    snapshot: VecDeque<PushTelemetryRequest>,
    more: bool,
    ended: bool,
    pulse: Pulse,
    account: OpenAccount,
}

impl Frames {
    /// Starts with a snapshot of what is true now. Ends with a goodbye when `stopping` is cancelled.
    pub fn new(
        mut handed: Handed,
        sources: Sources,
        pulse: Pulse,
        account: OpenAccount,
        stopping: CancellationToken,
    ) -> Self {
        let rounds_changed = WatchStream::from_changes(sources.rounds.clone());
        let roster_changed = WatchStream::from_changes(sources.roster.clone());
        let hive_changed = WatchStream::from_changes(sources.hive.clone());
        let (roster, round) = (sources.roster.borrow().clone(), sources.rounds.borrow().clone());
        let snapshot = handed.snapshot(&roster, &round).into();
        let stopped = Box::pin(stopping.cancelled_owned());
        Self {
            sources,
            rounds_changed,
            roster_changed,
            hive_changed,
            stopped,
            handed,
            snapshot,
            more: false,
            ended: false,
            pulse,
            account,
        }
    }

    /// The next frame, if there is one to be had now.
    fn next_frame(&mut self, cx: &mut Context<'_>) -> Option<PushTelemetryRequest> {
        if let Some(chunk) = self.snapshot.pop_front() {
            return Some(chunk);
        }
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Some(self.goodbye());
        }
        let sampled = drain(&mut self.rounds_changed, cx);
        let changed = drain(&mut self.roster_changed, cx);
        let granted = drain(&mut self.hive_changed, cx) && self.urgent();
        (sampled || changed || granted || self.more).then(|| self.compute(sampled))
    }

    fn compute(&mut self, sampled: bool) -> PushTelemetryRequest {
        let (roster, round) = (self.sources.roster.borrow().clone(), self.sources.rounds.borrow().clone());
        let hive = self.sources.hive.borrow().clone();
        let next = self.handed.next(&roster, &round, &hive, sampled);
        self.more = next.more;
        next.frame
    }

    /// Whether the hive's record tells what does not wait for the next round: that something was granted, or is not any
    /// more, also both in between.
    fn urgent(&self) -> bool {
        !same_holds(self.handed.hive(), &self.sources.hive.borrow())
    }

    fn goodbye(&mut self) -> PushTelemetryRequest {
        self.ended = true;
        let mut frame = self.compute(false);
        let mut hive = self.sources.hive.borrow().as_ref().clone();
        hive.operational_status = proto::OperationalStatus::Stopping.into();
        frame.hive = Some(hive);
        frame
    }
}

impl Stream for Frames {
    type Item = PushTelemetryRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.pulse.beat();
        if this.ended {
            return Poll::Ready(None);
        }
        match this.next_frame(cx) {
            Some(frame) => {
                this.account.count();
                Poll::Ready(Some(frame))
            }
            None => Poll::Pending,
        }
    }
}

/// Whether the stream had anything; afterwards its waker is registered.
fn drain<T: Clone + Send + Sync + 'static>(stream: &mut WatchStream<T>, cx: &mut Context<'_>) -> bool {
    let mut any = false;
    while let Poll::Ready(Some(_)) = Pin::new(&mut *stream).poll_next(cx) {
        any = true;
    }
    any
}
