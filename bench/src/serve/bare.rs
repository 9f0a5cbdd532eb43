//! No queen at all: whatever comes from a hive is written to every watcher, with nothing but system calls. What no program can
//! be cheaper than that gives each watcher its bytes at once on a connection of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// What a watcher says first; a hive says anything else.
pub const WATCHER: u8 = b'W';

pub fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("its address"));
    let watchers: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let mut first = [0];
        stream.read_exact(&mut first).expect("who it is");
        if first == [WATCHER] {
            watchers.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        } else {
            let watchers = Arc::clone(&watchers);
            std::thread::spawn(move || pass_on(&mut stream, &watchers));
        }
    }
}

/// Messages of which each begins with its length, until the hive is gone.
fn pass_on(hive: &mut TcpStream, watchers: &Mutex<Vec<TcpStream>>) {
    let mut message = vec![0; 4];
    loop {
        message.truncate(4);
        if hive.read_exact(&mut message).is_err() {
            return;
        }
        let length = u32::from_le_bytes([message[0], message[1], message[2], message[3]]) as usize;
        message.resize(4 + length, 0);
        if hive.read_exact(&mut message[4..]).is_err() {
            return;
        }
        let mut watchers = watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain_mut(|watcher| watcher.write_all(&message).is_ok());
    }
}
