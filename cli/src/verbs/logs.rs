//! `rbee logs WORKER`: what a worker wrote, byte for byte.

use crate::args::{Global, Logs};
use crate::failure::Failure;
use crate::follow::is_final;
use crate::reach::{self, Reached};
use crate::{connect, locate, terminal};
use tonic::{Code, Status};

/// Prints it, and with `-f` what comes, also over restarts of the hive.
pub async fn run(global: &Global, args: &Logs) -> Result<(), Failure> {
    let Reached { mut client, name, way } = reach::worker(global, &args.worker).await?;
    let what = format!("read the output of {name}");
    let mut request = proto::StreamLogsRequest { name, follow: args.follow, tail_lines: args.tail, after: None };
    loop {
        let asking = client.stream_logs(request.clone());
        let ended = match connect::answer(global.timeout, &what, asking).await {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(response)) => {
                        terminal::put(&response.chunk)?;
                        // Where to go on should the hive go away: nothing is printed twice, and nothing is left out.
                        request.after = response.position.or(request.after);
                    }
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                }
            },
            Err(failure @ Failure::Nothing(_)) => return Err(failure),
            Err(failure) if !args.follow => return Err(locate::not_the_queen(failure)),
            Err(failure) => Err(Status::unavailable(failure.to_string())),
        };
        match ended {
            // All of it; a follower gets here when the worker has ended.
            Ok(()) => return Ok(()),
            Err(status) if !args.follow || is_final(&status) || status.code() == Code::ResourceExhausted => {
                return Err(locate::not_the_queen(connect::refused(&what, &status)));
            }
            Err(_) => client = way.again(global).await,
        }
    }
}
