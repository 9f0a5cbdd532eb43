//! The two streams of the service: a worker's output, and the life events. Both are read as the caller takes them,
//! so a slow caller costs one chunk.

use super::refuse;
use crate::worker::{Life, logs};
use common::WorkerId;
use std::io;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// So many answers wait for a caller; the reader waits when they are full.
const WAITING_MAX: usize = 4;

/// A worker's output. Without `follow` it ends where the log ended when it was asked for; with it, when the worker is gone and all has been read.
pub fn logs(
    life: &Life,
    id: &WorkerId,
    request: &proto::StreamLogsRequest,
    stopping: CancellationToken,
) -> Result<ReceiverStream<Result<proto::StreamLogsResponse, Status>>, Status> {
    let path = life.log_path(id);
    let opened = match request.after {
        Some(place) => logs::Reader::after(&path, place),
        None => logs::Reader::open(&path, request.tail_lines),
    };
    let mut reader = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse::unknown(id, life),
        _ => Status::internal(format!("open {}: {error}", path.display())),
    })?;
    // Whoever writes faster than is read would never be done.
    let until = (!request.follow).then(|| logs::end(&path));
    let (sender, receiver) = channel(WAITING_MAX);
    let (life, id, follow) = (life.clone(), id.clone(), request.follow);
    let last = sender.clone();
    let reading = async move {
        loop {
            if until.is_some_and(|until| reader.has_reached(until)) {
                return None;
            }
            // Looked at before the read: what was written before the end is then read after it.
            let lives = follow && life.roster().borrow().members.iter().any(|member| member.id == id);
            match reader.next_chunk() {
                Ok(Some(chunk)) => {
                    let position = Some(reader.position());
                    sender.send(Ok(proto::StreamLogsResponse { chunk: chunk.into(), position })).await.ok()?
                }
                Ok(None) if !lives => return None,
                Ok(None) => wait(&sender).await?,
                Err(error) => {
                    let status = Status::internal(format!("read {}: {error}", path.display()));
                    return sender.send(Err(status)).await.ok();
                }
            }
        }
    };
    tokio::spawn(async move {
        if stopping.run_until_cancelled_owned(reading).await.is_none() && follow {
            // Else it would look as if the worker had ended. A caller who takes nothing sees the end of the connection.
            let _ = last.try_send(Err(Status::unavailable("this hive is stopping; the worker goes on")));
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// The life events after a number; with `follow`, for ever.
pub fn events(
    life: &Life,
    request: &proto::StreamEventsRequest,
    stopping: CancellationToken,
) -> ReceiverStream<Result<proto::StreamEventsResponse, Status>> {
    let (sender, receiver) = channel(WAITING_MAX);
    let mut after = life.journal().resume(&request.journal_id, request.after);
    let (life, follow) = (life.clone(), request.follow);
    let reading = async move {
        let mut news = life.journal().subscribe();
        loop {
            news.mark_unchanged();
            let page = life.journal().after(after);
            if page.is_empty() {
                if !follow {
                    return None;
                }
                tokio::select! {
                    changed = news.changed() => changed.ok()?,
                    () = sender.closed() => return None,
                }
            }
            for event in page {
                after = event.number;
                let journal_id = life.journal().id().to_owned();
                sender.send(Ok(proto::StreamEventsResponse { journal_id, event: Some(event) })).await.ok()?;
            }
        }
    };
    tokio::spawn(stopping.run_until_cancelled_owned(async move {
        let _: Option<()> = reading.await;
    }));
    ReceiverStream::new(receiver)
}

/// Until it is time to look again; `None` when nobody listens any more.
async fn wait<T>(sender: &Sender<T>) -> Option<()> {
    tokio::select! {
        () = tokio::time::sleep(logs::FOLLOW_INTERVAL) => Some(()),
        () = sender.closed() => None,
    }
}
