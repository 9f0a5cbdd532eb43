//! A watch that outlives its queen: it connects again by itself and goes on where it was.

use crate::args::Global;
use crate::connect::{self, told};
use crate::failure::Failure;
use crate::terminal;
use common::Backoff;
use common::told::Told;
use proto::watch_response::Event;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};
use tonic::{Code, Status, Streaming};

/// Three missed bookmarks: a stream that is silent for so long is dead. Doubled each time that turns out wrong.
const SILENCE: Duration = Duration::from_millis(7_500);
/// Silence is never tolerated for longer.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// An endless watch.
pub struct Follow<'a> {
    global: &'a Global,
    request: proto::WatchRequest,
    told: Told,
    stream: Option<Streaming<proto::WatchResponse>>,
    backoff: Backoff,
    patience: Duration,
    in_snapshot: bool,
    away: bool,
}

impl<'a> Follow<'a> {
    /// Opens the watch. Only this first time a queen that does not answer is an error.
    pub async fn open(global: &'a Global, mut request: proto::WatchRequest) -> Result<Self, Failure> {
        // Whoever goes on with somebody else's revision does not know which worker has which slot.
        request.columns = request.resume_after.is_empty();
        let stream = connect_once(global, &request).await?;
        Ok(Self {
            global,
            request,
            told: Told::default(),
            stream: Some(stream),
            backoff: Backoff::default(),
            patience: SILENCE,
            in_snapshot: false,
            away: false,
        })
    }

    /// The next message, however long it takes.
    ///
    /// # Errors
    /// Only what trying again cannot mend.
    pub async fn next(&mut self) -> Result<proto::WatchResponse, Failure> {
        loop {
            let Some(stream) = self.stream.as_mut() else {
                self.try_again().await?;
                continue;
            };
            match tokio::time::timeout(self.patience, stream.message()).await {
                Ok(Ok(Some(mut message))) => match self.told.take(&mut message) {
                    Ok(()) => {
                        self.note(&message);
                        return Ok(message);
                    }
                    Err(error) => {
                        self.request.resume_after.clear();
                        self.lost(&error.to_string());
                    }
                },
                Ok(Ok(None)) => self.lost("it ended the stream"),
                Ok(Err(status)) if is_final(&status) => return Err(connect::refused("watch", &status)),
                Ok(Err(status)) => self.lost(&told(&status)),
                Err(_) => {
                    self.lost(&format!("nothing came for {}", crate::show::units::time(self.patience)));
                    self.patience = (self.patience * 2).min(SILENCE_MAX);
                }
            }
        }
    }

    /// Remembers where to go on. A snapshot that broke off must be had again as a whole.
    fn note(&mut self, message: &proto::WatchResponse) {
        let revision = match &message.event {
            Some(Event::SnapshotBegin(_)) => {
                self.in_snapshot = true;
                self.request.resume_after.clear();
                return;
            }
            Some(Event::SnapshotEnd(end)) => {
                self.in_snapshot = false;
                &end.revision
            }
            Some(Event::Update(update)) => &update.revision,
            Some(Event::Bookmark(bookmark)) => &bookmark.revision,
            None => return,
        };
        if !self.in_snapshot && !revision.is_empty() {
            self.request.resume_after.clone_from(revision);
        }
    }

    fn lost(&mut self, why: &str) {
        self.stream = None;
        if !self.away && !self.global.quiet {
            let url = self.global.queen.join(", ");
            terminal::say(format_args!("rbee: lost the queen at {url}: {why}; trying again until she is back"));
        }
        self.away = true;
    }

    async fn try_again(&mut self) -> Result<(), Failure> {
        tokio::time::sleep(self.backoff.next(anywhere(), None)).await;
        match connect_once(self.global, &self.request).await {
            Ok(stream) => {
                self.stream = Some(stream);
                self.backoff.reset();
                self.away = false;
                if !self.global.quiet {
                    terminal::say("rbee: the queen is back");
                }
                Ok(())
            }
            Err(Failure::Usage(words)) => Err(Failure::Usage(words)),
            // She is still away: that has been told.
            Err(_) => Ok(()),
        }
    }
}

async fn connect_once(
    global: &Global,
    request: &proto::WatchRequest,
) -> Result<Streaming<proto::WatchResponse>, Failure> {
    let mut client = connect::fleet(global).await?;
    connect::answer(global.timeout, "watch", client.watch(request.clone())).await
}

/// What the same request will never get.
pub fn is_final(status: &Status) -> bool {
    use Code::{InvalidArgument, NotFound, PermissionDenied, Unauthenticated, Unimplemented};
    matches!(status.code(), InvalidArgument | NotFound | PermissionDenied | Unauthenticated | Unimplemented)
}

/// Takes every message of a stream. `Ok(Ok(()))`: there are no more; `Ok(Err(_))`: it broke off.
///
/// # Errors
/// When a message could not be taken.
pub async fn each<T>(
    mut stream: Streaming<T>,
    mut take: impl FnMut(T) -> Result<(), Failure>,
) -> Result<Result<(), Status>, Failure> {
    loop {
        match stream.message().await {
            Ok(Some(message)) => take(message)?,
            Ok(None) => return Ok(Ok(())),
            Err(status) => return Ok(Err(status)),
        }
    }
}

/// Whether a follower asks again after this; `opened`: his stream has begun before. What was never there is not waited for.
pub fn goes_on(status: &Status, opened: bool) -> bool {
    let away = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
    away || (opened && !is_final(status))
}

/// A number in 0..1 that differs from process to process and from try to try; spreads retries, nothing else.
pub fn anywhere() -> f64 {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    f64::from(nanos.wrapping_mul(2_654_435_761) >> 8) / f64::from(1_u32 << 24)
}

/// The workers that a watch has told of so far.
#[derive(Debug, Default)]
pub struct View {
    workers: BTreeMap<String, proto::Worker>,
    heard: HashMap<String, Instant>,
    in_snapshot: bool,
}

impl View {
    /// Takes in one message; true when there is something new and whole to show.
    pub fn apply(&mut self, now: Instant, message: &proto::WatchResponse) -> bool {
        match &message.event {
            Some(Event::SnapshotBegin(_)) => {
                *self = Self { in_snapshot: true, ..Self::default() };
                false
            }
            Some(Event::Update(update)) => {
                for beat in &update.beats {
                    self.heard.insert(beat.hive.clone(), now);
                }
                for worker in &update.workers {
                    self.workers.insert(crate::naming::full(worker), worker.clone());
                }
                for name in &update.removed_workers {
                    self.workers.remove(name);
                }
                !self.in_snapshot
            }
            Some(Event::SnapshotEnd(_)) => {
                self.in_snapshot = false;
                true
            }
            Some(Event::Bookmark(_)) | None => false,
        }
    }

    /// All of them by name, each with its age as far as beats have told it.
    pub fn workers(&self, now: Instant) -> Vec<proto::Worker> {
        let aged = |worker: &proto::Worker| {
            let hive = worker.spec.as_ref().map_or("", |spec| spec.hive.as_str());
            let age = self.heard.get(hive).map(|heard| common::duration(now.saturating_duration_since(*heard)));
            proto::Worker { age: age.or(worker.age), ..worker.clone() }
        };
        self.workers.values().map(aged).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(event: Event) -> proto::WatchResponse {
        proto::WatchResponse { event: Some(event) }
    }

    fn update(instance: &str, removed: &[&str]) -> proto::WatchResponse {
        let spec = proto::WorkerSpec {
            hive: "box".into(),
            group: "llm".into(),
            instance: instance.into(),
            ..Default::default()
        };
        let worker = proto::Worker { spec: Some(spec), ..Default::default() };
        message(Event::Update(proto::Update {
            workers: vec![worker],
            removed_workers: removed.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }))
    }

    #[test]
    fn a_new_snapshot_replaces_everything() {
        let now = Instant::now();
        let mut view = View::default();
        assert!(view.apply(now, &update("1", &[])));
        assert!(!view.apply(now, &message(Event::SnapshotBegin(proto::SnapshotBegin::default()))));
        assert!(!view.apply(now, &update("2", &[])), "half a snapshot is not shown");
        assert!(view.apply(now, &message(Event::SnapshotEnd(proto::SnapshotEnd::default()))));
        let names: Vec<String> = view.workers(now).iter().map(crate::naming::full).collect();
        assert_eq!(names, ["box/llm/2"]);
    }

    #[test]
    fn a_removed_worker_leaves() {
        let now = Instant::now();
        let mut view = View::default();
        view.apply(now, &update("1", &[]));
        view.apply(now, &update("2", &["box/llm/1"]));
        assert_eq!(view.workers(now).len(), 1);
    }

    #[test]
    fn a_follower_waits_for_whoever_is_away_and_for_nobody_who_was_never_there() {
        let after = |code, opened| goes_on(&Status::new(code, ""), opened);
        assert!(after(Code::Unavailable, false) && after(Code::DeadlineExceeded, false));
        assert!(!after(Code::ResourceExhausted, false) && after(Code::ResourceExhausted, true));
        for code in [Code::NotFound, Code::PermissionDenied, Code::Unauthenticated] {
            assert!(!after(code, false) && !after(code, true), "{code:?}");
        }
    }

    #[test]
    fn retries_are_spread_over_the_whole_range() {
        assert!((0.0..1.0).contains(&anywhere()));
    }
}
