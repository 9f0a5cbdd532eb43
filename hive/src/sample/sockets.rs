//! Looks, off the tick, at what is slow to read and seldom changes: the TCP ports that a worker listens on and its
//! command line as it is after exec. The looking itself is in `sockets/look.rs`.

pub mod look;
pub mod owner;

use crate::roster::{Finding, Footing, Roster, Slot};
use look::{Seen, Wanted, look};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The first look at a worker: by then most have executed their program.
const FIRST_LOOK: Duration = Duration::from_millis(200);
/// Between looks while a port is still awaited.
const SEARCH_EVERY: Duration = Duration::from_secs(2);
/// Looks that are due this soon are taken along with one that is due: a look costs the same for one and for many.
const TAKEN_ALONG: Duration = Duration::from_secs(1);
/// So many looks are taken at that pace (ten minutes: large models load long); after that it is the slow one.
const SEARCH_LOOKS: u32 = 300;
/// Between looks when the port is known, given, or no longer expected.
const REVIEW_EVERY: Duration = Duration::from_secs(30);

/// Sends what is learnt until `stopping`. While one look is stuck in the kernel no other is begun.
pub async fn run(
    proc_root: PathBuf,
    mut roster: watch::Receiver<Arc<Roster>>,
    findings: mpsc::Sender<Finding>,
    stopping: CancellationToken,
) {
    let mut plan = Plan::default();
    plan.settle(&roster.borrow_and_update(), Instant::now());
    loop {
        let due = plan.next_due();
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = roster.changed() => match changed {
                Ok(()) => plan.settle(&roster.borrow_and_update(), Instant::now()),
                Err(_) => return,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let wanted = plan.begin(Instant::now());
                let root = proc_root.clone();
                let looking = tokio::task::spawn_blocking(move || look(&root, &wanted));
                let Some(seen) = finished(looking, &stopping).await else { return };
                for finding in plan.learn(seen) {
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        sent = findings.send(finding) => if sent.is_err() { return },
                    }
                }
            }
        }
    }
}

/// `None` when it is time to stop. A look that panicked has seen nothing.
async fn finished(looking: JoinHandle<Vec<Seen>>, stopping: &CancellationToken) -> Option<Vec<Seen>> {
    tokio::select! {
        () = stopping.cancelled() => None,
        seen = looking => Some(seen.unwrap_or_default()),
    }
}

/// When to look at whom.
#[derive(Debug, Default)]
struct Plan {
    watched: HashMap<Slot, Watched>,
}

#[derive(Debug)]
struct Watched {
    footing: Footing,
    /// Its endpoint was given when it came; its sockets are its own affair.
    given: bool,
    due: Instant,
    looks: u32,
    port: Option<u16>,
    command: Option<Vec<Vec<u8>>>,
}

impl Plan {
    fn settle(&mut self, roster: &Roster, now: Instant) {
        let mut before = std::mem::take(&mut self.watched);
        self.watched.extend(roster.members.iter().filter_map(|member| {
            let footing = member.footing.as_ref()?;
            let kept = before.remove(&member.slot).filter(|watched| watched.footing == *footing);
            let fresh = || Watched {
                footing: footing.clone(),
                given: member.spec.endpoint.is_some(),
                due: now + FIRST_LOOK,
                looks: 0,
                port: None,
                command: None,
            };
            Some((member.slot, kept.unwrap_or_else(fresh)))
        }));
    }

    fn next_due(&self) -> Option<Instant> {
        self.watched.values().map(|watched| watched.due).min()
    }

    /// Whom to look at now; plans the look after it.
    fn begin(&mut self, now: Instant) -> Vec<Wanted> {
        if self.next_due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        // Not a first look: by then its program may not have been executed.
        let along = |watched: &Watched| watched.looks > 0 && watched.due <= now + TAKEN_ALONG;
        let due = self.watched.iter_mut().filter(|(_, watched)| watched.due <= now || along(watched));
        due.map(|(slot, watched)| {
            watched.looks = watched.looks.saturating_add(1);
            let searching = !watched.given && watched.port.is_none() && watched.looks < SEARCH_LOOKS;
            watched.due = now + if searching { SEARCH_EVERY } else { REVIEW_EVERY };
            Wanted { slot: *slot, footing: watched.footing.clone(), ports: !watched.given }
        })
        .collect()
    }

    /// Remembers what was seen; returns what is news.
    fn learn(&mut self, seen: Vec<Seen>) -> Vec<Finding> {
        let news = seen.into_iter().filter_map(|seen| {
            let watched = self.watched.get_mut(&seen.slot)?;
            let port = seen.port.filter(|port| watched.port != Some(*port));
            let command = seen.command.filter(|command| watched.command.as_ref() != Some(command));
            watched.port = port.or(watched.port);
            if command.is_some() {
                watched.command.clone_from(&command);
            }
            let is_news = port.is_some() || command.is_some();
            is_news.then_some(Finding { slot: seen.slot, listening_port: port, command, ..Finding::default() })
        });
        news.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::testing::{member, real_child, roster};
    use std::net::TcpListener;
    use tokio::time::timeout;

    const WITHIN: Duration = Duration::from_secs(10);

    #[test]
    fn only_news_is_told() {
        let mut plan = Plan::default();
        let now = Instant::now();
        plan.settle(&roster([member(1, "llm", "a")]), now);
        assert_eq!(plan.next_due(), Some(now + FIRST_LOOK));
        let seen = |port| Seen { slot: 1, port, command: Some(vec![b"x".to_vec()]) };
        let first = Finding { slot: 1, listening_port: None, command: Some(vec![b"x".to_vec()]), ..Finding::default() };
        assert_eq!(plan.learn(vec![seen(None)]), [first]);
        assert_eq!(plan.learn(vec![seen(None)]), []);
        let port = Finding { slot: 1, listening_port: Some(80), ..Finding::default() };
        assert_eq!(plan.learn(vec![seen(Some(80))]), [port]);
        assert_eq!(plan.learn(vec![seen(Some(80)), Seen { slot: 9, port: Some(1), command: None }]), []);
    }

    #[test]
    fn a_port_is_searched_often_and_then_seldom() {
        let mut plan = Plan::default();
        let now = Instant::now();
        plan.settle(&roster([member(1, "llm", "a")]), now);
        assert!(plan.begin(now).is_empty());
        let later = now + FIRST_LOOK;
        assert_eq!(plan.begin(later).len(), 1);
        assert_eq!(plan.next_due(), Some(later + SEARCH_EVERY));
        plan.learn(vec![Seen { slot: 1, port: Some(80), command: None }]);
        assert!(!plan.begin(later + SEARCH_EVERY).is_empty());
        assert_eq!(plan.next_due(), Some(later + SEARCH_EVERY + REVIEW_EVERY));
    }

    #[test]
    fn looks_that_are_due_soon_are_taken_together() {
        let mut plan = Plan::default();
        let now = Instant::now();
        plan.settle(&roster([member(1, "llm", "a")]), now);
        assert_eq!(plan.begin(now + FIRST_LOOK).len(), 1);
        plan.settle(&roster([member(1, "llm", "a"), member(2, "llm", "b")]), now + TAKEN_ALONG);
        assert_eq!(plan.begin(now + TAKEN_ALONG + FIRST_LOOK).len(), 2);
        assert!(plan.begin(now + SEARCH_EVERY + FIRST_LOOK).is_empty());
        plan.settle(&roster([member(1, "llm", "a"), member(2, "llm", "b"), member(3, "llm", "c")]), now + SEARCH_EVERY);
        assert_eq!(plan.begin(now + TAKEN_ALONG + FIRST_LOOK + SEARCH_EVERY).len(), 3);
    }

    #[test]
    fn a_given_endpoint_is_left_alone() {
        let mut given = member(1, "llm", "a");
        given.spec.endpoint = Some(proto::Endpoint::default());
        let mut plan = Plan::default();
        let now = Instant::now();
        plan.settle(&roster([given]), now);
        assert!(!plan.begin(now + FIRST_LOOK).first().unwrap().ports);
    }

    #[tokio::test]
    async fn a_listening_process_and_its_command_are_found() {
        // The child inherits nothing; this process itself is the one that listens.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut child = real_child();
        let me = i32::try_from(std::process::id()).unwrap();
        let mut listening = member(1, "llm", "a");
        listening.footing = Some(crate::sample::testing::footing_of(me));
        let mut quiet = member(2, "llm", "b");
        quiet.footing = Some(crate::sample::testing::footing_of(i32::try_from(child.id()).unwrap()));
        let (_roster, roster) = watch::channel(roster([listening, quiet]));
        let (send, mut findings) = mpsc::channel(4);
        let stopping = CancellationToken::new();
        let task = tokio::spawn(run("/proc".into(), roster, send, stopping.clone()));
        let mut found = [timeout(WITHIN, findings.recv()).await.unwrap().unwrap(), {
            timeout(WITHIN, findings.recv()).await.unwrap().unwrap()
        }];
        found.sort_by_key(|finding| finding.slot);
        // Other tests of this process may listen too, and the lowest port wins.
        assert!(found[0].listening_port.unwrap() <= listener.local_addr().unwrap().port());
        assert_eq!(found[1].listening_port, None);
        assert_eq!(found[1].command, Some(vec![b"sleep".to_vec(), b"300".to_vec()]));
        stopping.cancel();
        timeout(WITHIN, task).await.unwrap().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
