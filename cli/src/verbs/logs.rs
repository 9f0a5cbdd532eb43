//! `rbee logs WORKER`: what a worker wrote, byte for byte.

use crate::args::{Global, Logs};
use crate::failure::Failure;
use crate::follow::{self, goes_on};
use crate::reach::{self, Reached};
use crate::{connect, locate, terminal};

/// Prints it, and with `-f` what comes, also over restarts of the hive.
pub async fn run(global: &Global, args: &Logs) -> Result<(), Failure> {
    let Reached { mut client, name, way } = reach::worker(global, &args.worker).await?;
    let what = format!("read the output of {name}");
    let mut request = proto::StreamLogsRequest { name, follow: args.follow, tail_lines: args.tail, after: None };
    let mut opened = false;
    loop {
        let ended = match connect::in_time(global.timeout, client.stream_logs(request.clone())).await {
            Ok(stream) => {
                opened = true;
                let take = |response: proto::StreamLogsResponse| {
                    // Where to go on should the hive go away: nothing is printed twice, and nothing is left out.
                    terminal::put(&response.chunk).map(|()| request.after = response.position.or(request.after))
                };
                follow::each(stream, take).await?
            }
            Err(status) => Err(status),
        };
        match ended {
            // All of it; a follower gets here when the worker has ended.
            Ok(()) => return Ok(()),
            Err(status) if !args.follow || !goes_on(&status, opened) => {
                return Err(locate::not_the_queen(connect::refused(&what, &status)));
            }
            Err(_) => client = way.again(global).await,
        }
    }
}
