//! A demo worker: differs from an engine only in that it serves no model. It burns CPU in waves, holds memory, moves
//! blocks to and from a disk, listens on a port, and ends itself when nobody owns its slice any more.

mod load;
mod lock;

use crate::args::DemoWorker;
use crate::failure::Failure;
use crate::terminal;
use load::Load;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// From one look at the lock to the next.
const LOOK: Duration = Duration::from_secs(1);
/// CPU is used and left alone in turns of this length.
const TURN: Duration = Duration::from_millis(100);
/// A client that sends no request for this long is dropped.
const CLIENT: Duration = Duration::from_secs(1);
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n";

/// Runs until a signal ends it, or until its slice has had no owner for long enough.
pub fn run(args: &DemoWorker) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .map_err(|error| Failure::failed("failed to listen on a loopback port", &error))?;
    if let Ok(address) = listener.local_addr() {
        terminal::say(format_args!("demo worker: pretends to serve {} at http://{address}", args.model));
    }
    let load = Load::of(args.profile);
    let started = Instant::now();
    std::thread::spawn(move || serve(&listener));
    std::thread::spawn(move || load::hold_memory(load, started));
    std::thread::spawn(move || load::move_blocks(load, started));
    let mut looked = started;
    let mut owned = started;
    loop {
        load::burn(load.duty(started.elapsed()), TURN);
        let now = Instant::now();
        if now - looked < LOOK {
            continue;
        }
        looked = now;
        match &args.lock {
            Some(lock) if !lock::is_owned(lock) => {}
            _ => owned = now,
        }
        // The owner may have gone right after the last look but one: ending at the next look could be too late.
        if now - owned + LOOK >= args.orphan_after {
            terminal::say("demo worker: nobody has owned my slice for long enough, ending");
            return Ok(());
        }
    }
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        // One client at a time, a second at most for each; a client that leaves early is its own affair.
        let _left = reply(stream);
    }
}

fn reply(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(CLIENT))?;
    stream.set_write_timeout(Some(CLIENT))?;
    let mut request = [0_u8; 1024];
    let _length = stream.read(&mut request)?;
    stream.write_all(ANSWER)
}
