//! The events of several hives in one list: what has happened in the order of its time, then what happens as it comes.

use super::{go_on_after, nobody, show};
use crate::args::{Events, Global};
use crate::failure::Failure;
use crate::follow::is_final;
use crate::reach::{self, ReachedHive};
use crate::{connect, locate, terminal};
use proto::{StreamEventsRequest, StreamEventsResponse};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;

/// At most this many hives are read: each may tell of 4,096 events. Of more than these one has to be named.
const HIVES_MAX: usize = 64;
/// So many events of all hives wait to be printed; hives wait when they are full.
const WAITING: usize = 64;

/// One hive, and where in its journal we are.
struct Source {
    hive: ReachedHive,
    request: StreamEventsRequest,
}

/// What a hive has told so far.
struct Past {
    source: Source,
    events: Vec<StreamEventsResponse>,
}

/// Prints what these hives know, and with `-f` what comes.
pub async fn run(global: &Global, args: &Events, hives: Vec<proto::Hive>) -> Result<(), Failure> {
    if hives.is_empty() {
        return Err(Failure::Nothing("no hive is here, and the queen hears none".to_owned()));
    }
    if hives.len() > HIVES_MAX {
        let count = hives.len();
        return Err(Failure::Usage(format!(
            "the queen hears {count} hives, {HIVES_MAX} at most are read: name one with --hive"
        )));
    }
    let asked = hives.len();
    let (heard, silent) = gather(global, hives).await?;
    for (hive, why) in &silent {
        terminal::say(format_args!("rbee: {hive}: {why}"));
    }
    let (sources, pasts): (Vec<Source>, Vec<Vec<StreamEventsResponse>>) =
        heard.into_iter().map(|past| (past.source, past.events)).unzip();
    let mut named = false;
    for response in in_order(pasts) {
        named |= show(global, args, &response)?;
    }
    if args.follow && !sources.is_empty() {
        return follow(global, args, sources).await;
    }
    match silent.len() {
        0 if named || args.workers.is_empty() => Ok(()),
        0 => Err(nobody(args)),
        all if all == asked => Err(Failure::Failed("no hive could be asked for its events".to_owned())),
        some => Err(Failure::Partly(format!("{some} of {asked} hives were not heard"))),
    }
}

/// By time; what one hive told stays in its order.
fn in_order(pasts: Vec<Vec<StreamEventsResponse>>) -> Vec<StreamEventsResponse> {
    let mut all: Vec<StreamEventsResponse> = pasts.into_iter().flatten().collect();
    let time = |response: &StreamEventsResponse| {
        let at = response.event.as_ref().and_then(|event| event.time)?;
        Some((at.seconds, at.nanos))
    };
    all.sort_by_key(time);
    all
}

async fn gather(global: &Global, hives: Vec<proto::Hive>) -> Result<(Vec<Past>, Vec<(String, String)>), Failure> {
    let mut reading = JoinSet::new();
    for hive in hives {
        let global = global.clone();
        reading.spawn(async move {
            let past = match reach::known(&global, &hive.id).await {
                Ok(reached) => past(&global, reached).await,
                Err(failure) => Err(failure),
            };
            past.map_err(|failure| (hive.id, failure.to_string()))
        });
    }
    let (mut heard, mut silent) = (Vec::new(), Vec::new());
    while let Some(read) = reading.join_next().await {
        match read.map_err(|error| Failure::failed("a part of it broke down", &error))? {
            Ok(past) => heard.push(past),
            Err(why) => silent.push(why),
        }
    }
    silent.sort();
    Ok((heard, silent))
}

/// Reads a journal to its end.
async fn past(global: &Global, mut hive: ReachedHive) -> Result<Past, Failure> {
    let mut request = StreamEventsRequest { hive: hive.id.clone(), ..Default::default() };
    let asking = hive.client.stream_events(request.clone());
    let mut stream = connect::answer(global.timeout, "read events", asking).await.map_err(locate::not_the_queen)?;
    let mut events = Vec::new();
    let broken = |status: Status| locate::not_the_queen(connect::refused("read events", &status));
    while let Some(response) = stream.message().await.map_err(broken)? {
        go_on_after(&mut request, &response);
        events.push(response);
    }
    Ok(Past { source: Source { hive, request: StreamEventsRequest { follow: true, ..request } }, events })
}

/// Prints what any of them tells, for ever.
async fn follow(global: &Global, args: &Events, sources: Vec<Source>) -> Result<(), Failure> {
    let (sender, mut told) = mpsc::channel(WAITING);
    // Dropped with this function: the tasks end then.
    let mut following = JoinSet::new();
    for source in sources {
        following.spawn(source.follow(global.clone(), sender.clone()));
    }
    drop(sender);
    while let Some(response) = told.recv().await {
        show(global, args, &response)?;
    }
    match following.join_next().await {
        Some(Ok(status)) => Err(locate::not_the_queen(connect::refused("read events", &status))),
        _ => Err(Failure::Failed("no hive tells of events any more".to_owned())),
    }
}

impl Source {
    /// Hands on what the hive tells, over its restarts too. Ends with what trying again cannot mend.
    async fn follow(mut self, global: Global, sender: mpsc::Sender<StreamEventsResponse>) -> Status {
        loop {
            let asking = self.hive.client.stream_events(self.request.clone());
            let ended = match connect::in_time(global.timeout, asking).await {
                Ok(stream) => self.hand_on(stream, &sender).await,
                Err(status) => status,
            };
            if is_final(&ended) {
                terminal::say(format_args!("rbee: {}: {}", self.hive.id, connect::told(&ended)));
                return ended;
            }
            self.hive.client = self.hive.way.again(&global).await;
        }
    }

    async fn hand_on(
        &mut self,
        mut stream: tonic::Streaming<StreamEventsResponse>,
        sender: &mpsc::Sender<StreamEventsResponse>,
    ) -> Status {
        loop {
            match stream.message().await {
                Ok(Some(response)) => {
                    go_on_after(&mut self.request, &response);
                    if sender.send(response).await.is_err() {
                        return Status::permission_denied("nobody listens any more");
                    }
                }
                Ok(None) => return Status::unavailable("it ended the stream"),
                Err(status) => return status,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_several_hives_are_told_in_the_order_of_their_time() {
        let event = |hive: &str, number, seconds| StreamEventsResponse {
            journal_id: hive.to_owned(),
            event: Some(proto::LifeEvent {
                number,
                hive: hive.to_owned(),
                time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
                ..Default::default()
            }),
        };
        let a = vec![event("a", 1, 10), event("a", 2, 30), event("a", 3, 30)];
        let b = vec![event("b", 1, 20), event("b", 2, 30)];
        let told: Vec<(String, u64)> = in_order(vec![a, b])
            .into_iter()
            .map(|response| (response.journal_id, response.event.unwrap().number))
            .collect();
        let wanted = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2)];
        assert_eq!(told, wanted.map(|(hive, number)| (hive.to_owned(), number)));
    }
}
